//! A connection on loan, and its return.
//!
//! A connection that comes back clean is handed on in the same breath. Whatever a policy says, one that is in a transaction is
//! rolled back, one whose session was changed is reset, one whose statement still runs is stopped: by a task of its own, with
//! a deadline, while its permit stays taken. What cannot be made clean is closed.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{field::display, info, warn};

use super::{
    backend::{Backend, Connection, Hygiene, Probe},
    mend,
    record::{Held, UseError},
    shell::Pool,
    tally::{Cause, Clamp},
    vet,
};
use crate::policy::ValidationInput;

/// `dirty` bit of prepared statements, which are cached on purpose.
const PREPARED: u32 = 16;

/// A connection on loan. Dropping it returns the connection to the pool.
pub struct Lease<B: Backend> {
    pool: Arc<Pool<B>>,
    held: Option<Box<Held<B::Conn>>>,
    usage: Usage,
}

/// What a lease has seen.
#[derive(Clone, Copy, Debug)]
struct Usage {
    since: Instant,
    waited: Duration,
    /// The last backend round trip, not yet recorded.
    rtt: Option<Duration>,
    error: Option<UseError>,
}

impl<B: Backend> Lease<B> {
    pub(super) fn new(pool: Arc<Pool<B>>, held: Box<Held<B::Conn>>, since: Instant, waited: Duration) -> Self {
        Self { pool, held: Some(held), usage: Usage { since, waited, rtt: None, error: None } }
    }

    /// Records a round trip on the backend, from sending to the end of its answer.
    pub fn rtt(&mut self, took: Duration) {
        if let Some(earlier) = self.usage.rtt.replace(took) {
            self.pool.state.lock().samples.rtt.record(earlier);
        }
    }

    /// Counts an error on the connection. Whether it is still of use is its own business: see [`Connection::hygiene`].
    pub fn failed(&mut self) {
        self.failed_with(UseError::Other);
    }

    /// The same, and what kind of error, which the validation policy is told.
    pub fn failed_with(&mut self, error: UseError) {
        self.usage.error = Some(error);
        let record = &mut self.held_mut().record;
        record.errors = record.errors.saturating_add(1);
        record.last_error = Some(error);
    }

    /// Closes the connection instead of returning it.
    pub fn discard(mut self) {
        if let Some(held) = self.held.take() {
            self.pool.send_away(held, &self.usage, Cause::Abandoned);
        }
    }

    /// When whoever holds it is to be ended; none: never. See [`Self::overheld`].
    pub fn ends(&self) -> Option<Instant> {
        let limit = self.pool.settings.load().held_limit;
        (!limit.is_zero()).then(|| self.usage.since + limit)
    }

    /// It was held for too long: what runs on it is stopped when it is dropped, and it is closed.
    pub fn overheld(&mut self) {
        let seat = self.held().record.seat;
        let mut state = self.pool.state.lock();
        state.counters.held_ended += 1;
        let used = state.core.overheld(seat);
        drop(state);
        if let Some(used) = used {
            let held_ms = self.usage.since.elapsed().as_millis();
            let (route, request) = (&*used.holder.route, used.holder.request);
            let statement = used.holder.statement.as_ref().map(display);
            let pool = &self.pool.name;
            warn!(%pool, connection = used.id, route, request, held_ms, statement, "connection held beyond its limit: its request is ended");
        }
    }

    /// The connection's id, unique in its pool.
    pub fn id(&self) -> u64 {
        self.held().record.id
    }

    /// Whether others have used the connection before.
    pub fn is_reused(&self) -> bool {
        self.held().record.uses > 1
    }

    /// How long the checkout took.
    pub fn waited(&self) -> Duration {
        self.usage.waited
    }

    /// The pool that lends it.
    pub fn pool(&self) -> &Arc<Pool<B>> {
        &self.pool
    }

    fn held(&self) -> &Held<B::Conn> {
        self.held.as_ref().expect("a lease holds its connection until it is dropped")
    }

    fn held_mut(&mut self) -> &mut Held<B::Conn> {
        self.held.as_mut().expect("a lease holds its connection until it is dropped")
    }
}

impl<B: Backend> Deref for Lease<B> {
    type Target = B::Conn;

    fn deref(&self) -> &B::Conn {
        &self.held().conn
    }
}

