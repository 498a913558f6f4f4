//! (e) Many callers on a cold pool, and (f) whether they wait alike.

use std::{rc::Rc, time::Duration};

use anyhow::Result;

use super::lender::{All, Lender, p50_p99, together};
use crate::figures::{at_most, verdict};

/// 300 callers, 10 connections, 10 ms each: 300 ms for all.
pub async fn crowd() -> Result<()> {
    const SIZE: u32 = 10;
    let all = All::new(Duration::from_millis(5), 0, SIZE).await?;
    let (p99, failed, made) = crowded("sluicegate", &all.ours).await?;
    crowded("deadpool", &all.deadpool).await?;
    crowded("bb8", &all.bb8).await?;
    println!(
        "    failed: {}; p99, of the ideal 300 ms: {}; made: {}",
        at_most(failed, 0),
        verdict(p99 / 300.0, 2.0),
        at_most(made.into(), (2 * SIZE).into())
    );
    Ok(())
}

async fn crowded<L: Lender>(name: &str, lender: &Rc<L>) -> Result<(f64, u64, u32)> {
    let (times, failed) = together(lender, 300, Duration::from_millis(10), 5).await?;
    let (_, p99) = p50_p99(&times);
    let (made, ..) = lender.seen().counts();
    println!("(e) 300 callers on 10 connections of 10 ms: {name:10} p99 {p99:5.0} ms, failed {failed}, made {made}");
    Ok((p99, failed, made))
}

/// 500 callers on 40 connections that hold each for a millisecond, again and again.
pub async fn fairness() -> Result<()> {
    let all = All::new(Duration::ZERO, 40, 40).await?;
    let ratio = fair("sluicegate", &all.ours).await?;
    fair("deadpool", &all.deadpool).await?;
    fair("bb8", &all.bb8).await?;
    println!("    p99 to p50: {}", verdict(ratio, 2.0));
    Ok(())
}

async fn fair<L: Lender>(name: &str, lender: &Rc<L>) -> Result<f64> {
    let (times, _) = together(lender, 500, Duration::from_millis(1), 20).await?;
    let (p50, p99) = p50_p99(&times);
    println!("(f) 500 callers on 40 connections: {name:10} p50 {p50:5.1} ms, p99 {p99:5.1} ms, ratio {:.2}", p99 / p50);
    Ok(p99 / p50)
}
