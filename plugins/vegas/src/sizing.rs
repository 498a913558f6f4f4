//! The decision.

mod probe;

use std::cmp::Ordering;

use policy_sizing::{Decision, Limit, Policy, Reading, Signals, Window, prove, recall, round_up};

use crate::{Settings, Vegas};
use probe::{Dip, Probes};

/// What the target must lose before it follows its limit downwards.
const SLACK: f64 = 0.125;
/// How far the unloaded round trip moves to a single one that says more or less. A bare minimum would end far below the usual.
const FOLLOW: f64 = 0.125;
/// Nothing remembered is greater.
const MOST: f64 = 1e15;

/// Why the target is what it is; shown beside the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// As many queue in the database as should, or not enough round trips yet.
    Steady = 0,
    /// Too few queue: it grows.
    Short = 1,
    /// Less than half in use: nothing can be learnt.
    Unused = 2,
    /// Too many queue, or the server is full: it shrinks.
    Long = 3,
    /// Creates fail, the server is full, or the breaker is not closed: no growth.
    Failing = 4,
    /// It measures the database at half the limit.
    Probing = 5,
}

policy_sizing::numbered!(Reason);

/// What is remembered.
#[derive(Clone, Copy, Debug)]
struct Memory {
    limit: Limit,
    /// The round trip of an unloaded database, in microseconds; 0 when none was measured yet.
    unloaded_us: f64,
    /// 1 until something queued in the database for the first time.
    starting: f64,
    probes: Probes,
    window: Window,
}

impl Policy for Vegas {
    type Settings = Settings;
    type Reason = Reason;

    const CARRY_VERSION: u32 = 1;

    fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision<Reason> {
        let mut memory = Memory::recall(settings, signals, carry);
        if let Some(dip) = memory.probes.dip {
            return memory.go_on_probing(settings, signals, dip);
        }
        memory.window.add(signals);
        if signals.server_full > 0 {
            memory.limit.set(memory.limit.value - decades(memory.limit.value));
            return memory.answer(settings, signals, Reason::Failing);
        }
        let Some(reading) = memory.window.read(settings.min_samples) else {
            return memory.answer(settings, signals, Reason::Steady);
        };
        if memory.unloaded_us == 0.0 {
            memory.unloaded_us = reading.rtt_us;
        }
        let unused = 2.0 * reading.peak < memory.limit.value;
        if memory.probes.are_due(settings) && !signals.failing() {
            memory.probes.done();
            if !unused {
                match Dip::below(memory.limit.value, signals) {
                    Some(dip) => return memory.begin_to_probe(settings, signals, dip),
                    None => memory.believe(reading.rtt_us, FOLLOW),
                }
            }
        }
        if unused || reading.rtt_us < memory.unloaded_us {
            memory.believe(reading.rtt_us, FOLLOW);
        }
        if unused {
            return memory.answer(settings, signals, Reason::Unused);
        }
        memory.steer(settings, signals, &reading);
        memory.answer(settings, signals, Reason::Steady)
    }

    fn self_check() -> Result<(), String> {
        let level = Signals::BUSY;
        // Limit, unloaded round trip, past its beginning, a second since the last probe.
        let carry = &[20.0, 10_000.0, 0.0, 1000.0, 0.0, 0.0][..];
        prove::<Self>(
            &Settings::DEFAULT,
            &[
                ("short", level, carry, 21, Reason::Short),
                ("band", Signals { rtt_mean_us: 13_000, ..level }, carry, 20, Reason::Steady),
                ("unused", Signals { in_use_peak: 9, ..level }, carry, 20, Reason::Unused),
                ("failing", Signals { create_failures: 1, ..level }, carry, 20, Reason::Failing),
            ],
        )
    }
}

/// The decimal logarithm, rounded down, but 1 at least: what thresholds and steps grow with.
fn decades(limit: f64) -> f64 {
    f64::from((limit as u32).max(10).ilog10())
}

impl Memory {
    fn recall(settings: &Settings, signals: &Signals, carry: &[f64]) -> Self {
        let probes = Probes::recall(settings, signals, carry, 3);
        let kept = carry.first().map_or(0, |kept| kept.abs() as u32);
        // A dip keeps the target away from the limit.
        let seen = if probes.dip.is_some() { Signals { target: kept, ..*signals } } else { *signals };
        Self {
            limit: Limit::recall(carry, 0, settings.start, SLACK, &seen),
            unloaded_us: recall(carry, 1, MOST).unwrap_or(0.0),
            starting: recall(carry, 2, 1.0).unwrap_or(1.0),
            probes,
            window: Window::recall(carry, 3 + Probes::NUMBERS),
        }
    }

    /// One step of the rule.
    fn steer(&mut self, settings: &Settings, signals: &Signals, reading: &Reading) {
        let decades = decades(self.limit.value);
        let (alpha, beta) = (f64::from(settings.alpha) * decades, f64::from(settings.beta) * decades);
        let queue = f64::from(round_up(self.limit.value * (1.0 - self.unloaded_us / reading.rtt_us)));
        let step = if queue > beta {
            -decades
        } else if queue >= alpha {
            0.0
        } else if queue <= decades && self.starting == 1.0 {
            beta
        } else {
            decades
        };
        if queue >= alpha {
            self.starting = 0.0;
        }
        if step < 0.0 || !signals.failing() {
            self.limit.set(self.limit.value + step);
        }
    }

