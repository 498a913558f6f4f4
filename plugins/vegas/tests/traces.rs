//! Recorded days, decided as they were.

use policy_rig::sizing::replay;
use vegas::Vegas;

#[test]
fn recorded_days_are_decided_as_they_were() {
    let traces = replay::all::<Vegas>(env!("CARGO_MANIFEST_DIR"));
    assert!(traces >= 2, "{traces} traces");
}
