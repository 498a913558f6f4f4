//! What holds for every input, and how a whole pool fares.

use fixed::{Fixed, Settings};
use policy_rig::sizing::any::{carry, day};
use policy_rig::sizing::laws;
use policy_rig::sizing::simulation::{Database, Load, Simulation};
use proptest::prelude::{Strategy, any, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    (0..50_u32, 0..50_u32, 0..50_u32, 0..10_000_u32).prop_map(|(target, min_idle, reserve, reserve_after_ms)| {
        Settings { target, min_idle, reserve, reserve_after_ms }
    })
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), day in day(), carry in carry(), follows in any::<bool>()) {
        laws::hold::<Fixed>(&settings, &day, carry, follows)?;
    }
}

const DATABASE: Database = Database { knee: 20.0, service_ms: 20.0, held_ms: 0.0, wear: 0.2, grants: u32::MAX };

#[test]
fn nothing_moves_it() {
    let mut pool = Simulation::<Fixed>::new(Settings { target: 15, ..Settings::DEFAULT }, DATABASE, 100);
    for load in [Load::Open(100.0), Load::Closed(300), Load::Open(0.0)] {
        let stretch = pool.run(100, load);
        assert_eq!((stretch.least(), stretch.most()), (15, 15));
    }
}

#[test]
fn the_reserve_serves_those_who_would_give_up() {
    let database = Database { knee: 100.0, service_ms: 100.0, ..DATABASE };
    let given_up = |reserve| {
        let settings = Settings { target: 10, reserve, reserve_after_ms: 3000, ..Settings::DEFAULT };
        let mut pool = Simulation::<Fixed>::new(settings, database, 30);
        pool.run(120, Load::Open(120.0)).timeouts
    };
    // Ten serve a hundred a second, and a hundred and twenty come: without a reserve one in six gives up.
    let (without, with) = (given_up(0), given_up(10));
    assert!(without > 1500, "{without}");
    assert_eq!(with, 0);
}
