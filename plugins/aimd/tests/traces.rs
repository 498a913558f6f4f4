//! Recorded days, decided as they were.

use aimd::Aimd;
use policy_rig::sizing::replay;

#[test]
fn recorded_days_are_decided_as_they_were() {
    let traces = replay::all::<Aimd>(env!("CARGO_MANIFEST_DIR"));
    assert!(traces >= 2, "{traces} traces");
}
