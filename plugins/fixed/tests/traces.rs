//! Recorded days, decided as they were.

use fixed::Fixed;
use policy_rig::sizing::replay;

#[test]
fn recorded_days_are_decided_as_they_were() {
    let traces = replay::all::<Fixed>(env!("CARGO_MANIFEST_DIR"));
    assert!(traces >= 2, "{traces} traces");
}
