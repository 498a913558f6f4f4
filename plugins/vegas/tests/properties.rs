//! What holds for every input, and how a whole pool fares.

use policy_rig::sizing::any::{carry, day};
use policy_rig::sizing::laws;
use policy_rig::sizing::scenarios::{self, ALL, DATABASE, pool, settled};
use policy_rig::sizing::simulation::{Database, Load};
use proptest::prelude::{Strategy, any, proptest};
use vegas::{Settings, Vegas};

fn settings() -> impl Strategy<Value = Settings> {
    let rest = (0..600_u32, 1..200_u32, 1..100_u32, 0..50_u32);
    (1..20_u32, 1..20_u32, rest).prop_map(|(alpha, width, (probe_s, min_samples, start, min_idle))| Settings {
        alpha,
        beta: alpha + width,
        probe_s,
        min_samples,
        start,
        min_idle,
    })
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), day in day(), carry in carry(), follows in any::<bool>()) {
        laws::hold::<Vegas>(&settings, &day, carry, follows)?;
    }
}

#[test]
fn under_load_without_end_it_finds_the_knee_and_rests_there() {
    let stretch = settled(&mut pool::<Vegas>(Settings::DEFAULT), 60, ALL);
    assert!((19.0..=27.0).contains(&stretch.mean()), "{}", stretch.mean());
    assert!(stretch.most() <= 28, "{}", stretch.most());
    // Two for each probe, three or four of them.
    assert!(stretch.turns <= 12, "{} turns", stretch.turns);
}

#[test]
fn coming_from_above_it_finds_the_knee_by_its_probes() {
    let mut pool = pool::<Vegas>(Settings { start: 80, ..Settings::DEFAULT });
    let stretch = pool.run(900, ALL);
    println!("{:?}", stretch.targets.iter().step_by(30).collect::<Vec<_>>());
    assert!(stretch.targets[890] <= 30, "{:?}", &stretch.targets[880..]);
}

#[test]
fn a_slower_database_makes_it_shrink_not_grow() {
    let mut pool = pool::<Vegas>(Settings::DEFAULT);
    let before = pool.run(120, ALL).targets[119];
    pool.database = Database { knee: 8.0, ..DATABASE };
    let slow = pool.run(900, ALL);
    println!("{before}, then {:?}", slow.targets.iter().step_by(30).collect::<Vec<_>>());
    assert!(slow.most() <= before + 1, "{} after {before}", slow.most());
    assert!(slow.targets[60] <= 16, "{}", slow.targets[60]);
    assert!(slow.targets[899] <= 16, "{}", slow.targets[899]);
}

#[test]
fn a_database_slower_for_good_is_believed_after_a_probe() {
    let mut pool = pool::<Vegas>(Settings::DEFAULT);
    pool.run(60, ALL);
    pool.database.service_ms = 60.0;
    let slow = pool.run(900, ALL);
    println!("{:?}", slow.targets.iter().step_by(30).collect::<Vec<_>>());
    assert!((18..=28).contains(&slow.targets[890]), "{:?}", &slow.targets[880..]);
}

#[test]
fn under_the_hosts_guards_it_stops_at_the_knee_and_comes_down_with_it() {
    let full = scenarios::down_with_the_knee::<Vegas>(Settings::DEFAULT);
    assert!((20..=30).contains(&full.most()), "{}", full.most());
}

#[test]
fn a_burst_is_followed_within_seconds() {
    let burst = scenarios::burst::<Vegas>(Settings::DEFAULT);
    assert!(burst.seconds_to(24).is_some_and(|seconds| seconds <= 20), "{:?}", burst.targets);
}

#[test]
fn at_constant_load_it_rests() {
    let stretch = settled(&mut pool::<Vegas>(Settings::DEFAULT), 120, Load::Open(500.0));
    assert!(stretch.turns <= 8, "{} turns", stretch.turns);
}