    /// Moves the unloaded round trip by a part of the way.
    fn believe(&mut self, rtt_us: f64, part: f64) {
        self.unloaded_us += (rtt_us - self.unloaded_us) * part;
    }

    fn begin_to_probe(mut self, settings: &Settings, signals: &Signals, dip: Dip) -> Decision<Reason> {
        self.probes.dip = Some(dip);
        self.window = Window::default();
        self.probing(settings, signals)
    }

    /// Waits until the dip has taken hold and enough came back, or it has lasted too long.
    fn go_on_probing(mut self, settings: &Settings, signals: &Signals, dip: Dip) -> Decision<Reason> {
        if dip.holds(signals) {
            self.window.add(signals);
        }
        let over = dip.is_over() || signals.failing();
        let least = if over { settings.min_samples } else { settings.min_samples.saturating_mul(probe::SAMPLES) };
        if let Some(reading) = self.window.read_early(least) {
            self.unloaded_us = reading.rtt_us;
        } else if over {
            if signals.rtt_samples > 0 {
                self.believe(f64::from(signals.rtt_mean_us), FOLLOW);
            }
        } else {
            return self.probing(settings, signals);
        }
        self.probes.done();
        self.window = Window::default();
        self.answer(settings, signals, Reason::Probing)
    }

    fn probing(&self, settings: &Settings, signals: &Signals) -> Decision<Reason> {
        let dip = self.probes.dip.map_or(u32::MAX, |dip| dip.target);
        let target = signals.within_bounds(dip).min(signals.current());
        Decision {
            next_tick_ms: probe::TICK_MS,
            ..Decision::new(target, settings.min_idle, Reason::Probing, self.keep())
        }
    }

    /// The target of the limit. `still` is why it stays, if it does.
    fn answer(&self, settings: &Settings, signals: &Signals, still: Reason) -> Decision<Reason> {
        let target = self.limit.target(signals);
        let reason = match target.cmp(&signals.current()) {
            _ if still == Reason::Probing => still,
            Ordering::Greater => Reason::Short,
            Ordering::Less => Reason::Long,
            Ordering::Equal if signals.failing() => Reason::Failing,
            Ordering::Equal => still,
        };
        Decision::new(target, settings.min_idle, reason, self.keep())
    }

    fn keep(&self) -> Vec<f64> {
        let mut carry = vec![self.limit.keep(), self.unloaded_us, self.starting];
        carry.extend_from_slice(&self.probes.keep());
        carry.extend_from_slice(&self.window.keep());
        carry
    }
}

#[cfg(test)]
mod tests {
    use policy_sizing::{Decision, Policy as _, Signals};

    use super::{Reason, decades};
    use crate::{Settings, Vegas};

    const POOL: Signals = Signals { min_size: 2, max_size: 500, in_use: 15, in_use_peak: 18, ..Signals::BUSY };

    /// Past its beginning, at 10 ms unloaded, not long after a probe.
    fn after(limit: f64, signals: &Signals) -> Decision<Reason> {
        Vegas::decide(&Settings::DEFAULT, signals, &[limit, 10_000.0, 0.0, 1000.0, 0.0, 0.0])
    }

