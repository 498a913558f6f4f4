//! (h) The cap under a policy that answers at random, counted at the server.
//!
//! Many pools at a time, for a policy is asked ten times a second at most. Each has a role of its own, to which the server
//! grants as many connections as the pool may have: so that one too many is refused, however short it lives. Beside that, a
//! session of its own counts what is open.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluicegate::{
    backend::postgres::Postgres as Backend,
    config::model,
    pool::{Holder, PolicyChange, Pool, PoolSettings},
};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use crate::{
    figures::at_most,
    pooled::{Components, close, plugin, table},
    server::Postgres,
};

const POOLS: usize = 40;
const CAP: u32 = 5;
/// Decisions in all, in a run of five seconds a figure.
const STEPS: u64 = 10_000;
/// Callers of each pool, more than it has connections.
const CALLERS: u64 = 7;
/// Longest time for all.
const PATIENCE: Duration = Duration::from_secs(240);

/// A pool, and what it is made of.
struct Subject {
    pool: Arc<Pool<Backend>>,
    table: model::Pool,
}

pub async fn run(postgres: &Postgres, seconds: u32) -> Result<()> {
    let steps = STEPS.min(u64::from(seconds) * STEPS / 5);
    let admin = observer(postgres).await?;
    let components = Components::load(&[("random", "testing/hostile", json!({ "mode": "sizing.random" }))]).await?;
    let subjects = Rc::new(subjects(postgres, &admin, &components).await?);
    let callers: Vec<_> = (0..POOLS as u64 * CALLERS)
        .map(|caller| {
            let pool = subjects[caller as usize % POOLS].pool.clone();
            tokio::task::spawn_local(call(pool, caller))
        })
        .collect();
    let counting = tokio::task::spawn_local(count(admin, subjects.clone(), steps));
    ask_on(&subjects, &components, steps).await?;
    let (most, looks) = counting.await??;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    let (mut made, mut refused, mut failed) = (0, 0, 0);
    for subject in subjects.iter() {
        let counters = subject.pool.status().counters;
        made += counters.creates;
        refused += counters.create_failures.server_full;
        failed += counters.create_failures.total();
        close(&subject.pool).await?;
    }
    println!("(h) {} decisions at random over {POOLS} pools of {CAP}, {made} connections made", decided(&subjects));
    println!("    open at the server in {looks} looks: {}", at_most(most, CAP.into()));
    println!(
        "    refused by the server as one too many: {}; failed otherwise: {}",
        at_most(refused, 0),
        failed - refused
    );
    Ok(())
}

async fn observer(postgres: &Postgres) -> Result<Client> {
    let (admin, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(admin)
}

async fn subjects(postgres: &Postgres, admin: &Client, components: &Components) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for number in 0..POOLS {
        let role = format!("cap{number}");
        admin.batch_execute(&format!("create role {role} login connection limit {CAP}")).await?;
        let keys = json!({ "size": { "max": CAP }, "sizing": plugin("random", "fixed"), "sizing_interval": "100ms",
            "sweep_interval": "100ms", "checkout_timeout": "5s", "queue": 100, "slow_checkout": "0s" });
        let table = table("postgres", &postgres.url_of(&role), keys)?;
        let pool = components.pool(&table, Backend::new(&table).context("the role's URL")?).await?;
        subjects.push(Subject { pool, table });
    }
    Ok(subjects)
}

/// Puts the policy in force again and again, which has it asked, until it has decided so often. A policy that changes its mind as
/// often as this one is frozen for a minute, unless it is a new one.
async fn ask_on(subjects: &[Subject], components: &Components, steps: u64) -> Result<()> {
    let begun = Instant::now();
    while decided(subjects) < steps {
        ensure!(begun.elapsed() < PATIENCE, "only {} decisions in {PATIENCE:?}", decided(subjects));
        for Subject { pool, table } in subjects {
            let sizing = Some(components.policies(table)?.sizing);
            let backend = Backend::new(table).context("the role's URL")?;
            pool.reconfigure(
                PoolSettings::from_config(table, 2),
                PolicyChange { sizing, ..PolicyChange::default() },
                backend,
            );
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Decisions that the policy itself took.
fn decided(subjects: &[Subject]) -> u64 {
    let of = |subject: &Subject| -> u64 {
        let decisions = subject.pool.status().decisions;
        decisions.iter().filter(|count| count.hook == "sizing" && count.by == "plugin").map(|count| count.count).sum()
    };
    subjects.iter().map(of).sum()
}

/// Takes a connection, holds it for some milliseconds, and gives it back, or closes it now and then.
async fn call(pool: Arc<Pool<Backend>>, caller: u64) {
    for turn in caller.. {
        let lease = pool.checkout((Instant::now() + Duration::from_secs(5)).into(), Holder::default()).await;
        sleep(Duration::from_millis(5 + turn % 23)).await;
        match lease {
            Ok(lease) if turn % 29 == 0 => lease.discard(),
            _ => {}
        }
    }
}

/// Connections of one role that are open at most, and how often that was counted.
async fn count(admin: Client, subjects: Rc<Vec<Subject>>, steps: u64) -> Result<(u64, u64)> {
    let sql = "select usename::text, count(*) from pg_stat_activity where usename like 'cap%' group by 1";
    let mut most: BTreeMap<String, i64> = BTreeMap::new();
    let mut looks = 0;
    while decided(&subjects) < steps {
        for row in admin.query(sql, &[]).await? {
            let seen = most.entry(row.get(0)).or_default();
            *seen = (*seen).max(row.get(1));
        }
        looks += 1;
        sleep(Duration::from_millis(5)).await;
    }
    Ok((most.into_values().max().unwrap_or(0) as u64, looks))
}
