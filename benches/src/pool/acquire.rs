//! (a) Taking a connection and giving it back, and (c) what components add to that.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use sluicegate::policy::ValidationInput;
use tokio::task::{coop::unconstrained, yield_now};

use super::{
    lender::{All, Lender, Ours},
    nothing::Maker,
};
use crate::{
    figures::{median, verdict},
    pooled::{Components, plugin, reference, table},
};

/// Checkouts that are timed together.
const BATCH: u32 = 1_000;

/// One caller, whose connection is always there.
pub async fn uncontended(seconds: u32) -> Result<()> {
    let all = All::new(Duration::ZERO, 1, 4).await?;
    let (mut ours, mut deadpool, mut bb8) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that what disturbs one disturbs all.
    for _ in 0..seconds * 200 {
        ours.push(batch(&*all.ours).await?);
        deadpool.push(batch(&*all.deadpool).await?);
        bb8.push(batch(&*all.bb8).await?);
    }
    let (ours, deadpool, bb8) = (median(&ours), median(&deadpool), median(&bb8));
    println!(
        "(a) checkout and return, uncontended, p50: sluicegate {ours:.0} ns, deadpool {deadpool:.0}, bb8 {bb8:.0}"
    );
    println!("    of 1 us: {}; of deadpool's: {}", verdict(ours / 1e3, 1.0), verdict(ours / deadpool, 3.0));
    Ok(())
}

/// Nanoseconds of a checkout and return in the mean of a batch.
async fn batch(lender: &impl Lender) -> Result<f64> {
    // The pool's own loop has its turn, and what it does is not a caller's time.
    yield_now().await;
    // Without tokio's budget, which a caller in a request has anew each time, and which is spent here.
    unconstrained(async {
        let begun = Instant::now();
        for _ in 0..BATCH {
            drop(lender.lend().await?);
        }
        Ok(begun.elapsed().as_nanos() as f64 / f64::from(BATCH))
    })
    .await
}

/// 64 callers on 8 connections, each of which lets the others run while it holds one.
pub async fn contended() -> Result<()> {
    let all = All::new(Duration::ZERO, 8, 8).await?;
    let (mut ours, mut deadpool, mut bb8) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..15 {
        ours.push(crowded(&all.ours).await?);
        deadpool.push(crowded(&all.deadpool).await?);
        bb8.push(crowded(&all.bb8).await?);
    }
    let (ours, deadpool, bb8) = (median(&ours), median(&deadpool), median(&bb8));
    println!("    64 tasks on 8 connections, each: sluicegate {ours:.0} ns, deadpool {deadpool:.0}, bb8 {bb8:.0}");
    println!("    of deadpool's: {}", verdict(ours / deadpool, 3.0));
    Ok(())
}

async fn crowded<L: Lender>(lender: &std::rc::Rc<L>) -> Result<f64> {
    const TASKS: u32 = 64;
    const ROUNDS: u32 = 500;
    let begun = Instant::now();
    let task = || {
        let lender = lender.clone();
        tokio::task::spawn_local(async move {
            for _ in 0..ROUNDS {
                let lent = lender.lend().await?;
                yield_now().await;
                drop(lent);
            }
            anyhow::Ok(())
        })
    };
    let tasks: Vec<_> = (0..TASKS).map(|_| task()).collect();
    for task in tasks {
        task.await??;
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(TASKS * ROUNDS))
}

/// All three policies as components, beside the native ones.
pub async fn components(seconds: u32) -> Result<()> {
    let wanted = [("little", Value::Null), ("lifetime", Value::Null), ("bypass-window", Value::Null)];
    let wanted: Vec<_> = wanted.iter().map(|(name, config)| (*name, *name, config.clone())).collect();
    let components = Components::load(&wanted).await?;
    let often = json!({ "size": { "min": 1, "max": 4 }, "sizing_interval": "100ms", "sweep_interval": "100ms" });
    let mut asking = often.clone();
    asking["sizing"] = plugin("little", "fixed");
    asking["eviction"] = plugin("lifetime", "lifetime");
    asking["validation"] = plugin("bypass-window", "bypass-window");
    let maker = || Maker::new(Duration::ZERO);
    let native = Ours::new(components.pool(&table("sqlite", "sqlite:none", often)?, maker()).await?);
    let asking = Ours::new(components.pool(&table("sqlite", "sqlite:none", asking)?, maker()).await?);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..seconds * 200 {
        without.push(batch(&native).await?);
        with.push(batch(&asking).await?);
    }
    let (without, with) = (median(&without), median(&with));
    println!("(c) with sizing, eviction and validation as components: {with:.0} ns, native {without:.0} ns");
    println!("    of the native ones': {}", verdict(with / without, 1.05));
    let status = asking.pool().status();
    let by = |hook: &str| -> u64 {
        let of = status.decisions.iter().filter(|count| count.hook == hook && count.by == "plugin");
        of.map(|count| count.count).sum()
    };
    let (asked, checkouts) = (by("validation"), status.counters.checkouts);
    println!(
        "    {} sizing, {} eviction and {asked} validation calls at {checkouts} checkouts; validated of all: {}",
        by("sizing"),
        by("eviction"),
        verdict(asked as f64 / checkouts as f64, 0.05)
    );
    Ok(())
}

/// A typed call of `bypass-window`, engine and guards included.
pub async fn validation() -> Result<()> {
    let components = Components::load(&[("window", "bypass-window", Value::Null)]).await?;
    let policy = components.plugins().validation(&reference("window", "always")?)?;
    let rounds = 1_000_000_u32;
    let mut each = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        for age in 0..rounds {
            let input = ValidationInput {
                age_ms: age,
                idle_ms: age & 1023,
                deadline_left_ms: 1_000,
                ..ValidationInput::default()
            };
            std::hint::black_box(policy.check(&input));
        }
        each = each.min(begun.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
    println!("    a validation call: {each:.0} ns; of 250 ns: {}", verdict(each / 250.0, 1.0));
    Ok(())
}
