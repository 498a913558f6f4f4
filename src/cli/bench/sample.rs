//! The pool from one tenth of a second to the next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pool::PoolStatus;

/// Time between samples.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// The pool at a moment, and what was done since the moment before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Since the load began.
    pub(super) at_ms: u64,
    pub(super) in_use: u32,
    pub(super) idle: u32,
    pub(super) creating: u32,
    pub(super) target: u32,
    pub(super) limit: u32,
    pub(super) waiters: u32,
    /// Statements done a second.
    pub(super) per_second: f64,
    /// Statements that failed.
    pub(super) failed: u64,
}

/// A number of a sample's.
pub(super) type Figure = fn(&Sample) -> f64;

/// Samples so far.
#[derive(Default)]
pub(super) struct Samples {
    pub(super) taken: Vec<Sample>,
    /// When the last was taken, and what had been done and had failed by then.
    last: (Duration, u64, u64),
}

impl Samples {
    /// Takes one, `at` after the beginning, when so much is done and has failed in all.
    pub(super) fn take(&mut self, at: Duration, pool: &PoolStatus, done: u64, failed: u64) {
        let (before, done_before, failed_before) = std::mem::replace(&mut self.last, (at, done, failed));
        self.taken.push(Sample {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            in_use: pool.in_use,
            idle: pool.idle,
            creating: pool.creating,
            target: pool.target,
            limit: pool.limit,
            waiters: pool.waiters,
            per_second: rate(done - done_before, at.saturating_sub(before)),
            failed: failed - failed_before,
        });
    }
}

/// So many in that time, a second, to one digit behind the point.
pub(super) fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { (count as f64 / time.as_secs_f64() * 10.0).round() / 10.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_never_infinite() {
        assert_eq!(rate(5, Duration::ZERO).to_bits(), 0.0_f64.to_bits());
        assert!((rate(5, Duration::from_millis(300)) - 16.7).abs() < 1e-9);
        assert!(rate(u64::MAX, Duration::from_nanos(1)).is_finite());
    }
}
