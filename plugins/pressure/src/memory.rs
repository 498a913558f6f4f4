//! What is remembered from sweep to sweep: a sweep sees one second, in which a busy pool may rest and a rare create may not happen.

use policy_eviction::Signals;

/// Milliseconds in which what is remembered fades to a third: long enough to bridge the pauses of a bursty caller, short enough
/// that an evening's slots are free before the night's batch wants them.
const FADING_MS: f64 = 120_000.0;

/// Checkouts that count as much as all that was known before.
const TELLING: f64 = 20.0;

/// What `carry` holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Connections in use at the peak, fading.
    pub peak: f64,
    /// Share of the checkouts that waited, 0 to 1, fading.
    pub waited: f64,
    /// How long the slowest in a hundred callers keep a connection, in microseconds.
    pub hold_us: f64,
    /// What making a connection takes, in microseconds; 0 before the first was made.
    pub create_us: f64,
}

impl Memory {
    /// From `carry`: empty at first, and whatever else it might be, read as far as it makes sense.
    pub fn recalled(carry: &[f64]) -> Self {
        let number = |position: usize| carry.get(position).copied().filter(|number| number.is_finite()).unwrap_or(0.0);
        Self {
            peak: number(0).max(0.0),
            waited: number(1).clamp(0.0, 1.0),
            hold_us: number(2).max(0.0),
            create_us: number(3).max(0.0),
        }
    }

    /// As `carry`.
    pub const fn carry(&self) -> [f64; 4] {
        [self.peak, self.waited, self.hold_us, self.create_us]
    }

    /// With the last interval.
    #[must_use]
    pub fn with(self, signals: &Signals) -> Self {
        let passed = f64::from(signals.interval_ms);
        let fresh = passed / (passed + FADING_MS);
        let peak = f64::from(signals.in_use_peak);
        let waited = share(signals.waited, signals.checkouts);
        let asked = f64::from(signals.checkouts);
        let told = f64::from(signals.samples);
        let hold = f64::from(signals.hold_p99_us);
        let create = f64::from(signals.create_mean_us);
        Self {
            peak: peak.max(towards(self.peak, peak, fresh)),
            waited: towards(self.waited, waited, if waited > self.waited { asked / (asked + TELLING) } else { fresh }),
            hold_us: if self.hold_us > 0.0 { towards(self.hold_us, hold, told / (told + TELLING)) } else { hold },
            create_us: match (self.create_us > 0.0, create > 0.0) {
                (true, true) => towards(self.create_us, create, 0.5),
                (true, false) => self.create_us,
                (false, _) => create,
            },
        }
    }
}

fn towards(old: f64, new: f64, share: f64) -> f64 {
    old + (new - old) * share
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { (f64::from(part) / f64::from(whole)).min(1.0) }
}

#[cfg(test)]
mod tests {
    use policy_eviction::Signals;

    use super::Memory;

    const QUIET: Signals = Signals { interval_ms: 1000, ..Signals::EMPTY };

    #[test]
    fn whatever_carry_holds_makes_sense() {
        assert_eq!(Memory::recalled(&[]), Memory::default());
        let wild = Memory::recalled(&[-1.0, 7.0, f64::NAN, f64::INFINITY, 3.0]);
        assert_eq!(wild.carry(), [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_peak_is_there_at_once_and_fades_slowly() {
        let mut memory = Memory::default().with(&Signals { in_use_peak: 20, ..QUIET });
        assert_eq!(memory.peak, 20.0);
        for _ in 0..60 {
            memory = memory.with(&QUIET);
        }
        assert!((11.0..13.0).contains(&memory.peak), "{}", memory.peak);
        let at_once = Memory { peak: 20.0, ..Memory::default() }.with(&Signals { interval_ms: 60_000, ..QUIET });
        assert!((12.0..14.0).contains(&at_once.peak), "{}", at_once.peak);
    }

    #[test]
    fn a_latency_counts_by_its_samples() {
        let known = Memory { hold_us: 1000.0, ..Memory::default() };
        let with = |samples| known.with(&Signals { samples, hold_p99_us: 9000, ..QUIET }).hold_us;
        assert_eq!([0, 20].map(with), [1000.0, 5000.0]);
        assert!(with(10_000) > 8900.0);
    }

    #[test]
    fn what_a_connection_costs_is_kept_until_one_is_made() {
        let known = Memory::default().with(&Signals { create_mean_us: 8000, ..QUIET });
        assert_eq!(known.with(&QUIET).create_us, 8000.0);
        assert_eq!(known.with(&Signals { create_mean_us: 4000, ..QUIET }).create_us, 6000.0);
    }

    #[test]
    fn waiting_is_noticed_at_once_and_not_forgotten_at_once() {
        let crowded = Memory::default().with(&Signals { checkouts: 180, waited: 180, ..QUIET });
        assert!((0.89..0.91).contains(&crowded.waited), "{}", crowded.waited);
        assert!(crowded.with(&Signals { checkouts: 180, ..QUIET }).waited > 0.88);
        let one_of_one = Memory::default().with(&Signals { checkouts: 1, waited: 1, ..QUIET });
        assert!(one_of_one.waited < 0.05, "one caller is no crowd");
    }

    #[test]
    fn an_odd_count_is_no_share_above_one() {
        let odd = Signals { waited: 9, checkouts: 3, interval_ms: u32::MAX, ..QUIET };
        assert!(Memory::default().with(&odd).waited <= 1.0);
    }
}
