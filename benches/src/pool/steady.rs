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
/// Where those begin that go by what the database does: they follow no load, and have what this one needs from its operator.
const START: u32 = 30;
/// A statement.
const QUERY_MS: f64 = 50.0;

/// The second half of three times `seconds` counts, when they have come to rest.
pub fn run(at: &Workshop, postgres: &Postgres, seconds: u32) -> Result<()> {
    let load = LARGE.record().first(Duration::from_secs(u64::from(seconds) * 3));
    let rested = load.length() / 2;
    println!("(g) {}: {:.1} connections needed", LARGE.words, load.need());
    for contestant in contestant::adaptive(START) {
        let Some(outcome) = compete(at, postgres, &contestant, &load, ROOM)? else { continue };
        let ((held, _), wait) = (outcome.held(rested), outcome.p99_wait(rested));
        let (held, wait) = (held / load.need(), wait / QUERY_MS);
        let failed = outcome.failed;
        println!(
            "    {:11} holds of the need: {}; p99 wait, of a query: {}; failed {failed}",
            contestant.name,
            verdict(held, 1.3),
            verdict(wait, 1.0)
        );
    }
    Ok(())
}
