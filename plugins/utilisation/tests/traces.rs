//! Recorded days, decided as they were.

use policy_rig::sizing::replay;
use utilisation::Utilisation;

#[test]
fn recorded_days_are_decided_as_they_were() {
    let traces = replay::all::<Utilisation>(env!("CARGO_MANIFEST_DIR"));
    assert!(traces >= 3, "{traces} traces");
}
