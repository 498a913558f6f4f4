//! What holds for every input, and how a whole pool fares.

use gradient2::{Gradient2, Settings};
use policy_rig::sizing::any::{carry, day};
use policy_rig::sizing::laws;
use policy_rig::sizing::scenarios::{self, ALL, DATABASE, pool, settled};
use policy_rig::sizing::simulation::{Database, Load};
use proptest::prelude::{Strategy, any, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    let rule = (1.0..10.0_f64, 0.1..100.0_f64, 0.01..1.0_f64, 10..1000_u32, 0.0..1.0_f64);
    (rule, 1..100_u32, 1..100_u32, 0..50_u32).prop_map(|(rule, min_samples, start, min_idle)| Settings {
        tolerance: rule.0,
        queue: rule.1,
        smoothing: rule.2,
        long_windows: rule.3,
        loaded_weight: rule.4,
        min_samples,
        start,
        min_idle,
    })
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), day in day(), carry in carry(), follows in any::<bool>()) {
        laws::hold::<Gradient2>(&settings, &day, carry, follows)?;
    }
}

#[test]
fn under_load_without_end_it_finds_the_knee_and_rests_there() {
    let stretch = settled(&mut pool::<Gradient2>(Settings::DEFAULT), 60, ALL);
    assert!(stretch.least() >= 20, "{}", stretch.least());
    assert!(stretch.most() <= 38, "{}", stretch.most());
    assert!(stretch.turns <= 10, "{} turns", stretch.turns);
}

/// What `loaded_weight` is for.
#[test]
fn with_netflix_s_rule_the_long_average_follows_and_so_does_the_limit() {
    let mut netflix = pool::<Gradient2>(Settings { loaded_weight: 1.0, ..Settings::DEFAULT });
    netflix.run(60, ALL);
    let stretch = netflix.run(2000, ALL);
    println!("{:?}", stretch.targets.iter().step_by(200).collect::<Vec<_>>());
    assert!(stretch.targets[1999] >= 60, "{}", stretch.targets[1999]);
    let mut ours = pool::<Gradient2>(Settings::DEFAULT);
    assert!(ours.run(2000, ALL).targets[1999] <= 38);
}

#[test]
fn a_slower_database_makes_it_shrink_not_grow() {
    let mut pool = pool::<Gradient2>(Settings::DEFAULT);
    let before = pool.run(120, ALL).targets[119];
    pool.database = Database { knee: 7.0, ..DATABASE };
    let slow = pool.run(600, ALL);
    println!("{before}, then {:?}", slow.targets.iter().step_by(30).collect::<Vec<_>>());
    assert!(slow.most() <= before + 1, "{} after {before}", slow.most());
    assert!(slow.targets[59] <= 16, "{}", slow.targets[59]);
    pool.database = DATABASE;
    let again = pool.run(60, ALL);
    println!("back in {:?} s", again.seconds_to(20));
    assert!(again.seconds_to(20).is_some_and(|seconds| seconds <= 30), "{:?}", again.targets);
}

#[test]
fn under_the_hosts_guards_it_stops_at_the_knee_and_comes_down_with_it() {
    let full = scenarios::down_with_the_knee::<Gradient2>(Settings::DEFAULT);
    assert!((20..=38).contains(&full.most()), "{}", full.most());
}

#[test]
fn a_burst_is_followed_by_four_in_five_seconds() {
    let burst = scenarios::burst::<Gradient2>(Settings::DEFAULT);
    assert!(burst.seconds_to(24).is_some_and(|seconds| seconds <= 20), "{:?}", burst.targets);
}

#[test]
fn at_constant_load_it_rests() {
    let stretch = settled(&mut pool::<Gradient2>(Settings::DEFAULT), 120, Load::Open(500.0));
    assert!(stretch.turns <= 2, "{} turns", stretch.turns);
}
