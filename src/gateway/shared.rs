//! What all threads of a gateway share.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    alerts::Alerts, generation::Generation, listeners::Listeners, overload::Overload, pools::Retiring,
    servers::Servers, tunnel,
};
use crate::{
    access::FailedAuth,
    config::{Report, Source},
    edge::{ConnectionLimits, EdgeCounters, Tunnels},
    observe::{access_log::AccessLog, figures::HttpFigures},
    policy::Plugins,
    query::{named::Cache, tunnel::Sessions},
};

/// What all threads share.
pub struct Shared {
    /// Where the configuration comes from.
    pub source: Source,
    /// The state directory.
    pub state: PathBuf,
    /// When the gateway started.
    pub started: Instant,
    /// Worker threads.
    pub workers: usize,
    /// The generation that serves; none before the first.
    pub current: ArcSwapOption<Generation>,
    /// Generations alive.
    pub generations: Arc<AtomicUsize>,
    /// Policy components.
    pub plugins: Arc<Plugins>,
    /// Figures of HTTP.
    pub http: HttpFigures,
    /// Counters of the edge.
    pub edge: Arc<EdgeCounters>,
    /// Caps on connections.
    pub connections: Arc<ConnectionLimits>,
    /// Failed authentications, by address.
    pub failed_auth: FailedAuth,
    scram_secret: OnceLock<Box<[u8]>>,
    /// The access log.
    pub access_log: Arc<AccessLog>,
    /// Sockets that accept.
    pub listeners: Listeners,
    /// Upgraded connections.
    pub tunnels: Arc<Tunnels>,
    /// Sessions in tunnels.
    pub sessions: Arc<Sessions>,
    /// The background thread's runtime.
    pub(super) background: Handle,
    /// The workers' runtimes.
    runtimes: Mutex<Vec<Handle>>,
    pub(super) retiring: Mutex<Vec<Retiring>>,
    pub(super) servers: Servers,
    /// Whether the gateway is on its way out.
    pub draining: AtomicBool,
    /// What became of reloads.
    pub reloads: Reloads,
    /// What is worth an operator's attention.
    pub alerts: Alerts,
    /// Answers of named queries.
    pub query_cache: Arc<Cache>,
    /// What is refused while the gateway itself is short of something.
    pub overload: Overload,
    requests: AtomicU64,
    reload: mpsc::Sender<ReloadRequest>,
}

/// Somebody asks for a reload, and waits for its outcome.
pub(super) struct ReloadRequest {
    pub(super) why: &'static str,
    pub(super) done: Option<oneshot::Sender<Result<ReloadSummary, Report>>>,
}

/// A reload that took effect.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReloadSummary {
    /// The generation that serves now.
    pub generation: u64,
    /// What changed, one text a key.
    pub changes: Vec<String>,
}

/// Counters of reloads.
#[derive(Default)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last: Mutex<Option<LastReload>>,
}

/// The last reload.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When.
    pub at: SystemTime,
    /// Why it was refused, if it was.
    pub error: Option<String>,
}

impl Reloads {
    pub(super) fn record(&self, error: Option<String>) {
        let counter = if error.is_none() { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        *self.last.lock() = Some(LastReload { at: SystemTime::now(), error });
    }

    /// Reloads that took effect, and reloads that were refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// The last one.
    pub fn last(&self) -> Option<LastReload> {
        self.last.lock().clone()
    }
}

/// What [`Shared`] is made of.
pub(super) struct Ingredients {
    pub(super) source: Source,
    pub(super) state: PathBuf,
    pub(super) workers: usize,
    pub(super) plugins: Arc<Plugins>,
    pub(super) edge: Arc<EdgeCounters>,
    pub(super) connections: Arc<ConnectionLimits>,
    pub(super) access_log: Arc<AccessLog>,
    pub(super) reload: mpsc::Sender<ReloadRequest>,
}

impl Shared {
    /// A worker's runtime, whose tasks are to be counted.
    pub(super) fn count_tasks_of(&self, runtime: Handle) {
        self.runtimes.lock().push(runtime);
    }

    /// Tasks alive on the workers and on the background: connections, HTTP/2 streams, accepting, what drives a pool or an
    /// upstream's connection.
    pub fn tasks(&self) -> usize {
        let workers: usize = self.runtimes.lock().iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        workers + self.background.metrics().num_alive_tasks()
    }

    pub(super) fn new(of: Ingredients) -> Arc<Self> {
        Arc::new(Self {
            source: of.source,
            state: of.state,
            started: Instant::now(),
            workers: of.workers,
            current: ArcSwapOption::empty(),
            generations: Arc::default(),
            plugins: of.plugins,
            http: HttpFigures::default(),
            edge: of.edge,
            connections: of.connections,
            failed_auth: FailedAuth::default(),
            scram_secret: OnceLock::new(),
            access_log: of.access_log,
            listeners: Listeners::default(),
            tunnels: Arc::default(),
            sessions: Arc::default(),
            background: Handle::current(),
            runtimes: Mutex::default(),
            retiring: Mutex::default(),
            servers: Servers::default(),
            draining: AtomicBool::new(false),
            reloads: Reloads::default(),
            alerts: Alerts::default(),
            overload: Overload::default(),
            query_cache: Cache::new(0),
            requests: AtomicU64::new(0),
            reload: of.reload,
        })
    }

    /// The generation that serves.
    pub fn generation(&self) -> Arc<Generation> {
        self.current.load_full().expect("the first generation is there before the first listener")
    }

    /// What the salts of names that nobody has are made of. Read when a configuration first wants it
    /// ([`Prepared::commit`](super::generation::Prepared::commit)), so that no request waits for the file.
    pub(super) fn scram_secret(&self) -> &[u8] {
        self.scram_secret.get_or_init(|| tunnel::scram_secret(&self.state))
    }

    /// A number for a request, unique in this process.
    pub(super) fn request_id(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Pools on their way out.
    pub fn retiring_pools(&self) -> Vec<Retiring> {
        self.retiring.lock().clone()
    }

    /// Cores that policies are told of.
    pub(super) fn cores(&self) -> u32 {
        u32::try_from(self.workers).unwrap_or(u32::MAX)
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether `/readyz` may say yes: a generation serves, and the gateway is not on its way out.
    pub fn is_ready(&self) -> bool {
        self.current.load().is_some() && !self.draining.load(Ordering::Relaxed)
    }

    /// Asks for a reload, and does not wait; where many are asked for already, one of those will do.
    pub(super) fn ask_for_reload(&self, why: &'static str) {
        let _ = self.reload.try_send(ReloadRequest { why, done: None });
    }

    /// Reloads the configuration and waits for the outcome. Cancel safe: the reload goes on.
    ///
    /// # Errors
    /// Everything that is wrong with the new configuration; the old one serves on.
    pub async fn reload(&self, why: &'static str) -> Result<ReloadSummary, Report> {
        let (done, outcome) = oneshot::channel();
        let gone = || Report::new(vec![crate::config::Problem::new(None, "", "the gateway is stopping")]);
        self.reload.send(ReloadRequest { why, done: Some(done) }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}
