//! The pool's shell: what the gate decides is done here, outside its lock.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex as Plain;
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use super::{
    backend::Backend,
    budget::Budget,
    core::{Action, Actions, Core, Gate},
    make::{CloseTicket, CreateTicket},
    server::Sister,
    settings::PoolSettings,
    state::State,
    steer::Steering,
    sync::Mutex,
};
use crate::{
    observe,
    policy::{Eviction, Sizing, SizingInput, Validation},
};

/// The policies that steer a pool.
pub struct Policies {
    /// How many connections.
    pub sizing: Sizing,
    /// Which idle ones leave.
    pub eviction: Eviction,
    /// When one is trusted.
    pub validation: Validation,
}

/// Policies that take the place of others. None: the one in force stays, with what it remembers.
#[derive(Default)]
pub struct PolicyChange {
    /// How many connections.
    pub sizing: Option<Sizing>,
    /// Which idle ones leave.
    pub eviction: Option<Eviction>,
    /// When one is trusted.
    pub validation: Option<Validation>,
}

/// A pool of connections to one database as one role.
///
/// Shared by all workers. [`Pool::checkout`] lends a connection; [`Pool::drive`] must run on the background runtime until it
/// ends, which it does when the pool has been retired and nobody refers to it any more.
pub struct Pool<B: Backend> {
    pub(super) name: Arc<str>,
    pub(super) born: Instant,
    pub(super) settings: ArcSwap<PoolSettings>,
    pub(super) backend: ArcSwap<B>,
    pub(super) validation: ArcSwap<Validation>,
    /// The driver's; never locked while the state is, nor on a request's path.
    pub(super) steering: Plain<Steering>,
    pub(super) state: Mutex<State<B::Conn>>,
    pub(super) budget: Arc<Budget>,
    /// Wakes the driver.
    pub(super) bell: Arc<Notify>,
    /// Told whenever a permit comes back.
    pub(super) freed: Notify,
    background: Handle,
}

