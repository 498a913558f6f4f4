//! What holds for every input, and how a whole pool fares.

use aimd::{Aimd, Settings};
use proptest::prelude::{Strategy, any, proptest};
use sizing_rig::any::{carry, day};
use sizing_rig::laws;
use sizing_rig::simulation::{Database, Load, Simulation};

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

const DATABASE: Database = Database { knee: 20.0, service_ms: 20.0, held_ms: 0.0, wear: 0.2, grants: u32::MAX };
/// With twice the unloaded round trip as its bound: some 35 at once, with this database.
const SETTINGS: Settings = Settings { rtt_above_ms: 40, ..Settings::DEFAULT };

#[test]
fn under_load_without_end_it_stays_below_its_bound_and_above_the_knee() {
    let mut pool = Simulation::<Aimd>::new(SETTINGS, DATABASE, 100);
    pool.run(60, Load::Closed(300));
    let stretch = pool.run(1000, Load::Closed(300));
    println!(
        "{} to {}, mean {:.1}, {} turns, {:.0} served",
        stretch.least(),
        stretch.most(),
        stretch.mean(),
        stretch.turns,
        stretch.served_per_s
    );
    assert!(stretch.least() >= 20, "{}", stretch.least());
    assert!(stretch.most() <= 40, "{}", stretch.most());
    // A step back and a return, once a minute.
    assert!(stretch.turns <= 34, "{} turns", stretch.turns);
}

#[test]
fn a_slower_database_makes_it_back_off() {
    let mut pool = Simulation::<Aimd>::new(SETTINGS, DATABASE, 100);
    pool.run(60, Load::Closed(300));
    pool.database.knee = 8.0;
    let stretch = pool.run(60, Load::Closed(300));
    println!("{:?}", stretch.targets);
    assert!(stretch.targets[59] <= 16, "{:?}", stretch.targets);
}

#[test]
fn a_full_server_is_left_some_room() {
    let mut pool = Simulation::<Aimd>::new(Settings::DEFAULT, Database { grants: 12, ..DATABASE }, 100);
    pool.run(30, Load::Closed(50));
    let stretch = pool.run(1000, Load::Closed(50));
    println!("{} to {}, mean {:.1}, {} turns", stretch.least(), stretch.most(), stretch.mean(), stretch.turns);
    assert!(stretch.most() <= 14, "{}", stretch.most());
    assert!(stretch.least() >= 8, "{}", stretch.least());
    assert!(stretch.turns <= 34, "{} turns", stretch.turns);
}

#[test]
fn a_burst_is_followed_by_one_a_second() {
    let database = Database { knee: 1000.0, ..DATABASE };
    let mut pool = Simulation::<Aimd>::new(SETTINGS, database, 100);
    let before = pool.run(60, Load::Open(100.0)).targets[59];
    let burst = pool.run(60, Load::Open(1000.0));
    println!("{before} to 24 in {:?} s", burst.seconds_to(24));
    assert!(burst.seconds_to(24).is_some_and(|seconds| seconds <= 15), "{:?}", burst.targets);
}

#[test]
fn at_constant_load_it_rests() {
    let mut pool = Simulation::<Aimd>::new(SETTINGS, DATABASE, 100);
    pool.run(120, Load::Open(500.0));
    let stretch = pool.run(1000, Load::Open(500.0));
    println!("{} to {}, {} turns", stretch.least(), stretch.most(), stretch.turns);
    assert_eq!(stretch.turns, 0);
}
