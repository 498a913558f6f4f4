//! What a policy looks at of the pool.

/// What eviction policies look at of the pool, out of all that the host tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signals {
    /// Milliseconds since the last sweep that asked.
    pub interval_ms: u32,
    /// Connections kept open at least.
    pub min_size: u32,
    /// Connections that the server grants; 0 when it never refused one.
    pub server_cap: u32,
    /// Connections that exist or are being made.
    pub size: u32,
    /// Connections being made.
    pub creating: u32,
    /// Mean of the connections in use since the last sweep.
    pub in_use_mean: f64,
    /// And their peak.
    pub in_use_peak: u32,
    /// Callers in the queue.
    pub waiters: u32,
    /// Checkouts since the last sweep.
    pub checkouts: u32,
    /// Those that had to wait.
    pub waited: u32,
    /// Those that gave up waiting.
    pub timeouts: u32,
    /// Those that found the queue full.
    pub refused: u32,
    /// Creates that failed since the last sweep.
    pub create_failures: u32,
    /// Those of them that a full server refused.
    pub server_full: u32,
    /// Checkouts that the latencies rest on.
    pub samples: u32,
    /// 99 of 100 were held for less, in microseconds.
    pub hold_p99_us: u32,
    /// What making a connection took, in microseconds; 0 when none was made.
    pub create_mean_us: u32,
    /// 0 closed, else not.
    pub breaker: u32,
}

impl Signals {
    /// An empty pool in which nothing happened.
    pub const EMPTY: Self = Self {
        interval_ms: 0,
        min_size: 0,
        server_cap: 0,
        size: 0,
        creating: 0,
        in_use_mean: 0.0,
        in_use_peak: 0,
        waiters: 0,
        checkouts: 0,
        waited: 0,
        timeouts: 0,
        refused: 0,
        create_failures: 0,
        server_full: 0,
        samples: 0,
        hold_p99_us: 0,
        create_mean_us: 0,
        breaker: 0,
    };

    /// Connections that are there.
    #[inline]
    pub const fn made(&self) -> u32 {
        self.size.saturating_sub(self.creating)
    }

    /// Those of them above the pool's minimum.
    #[inline]
    pub const fn spare(&self) -> u32 {
        self.made().saturating_sub(self.min_size)
    }
}

#[cfg(test)]
mod tests {
    use super::Signals;

    #[test]
    fn what_is_being_made_is_not_there_to_spare() {
        let pool = Signals { size: 10, creating: 3, min_size: 2, ..Signals::EMPTY };
        assert_eq!((pool.made(), pool.spare()), (7, 5));
        assert_eq!(Signals { min_size: 8, ..pool }.spare(), 0);
        assert_eq!(Signals { creating: 11, ..pool }.made(), 0, "an odd count is none");
    }
}
