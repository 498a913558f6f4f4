//! What holds for every input, and how a whole pool fares.

use gradient2::{Gradient2, Settings};
use proptest::prelude::{Strategy, any, proptest};
use sizing_rig::any::{carry, day};
use sizing_rig::laws;
use sizing_rig::simulation::{Database, Load, Simulation};

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

const DATABASE: Database = Database { knee: 20.0, service_ms: 20.0, held_ms: 0.0, wear: 0.2, grants: u32::MAX };
const ALL: Load = Load::Closed(300);

fn pool(settings: Settings) -> Simulation<Gradient2> {
    Simulation::new(settings, DATABASE, 200)
}

#[test]
fn under_load_without_end_it_finds_the_knee_and_rests_there() {
    let mut pool = pool(Settings::DEFAULT);
    pool.run(60, ALL);
    let stretch = pool.run(1000, ALL);
    println!(
        "{} to {}, mean {:.1}, {} turns, {:.0} served",
        stretch.least(),
        stretch.most(),
        stretch.mean(),
        stretch.turns,
        stretch.served_per_s
    );
    assert!(stretch.least() >= 20, "{}", stretch.least());
    assert!(stretch.most() <= 38, "{}", stretch.most());
    assert!(stretch.turns <= 10, "{} turns", stretch.turns);
}

/// What `loaded_weight` is for.
#[test]
fn with_netflix_s_rule_the_long_average_follows_and_so_does_the_limit() {
    let mut netflix = pool(Settings { loaded_weight: 1.0, ..Settings::DEFAULT });
    netflix.run(60, ALL);
    let stretch = netflix.run(2000, ALL);
    println!("{:?}", stretch.targets.iter().step_by(200).collect::<Vec<_>>());
    assert!(stretch.targets[1999] >= 60, "{}", stretch.targets[1999]);
    let mut ours = pool(Settings::DEFAULT);
    assert!(ours.run(2000, ALL).targets[1999] <= 38);
}

#[test]
fn a_slower_database_makes_it_shrink_not_grow() {
    let mut pool = pool(Settings::DEFAULT);
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

/// The host lets a pool down by a tenth at a time while callers wait.
#[test]
fn under_the_hosts_guards_it_stops_at_the_knee_and_comes_down_with_it() {
    let mut pool = pool(Settings::DEFAULT).guarded();
    pool.run(30, Load::Open(100.0));
    let full = pool.run(600, ALL);
    pool.database.knee = 8.0;
    let slow = pool.run(600, ALL);
    println!("{} to {}, then {} to {}", full.targets[0], full.most(), slow.least(), slow.most());
    assert!((20..=38).contains(&full.most()), "{}", full.most());
    assert!(slow.most() <= full.most(), "{} after {}", slow.most(), full.most());
    let last = slow.targets[590..].iter().max();
    assert!(last.is_some_and(|last| *last <= 16), "{:?}", &slow.targets[580..]);
}

#[test]
fn a_burst_is_followed_by_four_in_five_seconds() {
    let mut pool = Simulation::<Gradient2>::new(Settings::DEFAULT, Database { knee: 1000.0, ..DATABASE }, 100);
    let before = pool.run(60, Load::Open(100.0)).targets[59];
    let burst = pool.run(60, Load::Open(1000.0));
    println!("{before} to 24 in {:?} s", burst.seconds_to(24));
    assert!(burst.seconds_to(24).is_some_and(|seconds| seconds <= 20), "{:?}", burst.targets);
}

#[test]
fn at_constant_load_it_rests() {
    let mut pool = pool(Settings::DEFAULT);
    pool.run(120, Load::Open(500.0));
    let stretch = pool.run(1000, Load::Open(500.0));
    println!("{} to {}, {} turns", stretch.least(), stretch.most(), stretch.turns);
    assert!(stretch.turns <= 2, "{} turns", stretch.turns);
}