impl<B: Backend> Pool<B> {
    /// A pool with no connections yet: the first are made by [`Self::drive`], or on demand.
    ///
    /// `background` runs what is left over when a worker stops. `budget`: that of the pool which this one replaces on the same
    /// server, whose cap holds until [`Self::drive`] begins; else a new one.
    pub fn new(
        name: impl Into<Arc<str>>,
        settings: PoolSettings,
        backend: B,
        policies: Policies,
        background: Handle,
        budget: Option<Arc<Budget>>,
    ) -> Arc<Self> {
        let now = Instant::now();
        let budget = budget.unwrap_or_else(|| Budget::new(settings.max));
        let bell = Arc::new(Notify::new());
        budget.join(&bell);
        let core = Core::new(now, settings.gate(), Arc::clone(&budget));
        let steering = Steering::new(now, policies.sizing, policies.eviction, &settings);
        let pool = Arc::new(Self {
            name: name.into(),
            born: now,
            backend: ArcSwap::from_pointee(backend),
            validation: ArcSwap::from_pointee(policies.validation),
            steering: Plain::new(steering),
            state: Mutex::new(State::new(now, core, &settings)),
            settings: ArcSwap::from_pointee(settings),
            budget,
            bell,
            freed: Notify::new(),
            background,
        });
        if let Some((server, me)) = pool.budget.server() {
            server.introduce(me, Arc::downgrade(&pool) as Weak<dyn Sister>);
        }
        pool
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it may open together with pools on the same server; to be handed to the pool that replaces it.
    pub fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.budget)
    }

    /// The backend in force.
    pub fn backend(&self) -> Arc<B> {
        self.backend.load_full()
    }

    /// Changes settings and policies in place. Size and timeouts hold at once, in both directions: nothing in use is closed. Where
    /// the new settings would open other sessions, old connections leave as they come back, and the breaker forgets what it
    /// knew.
    pub fn reconfigure(self: &Arc<Self>, settings: PoolSettings, policies: PolicyChange, backend: B) {
        // The backend first: a create that reads the new epoch must not see the old backend.
        self.backend.store(Arc::new(backend));
        if let Some(validation) = policies.validation {
            self.validation.store(Arc::new(validation));
        }
        let old = self.settings.swap(Arc::new(settings.clone()));
        self.steering.lock().take_up(policies.sizing, policies.eviction, &settings);
        self.change(|state, now, todo| {
            state.breaker.set_thresholds(settings.thresholds);
            if old.session != settings.session {
                state.breaker.reset();
                state.ceiling = super::ceiling::Ceiling::default();
                state.core.bump_epoch(now, todo);
            }
            state.tell_core(now);
            self.take_up_size(state, now, old.most(), &settings, todo);
        });
        self.bell.notify_one();
    }

    /// Bounds that are new hold at once; a target that stood at the maximum stays there.
    pub(super) fn take_up_size(
        &self,
        state: &mut State<B::Conn>,
        now: Instant,
        old_most: u32,
        settings: &PoolSettings,
        todo: &mut Actions<B::Conn>,
    ) {
        if !state.core.is_retired() {
            self.budget.set_cap(settings.max);
        }
        let gate = state.core.gate();
        let most = settings.most();
        let wanted = if gate.target >= old_most { most } else { gate.target };
        let target = wanted.clamp(settings.min.clamp(1, most), most);
        let ceiling = gate.ceiling;
        state.core.set_gate(now, Gate { target, ceiling, ..settings.gate() }, todo);
        state.early = Some(SizingInput::CONFIGURATION);
    }

    /// Whether connections made under `settings` would be other sessions than those made now: a secret was changed, say.
    pub fn is_outdated_by(&self, settings: &PoolSettings) -> bool {
        self.settings.load().session != settings.session
    }

    /// Replaces all connections: idle ones are closed now, others when they come back. Nobody new meets their sessions.
    pub fn reconnect(self: &Arc<Self>) {
        self.change(|state, now, todo| state.core.bump_epoch(now, todo));
        self.bell.notify_one();
    }

    /// Drains the pool: idle connections are closed now, others when they come back. Waiters keep their place to their
    /// deadline, and requests of the old generation that still come are served.
    pub fn retire(self: &Arc<Self>) {
        self.change(|state, now, todo| state.core.retire(now, todo));
        self.bell.notify_one();
    }

    /// Serves nobody from now on, waiters neither: the gateway's drain deadline has passed.
    pub fn shut(self: &Arc<Self>) {
        self.change(|state, now, todo| state.core.shut(now, todo));
        self.bell.notify_one();
    }

    /// Waits until the pool is retired and the last permit is back. Cancel safe.
    pub async fn drained(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.state.lock().core.is_drained() {
                return;
            }
            freed.await;
        }
    }

    /// Changes the state under the lock, and does what is left to do outside it.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State<B::Conn>, Instant, &mut Actions<B::Conn>) -> T,
    ) -> T {
        self.change_at(Instant::now(), change)
    }

    /// The same, where the time is known.
    pub(super) fn change_at<T>(
        self: &Arc<Self>,
        now: Instant,
        change: impl FnOnce(&mut State<B::Conn>, Instant, &mut Actions<B::Conn>) -> T,
    ) -> T {
        let mut todo = Vec::new();
        let answer = change(&mut self.state.lock(), now, &mut todo);
        if !todo.is_empty() {
            self.perform(todo);
        }
        answer
    }

    pub(super) fn perform(self: &Arc<Self>, todo: Actions<B::Conn>) {
        for action in todo {
            match action {
                Action::Create => self.spawn(super::make::create(CreateTicket::new(self))),
                Action::Close(held, cause) => self.spawn(super::make::close(CloseTicket::new(self, held, cause))),
                Action::Wake(waker) => waker.wake(),
                Action::Later => self.bell.notify_one(),
                Action::Freed => {
                    self.budget.ring();
                    self.freed.notify_waiters();
                    self.bell.notify_one();
                }
            }
        }
    }

    /// Runs a task on the current runtime, so that what it opens is at home where it is wanted; on the background one, if
    /// there is no other, or it is about to end.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match observe::lasting_runtime() {
            Some(current) => drop(current.spawn(task)),
            None => self.spawn_in_background(task),
        }
    }

    pub(super) fn spawn_in_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.background.spawn(task));
    }
}
