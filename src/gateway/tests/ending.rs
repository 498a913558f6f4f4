//! The end comes.

use std::time::{Duration, Instant};

use super::bench::{Bench, hello, on_background};
use crate::gateway::ending;

#[test]
fn a_worker_that_is_stuck_does_not_hold_up_the_end() {
    on_background(async {
        let bench = Bench::serving(&hello("one")).await;
        let (_held, stuck) = std::sync::mpsc::channel::<()>();
        let threads = vec![std::thread::spawn(|| ()), std::thread::spawn(move || _ = stuck.recv())];
        let begun = Instant::now();
        ending::end(&bench.shared, bench.supervisor.into_workers(), threads, Duration::from_millis(50)).await;
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}
