use crate::{Candidate, SCHEMA, Settings, Signals, self_check, verdicts};

use bindings::exports::sluicegate::policy::eviction::{EvictionInput, EvictionOutput, Guest as Eviction};
use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};

impl Eviction for Component {
    fn review(input: EvictionInput) -> EvictionOutput {
        let pool = &input.pool;
        let signals = Signals { size: pool.gauges.size, min_size: pool.bounds.min_size, waiters: pool.gauges.waiters };
        let idle: Vec<_> =
            input.idle.iter().map(|one| Candidate { idle_ms: one.idle_ms, epochs_behind: one.epochs_behind }).collect();
        EvictionOutput {
            verdicts: verdicts(&settings(), &signals, &idle).into_iter().map(|verdict| verdict as u32).collect(),
            yield_cost: 500,
            carry: Vec::new(),
        }
    }
}
