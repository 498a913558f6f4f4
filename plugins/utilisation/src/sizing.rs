//! The decision.

use policy_sizing::{Decision, Policy, Signals, approach, prove, round_up};

use crate::{Settings, Utilisation};

/// Why the target is what it is; shown beside the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Within the band, or not calm for long enough.
    Steady = 0,
    /// More than `grow_above` in use.
    Busy = 1,
    /// Callers waited too long, or gave up.
    Waiting = 2,
    /// Less than `shrink_below` in use for long enough.
    Calm = 3,
    /// Creates fail, the server is full, or the breaker is not closed: no growth.
    Failing = 4,
    /// Callers wait, but connections asked for before are still being made.
    Making = 5,
    /// It would grow, but is at its bound.
    Bound = 6,
}

policy_sizing::numbered!(Reason);

/// What was remembered, brought up to now.
struct Demand {
    /// Connections in use, smoothed.
    smoothed: f64,
    /// Connections in use, in the mean since the last decision.
    present: f64,
    /// Quiet ticks in a row before this one.
    calm: u32,
}

impl Policy for Utilisation {
    type Settings = Settings;
    type Reason = Reason;

    const CARRY_VERSION: u32 = 1;

    fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision<Reason> {
        let current = signals.current();
        let demand = Demand::recall(settings, signals, carry);
        let (target, calm, reason) = if signals.failing() {
            (current, 0, Reason::Failing)
        } else if waiting(settings, signals) {
            if signals.size.saturating_sub(signals.creating) < current {
                (current, 0, Reason::Making)
            } else {
                grow(settings, signals, current, Reason::Waiting)
            }
        } else if demand.least() > settings.grow_above * f64::from(current) {
            grow(settings, signals, current, Reason::Busy)
        } else if demand.most() < settings.shrink_below * f64::from(current) && signals.waiters == 0 {
            shrink(settings, signals, current, &demand)
        } else {
            (current, 0, Reason::Steady)
        };
        Decision::new(target, settings.min_idle, reason, vec![demand.smoothed, f64::from(calm)])
    }

    fn self_check() -> Result<(), String> {
        let base = Signals { interval_ms: 1000, max_size: 50, target: 10, size: 10, ..Signals::default() };
        let busy = Signals { in_use: 9, in_use_mean: 9.0, ..base };
        let calm = Signals { in_use: 1, in_use_mean: 1.0, ..base };
        let waited = Signals { waiters: 1, oldest_wait_ms: 60, ..calm };
        // In use, and as many quiet ticks as a step down needs.
        prove::<Self>(
            &Settings::DEFAULT,
            &[
                ("busy", busy, &[9.0, 10.0], 15, Reason::Busy),
                ("waiting", waited, &[1.0, 10.0], 15, Reason::Waiting),
                ("calm", calm, &[1.0, 10.0], 5, Reason::Calm),
            ],
        )
    }
}

fn grow(settings: &Settings, signals: &Signals, current: u32, reason: Reason) -> (u32, u32, Reason) {
    let target = signals.within_bounds(current.saturating_add(settings.step));
    (target, 0, if target > current { reason } else { Reason::Bound })
}

/// Counts quiet ticks, and steps down when there were enough. Early calls do not count: they come when something happens.
fn shrink(settings: &Settings, signals: &Signals, current: u32, demand: &Demand) -> (u32, u32, Reason) {
    let calm = demand.calm.saturating_add(u32::from(signals.trigger == 0)).min(settings.calm_ticks);
    if calm < settings.calm_ticks {
        return (current, calm, Reason::Steady);
    }
    let middle = f64::midpoint(settings.grow_above, settings.shrink_below);
    let floor =
        round_up(demand.most() / middle).max(signals.in_use.saturating_add(signals.waiters)).max(signals.in_use_peak);
    let target = signals.within_bounds(current.saturating_sub(settings.step).max(floor)).min(current);
    if target < current { (target, 0, Reason::Calm) } else { (current, calm, Reason::Steady) }
}

fn waiting(settings: &Settings, signals: &Signals) -> bool {
    let old = signals.waiters > 0 && (signals.oldest_wait_ms >= settings.wait_ms || signals.trigger == 1);
    old || signals.timeouts > 0 || signals.refused > 0 || signals.trigger == 2
}

impl Demand {
    fn recall(settings: &Settings, signals: &Signals, carry: &[f64]) -> Self {
        let present = signals.in_use_on_average();
        match carry {
            [before, calm, ..] if before.is_finite() && *before >= 0.0 => {
                let smoothed = approach(*before, present, signals.interval_ms, settings.smoothing_ms);
                Self { smoothed, present, calm: *calm as u32 }
            }
            _ => Self { smoothed: present, present, calm: 0 },
        }
    }

    /// Demand that is surely there: a peak alone does not count, nor what is already gone.
    fn least(&self) -> f64 {
        self.smoothed.min(self.present)
    }

    /// Demand that may be there.
    fn most(&self) -> f64 {
        self.smoothed.max(self.present)
    }
}

#[cfg(test)]
mod tests {
    use policy_sizing::{Decision, Policy as _, Signals};

    use super::Reason;
    use crate::{Settings, Utilisation};

    const POOL: Signals = Signals {
        interval_ms: 1000,
        min_size: 2,
        max_size: 50,
        target: 10,
        size: 10,
        in_use: 5,
        in_use_mean: 5.0,
        in_use_peak: 5,
        ..Signals::EMPTY
    };

    fn first(signals: &Signals) -> (u32, Reason) {
        let Decision { target, reason, .. } = Utilisation::decide(&Settings::DEFAULT, signals, &[]);
        (target, reason)
    }

