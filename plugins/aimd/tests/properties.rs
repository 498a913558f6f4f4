//! What holds for every input, and how a whole pool fares.

use aimd::{Aimd, Settings};
use policy_rig::sizing::any::{carry, day};
use policy_rig::sizing::laws;
use policy_rig::sizing::scenarios::{self, ALL, DATABASE, settled};
use policy_rig::sizing::simulation::{Database, Load, Simulation};
use proptest::prelude::{Strategy, any, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    let pace = (0.01..100.0_f64, 0.0..1.0_f64, 0.1..0.95_f64);
    let rest = (0..500_u32, 1..100_u32, 0..20_000_u32, 0..100_000_u32, 1..100_u32, 0..50_u32);
    (pace, rest).prop_map(|((increase, used_above, backoff), rest)| Settings {
        increase,
        used_above,
        backoff,
        rtt_above_ms: rest.0,
        min_samples: rest.1,
        cooldown_ms: rest.2,
        retry_ms: rest.3,
        start: rest.4,
        min_idle: rest.5,
    })
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), day in day(), carry in carry(), follows in any::<bool>()) {
        laws::hold::<Aimd>(&settings, &day, carry, follows)?;
    }
}

/// With twice the unloaded round trip as its bound: some 35 at once, with this database.
const SETTINGS: Settings = Settings { rtt_above_ms: 40, ..Settings::DEFAULT };

fn pool(settings: Settings, database: Database) -> Simulation<Aimd> {
    Simulation::new(settings, database, 100)
}

#[test]
fn under_load_without_end_it_stays_below_its_bound_and_above_the_knee() {
    let stretch = settled(&mut pool(SETTINGS, DATABASE), 60, ALL);
    assert!(stretch.least() >= 20, "{}", stretch.least());
    assert!(stretch.most() <= 40, "{}", stretch.most());
    // A step back and a return, once a minute.
    assert!(stretch.turns <= 34, "{} turns", stretch.turns);
}

#[test]
fn a_slower_database_makes_it_back_off() {
    let mut pool = pool(SETTINGS, DATABASE);
    pool.run(60, ALL);
    pool.database.knee = 8.0;
    let stretch = pool.run(60, ALL);
    println!("{:?}", stretch.targets);
    assert!(stretch.targets[59] <= 16, "{:?}", stretch.targets);
}

#[test]
fn a_full_server_is_left_some_room() {
    let mut pool = pool(Settings::DEFAULT, Database { grants: 12, ..DATABASE });
    let stretch = settled(&mut pool, 30, Load::Closed(50));
    assert!(stretch.most() <= 14, "{}", stretch.most());
    assert!(stretch.least() >= 8, "{}", stretch.least());
    assert!(stretch.turns <= 34, "{} turns", stretch.turns);
}

#[test]
fn a_burst_is_followed_by_one_a_second() {
    let burst = scenarios::burst::<Aimd>(SETTINGS);
    assert!(burst.seconds_to(24).is_some_and(|seconds| seconds <= 15), "{:?}", burst.targets);
}

#[test]
fn at_constant_load_it_rests() {
    let stretch = settled(&mut pool(SETTINGS, DATABASE), 120, Load::Open(500.0));
    assert_eq!(stretch.turns, 0);
}
