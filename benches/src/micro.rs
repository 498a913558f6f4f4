//! The pool and the policies by themselves: checkout and return, a validation call, bursts, fairness.

use std::{convert::Infallible, fmt, io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use sluicegate::{
    config::model::{self, PolicyRef},
    policy::{Compiler, Plugins, ValidationInput},
    pool::{
        Backend, Connection, Failure, FailureClass, Holder, Hygiene, Manager, Metrics, Peek, Policies, Pool,
        PoolSettings, Probe, RecycleResult,
    },
};
use tokio::{
    runtime::{Builder, Handle},
    task::LocalSet,
    time::{Instant, sleep},
};

use crate::verdict;

pub fn run() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    println!("\n## The pool and the policies by themselves\n");
    local.block_on(&runtime, async {
        checkout().await?;
        validation().await?;
        burst().await?;
        fairness().await
    })
}

/// Checkout and return, uncontended, with all features and native policies.
async fn checkout() -> Result<()> {
    let pool = pool(Duration::ZERO, 1, 4).await?;
    let rounds = 1_000_000_u32;
    for warm in [true, false] {
        let begun = std::time::Instant::now();
        for _ in 0..rounds {
            let lease = pool.checkout(Instant::now() + Duration::from_secs(1), Holder::default()).await;
            drop(lease.map_err(|error| anyhow::anyhow!("{error}"))?);
        }
        if !warm {
            let each = begun.elapsed().as_nanos() as f64 / f64::from(rounds);
            println!("checkout and return: {each:.0} ns; of 1 us: {}", verdict(each / 1e3, 1.0));
        }
    }
    Ok(())
}

/// A typed call of `bypass-window`, engine and guards included.
async fn validation() -> Result<()> {
    let dist = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/bypass-window.wasm");
    let state = tempfile::tempdir()?;
    let plugins = Plugins::new(Compiler::InProcess, state.path(), 1)?;
    let plugin: model::Plugin = serde_json::from_value(serde_json::json!({ "path": dist }))?;
    let applied = plugins.apply(&[("window".to_owned(), plugin)].into()).await;
    applied.map_err(|errors| anyhow::anyhow!("{errors:?}")).context("run `make plugins`")?;
    let reference: PolicyRef = serde_json::from_value(serde_json::json!({ "plugin": "window", "fallback": "always" }))?;
    let policy = plugins.validation(&reference)?;
    let rounds = 2_000_000_u32;
    let mut each = f64::INFINITY;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
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
    println!("validation call: {each:.0} ns; of 250 ns: {}", verdict(each / 250.0, 1.0));
    Ok(())
}

/// HikariCP's spike: 5 warm connections, 50 requests at once, 150 ms to connect, 2 ms a query.
async fn burst() -> Result<()> {
    let pool = pool(Duration::from_millis(150), 5, 50).await?;
    let before = pool.status().counters.creates;
    let times = together(&pool, 50, Duration::from_millis(2), 1).await?;
    let creates = pool.status().counters.creates - before;
    let ideal = 50.0 / 5.0 * 2.0;
    let p50 = quantile(&times, 0.5);
    println!(
        "burst of 50 on 5 connections: p50 {p50:.1} ms, of the ideal: {}; {creates} creates (at most 4)",
        verdict(p50 / ideal, 1.3)
    );
    Ok(())
}

/// 500 callers on 40 connections that hold each for a millisecond, again and again.
async fn fairness() -> Result<()> {
    let pool = pool(Duration::ZERO, 40, 40).await?;
    let times = together(&pool, 500, Duration::from_millis(1), 20).await?;
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    println!(
        "500 callers on 40 connections: wait p50 {p50:.1} ms, p99 {p99:.1} ms; p99/p50: {}",
        verdict(p99 / p50, 2.0)
    );
    Ok(())
}

/// Milliseconds from asking to being done, for all callers and rounds.
async fn together(pool: &Arc<Pool<Made>>, callers: usize, hold: Duration, rounds: usize) -> Result<Vec<f64>> {
    let mut tasks = Vec::new();
    for _ in 0..callers {
        let pool = pool.clone();
        tasks.push(tokio::task::spawn_local(async move {
            let mut times = Vec::new();
            for _ in 0..rounds {
                let begun = Instant::now();
                let lease = pool.checkout(begun + Duration::from_secs(60), Holder::default()).await;
                let lease = lease.map_err(|error| anyhow::anyhow!("{error}"))?;
                sleep(hold).await;
                drop(lease);
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

fn quantile(times: &[f64], at: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * at) as usize]
}

async fn pool(connect: Duration, min: u32, max: u32) -> Result<Arc<Pool<Made>>> {
    let table = serde_json::json!({ "backend": "sqlite", "url": "sqlite:none", "queue": 10_000, "held_warning": "0s",
        "checkout_timeout": "60s", "size": { "min": min, "max": max } });
    let table: model::Pool = serde_json::from_value(table)?;
    let state = tempfile::tempdir()?;
    let plugins = Plugins::new(Compiler::InProcess, state.path(), 1)?;
    let policies = Policies {
        sizing: plugins.sizing(&table.sizing)?,
        eviction: plugins.eviction(&table.eviction)?,
        validation: plugins.validation(&table.validation)?,
    };
    let settings = PoolSettings::from_config(&table, 2);
    let pool = Pool::new("bench", settings, Made { connect }, policies, Handle::current(), None);
    tokio::task::spawn_local(pool.clone().drive());
    while pool.status().idle < min {
        sleep(Duration::from_millis(5)).await;
    }
    Ok(pool)
}

/// A database that costs nothing but the time to connect.
struct Made {
    connect: Duration,
}

struct Nothing;

#[derive(Debug)]
struct Never(Infallible);

impl Manager for Made {
    type Type = Nothing;
    type Error = Never;

    async fn create(&self) -> Result<Nothing, Never> {
        if !self.connect.is_zero() {
            sleep(self.connect).await;
        }
        Ok(Nothing)
    }

    async fn recycle(&self, _: &mut Nothing, _: &Metrics) -> RecycleResult<Never> {
        Ok(())
    }
}

impl Backend for Made {
    type Conn = Nothing;
    type Failure = Never;

    async fn probe(&self, _: &mut Nothing, _: Probe) -> Result<(), Never> {
        Ok(())
    }

    async fn recover(&self, _: &mut Nothing) -> Result<(), Never> {
        Ok(())
    }

    async fn close(&self, _: Nothing) {}
}

impl Connection for Nothing {
    fn rehome(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn peek(&mut self) -> Peek {
        Peek::Clean
    }

    fn hygiene(&self) -> Hygiene {
        Hygiene::Clean
    }

    fn transaction(&self) -> u32 {
        0
    }

    fn dirty(&self) -> u32 {
        0
    }

    fn statements(&self) -> u32 {
        0
    }
}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl std::error::Error for Never {}

impl Failure for Never {
    fn class(&self) -> FailureClass {
        match self.0 {}
    }

    fn sqlstate(&self) -> Option<&str> {
        match self.0 {}
    }

    fn public(&self) -> String {
        match self.0 {}
    }
}
