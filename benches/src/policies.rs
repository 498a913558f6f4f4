//! Sizing policies side by side: the same recorded loads, each played against a real PostgreSQL through a pool with each policy,
//! and through PgBouncer.
//!
//! Every pool has room for the same number of connections, and every caller the same patience. The server counts connections, and
//! says itself how long each statement took: so a wait is measured alike for all, from asking to the answer without
//! that.

pub mod contestant;
pub mod load;
pub mod replay;
mod report;
pub mod target;

use std::{rc::Rc, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{runtime::Builder, task::LocalSet, time::sleep};
use tokio_postgres::NoTls;

use self::{
    contestant::{Contestant, Kind, ROOM},
    load::{Load, SHAPES},
    replay::{Outcome, replay},
    report::Report,
    target::{ROLE, SCHEMA, Target, Through},
};
use crate::{
    peers::Workshop,
    pooled::{Components, close, database},
    process::installed,
    server::{Postgres, bouncer},
};

const POSTGRES: u16 = 18_476;
const BOUNCER: u16 = 18_477;

/// Compares them, and prints a table for each load in Markdown. `seconds` cuts loads short; `into` is a file with two marks, between
/// which the tables are put.
pub fn run(seconds: Option<u32>, into: Option<&str>) -> Result<()> {
    let at = Workshop::new()?;
    let settings = ["log_connections=on", "max_connections=200"];
    let Some(postgres) = Postgres::start(&at, POSTGRES, crate::BOTH_CORES, &settings)? else {
        bail!("PostgreSQL is not installed");
    };
    let length = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let mut report = Report::new(&postgres, seconds)?;
    for shape in &SHAPES {
        let mut load = Load::read(shape.name)?;
        if let Some(length) = length {
            load = load.first(length);
        }
        report.load(shape.words, &load);
        for contestant in contestant::all(load.knee) {
            match compete(&at, &postgres, &contestant, &load, ROOM)? {
                Some(outcome) => report.row(contestant.name, &outcome),
                None => eprintln!("PgBouncer is not installed: left out"),
            }
        }
    }
    println!("{}", report.text());
    into.map_or(Ok(()), |path| report.write_into(path.as_ref()))
}

/// One load against one of them, on a runtime of its own, and nothing left open behind it. None: it is not installed.
pub fn compete(
    at: &Workshop,
    postgres: &Postgres,
    contestant: &Contestant,
    load: &Load,
    room: u32,
) -> Result<Option<Outcome>> {
    eprintln!("{} {}", load.name, contestant.name);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        prepare(postgres).await?;
        match &contestant.kind {
            Kind::Component { file, config, .. } => {
                let wanted = [(contestant.name, *file, config.clone())];
                let components = Components::load(&wanted).await?;
                let pool = components.postgres(&postgres.url_of(ROLE), contestant.keys(room)).await?;
                let outcome = replay(load, Rc::new(database(&pool)), postgres).await?;
                let decided = pool.status().decisions;
                let faults = decided.iter().any(|count| count.hook == "sizing" && count.by.starts_with("fallback"));
                anyhow::ensure!(!faults, "{} was answered for by its fallback: {decided:?}", contestant.name);
                close(&pool).await?;
                Ok(Some(outcome))
            }
            Kind::Bouncer(pooling) => {
                if !installed("pgbouncer") {
                    return Ok(None);
                }
                let _server = bouncer(at, BOUNCER, crate::BOTH_CORES, postgres, *pooling)?;
                let url = format!("postgres://{ROLE}@127.0.0.1:{BOUNCER}/postgres");
                let target: Rc<dyn Target> = Rc::new(Through::connect(&url).await?);
                replay(load, target, postgres).await.map(Some)
            }
        }
    })?;
    runtime.shutdown_background();
    Ok(outcome)
}

/// The role and the statement, once; and waits until nobody of the load is there any more.
async fn prepare(postgres: &Postgres) -> Result<()> {
    let (admin, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    let there = admin.query("select 1 from pg_roles where rolname = $1::text", &[&ROLE]).await?;
    if there.is_empty() {
        admin.batch_execute(SCHEMA).await?;
    }
    for _ in 0..500 {
        let left = admin.query_one("select count(*) from pg_stat_activity where usename = $1::text", &[&ROLE]).await?;
        if left.get::<_, i64>(0) == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    None.context("sessions of the load before are still open")
}
