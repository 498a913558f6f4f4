//! (i) Idle connections that die: requests that fail for each.

use std::{rc::Rc, time::Duration};

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

use super::wire::{Asker, Named, Ours, TRUSTING, others, through};
use crate::{figures::verdict, server::Postgres};

const SIZE: u32 = 5;
const ROUNDS: u32 = 5;

pub async fn run(postgres: &Postgres, bouncer: Option<&str>) -> Result<()> {
    let (admin, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    let url = postgres.url();
    let mut all: Vec<Named> = vec![
        ("sluicegate-bypass-window", Rc::new(Ours::connect(&url, SIZE, TRUSTING).await?)),
        ("sluicegate-always", Rc::new(Ours::connect(&url, SIZE, "always").await?)),
    ];
    all.extend(others(&url, SIZE).await?);
    all.extend(bouncer.map(through));
    let mut ours = 0.0;
    for (name, pool) in &all {
        let (mut killed, mut failed) = (0, 0);
        for _ in 0..ROUNDS {
            warm(pool).await?;
            killed += kill(&admin, name).await?;
            failed += SIZE - answered(pool).await?;
        }
        let each = f64::from(failed) / f64::from(killed.max(1));
        println!(
            "(i) idle connections killed, then as many queries at once: {name:24} {failed} failed of {killed} killed"
        );
        if *name == "sluicegate-bypass-window" {
            ours = each;
        }
    }
    println!("    failed for each killed: {}", verdict(ours, 1.0));
    Ok(())
}

/// Waits until all of its connections have been used.
async fn warm(pool: &Rc<dyn Asker>) -> Result<()> {
    // A pool that has just lost all may take a moment to be as it was.
    for _ in 0..50 {
        if answered(pool).await? == SIZE {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("a pool does not recover")
}

/// As many statements at once as there are connections; how many were answered.
async fn answered(pool: &Rc<dyn Asker>) -> Result<u32> {
    let asks: Vec<_> = (0..SIZE as i32).map(|aid| ask(pool.clone(), aid + 1)).collect();
    let mut well = 0;
    for asked in asks {
        well += u32::from(asked.await?.is_ok());
    }
    Ok(well)
}

fn ask(pool: Rc<dyn Asker>, aid: i32) -> tokio::task::JoinHandle<Result<()>> {
    tokio::task::spawn_local(async move { pool.ask(aid).await })
}

/// Ends all sessions of that name, and does not wait until they are gone.
async fn kill(admin: &Client, name: &str) -> Result<u32> {
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1";
    let killed: i64 = admin.query_one(kill, &[&name]).await.context("killing")?.get(0);
    Ok(u32::try_from(killed)?)
}
