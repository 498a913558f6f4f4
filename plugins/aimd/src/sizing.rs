//! The decision.

use policy_sizing::{Decision, Limit, Policy, Reading, Signals, Window, prove, recall};

use crate::{Aimd, Settings};

/// Milliseconds that one decision grows for at most, however long ago the last one was.
const MOST_GROWTH_MS: u32 = 1000;
/// No limit and no time is greater.
const MOST: f64 = 1e12;

/// Why the target is what it is; shown beside the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Not much in use.
    Steady = 0,
    /// Much in use: it grows.
    Used = 1,
    /// Round trips take too long: a step back.
    Slow = 2,
    /// The server refuses connections: a step back.
    Refused = 3,
    /// Creates fail, the server is full, or the breaker is not closed: no growth, and no step back so soon after the last.
    Failing = 4,
    /// Much in use, but that was too much not long ago.
    Wary = 5,
    /// Much in use, but it is at its bound.
    Bound = 6,
}

policy_sizing::numbered!(Reason);

/// The last step back.
#[derive(Clone, Copy, Debug)]
struct Retreat {
    /// What was too much; 0 when it never stepped back.
    from: f64,
    /// How long ago that was.
    ms: f64,
}

impl Policy for Aimd {
    type Settings = Settings;
    type Reason = Reason;

    const CARRY_VERSION: u32 = 1;

    fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision<Reason> {
        let mut limit = Limit::recall(carry, 0, settings.start, 0.0, signals);
        let mut retreat = Retreat::recall(carry, signals);
        let mut window = Window::recall(carry, 3);
        window.add(signals);
        let reading = window.read(settings.min_samples);
        let reason = match enough(settings, signals, reading) {
            Some(reason) if retreat.is_over(settings.cooldown_ms) => {
                step_back(settings, signals, &mut limit, &mut retreat, reason);
                reason
            }
            // Round trips that began before the step back come in after it: nothing is learnt from them but to wait.
            Some(Reason::Slow) => Reason::Wary,
            Some(_) => Reason::Failing,
            None if signals.failing() => Reason::Failing,
            None => grow(settings, signals, &mut limit, &retreat),
        };
        let mut carry = vec![limit.keep(), retreat.from, retreat.ms];
        carry.extend_from_slice(&window.keep());
        Decision::new(limit.target(signals), settings.min_idle, reason, carry)
    }

    fn self_check() -> Result<(), String> {
        let settings = Settings { rtt_above_ms: 50, ..Settings::DEFAULT };
        let used = Signals { in_use: 18, in_use_peak: 18, ..Signals::BUSY };
        let full = Signals { size: 12, create_failures: 1, server_full: 1, ..used };
        let carry = &[20.0, 0.0, 0.0][..];
        prove::<Self>(
            &settings,
            &[
                ("used", used, carry, 21, Reason::Used),
                ("slow", Signals { rtt_mean_us: 60_000, ..used }, carry, 15, Reason::Slow),
                ("full", full, carry, 9, Reason::Refused),
                ("open", Signals { breaker: 2, ..used }, carry, 20, Reason::Failing),
            ],
        )
    }
}

/// The sign that the database has had enough, if there is one.
fn enough(settings: &Settings, signals: &Signals, reading: Option<Reading>) -> Option<Reason> {
    let bound_us = f64::from(settings.rtt_above_ms) * 1000.0;
    let slow = reading.is_some_and(|reading| bound_us > 0.0 && reading.rtt_us > bound_us);
    if signals.server_full > 0 || signals.create_failures > 0 || signals.trigger == 3 {
        Some(Reason::Refused)
    } else if slow {
        Some(Reason::Slow)
    } else {
        None
    }
}

/// A full server bears what there is; otherwise what was aimed at was too much.
fn step_back(settings: &Settings, signals: &Signals, limit: &mut Limit, retreat: &mut Retreat, reason: Reason) {
    let made = f64::from(signals.size.saturating_sub(signals.creating));
    let full = reason == Reason::Refused && signals.server_full > 0;
    let from = if full { limit.value.min(made.max(1.0)) } else { limit.value };
    *retreat = Retreat { from, ms: 0.0 };
    limit.set((from * settings.backoff).min(from - 1.0));
}

fn grow(settings: &Settings, signals: &Signals, limit: &mut Limit, retreat: &Retreat) -> Reason {
    let current = signals.current();
    let used = f64::from(signals.in_use_peak.max(signals.in_use)) + f64::from(signals.waiters);
    if used <= settings.used_above * f64::from(current) {
        return Reason::Steady;
    }
    if !retreat.is_over(settings.cooldown_ms) {
        return Reason::Wary;
    }
    let step = settings.increase * f64::from(signals.interval_ms.min(MOST_GROWTH_MS)) / 1000.0;
    let grown = limit.value + step;
    if let Some(most) = retreat.holds_below(settings)
        && grown > most
    {
        limit.set(limit.value.max(most));
        return Reason::Wary;
    }
    limit.set(grown);
    if current == signals.within_bounds(u32::MAX) { Reason::Bound } else { Reason::Used }
}

impl Retreat {
    fn recall(carry: &[f64], signals: &Signals) -> Self {
        let from = recall(carry, 1, MOST).unwrap_or(0.0);
        let ms = recall(carry, 2, MOST).unwrap_or(0.0) + f64::from(signals.interval_ms);
        Self { from, ms: ms.min(MOST) }
    }

    /// Whether the last step back has had its time.
    fn is_over(&self, cooldown_ms: u32) -> bool {
        self.from == 0.0 || self.ms >= f64::from(cooldown_ms)
    }

