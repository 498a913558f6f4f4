//! The gate as a state machine: who holds which permit, who waits, what is idle. No I/O, no clock, no policy.
//!
//! Every operation takes `now`, changes the state under the pool's one lock, and says in `todo` what is left to do outside
//! the lock: make a connection, close one, wake a waiter. One permit is one connection that may exist at the server, from
//! before it is made until its close is confirmed, so that
//!
//! `live = idle + in use + creating + closing`
//!
//! and a connection is made only while `live` is below the target, the maximum, what the server was seen to grant, and the
//! budget that is shared with sister pools. Lowering the target below what there is leaves a debt: idle connections are closed
//! at once, those in use when they come back. What is being closed has paid its part of the debt, though its permit is not
//! back yet: else slow closes would take the whole pool with them.
//!
//! A returned or new connection goes to the oldest waiter by direct hand-off, into a place inside the queue. Giving it and
//! taking it back from a waiter who leaves happen under the same lock, so no permit can be lost between them. While
//! somebody waits, nothing is idle, unless an operator has paused the pool.

mod create;
mod idle;
mod look;
#[cfg(test)]
#[cfg(feature = "loom")]
mod loomed;
#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod model;
mod queue;
mod service;
mod sisters;
#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests;
mod uses;

use std::{collections::VecDeque, sync::Arc, task::Waker, time::Duration};

use tokio::time::Instant;

pub(crate) use self::{
    create::Newborn,
    look::Counts,
    queue::{Handed, Refused, Ticket},
    service::{Doomed, Service},
    uses::Use,
};
use self::{
    idle::Stacks,
    queue::{Left, Queue},
    uses::Uses,
};
use super::{
    backend::Holder,
    budget::{Budget, Room},
    record::Held,
    tally::{Cause, Closes},
};
use crate::config::model::IdleOrder;

/// The gate's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// Connections to have at most.
    pub(crate) target: u32,
    /// Connections above the target for waiters that have grown old.
    pub(crate) reserve: u32,
    /// When a waiter has.
    pub(crate) reserve_after: Duration,
    /// Connections at most, whatever the target and the reserve say.
    pub(crate) max: u32,
    /// What the server was seen to grant.
    pub(crate) ceiling: u32,
    /// Connections being made at a time.
    pub(crate) parallel: u32,
    /// From the beginning of one connection to the next.
    pub(crate) pace: Duration,
    /// Waiters at most.
    pub(crate) queue: u32,
    /// Callers at most, with a connection or waiting.
    pub(crate) clients: u32,
    /// Which idle connection is lent.
    pub(crate) order: IdleOrder,
}

/// Whether connections may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// Yes.
    Free,
    /// One at a time: the last attempt failed.
    Single,
    /// Not now, but soon: callers wait.
    Paused,
    /// Not for callers: those who can get nothing are refused.
    Barred,
}

/// Whom the pool serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// Whoever comes, but it keeps nothing idle.
    Retired,
    /// Nobody.
    Shut,
}

/// What is left to do outside the lock.
pub(crate) enum Action<C> {
    /// Make a connection; its permit is taken. Answered with [`Core::created`], [`Core::create_failed`] or [`Core::create_lost`].
    Create,
    /// Close a connection, which keeps its permit. Answered with [`Core::closed`] or [`Core::close_lost`].
    Close(Box<Held<C>>, Cause),
    /// Wake a waiter.
    Wake(Waker),
    /// Permits came back: tell sister pools, and whoever waits for the pool to be empty.
    Freed,
    /// Something may be made, but not yet: have [`Core::kick`] called at [`Core::next_start`], or when sister pools have
    /// given something up, of which this one is [`Core::short`].
    Later,
}

/// What is left to do outside the lock; an empty one costs nothing.
pub(crate) type Actions<C> = Vec<Action<C>>;

/// Who asks for a connection.
pub(crate) struct Caller {
    pub(crate) worker: usize,
    pub(crate) holder: Holder,
    /// Since when it has been asking.
    pub(crate) since: Instant,
    /// Its place in the queue, where it was given a connection that proved useless: it does not go to the end.
    pub(crate) again: Option<Ticket>,
}

/// The answer to a checkout.
pub(crate) enum Checkout<C> {
    /// An idle connection, now in use.
    Idle(Box<Held<C>>),
    /// A place in the queue, to be polled.
    Wait(Ticket),
    Refused(Refused),
}

