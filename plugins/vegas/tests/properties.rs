//! What holds for every input, and how a whole pool fares.

use proptest::prelude::{Strategy, any, proptest};
use sizing_rig::any::{carry, day};
use sizing_rig::laws;
use sizing_rig::simulation::{Database, Load, Simulation};
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

const DATABASE: Database = Database { knee: 20.0, service_ms: 20.0, held_ms: 0.0, wear: 0.2, grants: u32::MAX };
const ALL: Load = Load::Closed(300);

fn pool(settings: Settings) -> Simulation<Vegas> {
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
    assert!((19.0..=27.0).contains(&stretch.mean()), "{}", stretch.mean());
    assert!(stretch.most() <= 28, "{}", stretch.most());
    // Two for each probe, three or four of them.
    assert!(stretch.turns <= 12, "{} turns", stretch.turns);
}

#[test]
fn coming_from_above_it_finds_the_knee_by_its_probes() {
    let mut pool = pool(Settings { start: 80, ..Settings::DEFAULT });
    let stretch = pool.run(900, ALL);
    println!("{:?}", stretch.targets.iter().step_by(30).collect::<Vec<_>>());
    assert!(stretch.targets[890] <= 30, "{:?}", &stretch.targets[880..]);
}

#[test]
fn a_slower_database_makes_it_shrink_not_grow() {
    let mut pool = pool(Settings::DEFAULT);
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
    let mut pool = pool(Settings::DEFAULT);
    pool.run(60, ALL);
    pool.database.service_ms = 60.0;
    let slow = pool.run(900, ALL);
    println!("{:?}", slow.targets.iter().step_by(30).collect::<Vec<_>>());
    assert!((18..=28).contains(&slow.targets[890]), "{:?}", &slow.targets[880..]);
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
    assert!((20..=30).contains(&full.most()), "{}", full.most());
    assert!(slow.most() <= full.most(), "{} after {}", slow.most(), full.most());
    let last = slow.targets[590..].iter().max();
    assert!(last.is_some_and(|last| *last <= 16), "{:?}", &slow.targets[580..]);
}

#[test]
fn a_burst_is_followed_within_seconds() {
    let mut pool = Simulation::<Vegas>::new(Settings::DEFAULT, Database { knee: 1000.0, ..DATABASE }, 100);
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
    assert!(stretch.turns <= 8, "{} turns", stretch.turns);
}
