//! The load: threads as a gateway has them, clients on them, and somebody who watches.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::future::{join_all, try_join_all};
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};

use super::{
    plan::Plan,
    progress::Progress,
    sample::{EVERY, Samples, rate},
    tally::{Done, Tally},
};
use crate::{
    backend::{BackendError, Database, Event, Execution, Limits, Statement, Work},
    gateway::SinglePool,
    observe,
    pool::{Holder, PoolStatus},
};

/// Longest statement, the wait for its connection included: what a route has if nothing else is said.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest row.
const LIMITS: Limits = Limits { row: 16 << 20, trace: None };
/// Least pause behind a failure: one that comes at once would else come a million times.
const AFTER_FAILURE: Duration = Duration::from_millis(10);
/// How long what runs at the end may go on.
const LAST: Duration = Duration::from_secs(5);
/// How long the pool may take to fill up to its minimum.
const WARM: Duration = Duration::from_secs(5);

/// What came of it.
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// Statements begun, and cut at the end.
    pub(super) unfinished: u64,
    pub(super) samples: Samples,
    /// Until clients were told to end.
    pub(super) elapsed: Duration,
    /// Statements done a second in that time.
    pub(super) per_second: f64,
    pub(super) interrupted: bool,
    /// The pool at the end.
    pub(super) pool: PoolStatus,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Threads start.
    Wait,
    Run,
    /// Nothing new is begun.
    End,
    /// What runs is left.
    Cut,
}

/// What all clients share.
struct Load {
    database: Database,
    plan: Plan,
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

/// Puts the load on the pool, until its time is over or Ctrl-C.
pub(super) async fn run(pool: &SinglePool, plan: &Plan) -> anyhow::Result<Outcome> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let load = Arc::new(Load::new(pool.database.clone(), plan.clone()));
    select! {
        tried = load.once(false, "trial".into()) => { tried.context("the reading statement, tried once")?; }
        _ = interrupt.recv() => anyhow::bail!("interrupted before there was any load"),
    }
    warm(&pool.database).await;
    let (tell, phase) = watch::channel(Phase::Wait);
    let threads = pool.workers.min(plan.clients as usize).max(1);
    let started = (0..threads).map(|index| start(index, threads, &load, &phase));
    let (ready, workers): (Vec<_>, Vec<_>) = started.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
    try_join_all(ready).await.context("a thread of clients cannot start")?;
    let begun = Instant::now();
    tell.send_replace(Phase::Run);
    let mut samples = Samples::default();
    let interrupted = watch_until_end(&load, begun, &mut samples, &mut interrupt).await;
    tell.send_replace(Phase::End);
    let elapsed = begun.elapsed();
    let per_second = rate(load.done.load(Ordering::Relaxed), elapsed);
    let tallies = gather(workers, &tell, &mut interrupt).await.context("a thread of clients has ended")?;
    let tally = tallies.into_iter().fold(Tally::default(), |mut all, tally| {
        all.add(tally);
        all
    });
    let (unfinished, pool) = (load.unfinished(), pool.database.kind().status());
    Ok(Outcome { tally, unfinished, samples, elapsed, per_second, interrupted, pool })
}

