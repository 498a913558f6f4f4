//! Pools of nothing: ours, deadpool's, bb8's, behind one door. sqlx has no seam for a database of one's own.

use std::{rc::Rc, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use serde_json::json;
use sluicegate::pool::{Holder, Lease, Pool};
use tokio::time::Instant;

use super::nothing::{Maker, Seen};
use crate::{
    figures::quantile,
    pooled::{Components, table},
};

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pool that lends.
pub trait Lender: 'static {
    /// What is lent, until it is dropped.
    type Lent<'a>;

    /// Lends one.
    async fn lend(&self) -> Result<Self::Lent<'_>>;

    /// What its server has seen.
    fn seen(&self) -> &Arc<Seen>;
}

/// Sluicegate's.
pub struct Ours {
    pool: Arc<Pool<Maker>>,
    seen: Arc<Seen>,
}

/// deadpool's.
pub struct Deadpool(deadpool::managed::Pool<Maker>);

/// bb8's.
pub struct Bb8 {
    pool: bb8::Pool<Maker>,
    seen: Arc<Seen>,
}

/// One of each.
pub struct All {
    pub ours: Rc<Ours>,
    pub deadpool: Rc<Deadpool>,
    pub bb8: Rc<Bb8>,
}

impl All {
    /// Pools with `warm` connections open, and room for `max`.
    pub async fn new(connect: Duration, warm: u32, max: u32) -> Result<Self> {
        let maker = || Maker::new(connect);
        let components = Components::none().await?;
        let keys = json!({ "queue": 10_000, "held_warning": "0s", "checkout_timeout": "60s", "slow_checkout": "0s",
            "size": { "min": warm, "max": max } });
        let ours = Ours::new(components.pool(&table("sqlite", "sqlite:none", keys)?, maker()).await?);
        let deadpool = Deadpool(deadpool::managed::Pool::builder(maker()).max_size(max as usize).build()?);
        let mut all = Vec::new();
        for _ in 0..warm {
            all.push(deadpool.lend().await?);
        }
        drop(all);
        let bb8 = maker();
        let seen = bb8.seen.clone();
        let building = bb8::Pool::builder().max_size(max).min_idle(warm).connection_timeout(PATIENCE);
        let bb8 = Bb8 { pool: building.build(bb8).await.map_err(|error| anyhow!("{error}"))?, seen };
        Ok(Self { ours: Rc::new(ours), deadpool: Rc::new(deadpool), bb8: Rc::new(bb8) })
    }
}

impl Ours {
    /// Lends from that pool.
    pub fn new(pool: Arc<Pool<Maker>>) -> Self {
        let seen = pool.backend().seen.clone();
        Self { pool, seen }
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool<Maker>> {
        &self.pool
    }
}

impl Lender for Ours {
    type Lent<'a> = Lease<Maker>;

    async fn lend(&self) -> Result<Lease<Maker>> {
        self.pool.checkout(Instant::now() + PATIENCE, Holder::default()).await.map_err(|error| anyhow!("{error}"))
    }

    fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }
}

impl Lender for Deadpool {
    type Lent<'a> = deadpool::managed::Object<Maker>;

    async fn lend(&self) -> Result<Self::Lent<'_>> {
        self.0.get().await.map_err(|error| anyhow!("{error}"))
    }

    fn seen(&self) -> &Arc<Seen> {
        &self.0.manager().seen
    }
}

impl Lender for Bb8 {
    type Lent<'a> = bb8::PooledConnection<'a, Maker>;

    async fn lend(&self) -> Result<Self::Lent<'_>> {
        self.pool.get().await.map_err(|error| anyhow!("{error}"))
    }

    fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }
}

/// Milliseconds from asking to being done, of `callers` at once, each `rounds` times; and how many got none.
pub async fn together<L: Lender>(
    lender: &Rc<L>,
    callers: usize,
    hold: Duration,
    rounds: usize,
) -> Result<(Vec<f64>, u64)> {
    let caller = || {
        let lender = lender.clone();
        tokio::task::spawn_local(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            for _ in 0..rounds {
                let begun = Instant::now();
                match lender.lend().await {
                    Ok(lent) => {
                        tokio::time::sleep(hold).await;
                        drop(lent);
                        times.push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                    Err(_) => failed += 1,
                }
            }
            (times, failed)
        })
    };
    let callers: Vec<_> = (0..callers).map(|_| caller()).collect();
    let (mut all, mut none) = (Vec::new(), 0);
    for caller in callers {
        let (times, failed) = caller.await?;
        all.extend(times);
        none += failed;
    }
    Ok((all, none))
}

/// p50 and p99.
pub fn p50_p99(times: &[f64]) -> (f64, f64) {
    (quantile(times, 0.5), quantile(times, 0.99))
}
