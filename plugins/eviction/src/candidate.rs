//! An idle connection.

/// Probes in a row that a connection may fail before it goes. One may be the fault of a moment.
const FAILED_PROBES: u32 = 2;

/// What eviction policies look at of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Milliseconds since it was made.
    pub age_ms: u32,
    /// Milliseconds since it was returned.
    pub idle_ms: u32,
    /// Errors so far.
    pub errors: u32,
    /// Probes that failed in a row.
    pub failed_probes: u32,
    /// The host's number for it, 0 to 1000.
    pub jitter_permille: u32,
    /// Changes of credentials, address or settings since it was opened.
    pub epochs_behind: u32,
    /// Prepared statements cached on it.
    pub statements: u32,
}

impl Candidate {
    /// One that was made and returned just now, and of which nothing bad is known.
    pub const FRESH: Self = Self {
        age_ms: 0,
        idle_ms: 0,
        errors: 0,
        failed_probes: 0,
        jitter_permille: 0,
        epochs_behind: 0,
        statements: 0,
    };

    /// Whether nobody may be given it, or it seems dead.
    #[inline]
    pub const fn is_unfit(&self) -> bool {
        self.epochs_behind > 0 || self.failed_probes >= FAILED_PROBES
    }

    /// Whether nobody used it for so many seconds.
    #[inline]
    pub fn is_unused_for(&self, seconds: u32) -> bool {
        f64::from(self.idle_ms) >= f64::from(seconds) * 1000.0
    }

    /// How many milliseconds it may live: up to `spread` of the lifetime less than that, so that connections made together do not
    /// end together.
    #[inline]
    pub fn life_ms(&self, lifetime_s: u32, spread: f64) -> f64 {
        let jitter = f64::from(self.jitter_permille.min(1000)) / 1000.0;
        f64::from(lifetime_s) * 1000.0 * (1.0 - spread * jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::Candidate;

    const FRESH: Candidate = Candidate::FRESH;

    #[test]
    fn outdated_ones_and_those_that_failed_two_probes_are_unfit() {
        assert!(!FRESH.is_unfit());
        assert!(Candidate { epochs_behind: 1, ..FRESH }.is_unfit());
        let failed = |failed_probes| Candidate { failed_probes, ..FRESH }.is_unfit();
        assert_eq!([1, 2, 3].map(failed), [false, true, true], "one may be the fault of a moment");
    }

    #[test]
    fn unused_is_told_to_the_millisecond_and_beyond_what_fits_one() {
        assert!(!Candidate { idle_ms: 59_999, ..FRESH }.is_unused_for(60));
        assert!(Candidate { idle_ms: 60_000, ..FRESH }.is_unused_for(60));
        assert!(!Candidate { idle_ms: u32::MAX, ..FRESH }.is_unused_for(4_294_968), "more than there are");
    }

    #[test]
    fn lives_are_spread_by_the_hosts_number() {
        let life_ms = |jitter_permille| Candidate { jitter_permille, ..FRESH }.life_ms(1800, 0.1);
        assert_eq!([0, 500, 1000, u32::MAX].map(life_ms), [1_800_000.0, 1_710_000.0, 1_620_000.0, 1_620_000.0]);
        assert_eq!(Candidate { jitter_permille: 1000, ..FRESH }.life_ms(1800, 0.0), 1_800_000.0);
    }
}