impl<B: Backend> DerefMut for Lease<B> {
    fn deref_mut(&mut self) -> &mut B::Conn {
        &mut self.held_mut().conn
    }
}

impl<B: Backend> Drop for Lease<B> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.pool.take_back(held, &self.usage);
        }
    }
}

impl<B: Backend> Pool<B> {
    fn take_back(self: &Arc<Self>, mut held: Box<Held<B::Conn>>, usage: &Usage) {
        let now = Instant::now();
        held.record.returned = now;
        if usage.error.is_none() {
            held.record.last_error = None;
        }
        let hygiene = held.conn.hygiene();
        if hygiene == Hygiene::Broken {
            return self.send_away(held, usage, Cause::Broken);
        }
        if usage.error == Some(UseError::ReadOnly) && self.purge_on_failover(now) {
            return self.send_away(held, usage, Cause::Purged);
        }
        let wanted = match self.ask_about_return(&mut held, usage, now) {
            Ok(wanted) => wanted,
            Err(vet::Discard) => return self.send_away(held, usage, Cause::Discarded),
        };
        if hygiene != Hygiene::Clean || wanted.is_some() {
            self.note_return(usage);
            return self.spawn(mend::mend(vet::InHand::new(self, held), wanted));
        }
        if held.record.outlived(now, self.settings.load().limits()) {
            return self.send_away(held, usage, Cause::Lifetime);
        }
        let used = self.change_at(now, |state, now, todo| {
            state.note_use(now, usage.since, usage.waited, usage.rtt, usage.error.is_some());
            state.core.give_back(now, held, todo)
        });
        self.say_if_held_long(used, now);
    }

    /// A server that has become a replica is no longer the one that is wanted: connections to it are closed, those in use when
    /// they come back, but no more often than a policy might have it. Returns whether they are.
    fn purge_on_failover(self: &Arc<Self>, now: Instant) -> bool {
        self.change_at(now, |state, now, todo| {
            let may = state.may_purge(now);
            if may {
                state.core.purge(now, todo);
                state.core.bump_epoch(now, todo);
            }
            may
        })
    }

    /// What the validation policy wants done on return. It is asked only about connections that had an error, or whose session
    /// was changed.
    fn ask_about_return(
        &self,
        held: &mut Held<B::Conn>,
        usage: &Usage,
        now: Instant,
    ) -> Result<Option<Probe>, vet::Discard> {
        let Held { conn, record } = held;
        let trigger = match usage.error {
            Some(_) => ValidationInput::ERROR,
            None if conn.dirty() & !PREPARED != 0 => ValidationInput::RETURN,
            None => return Ok(None),
        };
        let mut input = vet::question(record, now, trigger, Duration::ZERO);
        vet::describe(&mut input, conn);
        let verdict = self.ask_validation(&mut input);
        let wanted = vet::probe_for(verdict.action);
        let mut state = self.state.lock();
        if wanted.is_err() && !state.may_discard(now) {
            state.counters.clamped.count(Clamp::Discarding);
            return Ok(Some(Probe::Ping));
        }
        record.valid_for = Duration::from_millis(verdict.valid_for_ms.into());
        wanted
    }

    /// Closes a connection after its use.
    fn send_away(self: &Arc<Self>, held: Box<Held<B::Conn>>, usage: &Usage, cause: Cause) {
        let now = Instant::now();
        let used = self.change(|state, now, todo| {
            state.note_use(now, usage.since, usage.waited, usage.rtt, usage.error.is_some());
            state.core.discard(now, held, cause, todo)
        });
        self.say_if_held_long(used, now);
    }

    fn note_return(&self, usage: &Usage) {
        let now = Instant::now();
        let error = usage.error.is_some();
        self.state.lock().note_use(now, usage.since, usage.waited, usage.rtt, error);
    }

    /// Whoever read that a connection is held for long wants to know that it came back.
    pub(super) fn say_if_held_long(&self, used: Option<super::core::Use>, now: Instant) {
        if let Some(used) = used.filter(|used| used.warned) {
            let held_ms = now.saturating_duration_since(used.since).as_millis();
            let (route, request) = (&*used.holder.route, used.holder.request);
            let statement = used.holder.statement.as_ref().map(display);
            info!(pool = %self.name, connection = used.id, route, request, held_ms, statement, "connection held for long came back");
        }
    }
}
