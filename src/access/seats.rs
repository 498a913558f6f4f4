//! How many requests of a consumer are under way.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The count of one consumer, over all its credentials and over reloads.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: AtomicU32,
}

/// A request under way. It is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
}

/// The consumer has as many requests under way as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{most} requests are under way, which is as many as may be")]
pub struct Full {
    /// How many that is.
    pub most: u32,
}

impl Seats {
    /// Takes a seat if fewer than `most` are taken.
    pub(super) fn take(self: &Arc<Self>, most: u32) -> Result<Seat, Full> {
        let more = |taken| (taken < most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(|_| Seat { seats: self.clone() }).map_err(|_| Full { most })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
