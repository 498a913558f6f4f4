//! The decision.

use policy_sizing::{Decision, Policy, Signals, approach, prove, recall, round_up};

use crate::{Little, Settings};

/// Less than this share of the target is not worth a change downwards.
const SLACK: f64 = 0.1;
/// The backlog is to be served within this.
const BACKLOG_MS: f64 = 1000.0;
/// No load is greater.
const MOST: f64 = 1e9;

/// Why the target is what it is; shown beside the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// As many as are needed, or not long enough more than that.
    Steady = 0,
    /// More are needed.
    Load = 1,
    /// Callers wait long: more are needed at once.
    Waiting = 2,
    /// Fewer were needed for long.
    Calm = 3,
    /// Creates fail, the server is full, or the breaker is not closed.
    Failing = 4,
    /// More are needed, but it is at its bound.
    Bound = 6,
}

policy_sizing::numbered!(Reason);

/// What is remembered.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// Connections in use in the mean, by Little's law.
    load: f64,
    /// For how long fewer were needed than there are.
    calm_ms: f64,
    /// The most that were needed in that time.
    most: f64,
}

impl Policy for Little {
    type Settings = Settings;
    type Reason = Reason;

    const CARRY_VERSION: u32 = 1;

    fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision<Reason> {
        let current = signals.current();
        let before = Memory::recall(carry);
        if signals.failing() {
            return answer(settings, current, Reason::Failing, before.unwrap_or(Memory::new(load(signals))));
        }
        let pressed = is_pressed(signals);
        let load = match before {
            Some(before) => follow(settings, signals, before.load, pressed),
            None => load(signals),
        };
        let wanted = signals.within_bounds(wanted(settings, load));
        if wanted > current {
            let reason = if pressed { Reason::Waiting } else { Reason::Load };
            return answer(settings, wanted, reason, Memory::new(load));
        }
        let memory = before.unwrap_or(Memory::new(load)).calmer(load, wanted, signals);
        if memory.calm_ms < f64::from(settings.calm_ms) || signals.waiters > 0 {
            let bound = wanted == current && pressed && current == signals.within_bounds(u32::MAX);
            return answer(settings, current, if bound { Reason::Bound } else { Reason::Steady }, memory);
        }
        let goal = signals.within_bounds(memory.most as u32).max(wanted);
        let worth = f64::from(current) - f64::from(goal) >= (SLACK * f64::from(current)).max(1.0);
        let (target, reason) = if worth { (goal, Reason::Calm) } else { (current, Reason::Steady) };
        answer(settings, target, reason, Memory::new(load))
    }

    fn self_check() -> Result<(), String> {
        // 800 a second, 20 ms each: 16 in use, and 1.5 times their square root.
        let steady = Signals {
            interval_ms: 1000,
            max_size: 50,
            target: 10,
            in_use_mean: 10.0,
            checkouts: 800,
            samples: 800,
            hold_mean_us: 20_000,
            ..Signals::EMPTY
        };
        prove::<Self>(
            &Settings::DEFAULT,
            &[
                ("load", steady, &[], 22, Reason::Load),
                ("calm", Signals { target: 40, ..steady }, &[16.0, 30_000.0, 22.0], 22, Reason::Calm),
                ("failing", Signals { server_full: 1, ..steady }, &[], 10, Reason::Failing),
            ],
        )
    }
}

fn answer(settings: &Settings, target: u32, reason: Reason, memory: Memory) -> Decision<Reason> {
    Decision::new(target, settings.min_idle, reason, vec![memory.load, memory.calm_ms, memory.most])
}

/// The load in connections, from what happened since the last decision.
fn load(signals: &Signals) -> f64 {
    let in_use = signals.in_use_on_average().min(MOST);
    let waiters = f64::from(signals.waiters);
    if signals.samples == 0 || signals.interval_ms == 0 {
        return (in_use + waiters).min(MOST);
    }
    let hold_ms = f64::from(signals.hold_mean_us) / 1000.0;
    let arriving = f64::from(signals.checkouts) / f64::from(signals.interval_ms) * hold_ms;
    let backlog = waiters * (hold_ms / BACKLOG_MS).min(1.0);
    (arriving.max(in_use) + backlog).min(MOST)
}

/// Smoothed while nobody waits long; at once when somebody does.
fn follow(settings: &Settings, signals: &Signals, before: f64, pressed: bool) -> f64 {
    let present = load(signals);
    let smoothed = approach(before, present, signals.interval_ms, settings.smoothing_ms);
    if pressed { smoothed.max(present) } else { smoothed }
}

/// Whether the first in the queue has waited longer than a connection is held, or somebody gave up or was sent away.
fn is_pressed(signals: &Signals) -> bool {
    let waited_us = u64::from(signals.oldest_wait_ms) * 1000;
    let hold_us = if signals.samples == 0 { 0 } else { u64::from(signals.hold_mean_us) };
    let old = signals.waiters > 0 && (waited_us > hold_us || signals.trigger == 1);
    old || signals.timeouts > 0 || signals.refused > 0 || signals.trigger == 2
}

fn wanted(settings: &Settings, load: f64) -> u32 {
    round_up(load + settings.margin * load.sqrt())
}

impl Memory {
    fn new(load: f64) -> Self {
        Self { load, calm_ms: 0.0, most: 0.0 }
    }

    fn recall(carry: &[f64]) -> Option<Self> {
        let [load, calm_ms, most] = [0, 1, 2].map(|place| recall(carry, place, MOST));
        Some(Self { load: load?, calm_ms: calm_ms?, most: most? })
    }

