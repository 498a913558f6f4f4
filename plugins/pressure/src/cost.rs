//! What giving up a slot would hurt.
//!
//! The hurt is how likely the slot is missed, times how much it hurts then. It is likely to be missed where the pool is busy (by
//! mean and remembered peak), where callers have waited lately, and where little is left above the minimum that the operator
//! promised. It hurts more where the slowest callers keep their connection for long, as the next in line waits for them,
//! and where a connection takes long to make, as that is the way back.
//!
//! So an idle pool far above its minimum costs next to nothing, however slow its statements: what nobody uses, nobody misses.

use policy_eviction::Signals;

use crate::Memory;

/// The greatest cost: the slot is needed now.
pub const MOST: u32 = 1000;

/// A hold that is neither short nor long, in microseconds: a small transaction ends before, a report after.
const HOLD_US: f64 = 100_000.0;
/// A connect that is neither quick nor slow, in microseconds: a login with TLS within a region.
const CREATE_US: f64 = 50_000.0;

/// From 0, nothing, to [`MOST`]. `memory` has the last interval in it.
pub fn yield_cost(signals: &Signals, memory: &Memory) -> u32 {
    if is_needed(signals) || signals.size <= signals.min_size {
        return MOST;
    }
    let size = f64::from(signals.size);
    // A mean that is no number becomes 0.
    let busy = (f64::midpoint(signals.in_use_mean.max(0.0), memory.peak) / size).min(1.0);
    let floor = f64::from(signals.min_size) / size / 2.0;
    let missed = 1.0 - (1.0 - busy) * (1.0 - memory.waited) * (1.0 - floor);
    let hurt = 0.5 + 0.25 * against(memory.hold_us, HOLD_US) + 0.25 * against(memory.create_us, CREATE_US);
    (missed * hurt * f64::from(MOST)) as u32
}

/// Whether every slot is needed: callers wait or went without, or what is given up might not be had again.
const fn is_needed(signals: &Signals) -> bool {
    signals.waiters > 0
        || signals.timeouts > 0
        || signals.refused > 0
        || signals.create_failures > 0
        || signals.breaker != 0
}

/// From 0 to 1; half at `middling`.
fn against(value: f64, middling: f64) -> f64 {
    1.0 - middling / (value + middling)
}

#[cfg(test)]
mod tests {
    use policy_eviction::Signals;

    use super::{MOST, yield_cost};
    use crate::Memory;

    const POOL: Signals = Signals { size: 20, min_size: 2, in_use_mean: 4.0, ..Signals::EMPTY };
    const CALM: Memory = Memory { peak: 6.0, waited: 0.0, hold_us: 2000.0, create_us: 5000.0 };

    #[test]
    fn an_idle_pool_gives_before_a_busy_one() {
        let idle = yield_cost(&Signals { in_use_mean: 0.0, ..POOL }, &Memory { peak: 0.0, ..CALM });
        let calm = yield_cost(&POOL, &CALM);
        let busy = yield_cost(&Signals { in_use_mean: 15.0, ..POOL }, &Memory { peak: 20.0, ..CALM });
        assert!(idle < 40 && idle < calm && calm < busy && busy < MOST, "{idle} {calm} {busy}");
    }

    #[test]
    fn each_thing_that_hurts_counts() {
        let calm = yield_cost(&POOL, &CALM);
        assert!(yield_cost(&POOL, &Memory { waited: 0.2, ..CALM }) > calm + 50, "callers waited");
        assert!(yield_cost(&POOL, &Memory { hold_us: 1e6, ..CALM }) > calm + 50, "statements are long");
        assert!(yield_cost(&POOL, &Memory { create_us: 4e5, ..CALM }) > calm + 50, "connects are slow");
        assert!(yield_cost(&Signals { min_size: 18, ..POOL }, &CALM) > calm + 50, "little is left to give");
    }

    #[test]
    fn what_nobody_uses_is_not_dear_for_being_slow() {
        let idle = Signals { min_size: 0, in_use_mean: 0.0, ..POOL };
        assert_eq!(yield_cost(&idle, &Memory { peak: 0.0, waited: 0.0, hold_us: 1e9, create_us: 1e9 }), 0);
    }

    #[test]
    fn what_is_needed_now_costs_the_most() {
        for needed in [
            Signals { waiters: 1, ..POOL },
            Signals { timeouts: 1, ..POOL },
            Signals { refused: 1, ..POOL },
            Signals { breaker: 1, ..POOL },
            Signals { create_failures: 1, ..POOL },
            Signals { size: 2, ..POOL },
            Signals { size: 0, min_size: 0, ..POOL },
        ] {
            assert_eq!(yield_cost(&needed, &CALM), MOST, "{needed:?}");
        }
    }

    #[test]
    fn a_mean_that_is_no_number_is_none() {
        let odd = Signals { in_use_mean: f64::NAN, min_size: 0, ..POOL };
        assert_eq!(yield_cost(&odd, &Memory::default()), 0);
        assert!(yield_cost(&Signals { in_use_mean: f64::INFINITY, ..odd }, &CALM) <= MOST);
    }
}