pub(crate) struct Core<C> {
    gate: Gate,
    creation: Creation,
    service: Service,
    life: Life,
    epoch: u32,
    idle: Stacks<C>,
    queue: Queue<C>,
    uses: Uses,
    creating: u32,
    /// When the next connection may be begun.
    next_create: Instant,
    /// The last such time that was told as [`Action::Later`].
    told_later: Instant,
    closing: u32,
    /// When the permits of connections that nobody closes properly come back. Counted in `closing`.
    lingering: Vec<Instant>,
    /// Connections to make without a waiter.
    fill: u32,
    /// Idle connections to close as new ones come.
    replacing: VecDeque<u64>,
    next_id: u64,
    budget: Arc<Budget>,
    /// Callers wait, and the pools on the server have all that it grants.
    short: bool,
    /// Nothing may be made just now because the server was full: sisters can make room meanwhile.
    crowded: bool,
    /// Connections that are closed as they come back: a sister pool needs them more.
    owed: u32,
    closes: Closes,
    handoffs: u64,
}

impl<C> Core<C> {
    pub(crate) fn new(now: Instant, gate: Gate, budget: Arc<Budget>) -> Self {
        Self {
            gate,
            creation: Creation::Free,
            service: Service::Open,
            life: Life::Open,
            epoch: 0,
            idle: Stacks::new(),
            queue: Queue::new(),
            uses: Uses::new(now),
            creating: 0,
            next_create: now,
            told_later: now,
            closing: 0,
            lingering: Vec::new(),
            fill: 0,
            replacing: VecDeque::new(),
            next_id: 0,
            budget,
            short: false,
            crowded: false,
            owed: 0,
            closes: Closes::default(),
            handoffs: 0,
        }
    }

    // === callers ===

    /// An idle connection, a place in the queue, or a refusal.
    pub(crate) fn checkout(&mut self, now: Instant, caller: Caller, todo: &mut Actions<C>) -> Checkout<C> {
        if self.life == Life::Shut {
            return Checkout::Refused(Refused::Shut);
        }
        if caller.again.is_none() && self.callers() >= self.gate.clients {
            return Checkout::Refused(Refused::TooMany);
        }
        if self.service == Service::Open
            && let Some(held) = self.idle.pop(caller.worker, self.gate.order)
        {
            self.uses.begin(now, held.record.seat, held.record.id, caller.holder);
            return Checkout::Idle(held);
        }
        if self.is_hopeless() {
            return Checkout::Refused(Refused::Barred);
        }
        if caller.again.is_none() && self.queue.len() >= self.gate.queue {
            return Checkout::Refused(Refused::QueueFull);
        }
        let ticket = self.queue.join(caller);
        self.settle(now, todo);
        Checkout::Wait(ticket)
    }

    /// What a waiter was given, once; else `waker` is woken when there is something.
    pub(crate) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Option<Handed<C>> {
        self.queue.poll(ticket, waker)
    }

    /// A waiter leaves. What it may have been given in the meantime goes to the next.
    pub(crate) fn cancel(&mut self, now: Instant, ticket: Ticket, todo: &mut Actions<C>) {
        match self.queue.leave(ticket) {
            Left::Connection(held) => drop(self.give_back(now, held, todo)),
            Left::Nothing if self.is_drained() => todo.push(Action::Freed),
            Left::Nothing => {}
        }
    }

    /// A connection in use comes back clean: to the oldest waiter, else to the idle. Returns its use.
    pub(crate) fn give_back(&mut self, now: Instant, held: Box<Held<C>>, todo: &mut Actions<C>) -> Option<Use> {
        let used = self.uses.end(now, held.record.seat);
        match used.as_ref().and_then(|used| used.doomed) {
            Some(cause) => {
                self.owed = self.owed.saturating_sub(1);
                self.send_off(held, cause, todo);
            }
            None => self.place(now, held, todo),
        }
        self.settle(now, todo);
        used
    }

    /// A connection has been in use for too long: it is closed when it comes back. Returns its use.
    pub(crate) fn overheld(&mut self, seat: usize) -> Option<Use> {
        self.uses.doom(seat, Cause::Held).cloned()
    }

    /// A connection in use is of no more use. Returns its use.
    pub(crate) fn discard(
        &mut self,
        now: Instant,
        held: Box<Held<C>>,
        cause: Cause,
        todo: &mut Actions<C>,
    ) -> Option<Use> {
        let used = self.uses.end(now, held.record.seat);
        // Its permit comes free all the same.
        self.owed = self.owed.saturating_sub(1);
        self.send_off(held, cause, todo);
        self.settle(now, todo);
        used
    }

    // === steering ===

    /// Changes the settings at once. Surplus idle connections go, those unused longest first.
    pub(crate) fn set_gate(&mut self, now: Instant, gate: Gate, todo: &mut Actions<C>) {
        self.gate = gate;
        self.next_create = self.next_create.min(now + gate.pace);
        let surplus = self.counts().size().saturating_sub(self.allowance());
        for held in self.idle.take_oldest(surplus) {
            self.send_off(held, Cause::Surplus, todo);
        }
        self.settle(now, todo);
    }

    /// Takes note of whether connections may be made, and how many the server grants. What follows from that follows with the
    /// next operation.
    pub(crate) fn note(&mut self, creation: Creation, ceiling: Option<u32>) {
        self.creation = creation;
        self.gate.ceiling = ceiling.unwrap_or(u32::MAX);
    }

