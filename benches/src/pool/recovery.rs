//! (i) The database dies and comes back: how long until a pool serves again.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sluicegate::backend::postgres::Postgres as Backend;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use super::wire::{Asker, Named, Ours, TRUSTING, others, through};
use crate::{figures::verdict, server::Postgres};

/// How long the database is away.
const AWAY: Duration = Duration::from_secs(4);
/// What a pool may take beyond its present pause.
const SLACK: Duration = Duration::from_secs(1);
/// How long anybody is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(postgres: &mut Postgres, bouncer: Option<&str>) -> Result<()> {
    let url = postgres.url();
    let ours = Ours::connect(&url, 4, TRUSTING).await?.0;
    let mut all: Vec<Named> = vec![("sluicegate", Rc::new(Ours(ours.clone())))];
    all.extend(others(&url, 4).await?);
    all.extend(bouncer.map(through));
    for (name, pool) in &all {
        pool.ask(1).await.context(*name)?;
    }
    postgres.crash()?;
    let back = Rc::new(Cell::new(None::<Instant>));
    let clients: Vec<_> =
        all.into_iter().map(|(name, pool)| (name, tokio::task::spawn_local(recovers(pool, back.clone())))).collect();
    sleep(AWAY).await;
    postgres.start_again()?;
    let step = returns(&url, &ours).await?;
    back.set(Some(Instant::now()));
    for (name, client) in clients {
        let took = client.await?;
        let took_ms = took.map_or("none".to_owned(), |took| format!("{:.0} ms", took.as_secs_f64() * 1e3));
        println!("(i) first success after the database is back: {name:17} {took_ms}");
        if name == "sluicegate" {
            let bound = (SLACK + step).as_secs_f64();
            let took = took.unwrap_or(PATIENCE).as_secs_f64();
            println!("    of a second and its pause of {} ms: {}", step.as_millis(), verdict(took / bound, 1.0));
        }
    }
    Ok(())
}

/// Waits until the database answers anybody; the pool's pause before its next attempt then.
async fn returns(url: &str, ours: &sluicegate::pool::Pool<Backend>) -> Result<Duration> {
    let end = Instant::now() + PATIENCE;
    while tokio_postgres::connect(url, NoTls).await.is_err() {
        if Instant::now() > end {
            bail!("PostgreSQL does not come back");
        }
        sleep(Duration::from_millis(2)).await;
    }
    Ok(Duration::from_millis(ours.status().breaker.retry_after_ms.into()))
}

/// Asks fifty times a second until an answer comes after the database is back. None: in vain.
async fn recovers(pool: Rc<dyn Asker>, back: Rc<Cell<Option<Instant>>>) -> Option<Duration> {
    let asking = async {
        loop {
            let answered = pool.ask(1).await.is_ok();
            if let (true, Some(since)) = (answered, back.get()) {
                return since.elapsed();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(AWAY + PATIENCE, asking).await.ok()
}
