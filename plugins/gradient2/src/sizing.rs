//! The decision.

use std::cmp::Ordering;

use policy_sizing::{Decision, Limit, Policy, Reading, Signals, Window, prove, recall};

use crate::{Gradient2, Settings};

/// What the target must lose before it follows its limit downwards.
const SLACK: f64 = 0.2;
/// The limit is never cut by more than this in one step, before smoothing.
const LEAST_GRADIENT: f64 = 0.5;
/// Measurements that go into the long average alike, before it becomes exponential.
const WARM_UP: f64 = 10.0;
/// When the long average is so many times the present round trip, it gives way each time by a twentieth.
const FAR_ABOVE: f64 = 2.0;
const GIVE_WAY: f64 = 0.95;
/// Nothing remembered is greater.
const MOST: f64 = 1e15;

/// Why the target is what it is; shown beside the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Nothing moved by a whole connection, or not enough round trips yet.
    Steady = 0,
    /// Round trips are as they long were: it grows.
    Level = 1,
    /// Less than half in use: nothing can be learnt.
    Unused = 2,
    /// Round trips are longer than they long were: it shrinks.
    Steep = 3,
    /// Creates fail, the server is full, or the breaker is not closed: no growth.
    Failing = 4,
}

policy_sizing::numbered!(Reason);

/// The long average of round trips.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Long {
    /// 0 when there was none yet.
    rtt_us: f64,
    /// Measurements so far, while it warms up.
    count: f64,
}

impl Policy for Gradient2 {
    type Settings = Settings;
    type Reason = Reason;

    const CARRY_VERSION: u32 = 1;

    fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision<Reason> {
        let mut limit = Limit::recall(carry, 0, settings.start, SLACK, signals);
        let mut long = Long::recall(carry);
        let mut window = Window::recall(carry, 3);
        window.add(signals);
        let reading = window.read(settings.min_samples);
        let unused = reading.is_some_and(|reading| !steer(settings, signals, &reading, &mut limit, &mut long));
        let target = limit.target(signals);
        let reason = match target.cmp(&signals.current()) {
            Ordering::Greater => Reason::Level,
            Ordering::Less => Reason::Steep,
            Ordering::Equal if signals.failing() => Reason::Failing,
            Ordering::Equal if unused => Reason::Unused,
            Ordering::Equal => Reason::Steady,
        };
        let mut carry = vec![limit.keep(), long.rtt_us, long.count];
        carry.extend_from_slice(&window.keep());
        Decision::new(target, settings.min_idle, reason, carry)
    }

    fn self_check() -> Result<(), String> {
        let settings = Settings { loaded_weight: 0.0, ..Settings::DEFAULT };
        let level = Signals::BUSY;
        let carry = &[20.3, 10_000.0, 10.0][..];
        prove::<Self>(
            &settings,
            &[
                ("level", level, carry, 21, Reason::Level),
                ("steep", Signals { rtt_mean_us: 30_000, ..level }, &[16.5, 10_000.0, 10.0], 15, Reason::Steep),
                ("unused", Signals { in_use_peak: 9, ..level }, carry, 20, Reason::Unused),
                ("failing", Signals { server_full: 1, ..level }, carry, 20, Reason::Failing),
            ],
        )
    }
}

/// One step of the rule; whether enough was in use for it.
fn steer(settings: &Settings, signals: &Signals, reading: &Reading, limit: &mut Limit, long: &mut Long) -> bool {
    let loaded = reading.peak >= limit.value / 2.0;
    long.add(settings, reading.rtt_us, loaded);
    let average = long.rtt_us;
    if average > FAR_ABOVE * reading.rtt_us {
        long.rtt_us *= GIVE_WAY;
    }
    if !loaded {
        return false;
    }
    let gradient = (settings.tolerance * average / reading.rtt_us).clamp(LEAST_GRADIENT, 1.0);
    let aimed = limit.value * gradient + settings.queue;
    let moved = limit.value + (aimed - limit.value) * settings.smoothing;
    if moved <= limit.value || !signals.failing() {
        limit.set(moved);
    }
    true
}

impl Long {
    fn recall(carry: &[f64]) -> Self {
        match (recall(carry, 1, MOST), recall(carry, 2, WARM_UP)) {
            (Some(rtt_us), Some(count)) if rtt_us > 0.0 => Self { rtt_us, count },
            _ => Self { rtt_us: 0.0, count: 0.0 },
        }
    }

    /// The mean of the first measurements, then an exponential average. What rises under load hardly counts: see the crate's door.
    fn add(&mut self, settings: &Settings, rtt_us: f64, loaded: bool) {
        if self.count == 0.0 {
            *self = Self { rtt_us, count: 1.0 };
            return;
        }
        let weight = if self.count < WARM_UP {
            1.0 / (self.count + 1.0)
        } else {
            2.0 / (f64::from(settings.long_windows) + 1.0)
        };
        let trust = if loaded && rtt_us > self.rtt_us { settings.loaded_weight } else { 1.0 };
        self.rtt_us += (rtt_us - self.rtt_us) * weight * trust;
        self.count = (self.count + 1.0).min(WARM_UP);
    }
}