    /// Whether it is a full server that keeps connections from being made.
    pub(crate) fn note_crowded(&mut self, crowded: bool) {
        self.crowded = crowded;
    }

    /// Whether connections may be made from now on.
    #[cfg(test)]
    #[cfg(not(feature = "loom"))]
    pub(crate) fn set_creation(&mut self, now: Instant, creation: Creation, todo: &mut Actions<C>) {
        self.creation = creation;
        self.settle(now, todo);
    }

    /// Connections opened until now are outdated: idle ones go at once, others when they come back.
    pub(crate) fn bump_epoch(&mut self, now: Instant, todo: &mut Actions<C>) {
        self.epoch = self.epoch.wrapping_add(1);
        self.close_all_idle(now, Cause::Outdated, todo);
    }

    /// Closes all idle connections. Those in use prove themselves by their use.
    pub(crate) fn purge(&mut self, now: Instant, todo: &mut Actions<C>) {
        self.close_all_idle(now, Cause::Purged, todo);
    }

    /// From now on nothing is kept idle. Whoever still comes is served.
    pub(crate) fn retire(&mut self, now: Instant, todo: &mut Actions<C>) {
        if self.life == Life::Open {
            self.life = Life::Retired;
        }
        self.fill = 0;
        // Whoever waits for an operator's word would wait in vain: nobody can reach this pool by its name any more.
        self.open(now, todo);
        self.close_all_idle(now, Cause::Retired, todo);
    }

    /// Nobody is served from now on, waiters neither.
    pub(crate) fn shut(&mut self, now: Instant, todo: &mut Actions<C>) {
        self.retire(now, todo);
        self.life = Life::Shut;
        todo.extend(self.queue.refuse_all(Refused::Shut).into_iter().map(Action::Wake));
    }

    /// Closes an idle connection, if it still is idle.
    pub(crate) fn evict(&mut self, now: Instant, id: u64, cause: Cause, todo: &mut Actions<C>) -> bool {
        let Some(held) = self.idle.remove(id) else { return false };
        self.send_off(held, cause, todo);
        self.settle(now, todo);
        true
    }

    /// Takes an idle connection out, if it still is idle, to be probed: [`Self::give_back`] or [`Self::discard`] ends that.
    pub(crate) fn borrow(&mut self, now: Instant, id: u64, holder: Holder) -> Option<Box<Held<C>>> {
        let held = self.idle.remove(id)?;
        self.uses.begin(now, held.record.seat, id, holder);
        Some(held)
    }

    // === inside ===

    /// Where a connection goes that nobody uses: away, to the oldest waiter, or to the idle.
    fn place(&mut self, now: Instant, held: Box<Held<C>>, todo: &mut Actions<C>) {
        if held.record.epoch != self.epoch {
            return self.send_off(held, Cause::Outdated, todo);
        }
        if self.counts().size() >= self.allowance() {
            return self.send_off(held, Cause::Surplus, todo);
        }
        if self.service == Service::Drained {
            return self.send_off(held, Cause::Operator, todo);
        }
        if self.owed > 0 {
            self.owed -= 1;
            return self.send_off(held, Cause::Yielded, todo);
        }
        if self.service == Service::Open
            && let Some((ticket, waiter)) = self.queue.pop()
        {
            self.uses.begin(now, held.record.seat, held.record.id, waiter.holder);
            self.queue.hand(ticket, Handed::Connection(held));
            self.handoffs += 1;
            todo.extend(waiter.waker.map(Action::Wake));
        } else if self.is_retired() {
            self.send_off(held, Cause::Retired, todo);
        } else {
            self.idle.push(held);
        }
    }

    fn send_off(&mut self, held: Box<Held<C>>, cause: Cause, todo: &mut Actions<C>) {
        self.uses.vacate(held.record.seat);
        self.closing += 1;
        self.closes.count(cause);
        todo.push(Action::Close(held, cause));
    }

    fn close_all_idle(&mut self, now: Instant, cause: Cause, todo: &mut Actions<C>) {
        self.replacing.clear();
        for held in self.idle.take_all() {
            self.send_off(held, cause, todo);
        }
        self.settle(now, todo);
    }

    /// After every change: starts what may be made, and refuses those for whom nothing can come.
    fn settle(&mut self, now: Instant, todo: &mut Actions<C>) {
        self.start_creates(now, todo);
        if !self.queue.is_empty() && self.is_hopeless() {
            todo.extend(self.queue.refuse_all(Refused::Barred).into_iter().map(Action::Wake));
        }
    }

    fn is_hopeless(&self) -> bool {
        self.service == Service::Open
            && self.creation == Creation::Barred
            && self.idle.is_empty()
            && self.uses.in_use() == 0
    }
}
