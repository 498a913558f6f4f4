//! What more than one policy is tried on. How well each must do, it says in its own tests.

use policy_sizing::Policy;

use super::simulation::{Database, Load, Simulation, Stretch};

/// Twenty statements at once are its knee, and each takes 20 ms until then.
pub const DATABASE: Database = Database { knee: 20.0, service_ms: 20.0, held_ms: 0.0, wear: 0.2, grants: u32::MAX };
/// More callers than any pool here serves at once, without end.
pub const ALL: Load = Load::Closed(300);

/// A pool of up to two hundred connections before [`DATABASE`].
pub fn pool<P: Policy>(settings: P::Settings) -> Simulation<P> {
    Simulation::new(settings, DATABASE, 200)
}

/// A thousand seconds of a load, once a pool has had `before` seconds to settle under it.
pub fn settled<P: Policy>(pool: &mut Simulation<P>, before: u64, load: Load) -> Stretch {
    pool.run(before, load);
    let stretch = pool.run(1000, load);
    println!(
        "{} to {}, mean {:.1}, {} turns, {:.0} served",
        stretch.least(),
        stretch.most(),
        stretch.mean(),
        stretch.turns,
        stretch.served_per_s
    );
    stretch
}

/// The first minute of ten times the load, which needs 24 connections, before a database that does not slow down.
pub fn burst<P: Policy>(settings: P::Settings) -> Stretch {
    let mut pool = Simulation::<P>::new(settings, Database { knee: 1000.0, ..DATABASE }, 100);
    let before = pool.run(60, Load::Open(100.0)).targets[59];
    let burst = pool.run(60, Load::Open(1000.0));
    println!("{before} to 24 in {:?} s", burst.seconds_to(24));
    burst
}

/// Ten minutes of [`ALL`] under the host's guards, which let a pool down by a tenth at a time while callers wait, and ten more once
/// the knee has come down to 8: the pool must follow it, and not grow meanwhile. Returns the first ten.
///
/// # Panics
///
/// When it does not come down, or grows.
pub fn down_with_the_knee<P: Policy>(settings: P::Settings) -> Stretch {
    let mut pool = pool::<P>(settings).guarded();
    pool.run(30, Load::Open(100.0));
    let full = pool.run(600, ALL);
    pool.database.knee = 8.0;
    let slow = pool.run(600, ALL);
    println!("{} to {}, then {} to {}", full.targets[0], full.most(), slow.least(), slow.most());
    assert!(slow.most() <= full.most(), "{} after {}", slow.most(), full.most());
    let last = slow.targets[590..].iter().max();
    assert!(last.is_some_and(|last| *last <= 16), "{:?}", &slow.targets[580..]);
    full
}
