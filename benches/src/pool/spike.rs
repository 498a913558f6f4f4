//! (d) HikariCP's spike: 5 warm connections, 50 requests at once, 150 ms to connect, 2 ms a query, room for 50.

use std::{rc::Rc, time::Duration};

use anyhow::Result;

use super::lender::{All, Lender, p50_p99, together};
use crate::figures::{at_most, verdict};

const WARM: u32 = 5;
const CALLERS: usize = 50;
const QUERY: Duration = Duration::from_millis(2);
const CONNECT: Duration = Duration::from_millis(150);
/// What a pool of ours makes at a time, if nothing else is said.
const PARALLEL: u32 = 2;

/// What came of it.
struct Spike {
    p50: f64,
    created: u32,
    at_a_time: u32,
    left: u32,
}

pub async fn run() -> Result<()> {
    let all = All::new(CONNECT, WARM, 50).await?;
    let ours = spike("sluicegate", &all.ours).await?;
    spike("deadpool", &all.deadpool).await?;
    spike("bb8", &all.bb8).await?;
    let ideal = CALLERS as f64 / f64::from(WARM) * QUERY.as_secs_f64() * 1e3;
    println!("    p50, of the {ideal:.0} ms that the 5 need for all: {}", verdict(ours.p50 / ideal, 1.3));
    println!(
        "    made: {}; at a time: {}; open at the end: {}",
        at_most(ours.created.into(), 4),
        at_most(ours.at_a_time.into(), PARALLEL.into()),
        at_most(ours.left.into(), (WARM + PARALLEL).into())
    );
    Ok(())
}

async fn spike<L: Lender>(name: &str, lender: &Rc<L>) -> Result<Spike> {
    lender.seen().forget();
    let (times, _) = together(lender, CALLERS, QUERY, 1).await?;
    // What is being made when the last is served is made to the end.
    tokio::time::sleep(CONNECT * 2).await;
    let (created, at_a_time, left) = lender.seen().counts();
    let (p50, _) = p50_p99(&times);
    println!(
        "(d) a spike of 50 on 5: {name:10} p50 {p50:6.1} ms, made {created:2}, at a time {at_a_time:2}, open {left:2}"
    );
    Ok(Spike { p50, created, at_a_time, left })
}