    fn limit(rtt_mean_us: u32) -> f64 {
        after(20.0, &Signals { rtt_mean_us, ..POOL }).carry[0]
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Vegas::self_check(), Ok(()));
    }

    #[test]
    fn decades_are_decimal_and_one_at_least() {
        let known = [1.0, 9.0, 10.0, 99.9, 100.0, 1000.0].map(decades);
        assert_eq!(known, [1.0, 1.0, 1.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn it_keeps_the_queue_between_alpha_and_beta() {
        // Of 20, 20·(1 − 10/rtt) queue.
        assert_eq!(limit(11_000), 21.0, "two");
        assert_eq!(limit(11_500), 20.0, "three");
        assert_eq!(limit(14_000), 20.0, "six");
        assert_eq!(limit(15_000), 19.0, "seven");
    }

    #[test]
    fn a_large_limit_moves_by_more() {
        let large = Signals { target: 200, size: 200, in_use_peak: 200, ..POOL };
        assert_eq!(after(200.0, &large).carry[0], 202.0);
        assert_eq!(after(200.0, &Signals { rtt_mean_us: 12_000, ..large }).carry[0], 198.0);
    }

    #[test]
    fn at_the_beginning_it_grows_by_beta_until_something_queues() {
        let start = Vegas::decide(&Settings::DEFAULT, &POOL, &[20.0, 10_000.0, 1.0, 1000.0, 0.0, 0.0]);
        assert_eq!((start.target, start.reason), (26, Reason::Short));
        let queueing = Signals { target: 26, rtt_mean_us: 12_000, in_use_peak: 26, ..POOL };
        let then = Vegas::decide(&Settings::DEFAULT, &queueing, &start.carry);
        assert_eq!((then.target, then.carry[2]), (26, 0.0));
    }

    #[test]
    fn the_unloaded_round_trip_follows_faster_ones() {
        assert_eq!(after(20.0, &Signals { rtt_mean_us: 8_000, ..POOL }).carry[1], 9_750.0);
        assert_eq!(after(20.0, &Signals { rtt_mean_us: 12_000, ..POOL }).carry[1], 10_000.0);
    }

    #[test]
    fn a_load_that_tests_nothing_moves_nothing() {
        let unused = Signals { in_use: 9, in_use_peak: 9, rtt_mean_us: 90_000, ..POOL };
        let decision = after(20.0, &unused);
        assert_eq!((decision.target, decision.carry[0], decision.reason), (20, 20.0, Reason::Unused));
        assert_eq!(decision.carry[1], 20_000.0, "but shows how long an unloaded round trip takes");
    }

    #[test]
    fn without_round_trips_nothing_moves() {
        let silent = Signals { rtt_samples: 0, rtt_mean_us: 0, ..POOL };
        let decision = after(20.0, &silent);
        assert_eq!((decision.target, decision.reason, decision.carry[1]), (20, Reason::Steady, 10_000.0));
    }

    #[test]
    fn against_a_wall_it_may_only_shrink() {
        assert_eq!(after(20.0, &Signals { create_failures: 1, ..POOL }).carry[0], 20.0);
        assert_eq!(after(20.0, &Signals { breaker: 2, ..POOL }).reason, Reason::Failing);
        assert_eq!(after(20.0, &Signals { create_failures: 1, server_full: 1, ..POOL }).carry[0], 19.0);
        assert_eq!(after(20.0, &Signals { breaker: 1, rtt_mean_us: 20_000, ..POOL }).carry[0], 19.0);
    }

    /// Five minutes since the last probe.
    const DUE: [f64; 6] = [20.0, 10_000.0, 0.0, 300_000.0, 0.0, 0.0];

    #[test]
    fn a_probe_is_a_dip_to_half_until_it_has_held() {
        let begun = Vegas::decide(&Settings::DEFAULT, &POOL, &DUE);
        assert_eq!((begun.target, begun.reason, begun.next_tick_ms), (10, Reason::Probing, 200));
        let dipped = Signals { target: 10, size: 10, interval_ms: 200, in_use: 10, in_use_peak: 17, ..POOL };
        let draining = Vegas::decide(&Settings::DEFAULT, &dipped, &begun.carry);
        assert_eq!((draining.target, draining.reason), (10, Reason::Probing), "the peak is of before");
        let held = Signals { in_use_peak: 10, rtt_samples: 200, rtt_mean_us: 12_500, ..dipped };
        let ended = Vegas::decide(&Settings::DEFAULT, &held, &draining.carry);
        assert_eq!((ended.target, ended.carry[1]), (20, 12_500.0), "as before, with what was measured");
        let next = Vegas::decide(&Settings::DEFAULT, &Signals { rtt_mean_us: 13_000, ..POOL }, &ended.carry);
        assert_eq!((next.target, next.next_tick_ms), (21, 0), "one queues: it grows");
    }

    #[test]
    fn a_dip_that_does_not_take_hold_is_given_up() {
        let mut carry = Vegas::decide(&Settings::DEFAULT, &POOL, &DUE).carry;
        let refused = Signals { interval_ms: 1000, waiters: 9, rtt_mean_us: 30_000, ..POOL };
        for _ in 0..4 {
            let decision = Vegas::decide(&Settings::DEFAULT, &refused, &carry);
            assert_eq!((decision.target, decision.reason), (10, Reason::Probing));
            carry = decision.carry;
        }
        let given_up = Vegas::decide(&Settings::DEFAULT, &refused, &carry);
        assert_eq!((given_up.target, given_up.carry[1]), (20, 12_500.0), "an eighth of the way");
    }

    #[test]
    fn a_failure_ends_a_dip_without_growth() {
        let begun = Vegas::decide(&Settings::DEFAULT, &POOL, &DUE);
        let failing = Signals { target: 10, breaker: 2, rtt_samples: 0, ..POOL };
        let ended = Vegas::decide(&Settings::DEFAULT, &failing, &begun.carry);
        assert_eq!((ended.target, ended.carry[1]), (10, 10_000.0));
    }

    #[test]
    fn a_quiet_moment_makes_a_dip_unnecessary() {
        let quiet = Signals { in_use: 5, in_use_peak: 5, rtt_mean_us: 14_000, ..POOL };
        let decision = Vegas::decide(&Settings::DEFAULT, &quiet, &DUE);
        assert_eq!((decision.target, decision.carry[3], decision.reason), (20, 0.0, Reason::Unused));
        let never = Settings { probe_s: 0, ..Settings::DEFAULT };
        assert_eq!(Vegas::decide(&never, &POOL, &DUE).reason, Reason::Short);
    }
}
