//! A primary-key lookup through the pool, beside the bare wire client on a connection of its own: what the pool adds to a query.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use sluicegate::{
    backend::{Database, Kind, Limits, Param, Statement, Work, postgres::Postgres},
    config::model,
    policy::{Compiler, Plugins},
    pool::{Holder, Policies, Pool, PoolSettings},
};
use tokio::{
    runtime::{Builder, Handle},
    task::LocalSet,
};

use crate::verdict;

const LOOKUP: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
/// In turn, so that what disturbs one disturbs the other.
const TURNS: i32 = 20;
const LOOKUPS: i32 = 1_000;

pub fn run(url: &str) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, compare(url))
}

async fn compare(url: &str) -> Result<()> {
    let database = database(url)?;
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::task::spawn_local(connection);
    let statement = client.prepare(LOOKUP).await?;
    let (mut pooled, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        for lookup in 0..LOOKUPS {
            let aid = (turn * LOOKUPS + lookup).wrapping_mul(7919).rem_euclid(1_000_000) + 1;
            let begun = Instant::now();
            if turn % 2 == 0 {
                through(&database, aid).await?;
                pooled.push(begun.elapsed());
            } else {
                let row = client.query_one(&statement, &[&aid]).await?;
                std::hint::black_box(row.get::<_, i32>(0));
                bare.push(begun.elapsed());
            }
        }
    }
    // The first of each turn pay for what the other left in the caches; there are few.
    let (pooled, bare) = (median(&mut pooled), median(&mut bare));
    println!(
        "\na lookup through the pool: p50 {:.1} us; of the bare wire client's {:.1} us: {}",
        pooled * 1e6,
        bare * 1e6,
        verdict(pooled / bare, 1.1)
    );
    Ok(())
}

async fn through(database: &Database, aid: i32) -> Result<()> {
    let params = vec![Param::Number(aid.into())];
    let work = Work::Single(Statement { sql: LOOKUP.to_owned(), params });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let limits = Limits { row: 1 << 20 };
    let mut execution =
        database.start(work, deadline, Holder::default(), limits).await.map_err(|error| anyhow!("{error}"))?;
    while execution.next().await.map_err(|error| anyhow!("{error}"))?.is_some() {}
    Ok(())
}

fn database(url: &str) -> Result<Database> {
    let table = serde_json::json!({ "backend": "postgres", "url": url, "size": { "min": 1, "max": 1 } });
    let table: model::Pool = serde_json::from_value(table)?;
    let state = tempfile::tempdir()?;
    let plugins = Plugins::new(Compiler::InProcess, state.path(), 1)?;
    let policies = Policies {
        sizing: plugins.sizing(&table.sizing)?,
        eviction: plugins.eviction(&table.eviction)?,
        validation: plugins.validation(&table.validation)?,
    };
    let backend = Postgres::new(&table).context("the database's URL")?;
    let pool = Pool::new("bench", PoolSettings::from_config(&table, 2), backend, policies, Handle::current(), None);
    tokio::task::spawn_local(pool.clone().drive());
    Ok(Database::new(Kind::Postgres(pool), Duration::ZERO))
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