    /// For some time, half of the way back and no further.
    fn holds_below(&self, settings: &Settings) -> Option<f64> {
        let holds = self.from > 0.0 && self.ms < f64::from(settings.retry_ms);
        holds.then(|| self.from * f64::midpoint(1.0, settings.backoff))
    }
}

#[cfg(test)]
mod tests {
    use policy_sizing::{Policy as _, Signals};

    use super::Reason;
    use crate::{Aimd, Settings};

    const SETTINGS: Settings = Settings { rtt_above_ms: 50, ..Settings::DEFAULT };
    const POOL: Signals = Signals { min_size: 2, in_use: 18, in_use_peak: 18, ..Signals::BUSY };

    fn decided(signals: &Signals, carry: &[f64]) -> (u32, Reason) {
        let decision = Aimd::decide(&SETTINGS, signals, carry);
        (decision.target, decision.reason)
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Aimd::self_check(), Ok(()));
    }

    #[test]
    fn it_grows_while_much_is_in_use() {
        assert_eq!(decided(&POOL, &[20.0]), (21, Reason::Used));
        assert_eq!(decided(&Signals { in_use: 16, in_use_peak: 16, ..POOL }, &[20.0]), (20, Reason::Steady));
        assert_eq!(decided(&Signals { in_use: 16, in_use_peak: 16, waiters: 1, ..POOL }, &[20.0]), (21, Reason::Used));
    }

    #[test]
    fn it_grows_by_time_however_often_it_is_asked() {
        let early = Signals { interval_ms: 100, trigger: 1, ..POOL };
        let decision = Aimd::decide(&SETTINGS, &early, &[20.0]);
        assert_eq!((decision.target, decision.carry[0]), (20, 20.1));
        assert_eq!(decided(&Signals { interval_ms: 3_600_000, ..POOL }, &[20.0]).0, 21, "nor how seldom");
    }

    #[test]
    fn it_steps_back_when_round_trips_are_slow() {
        let slow = Signals { rtt_mean_us: 50_001, ..POOL };
        assert_eq!(decided(&slow, &[20.0]), (15, Reason::Slow));
        assert_eq!(decided(&Signals { rtt_mean_us: 50_000, ..POOL }, &[20.0]).1, Reason::Used);
        assert_eq!(Aimd::decide(&Settings::DEFAULT, &slow, &[20.0]).reason, Reason::Used, "no bound, no sign");
        assert_eq!(decided(&Signals { rtt_samples: 0, ..slow }, &[20.0]).1, Reason::Used, "no round trip");
        assert_eq!(decided(&Signals { rtt_samples: 9, ..slow }, &[20.0]).1, Reason::Used, "too few yet");
    }

    #[test]
    fn few_round_trips_are_gathered() {
        let few = Signals { rtt_samples: 5, rtt_mean_us: 60_000, in_use: 3, in_use_peak: 3, ..POOL };
        let first = Aimd::decide(&SETTINGS, &few, &[20.0]);
        assert_eq!(first.reason, Reason::Steady);
        assert_eq!(decided(&few, &first.carry), (15, Reason::Slow));
    }

    #[test]
    fn a_full_server_bears_what_there_is() {
        let full = Signals { size: 14, creating: 2, create_failures: 1, server_full: 1, ..POOL };
        assert_eq!(decided(&full, &[20.0]), (9, Reason::Refused));
        assert_eq!(decided(&Signals { server_full: 0, ..full }, &[20.0]), (15, Reason::Refused), "for another reason");
    }

    #[test]
    fn one_step_back_at_a_time() {
        let slow = Signals { target: 15, size: 15, rtt_mean_us: 90_000, ..POOL };
        assert_eq!(decided(&slow, &[15.0, 20.0, 8_999.0]), (15, Reason::Wary));
        assert_eq!(decided(&slow, &[15.0, 20.0, 9_000.0]), (11, Reason::Slow));
        let refused = Signals { create_failures: 1, rtt_mean_us: 10_000, ..slow };
        assert_eq!(decided(&refused, &[15.0, 20.0, 5_000.0]), (15, Reason::Failing));
    }

    #[test]
    fn half_of_the_way_back_is_free_and_the_rest_takes_its_time() {
        let back = Signals { target: 15, size: 15, ..POOL };
        assert_eq!(decided(&back, &[15.0, 20.0, 8_999.0]), (15, Reason::Wary), "still in its effect");
        assert_eq!(decided(&back, &[15.0, 20.0, 9_000.0]), (16, Reason::Used));
        let half = Signals { target: 17, size: 17, ..POOL };
        assert_eq!(decided(&half, &[17.5, 20.0, 30_000.0]), (17, Reason::Wary));
        assert_eq!(decided(&half, &[17.5, 20.0, 60_000.0]), (18, Reason::Used));
    }

    #[test]
    fn a_breaker_alone_does_not_shrink_it() {
        assert_eq!(decided(&Signals { breaker: 2, ..POOL }, &[20.0]), (20, Reason::Failing));
        assert_eq!(decided(&Signals { breaker: 1, ..POOL }, &[20.0]), (20, Reason::Failing));
    }

    #[test]
    fn it_stops_at_its_bounds() {
        assert_eq!(decided(&Signals { max_size: 20, ..POOL }, &[20.0]), (20, Reason::Bound));
        let least = Signals { target: 2, size: 2, rtt_mean_us: 90_000, ..POOL };
        assert_eq!(decided(&least, &[2.0]), (2, Reason::Slow));
    }
}
