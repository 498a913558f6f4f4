use crate::{SCHEMA, Settings, Signals, decide, self_check};

use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::exports::sluicegate::policy::sizing::{Guest as Sizing, SizingInput, SizingOutput};

impl Sizing for Component {
    fn decide(input: SizingInput) -> SizingOutput {
        let pool = &input.pool;
        let signals = Signals {
            in_use_peak: pool.gauges.in_use_peak,
            waiters: pool.gauges.waiters,
            min_size: pool.bounds.min_size,
            max_size: pool.bounds.max_size,
        };
        let decision = decide(&settings(), &signals, &input.carry);
        SizingOutput {
            target: decision.target,
            min_idle: 0,
            reserve: 0,
            parallel_creates: 0,
            next_tick_ms: 0,
            reason: 0,
            carry: decision.carry,
        }
    }
}
