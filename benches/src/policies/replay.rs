//! A load, played against who answers it. It comes when it comes, answered or not.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_postgres::{Client, NoTls};

use super::{
    load::{Load, Timed},
    target::{ROLE, Target},
};
use crate::{
    figures::{mean, quantile},
    server::Postgres,
};

/// How often connections are counted.
const EVERY: Duration = Duration::from_millis(25);

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// When each statement that was answered came, how long it waited for its connection and how long it took in all, in
    /// milliseconds.
    pub answered: Vec<(Duration, f64, f64)>,
    /// Statements that were not answered.
    pub failed: u64,
    /// Answers while the load lasted.
    pub in_time: u64,
    /// Connections open at the server, from time to time.
    pub held: Vec<(Duration, f64)>,
    /// Connections opened.
    pub opened: usize,
    /// How long the load lasted.
    pub length: Duration,
}

impl Outcome {
    /// 99 % of the statements that came after `from` waited no longer, in milliseconds.
    pub fn p99_wait(&self, from: Duration) -> f64 {
        let waits = self.answered.iter().filter(|(at, ..)| *at >= from).map(|(_, wait, _)| *wait);
        quantile(&waits.collect::<Vec<_>>(), 0.99)
    }

    /// 99 % of the answers took no longer from asking to their end, in milliseconds.
    pub fn p99_answer(&self) -> f64 {
        quantile(&self.answered.iter().map(|(.., took)| *took).collect::<Vec<_>>(), 0.99)
    }

    /// Connections open in the mean after `from`, and at most.
    pub fn held(&self, from: Duration) -> (f64, f64) {
        let held: Vec<f64> = self.held.iter().filter(|(at, _)| *at >= from).map(|(_, held)| *held).collect();
        (mean(&held), quantile(&held, 1.0))
    }

    /// Answers a second while the load lasted.
    pub fn throughput(&self) -> f64 {
        self.in_time as f64 / self.length.as_secs_f64()
    }
}

/// Plays `load` to its end, and waits for the last answer.
pub async fn replay(load: &Load, target: Rc<dyn Target>, postgres: &Postgres) -> Result<Outcome> {
    let opened = opened(postgres)?;
    let begun = Instant::now();
    let held = Rc::new(RefCell::new(Vec::new()));
    let (observer, connection) = tokio_postgres::connect(&postgres.url(), NoTls).await?;
    tokio::spawn(connection);
    let counting = tokio::task::spawn_local(count(observer, begun, held.clone()));
    let mut outcome = Outcome { length: load.length(), ..Outcome::default() };
    let mut running = JoinSet::new();
    for timed in &load.statements {
        sleep_until((begun + timed.at).into()).await;
        running.spawn_local(once(target.clone(), *timed, load.knee));
    }
    let ends = begun + load.length();
    counting.abort();
    while let Some(done) = running.join_next().await {
        match done? {
            Some((ended, wait, took, at)) => {
                outcome.in_time += u64::from(ended <= ends);
                outcome.answered.push((at, wait, took));
            }
            None => outcome.failed += 1,
        }
    }
    outcome.held = held.take();
    outcome.opened = self::opened(postgres)? - opened;
    Ok(outcome)
}

/// When it ended, how long it waited, how long it took, and when it came.
async fn once(target: Rc<dyn Target>, timed: Timed, knee: u32) -> Option<(Instant, f64, f64, Duration)> {
    let asked = Instant::now();
    let at_server = target.run(timed.ms, knee).await.ok()?;
    let took = asked.elapsed().as_secs_f64() * 1e3;
    Some((Instant::now(), (took - at_server).max(0.0), took, timed.at))
}

/// Counts at the server.
async fn count(observer: Client, begun: Instant, held: Rc<RefCell<Vec<(Duration, f64)>>>) -> Result<()> {
    let sql = "select count(*) from pg_stat_activity where usename = $1::text";
    let statement = observer.prepare(sql).await?;
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let row = observer.query_one(&statement, &[&ROLE]).await?;
        held.borrow_mut().push((begun.elapsed(), row.get::<_, i64>(0) as f64));
    }
}

/// Sessions of the load that the server has let in so far, by its log.
fn opened(postgres: &Postgres) -> Result<usize> {
    postgres.logged(&format!("connection authorized: user={ROLE} "))
}