    /// No more than there are is needed.
    fn calmer(self, load: f64, wanted: u32, signals: &Signals) -> Self {
        let calm_ms = (self.calm_ms + f64::from(signals.interval_ms)).min(MOST);
        Self { load, calm_ms, most: self.most.max(f64::from(wanted)).min(MOST) }
    }
}

#[cfg(test)]
mod tests {
    use policy_sizing::{Policy as _, Signals};

    use super::{Reason, load};
    use crate::{Little, Settings};

    /// 800 a second, 20 ms each.
    const POOL: Signals = Signals {
        interval_ms: 1000,
        min_size: 2,
        max_size: 100,
        target: 22,
        size: 22,
        in_use: 16,
        in_use_mean: 16.0,
        checkouts: 800,
        samples: 800,
        hold_mean_us: 20_000,
        ..Signals::EMPTY
    };

    fn decided(signals: &Signals, carry: &[f64]) -> (u32, Reason) {
        let decision = Little::decide(&Settings::DEFAULT, signals, carry);
        (decision.target, decision.reason)
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Little::self_check(), Ok(()));
    }

    #[test]
    fn the_load_is_arrivals_times_holding() {
        assert_eq!(load(&POOL), 16.0);
        assert_eq!(load(&Signals { interval_ms: 100, checkouts: 80, samples: 80, ..POOL }), 16.0);
        assert_eq!(load(&Signals { in_use_mean: 18.0, ..POOL }), 18.0, "what is in use is surely there");
    }

    #[test]
    fn a_full_pool_does_not_hide_the_load() {
        let full = Signals { target: 10, in_use_mean: 10.0, checkouts: 2000, waiters: 100, ..POOL };
        // 2,000 a second ask, though 500 are served; the hundred that wait are 2 more at a time.
        assert_eq!(load(&full), 42.0);
        assert_eq!(load(&Signals { hold_mean_us: 9_000_000, ..full }), 18_100.0, "a connection each, and no more");
    }

    #[test]
    fn without_returns_what_is_in_use_and_waits_is_the_load() {
        let long = Signals { samples: 0, hold_mean_us: 0, in_use_mean: 5.0, waiters: 3, ..POOL };
        assert_eq!(load(&long), 8.0);
        assert_eq!(load(&Signals { interval_ms: 0, ..POOL }), 16.0);
        let nothing = Signals { samples: 0, checkouts: 0, in_use_mean: 0.0, in_use: 0, ..POOL };
        assert_eq!(decided(&nothing, &[0.0, 29_000.0, 0.0]), (2, Reason::Calm), "down to the least");
    }

    #[test]
    fn the_margin_is_in_square_roots() {
        let unmargined = Settings { margin: 0.0, ..Settings::DEFAULT };
        assert_eq!(Little::decide(&unmargined, &Signals { target: 5, ..POOL }, &[]).target, 16);
        assert_eq!(decided(&Signals { target: 5, ..POOL }, &[]), (22, Reason::Load));
    }

    #[test]
    fn it_follows_at_once_when_callers_wait_long() {
        let risen = Signals { checkouts: 3200, samples: 1000, ..POOL };
        assert_eq!(decided(&risen, &[16.0, 0.0, 0.0]).0, 32, "a sixth of the way, as nobody waits");
        let waiting = Signals { waiters: 10, oldest_wait_ms: 21, ..risen };
        assert_eq!(decided(&waiting, &[16.0, 0.0, 0.0]), (77, Reason::Waiting));
        assert_eq!(decided(&Signals { oldest_wait_ms: 20, ..waiting }, &[16.0, 0.0, 0.0]).1, Reason::Load);
        assert_eq!(decided(&Signals { timeouts: 1, ..risen }, &[16.0, 0.0, 0.0]).1, Reason::Waiting);
    }

    #[test]
    fn it_shrinks_to_the_most_that_was_needed_for_long() {
        let large = Signals { target: 60, size: 60, ..POOL };
        let mut carry = vec![16.0, 0.0, 0.0];
        for tick in 1..30 {
            let signals = if tick == 9 { Signals { in_use_mean: 64.0, ..large } } else { large };
            let decision = Little::decide(&Settings::DEFAULT, &signals, &carry);
            assert_eq!(decision.target, 60, "tick {tick}");
            carry = decision.carry;
        }
        // 24 in the mean, after a second of 64.
        assert_eq!(decided(&large, &carry), (32, Reason::Calm));
        assert_eq!(decided(&Signals { waiters: 1, ..large }, &carry).0, 60, "not while anyone waits");
    }

    #[test]
    fn it_does_not_shrink_for_less_than_a_tenth() {
        assert_eq!(decided(&Signals { target: 24, ..POOL }, &[16.0, 30_000.0, 22.0]), (24, Reason::Steady));
        assert_eq!(decided(&Signals { target: 25, ..POOL }, &[16.0, 30_000.0, 22.0]), (22, Reason::Calm));
    }

    #[test]
    fn against_a_wall_nothing_moves() {
        let carry = [16.0, 12_000.0, 22.0];
        let wall = Signals { target: 10, waiters: 50, oldest_wait_ms: 900, create_failures: 1, ..POOL };
        let decision = Little::decide(&Settings::DEFAULT, &wall, &carry);
        assert_eq!((decision.target, decision.reason, decision.carry), (10, Reason::Failing, carry.to_vec()));
    }

    #[test]
    fn it_stops_at_its_bounds() {
        let waiting = Signals { checkouts: 9000, waiters: 100, oldest_wait_ms: 500, ..POOL };
        assert_eq!(decided(&waiting, &[]), (100, Reason::Waiting));
        assert_eq!(decided(&Signals { target: 100, ..waiting }, &[]), (100, Reason::Bound));
        assert_eq!(decided(&Signals { server_cap: 30, ..waiting }, &[]), (30, Reason::Waiting));
    }
}
