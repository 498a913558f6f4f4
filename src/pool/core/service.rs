//! What an operator says: pause, drain, go on; and this connection must go.

use tokio::time::Instant;

use super::{Actions, Cause, Core};

/// Whether connections are lent. Where they are not, callers wait, as many as the queue holds and as long as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Open,
    /// What is open stays so; nothing is made.
    Paused,
    /// Nothing is kept open, nothing is made.
    Drained,
}

/// What became of a connection that must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doomed {
    /// It was idle, and is being closed.
    Closed,
    /// It is in use, and is closed when it comes back.
    Marked,
    /// There is none of that number.
    Unknown,
}

impl<C> Core<C> {
    pub(crate) fn service(&self) -> Service {
        self.service
    }

    /// Lends nothing from now on. Those in use come back as they would.
    pub(crate) fn suspend(&mut self, now: Instant, service: Service, todo: &mut Actions<C>) {
        self.service = service;
        match service {
            Service::Open => self.open(now, todo),
            Service::Paused => {}
            Service::Drained => self.close_all_idle(now, Cause::Operator, todo),
        }
    }

    /// Lends again: what lies idle to those who have waited longest, and more is made where it does not suffice.
    pub(super) fn open(&mut self, now: Instant, todo: &mut Actions<C>) {
        self.service = Service::Open;
        while !self.queue.is_empty()
            && let Some(held) = self.idle.pop(usize::MAX, self.gate.order)
        {
            self.place(now, held, todo);
        }
        self.settle(now, todo);
    }

    /// Closes one connection: now, or when it comes back.
    pub(crate) fn doom(&mut self, now: Instant, id: u64, todo: &mut Actions<C>) -> Doomed {
        if self.evict(now, id, Cause::Operator, todo) {
            return Doomed::Closed;
        }
        match self.uses.iter_mut().find(|used| used.id == id) {
            Some(used) => {
                used.doomed = Some(Cause::Operator);
                Doomed::Marked
            }
            None => Doomed::Unknown,
        }
    }
}
