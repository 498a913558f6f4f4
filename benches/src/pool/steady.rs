//! (g) Connections held under a steady load, of what Little's law says is needed, by the policies that adapt.

use std::time::Duration;

use anyhow::Result;

use crate::{
    figures::verdict,
    peers::Workshop,
    policies::{compete, contestant, load::LARGE},
    server::Postgres,
};

/// Connections at most: twice what is needed.
const ROOM: u32 = 60;
/// A statement.
const QUERY_MS: f64 = 50.0;

/// The second half of three times `seconds` counts, when they have come to rest.
pub fn run(at: &Workshop, postgres: &Postgres, seconds: u32) -> Result<()> {
    let load = LARGE.record().first(Duration::from_secs(u64::from(seconds) * 3));
    let rested = load.length() / 2;
    println!("(g) {}: {:.1} connections needed", LARGE.words, load.need());
    for contestant in contestant::adaptive() {
        let Some(outcome) = compete(at, postgres, &contestant, &load, ROOM)? else { continue };
        let ((held, _), wait) = (outcome.held(rested), outcome.p99_wait(rested));
        println!(
            "    {:11} holds {held:.1}, of the need: {}; p99 wait {wait:.1} ms, of a query's {QUERY_MS:.0}: {}",
            contestant.name,
            verdict(held / load.need(), 1.3),
            verdict(wait / QUERY_MS, 1.0)
        );
    }
    Ok(())
}
