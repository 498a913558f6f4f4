//! What a policy looks at.

/// What sizing policies look at, out of all that the host tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signals {
    /// Why it is asked now: 0 tick, 1 waiter old, 2 checkout timeout, 3 create failed, 4 breaker moved, 5 configuration.
    pub trigger: u32,
    /// Milliseconds since the last decision.
    pub interval_ms: u32,
    /// Connections kept open at least.
    pub min_size: u32,
    /// Connections open at most.
    pub max_size: u32,
    /// Connections the server grants in all; 0 when unknown.
    pub server_cap: u32,
    /// The size aimed at now.
    pub target: u32,
    /// Connections that exist or are being made.
    pub size: u32,
    /// Connections being made.
    pub creating: u32,
    /// Connections in use.
    pub in_use: u32,
    /// Mean of `in_use` since the last decision.
    pub in_use_mean: f64,
    /// Peak of `in_use` since the last decision.
    pub in_use_peak: u32,
    /// Callers in the queue.
    pub waiters: u32,
    /// How long the first of them has waited.
    pub oldest_wait_ms: u32,
    /// Callers who asked since the last decision, served or not.
    pub checkouts: u32,
    /// Checkouts that gave up since the last decision.
    pub timeouts: u32,
    /// Checkouts refused because the queue was full.
    pub refused: u32,
    /// Creates that failed.
    pub create_failures: u32,
    /// Creates refused by a full server.
    pub server_full: u32,
    /// Returns that `hold_mean_us` rests on.
    pub samples: u32,
    /// From checkout to return, in the mean.
    pub hold_mean_us: u32,
    /// Round trips that `rtt_mean_us` rests on.
    pub rtt_samples: u32,
    /// On the backend alone, in the mean.
    pub rtt_mean_us: u32,
    /// 0 closed, else not.
    pub breaker: u32,
}

impl Signals {
    /// A pool that may have no connection, and in which nothing happens.
    pub const EMPTY: Self = Self {
        trigger: 0,
        interval_ms: 0,
        min_size: 0,
        max_size: 0,
        server_cap: 0,
        target: 0,
        size: 0,
        creating: 0,
        in_use: 0,
        in_use_mean: 0.0,
        in_use_peak: 0,
        waiters: 0,
        oldest_wait_ms: 0,
        checkouts: 0,
        timeouts: 0,
        refused: 0,
        create_failures: 0,
        server_full: 0,
        samples: 0,
        hold_mean_us: 0,
        rtt_samples: 0,
        rtt_mean_us: 0,
        breaker: 0,
    };

    /// A pool of twenty, all of them in use at the peak, with a hundred round trips of 10 ms in the last second:
    /// what self-checks of policies that go by round trips begin with.
    pub const BUSY: Self = Self {
        interval_ms: 1000,
        max_size: 50,
        target: 20,
        size: 20,
        in_use_peak: 20,
        rtt_samples: 100,
        rtt_mean_us: 10_000,
        ..Self::EMPTY
    };

    /// A target the host would not have to correct. One connection at least, where one is allowed, so that the pool can serve.
    pub fn within_bounds(&self, target: u32) -> u32 {
        let most = if self.server_cap == 0 { self.max_size } else { self.max_size.min(self.server_cap) };
        target.max(self.min_size).max(1).min(most)
    }

    /// The target as it is, within the bounds as they are now.
    pub fn current(&self) -> u32 {
        self.within_bounds(self.target)
    }

    /// Whether more connections cannot be had: creates fail, the server is full, or the breaker is not closed.
    pub fn failing(&self) -> bool {
        self.breaker != 0 || self.create_failures > 0 || self.server_full > 0 || self.trigger == 3
    }

    /// Connections in use, in the mean since the last decision; now, when the mean is no such number.
    pub fn in_use_on_average(&self) -> f64 {
        let mean = self.in_use_mean;
        if mean.is_finite() && mean >= 0.0 { mean } else { f64::from(self.in_use) }
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::Signals;

    #[test]
    fn bounds_hold_in_their_order() {
        let bounds = Signals { min_size: 2, max_size: 10, ..Signals::default() };
        assert_eq!((bounds.within_bounds(0), bounds.within_bounds(7), bounds.within_bounds(99)), (2, 7, 10));
        assert_eq!(Signals { min_size: 0, ..bounds }.within_bounds(0), 1, "one at least");
        assert_eq!(Signals { server_cap: 5, ..bounds }.within_bounds(7), 5);
        assert_eq!(Signals { max_size: 0, ..bounds }.within_bounds(7), 0, "none where none is allowed");
    }

    #[test]
    fn every_wall_is_seen() {
        let calm = Signals::default();
        assert!(!calm.failing());
        for wall in [
            Signals { create_failures: 1, ..calm },
            Signals { server_full: 1, ..calm },
            Signals { breaker: 7, ..calm },
            Signals { trigger: 3, ..calm },
        ] {
            assert!(wall.failing(), "{wall:?}");
        }
    }

    #[test]
    fn a_mean_that_is_none_gives_way_to_what_is_in_use() {
        let signals = Signals { in_use: 4, in_use_mean: 2.5, ..Signals::default() };
        assert_eq!(signals.in_use_on_average(), 2.5);
        for broken in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(Signals { in_use_mean: broken, ..signals }.in_use_on_average(), 4.0);
        }
    }
}
