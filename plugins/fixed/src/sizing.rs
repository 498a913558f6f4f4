//! The decision.

use policy_sizing::{Decision, Policy, Signals};

use crate::{Fixed, Settings};

/// Why the target is what it is; shown beside the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// As configured.
    Fixed = 0,
    /// Callers have waited long: with the reserve.
    Reserve = 1,
    /// As configured, or as the bounds allow.
    Bound = 2,
    /// Creates fail, the server is full, or the breaker is not closed: no growth, no reserve.
    Failing = 4,
}

policy_sizing::numbered!(Reason);

impl Policy for Fixed {
    type Settings = Settings;
    type Reason = Reason;

    const CARRY_VERSION: u32 = 1;

    fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision<Reason> {
        let wanted = if settings.target == 0 { signals.max_size } else { settings.target };
        let bounded = signals.within_bounds(wanted);
        if signals.failing() {
            return Decision::new(bounded.min(signals.current()), settings.min_idle, Reason::Failing, vec![0.0]);
        }
        let reserve =
            if is_open(settings, signals, carry) { settings.reserve.min(signals.max_size - bounded) } else { 0 };
        let reason = match (reserve > 0, bounded == wanted) {
            (true, _) => Reason::Reserve,
            (false, true) => Reason::Fixed,
            (false, false) => Reason::Bound,
        };
        let open = f64::from(u32::from(reserve > 0));
        Decision { reserve, ..Decision::new(bounded, settings.min_idle, reason, vec![open]) }
    }

    fn self_check() -> Result<(), String> {
        let settings = Settings { target: 10, reserve: 5, ..Settings::DEFAULT };
        let calm = Signals { interval_ms: 1000, max_size: 50, target: 50, ..Signals::EMPTY };
        let waited = Signals { waiters: 3, oldest_wait_ms: 5000, ..calm };
        let cases = [("calm", calm, 0), ("waiting", waited, 5)];
        for (name, signals, reserve) in cases {
            let decision = Self::decide(&settings, &signals, &[]);
            if decision.target != 10 || decision.reserve != reserve {
                return Err(String::from(name));
            }
        }
        Ok(())
    }
}

/// Opened when the first in the queue has waited long, and open until nobody waits.
fn is_open(settings: &Settings, signals: &Signals, carry: &[f64]) -> bool {
    let was_open = carry.first().is_some_and(|open| *open == 1.0);
    signals.waiters > 0 && (was_open || signals.oldest_wait_ms >= settings.reserve_after_ms)
}

#[cfg(test)]
mod tests {
    use policy_sizing::{Policy as _, Signals};

    use super::Reason;
    use crate::{Fixed, Settings};

    const POOL: Signals =
        Signals { interval_ms: 1000, min_size: 2, max_size: 50, target: 20, size: 20, ..Signals::EMPTY };
    /// `default_pool_size = 20`, `reserve_pool_size = 5`, `reserve_pool_timeout = 3`.
    const PGBOUNCER: Settings = Settings { target: 20, reserve: 5, reserve_after_ms: 3000, ..Settings::DEFAULT };

    fn with_reserve(signals: &Signals, carry: &[f64]) -> (u32, u32, Reason) {
        let decision = Fixed::decide(&PGBOUNCER, signals, carry);
        (decision.target, decision.reserve, decision.reason)
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Fixed::self_check(), Ok(()));
    }

    #[test]
    fn nothing_moves_it() {
        for signals in
            [POOL, Signals { in_use: 20, in_use_mean: 20.0, timeouts: 9, ..POOL }, Signals { target: 3, ..POOL }]
        {
            assert_eq!(with_reserve(&signals, &[]), (20, 0, Reason::Fixed));
        }
    }

    #[test]
    fn by_default_it_is_the_pools_maximum() {
        let decision = Fixed::decide(&Settings::DEFAULT, &Signals { target: 5, ..POOL }, &[]);
        assert_eq!((decision.target, decision.min_idle, decision.reason), (50, 0, Reason::Fixed));
    }

    #[test]
    fn as_hikaricp_has_it() {
        // `maximumPoolSize = 10`, `minimumIdle` left at its default: the same.
        let hikari = Settings { target: 10, min_idle: 10, ..Settings::DEFAULT };
        let decision = Fixed::decide(&hikari, &POOL, &[]);
        assert_eq!((decision.target, decision.min_idle), (10, 10));
        let elastic = Settings { min_idle: 2, ..hikari };
        assert_eq!(Fixed::decide(&elastic, &POOL, &[]).min_idle, 2);
    }

    #[test]
    fn the_reserve_is_opened_after_the_wait_and_closed_when_nobody_waits() {
        let waiting = Signals { waiters: 4, oldest_wait_ms: 2999, ..POOL };
        assert_eq!(with_reserve(&waiting, &[]), (20, 0, Reason::Fixed));
        assert_eq!(with_reserve(&Signals { oldest_wait_ms: 3000, ..waiting }, &[]), (20, 5, Reason::Reserve));
        assert_eq!(with_reserve(&waiting, &[1.0]), (20, 5, Reason::Reserve), "the next has not waited so long yet");
        assert_eq!(with_reserve(&POOL, &[1.0]), (20, 0, Reason::Fixed));
        assert_eq!(with_reserve(&waiting, &[f64::NAN]), (20, 0, Reason::Fixed));
    }

    #[test]
    fn the_reserve_stays_within_the_maximum() {
        let waiting = Signals { waiters: 4, oldest_wait_ms: 9000, ..POOL };
        assert_eq!(with_reserve(&Signals { max_size: 22, ..waiting }, &[]), (20, 2, Reason::Reserve));
        assert_eq!(with_reserve(&Signals { max_size: 15, ..waiting }, &[]), (15, 0, Reason::Bound));
        assert_eq!(with_reserve(&Signals { server_cap: 12, ..POOL }, &[]), (12, 0, Reason::Bound));
    }

    #[test]
    fn against_a_wall_there_is_neither_growth_nor_reserve() {
        let waiting = Signals { target: 7, waiters: 4, oldest_wait_ms: 9000, ..POOL };
        for wall in [Signals { server_full: 1, ..waiting }, Signals { breaker: 2, ..waiting }] {
            assert_eq!(with_reserve(&wall, &[1.0]), (7, 0, Reason::Failing));
        }
    }
}