#[cfg(test)]
mod tests {
    use policy_sizing::{Policy as _, Signals};

    use super::Reason;
    use crate::{Gradient2, Settings};

    const POOL: Signals = Signals { min_size: 2, in_use: 15, in_use_peak: 18, ..Signals::BUSY };

    fn limit(signals: &Signals, carry: &[f64]) -> f64 {
        Gradient2::decide(&Settings::DEFAULT, signals, carry).carry[0]
    }

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-6
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Gradient2::self_check(), Ok(()));
    }

    #[test]
    fn level_round_trips_let_it_grow_by_a_part_of_the_queue() {
        assert!(near(limit(&POOL, &[20.0, 10_000.0, 10.0]), 20.8));
        assert!(near(limit(&Signals { rtt_mean_us: 15_000, ..POOL }, &[20.0, 10_000.0, 10.0]), 20.8), "tolerated");
        assert!(near(limit(&Signals { rtt_mean_us: 5_000, ..POOL }, &[20.0, 10_000.0, 10.0]), 20.8), "never faster");
    }

    #[test]
    fn steep_ones_cut_it_by_no_more_than_half_before_smoothing() {
        let double = limit(&Signals { rtt_mean_us: 20_000, ..POOL }, &[20.0, 10_000.0, 10.0]);
        assert!((double - (20.0 * 0.8 + (20.0 * 0.75 + 4.0) * 0.2)).abs() < 0.01, "{double}");
        let hundredfold = limit(&Signals { rtt_mean_us: 1_000_000, ..POOL }, &[20.0, 10_000.0, 10.0]);
        assert!(near(hundredfold, 20.0 * 0.8 + (20.0 * 0.5 + 4.0) * 0.2), "{hundredfold}");
    }

    #[test]
    fn a_load_that_tests_nothing_moves_nothing() {
        let unused = Signals { in_use: 9, in_use_peak: 9, rtt_mean_us: 90_000, ..POOL };
        let decision = Gradient2::decide(&Settings::DEFAULT, &unused, &[20.0, 10_000.0, 10.0]);
        assert_eq!((decision.target, decision.carry[0], decision.reason), (20, 20.0, Reason::Unused));
        assert!(decision.carry[1] > 10_200.0, "but the long average learns from it");
    }

    #[test]
    fn what_rises_under_load_hardly_counts() {
        let steep = Signals { rtt_mean_us: 40_000, ..POOL };
        let after = |settings: &Settings| Gradient2::decide(settings, &steep, &[20.0, 10_000.0, 10.0]).carry[1];
        assert!(after(&Settings::DEFAULT) < 10_002.0);
        let netflix = Settings { loaded_weight: 1.0, ..Settings::DEFAULT };
        assert!(near(after(&netflix), 10_000.0 + 30_000.0 * 2.0 / 601.0));
        let faster =
            Gradient2::decide(&Settings::DEFAULT, &Signals { rtt_mean_us: 8_000, ..POOL }, &[20.0, 10_000.0, 10.0]);
        assert!(near(faster.carry[1], 10_000.0 - 2_000.0 * 2.0 / 601.0), "what falls does");
    }

    #[test]
    fn a_long_average_far_above_gives_way() {
        let fast = Signals { rtt_mean_us: 1_000, ..POOL };
        let average = Gradient2::decide(&Settings::DEFAULT, &fast, &[20.0, 10_000.0, 10.0]).carry[1];
        assert!(near(average, (10_000.0 - 9_000.0 * 2.0 / 601.0) * 0.95), "{average}");
    }

    #[test]
    fn the_first_measurement_is_the_average() {
        assert_eq!(Gradient2::decide(&Settings::DEFAULT, &POOL, &[]).carry[1..3], [10_000.0, 1.0]);
    }

    #[test]
    fn without_round_trips_nothing_moves() {
        let silent = Signals { rtt_samples: 0, rtt_mean_us: 0, ..POOL };
        let decision = Gradient2::decide(&Settings::DEFAULT, &silent, &[20.0, 10_000.0, 10.0]);
        assert_eq!(
            (decision.target, decision.reason, &decision.carry[..3]),
            (20, Reason::Steady, &[20.0, 10_000.0, 10.0][..])
        );
    }

    #[test]
    fn early_questions_do_not_hasten_it() {
        let early = Signals { interval_ms: 100, trigger: 1, ..POOL };
        assert_eq!(limit(&early, &[20.0, 10_000.0, 10.0]), 20.0);
    }

    #[test]
    fn against_a_wall_it_may_only_shrink() {
        let wall = Signals { create_failures: 1, ..POOL };
        assert_eq!(limit(&wall, &[20.0, 10_000.0, 10.0]), 20.0);
        assert!(limit(&Signals { rtt_mean_us: 90_000, ..wall }, &[20.0, 10_000.0, 10.0]) < 19.0);
    }
}
