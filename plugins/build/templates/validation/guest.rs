use crate::{SCHEMA, Settings, Signals, check, self_check};

use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::exports::sluicegate::policy::validation::Guest as Validation;

impl Validation for Component {
    fn check(
        trigger: u32,
        _age_ms: u32,
        idle_ms: u32,
        _uses: u32,
        _errors: u32,
        _since_validated_ms: u32,
        _last_valid_for_ms: u32,
        _recent_bad: u32,
        _recent_good: u32,
        _transaction: u32,
        _dirty: u32,
        peek: u32,
        last_error: u32,
        _deadline_left_ms: u32,
        _failed_probes: u32,
        _epochs_behind: u32,
    ) -> f64 {
        check(&settings(), &Signals { trigger, idle_ms, peek, last_error }).pack()
    }
}
