//! What there is: how many of each, who holds them, who waits.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Core, Gate, Life, Use};
use crate::pool::{
    backend::Holder,
    record::Held,
    server::{MemberId, ServerBudget},
    tally::Closes,
};

/// How many of each there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) idle: u32,
    pub(crate) in_use: u32,
    pub(crate) creating: u32,
    /// Being closed, lingering ones among them.
    pub(crate) closing: u32,
    /// Given up without the server's end of file: they may still live there.
    pub(crate) lingering: u32,
    pub(crate) waiters: u32,
}

impl Counts {
    /// Connections that can serve, now or soon.
    pub(crate) fn size(&self) -> u32 {
        self.idle + self.in_use + self.creating
    }

    /// Permits taken.
    pub(crate) fn live(&self) -> u32 {
        self.size() + self.closing
    }
}

impl<C> Core<C> {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            idle: self.idle.len(),
            in_use: self.uses.in_use(),
            creating: self.creating,
            closing: self.closing,
            lingering: self.lingering.len() as u32,
            waiters: self.queue.len(),
        }
    }

    /// What all pools on the server may open together, and who this one is among them.
    pub(crate) fn server(&self) -> Option<(&Arc<ServerBudget>, MemberId)> {
        self.budget.server()
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn closes(&self) -> Closes {
        self.closes
    }

    pub(crate) fn handoffs(&self) -> u64 {
        self.handoffs
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.life != Life::Open
    }

    /// Retired, and nothing and nobody left.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_retired() && self.counts().live() == 0 && self.queue.is_empty()
    }

    /// Callers, with a connection or waiting. A connection that is probed or cleaned counts as one.
    pub(super) fn callers(&self) -> u32 {
        self.uses.in_use() + self.queue.len()
    }

    /// Since when the first in the queue waits.
    pub(crate) fn oldest_wait(&self) -> Option<Instant> {
        self.queue.oldest()
    }

    /// Who waits and since when, the oldest first.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = (&Holder, Instant)> {
        self.queue.iter()
    }

    /// In no order.
    pub(crate) fn idle(&self) -> impl Iterator<Item = &Held<C>> {
        self.idle.iter()
    }

    /// In no order.
    pub(crate) fn uses(&self) -> impl Iterator<Item = &Use> {
        self.uses.iter()
    }

    /// Who uses the connection with that seat.
    pub(crate) fn holder(&self, seat: usize) -> Holder {
        self.uses.holder(seat).unwrap_or_default()
    }

    /// In no order.
    pub(crate) fn uses_mut(&mut self) -> impl Iterator<Item = &mut Use> {
        self.uses.iter_mut()
    }

    /// Connection seconds in use since the pool began.
    pub(crate) fn area(&mut self, now: Instant) -> f64 {
        self.uses.area(now)
    }

    /// The most connections in use, and the most waiters, since the last call.
    pub(crate) fn take_peaks(&mut self) -> (u32, u32) {
        (self.uses.take_peak(), self.queue.take_peak())
    }
}