/// As a gateway's pool would be before the first request: what it keeps open is open.
async fn warm(database: &Database) {
    let end = Instant::now() + WARM;
    loop {
        let pool = database.kind().status();
        if pool.size - pool.creating >= pool.min || Instant::now() >= end {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Samples until the time is over; whether it was ended before.
async fn watch_until_end(load: &Load, begun: Instant, samples: &mut Samples, interrupt: &mut Signal) -> bool {
    let Plan { duration, .. } = load.plan;
    let progress = Progress::new(duration.0);
    let mut tick = interval_at((begun + EVERY).into(), EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = sleep_until((begun + duration.0).into());
    tokio::pin!(end);
    loop {
        select! {
            _ = tick.tick() => {}
            () = &mut end => return false,
            _ = interrupt.recv() => return true,
        }
        let (done, failed) = (load.done.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
        samples.take(begun.elapsed(), &load.database.kind().status(), done, failed);
        if let Some(sample) = samples.taken.last() {
            progress.show(sample, failed);
        }
    }
}

/// Waits for what runs, for a while.
async fn gather(
    workers: Vec<oneshot::Receiver<Tally>>,
    tell: &watch::Sender<Phase>,
    interrupt: &mut Signal,
) -> Result<Vec<Tally>, oneshot::error::RecvError> {
    let all = try_join_all(workers);
    tokio::pin!(all);
    select! {
        tallies = &mut all => return tallies,
        () = sleep(LAST) => {}
        _ = interrupt.recv() => {}
    }
    tell.send_replace(Phase::Cut);
    all.await
}

/// Starts thread `index` with its part of the clients. What comes back first says that it is there, the other what they
/// met.
fn start(
    index: usize,
    threads: usize,
    load: &Arc<Load>,
    phase: &watch::Receiver<Phase>,
) -> anyhow::Result<(oneshot::Receiver<()>, oneshot::Receiver<Tally>)> {
    let (load, phase) = (load.clone(), phase.clone());
    let runtime = move || Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let ((ready, is_ready), (tell, told)) = (oneshot::channel(), oneshot::channel());
    std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        observe::set_worker(index);
        // Without one nothing is told, which is seen.
        if let Ok(runtime) = runtime() {
            let clients = (0..load.plan.clients).skip(index).step_by(threads);
            let _ = ready.send(());
            let _ = tell.send(work(runtime, &load, clients, phase));
        }
    })?;
    Ok((is_ready, told))
}

fn work(
    runtime: LocalRuntime,
    load: &Arc<Load>,
    clients: impl Iterator<Item = u32>,
    mut phase: watch::Receiver<Phase>,
) -> Tally {
    let tally = Rc::new(RefCell::new(Tally::default()));
    runtime.block_on(async {
        let start = |client| tokio::task::spawn_local(load.clone().client(client, tally.clone(), phase.clone()));
        let all = join_all(clients.map(start).collect::<Vec<_>>());
        select! {
            _ = all => {}
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
        }
    });
    // What is cut now is mended or closed on the runtime that drives the pool.
    observe::leave_worker();
    runtime.shutdown_background();
    tally.take()
}

impl Load {
    fn new(database: Database, plan: Plan) -> Self {
        Self { database, plan, begun: AtomicU64::new(0), done: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    fn unfinished(&self) -> u64 {
        let ended = self.done.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed);
        self.begun.load(Ordering::Relaxed).saturating_sub(ended)
    }

    /// One client: a statement, a pause, and again.
    async fn client(self: Arc<Self>, number: u32, tally: Rc<RefCell<Tally>>, mut phase: watch::Receiver<Phase>) {
        let name: Arc<str> = format!("client {number}").into();
        let mut mix = self.plan.mix(number);
        let _ = phase.wait_for(|phase| *phase != Phase::Wait).await;
        while *phase.borrow() == Phase::Run {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let pause = match self.once(mix.writes_next(), name.clone()).await {
                Ok((done, execution)) => {
                    self.done.fetch_add(1, Ordering::Relaxed);
                    tally.borrow_mut().done(&done);
                    unless_ended(self.plan.hold.0, &mut phase).await;
                    drop(execution);
                    self.plan.think.0
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    tally.borrow_mut().failed(&error);
                    self.plan.think.0.max(AFTER_FAILURE)
                }
            };
            unless_ended(pause, &mut phase).await;
        }
    }

    /// One statement to its end. As long as the execution is kept, its connection is.
    async fn once(&self, writes: bool, route: Arc<str>) -> Result<(Done, Execution), BackendError> {
        let sql = self.plan.writes.as_ref().filter(|_| writes).unwrap_or(&self.plan.reads);
        let work = Work::Single(Statement { sql: sql.clone(), params: Vec::new() });
        let asked = Instant::now();
        let holder = Holder { route, ..Holder::default() };
        let mut execution = self.database.start(work, (asked + DEADLINE).into(), holder, LIMITS).await?;
        let mut rows = 0;
        while let Some(event) = execution.next().await? {
            rows += u64::from(matches!(event, Event::Row(_)));
        }
        let (took, waited) = (asked.elapsed(), execution.waited());
        Ok((Done { writes, rows, took, waited }, execution))
    }
}

/// Sleeps, at most until clients are to end.
async fn unless_ended(time: Duration, phase: &mut watch::Receiver<Phase>) {
    if !time.is_zero() {
        let _ = timeout(time, phase.wait_for(|phase| *phase != Phase::Run)).await;
    }
}