    /// As if all ticks before had been calm at this demand.
    fn calm(signals: &Signals) -> (u32, Reason) {
        let Decision { target, reason, .. } =
            Utilisation::decide(&Settings::DEFAULT, signals, &[signals.in_use_mean, 10.0]);
        (target, reason)
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Utilisation::self_check(), Ok(()));
    }

    #[test]
    fn inside_the_band_nothing_moves() {
        assert_eq!(first(&POOL), (10, Reason::Steady));
        assert_eq!(first(&Signals { in_use_mean: 7.0, ..POOL }), (10, Reason::Steady));
        assert_eq!(first(&Signals { in_use_mean: 3.0, ..POOL }), (10, Reason::Steady));
    }

    #[test]
    fn a_busy_pool_grows_by_a_step() {
        assert_eq!(first(&Signals { in_use_mean: 7.1, ..POOL }), (15, Reason::Busy));
    }

    #[test]
    fn one_busy_tick_after_quiet_ones_is_not_enough() {
        let busy = Signals { in_use_mean: 9.0, ..POOL };
        assert_eq!(Utilisation::decide(&Settings::DEFAULT, &busy, &[2.0, 4.0]).reason, Reason::Steady);
    }

    #[test]
    fn a_load_that_is_already_gone_does_not_grow_the_pool() {
        let gone = Signals { in_use_mean: 1.0, ..POOL };
        assert_eq!(Utilisation::decide(&Settings::DEFAULT, &gone, &[30.0, 0.0]).reason, Reason::Steady);
    }

    #[test]
    fn waiters_grow_it_at_once() {
        let old = Signals { waiters: 1, oldest_wait_ms: 50, ..POOL };
        assert_eq!(first(&old), (15, Reason::Waiting));
        assert_eq!(first(&Signals { oldest_wait_ms: 49, ..old }), (10, Reason::Steady));
        assert_eq!(first(&Signals { oldest_wait_ms: 0, trigger: 1, ..old }), (15, Reason::Waiting));
        assert_eq!(first(&Signals { timeouts: 1, ..POOL }), (15, Reason::Waiting));
        assert_eq!(first(&Signals { refused: 1, ..POOL }), (15, Reason::Waiting));
    }

    #[test]
    fn waiters_do_not_ask_twice_for_what_is_being_made() {
        let waiting = Signals { waiters: 9, oldest_wait_ms: 500, timeouts: 3, ..POOL };
        assert_eq!(first(&Signals { creating: 1, ..waiting }), (10, Reason::Making));
        assert_eq!(first(&Signals { size: 9, ..waiting }), (10, Reason::Making));
    }

    #[test]
    fn it_does_not_grow_against_a_wall() {
        let waiting = Signals { waiters: 9, oldest_wait_ms: 500, timeouts: 3, in_use_mean: 10.0, ..POOL };
        for failing in [
            Signals { create_failures: 1, ..waiting },
            Signals { server_full: 1, ..waiting },
            Signals { breaker: 1, ..waiting },
            Signals { breaker: 7, ..waiting },
            Signals { trigger: 3, ..waiting },
        ] {
            assert_eq!(first(&failing), (10, Reason::Failing));
        }
    }

    #[test]
    fn it_stops_at_its_bounds() {
        assert_eq!(first(&Signals { max_size: 12, timeouts: 1, ..POOL }), (12, Reason::Waiting));
        assert_eq!(first(&Signals { max_size: 10, timeouts: 1, ..POOL }), (10, Reason::Bound));
        assert_eq!(first(&Signals { server_cap: 11, timeouts: 1, ..POOL }), (11, Reason::Waiting));
        let unused = Signals { in_use: 0, in_use_mean: 0.0, in_use_peak: 0, ..POOL };
        assert_eq!(calm(&Signals { min_size: 8, ..unused }), (8, Reason::Calm));
        assert_eq!(calm(&Signals { min_size: 0, target: 1, ..unused }), (1, Reason::Steady));
    }

    #[test]
    fn it_shrinks_after_enough_calm_ticks_in_a_row() {
        let settings = Settings { calm_ticks: 3, ..Settings::DEFAULT };
        let unused = Signals { in_use: 0, in_use_mean: 0.0, in_use_peak: 0, ..POOL };
        let mut carry = vec![];
        for expected in [10, 10, 5] {
            let decision = Utilisation::decide(&settings, &unused, &carry);
            assert_eq!(decision.target, expected);
            carry = decision.carry;
        }
        assert_eq!(carry[1], 0.0, "the count begins anew");
        assert_eq!(
            Utilisation::decide(&settings, &POOL, &[5.0, 2.0]).carry[1],
            0.0,
            "a tick that is not calm resets it"
        );
        assert_eq!(
            Utilisation::decide(&settings, &Signals { trigger: 5, ..unused }, &[0.0, 1.0]).carry[1],
            1.0,
            "early calls do not count"
        );
    }

    #[test]
    fn it_shrinks_no_further_than_what_is_needed() {
        let quiet = Signals { target: 40, size: 40, in_use: 2, in_use_mean: 2.0, in_use_peak: 2, ..POOL };
        let wide = Settings { step: 100, ..Settings::DEFAULT };
        let target = |signals: &Signals| Utilisation::decide(&wide, signals, &[signals.in_use_mean, 10.0]).target;
        assert_eq!(target(&quiet), 4, "half in use is the middle of the band");
        assert_eq!(target(&Signals { in_use_peak: 9, ..quiet }), 9, "the last peak");
        assert_eq!(target(&Signals { in_use: 11, ..quiet }), 11, "what is in use now");
        assert_eq!(target(&Signals { waiters: 1, ..quiet }), 40, "never while anyone waits");
    }
}
