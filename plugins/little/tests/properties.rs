//! What holds for every input, and how a whole pool fares.

use little::{Little, Settings};
use policy_rig::sizing::any::{carry, day};
use policy_rig::sizing::laws;
use policy_rig::sizing::simulation::{Database, Load, Simulation, need};
use proptest::prelude::{Strategy, any, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    (0.0..10.0_f64, 0..20_000_u32, 0..100_000_u32, 0..50_u32)
        .prop_map(|(margin, smoothing_ms, calm_ms, min_idle)| Settings { margin, smoothing_ms, calm_ms, min_idle })
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), day in day(), carry in carry(), follows in any::<bool>()) {
        laws::hold::<Little>(&settings, &day, carry, follows)?;
    }
}

/// It does not slow down.
const DATABASE: Database = Database { knee: 1000.0, service_ms: 20.0, held_ms: 0.0, wear: 0.0, grants: u32::MAX };

fn pool(database: Database) -> Simulation<Little> {
    Simulation::new(Settings::DEFAULT, database, 100)
}

#[test]
fn at_steady_load_it_settles_within_a_third_above_what_is_needed() {
    for load in [Load::Open(250.0), Load::Open(500.0), Load::Open(1000.0), Load::Open(2000.0)] {
        let needed = need(DATABASE, load);
        let mut pool = pool(DATABASE);
        pool.run(60, load);
        let stretch = pool.run(1000, load);
        let (least, most) = (stretch.least(), stretch.most());
        println!(
            "{load:?}: {needed} needed, {least} to {most}, {} turns, p99 {} ms",
            stretch.turns, stretch.wait_p99_ms
        );
        assert!(least >= needed, "{load:?}: {least} of {needed}");
        assert!(f64::from(most) <= 1.3 * f64::from(needed), "{load:?}: {most} for {needed}");
        assert!(f64::from(stretch.wait_p99_ms) <= DATABASE.service_ms, "{load:?}: {} ms", stretch.wait_p99_ms);
        assert!(stretch.turns <= 10, "{load:?}: {} turns", stretch.turns);
    }
}

#[test]
fn a_burst_is_followed_within_three_seconds_and_forgotten_within_two_minutes() {
    for rate in [800.0, 2000.0] {
        let mut pool = pool(DATABASE);
        let before = pool.run(60, Load::Open(100.0)).targets[59];
        let needed = need(DATABASE, Load::Open(rate));
        let burst = pool.run(30, Load::Open(rate));
        println!("{before} to {needed} in {:?} s: {:?}", burst.seconds_to(needed), &burst.targets[..5]);
        assert!(burst.seconds_to(needed).is_some_and(|seconds| seconds <= 3), "{:?}", burst.targets);
        assert_eq!(burst.timeouts, 0);
        let after = pool.run(120, Load::Open(100.0)).targets[119];
        assert!(after <= before + 1, "{after} after {before}");
    }
}

#[test]
fn how_long_a_connection_is_held_counts_not_how_long_its_statement_takes() {
    let load = Load::Open(500.0);
    let mut holding = pool(Database { held_ms: 20.0, ..DATABASE });
    let held = holding.run(120, load).targets[119];
    let mut brief = pool(DATABASE);
    let returned = brief.run(120, load).targets[119];
    assert!(held > returned + 8, "{held} and {returned}");
}

/// Why it is not for a database that is itself the limit.
#[test]
fn beyond_the_knee_it_runs_to_its_maximum() {
    let mut pool = pool(Database { knee: 20.0, wear: 0.2, ..DATABASE });
    let stretch = pool.run(120, Load::Closed(300));
    assert_eq!(stretch.targets[119], 100);
}

#[test]
fn at_a_full_server_it_stands_still() {
    let mut pool = pool(Database { grants: 8, ..DATABASE });
    let before = pool.run(90, Load::Open(100.0)).targets[89];
    let stretch = pool.run(1000, Load::Closed(50));
    println!("full: from {before} to {} to {}, {} turns", stretch.least(), stretch.most(), stretch.turns);
    assert!(before < 8 && stretch.most() <= 30, "{before}, then {}", stretch.most());
    assert!(stretch.turns <= 1, "{} turns", stretch.turns);
}
