//! What somebody who may choose among pools wants to know of one.

use tokio::time::Instant;

use super::{
    backend::Backend,
    breaker::Position,
    core::{Creation, Service},
    explain,
    shell::Pool,
};

/// A pool at a moment, in as little as a choice needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Whether it is of use now.
    pub state: Usable,
    /// Connections in use.
    pub in_use: u32,
    /// Connections that may exist, after every bound.
    pub limit: u32,
    /// Callers in the queue.
    pub waiters: u32,
}

/// Whether a pool is of use to one more caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    /// It lends, or has whoever comes wait for what others bring back.
    Yes,
    /// An operator has paused or drained it.
    Paused,
    /// Nothing is idle, and the last attempt to make a connection failed.
    Failing,
    /// Its breaker is open.
    BreakerOpen,
}

impl Outlook {
    /// Callers with a connection or waiting for one.
    pub fn busy(&self) -> u32 {
        self.in_use + self.waiters
    }

    /// Whether callers have all the connections that there may be.
    pub fn is_full(&self) -> bool {
        self.in_use >= self.limit
    }
}

impl<B: Backend> Pool<B> {
    /// A look at the pool. Takes its lock for less than a checkout does.
    pub fn outlook(&self) -> Outlook {
        let now = Instant::now();
        let state = self.state.lock();
        let counts = state.core.counts();
        let usable = match state.breaker.creation(now) {
            _ if state.core.service() != Service::Open => Usable::Paused,
            _ if state.breaker.position() != Position::Closed => Usable::BreakerOpen,
            Creation::Free => Usable::Yes,
            _ if counts.idle > 0 => Usable::Yes,
            _ => Usable::Failing,
        };
        Outlook { state: usable, in_use: counts.in_use, limit: explain::limit(&state.core), waiters: counts.waiters }
    }
}
