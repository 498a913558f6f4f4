//! (i) Idle connections that die: requests that fail for each.

use std::{rc::Rc, time::Duration};

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

use super::wire::{Asker, pools, through};
use crate::{figures::verdict, server::Postgres};

const SIZE: u32 = 5;
const ROUNDS: u32 = 5;

pub async fn run(postgres: &Postgres, bouncer: Option<&str>) -> Result<()> {
    let (admin, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    // Named by its application: all the others are killed.
    admin.batch_execute("set application_name = 'observer'").await?;
    let mut all = pools(&postgres.url(), SIZE).await?;
    all.extend(bouncer.map(through));
    let mut ours = 0.0;
    for (name, pool) in &all {
        let (mut killed, mut failed) = (0, 0);
        for _ in 0..ROUNDS {
            warm(pool).await?;
            killed += kill(&admin).await?;
            for aid in 0..SIZE as i32 {
                failed += u32::from(pool.ask(aid + 1).await.is_err());
            }
        }
        let each = f64::from(failed) / f64::from(killed.max(1));
        println!("(i) idle connections killed, one query after another: {name:17} {failed} failed of {killed} killed");
        if *name == "sluicegate" {
            ours = each;
        }
    }
    println!("    failed for each killed: {}", verdict(ours, 1.0));
    Ok(())
}

/// As many statements at once as there are connections, so that all of them have been used.
async fn warm(pool: &Rc<dyn Asker>) -> Result<()> {
    // A pool that has just lost all may take a moment to be as it was.
    for _ in 0..50 {
        let asks: Vec<_> = (0..SIZE as i32).map(|aid| ask(pool.clone(), aid + 1)).collect();
        let mut well = true;
        for asked in asks {
            well &= asked.await?.is_ok();
        }
        if well {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("a pool does not recover")
}

fn ask(pool: Rc<dyn Asker>, aid: i32) -> tokio::task::JoinHandle<Result<()>> {
    tokio::task::spawn_local(async move { pool.ask(aid).await })
}

/// Ends all sessions but the observer's, and waits until they are gone.
async fn kill(admin: &Client) -> Result<u32> {
    let kill = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
        where backend_type = 'client backend' and application_name <> 'observer'";
    let killed: i64 = admin.query_one(kill, &[]).await.context("killing")?.get(0);
    // What was said to the sockets is there.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(u32::try_from(killed)?)
}
