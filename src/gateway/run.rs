//! The life of a gateway: start, reload, drain, end.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    generation::{self, Generation},
    listeners::{self, Command},
    pools,
    shared::{Ingredients, ReloadRequest, ReloadSummary, Shared},
    worker,
};
use crate::{
    config::{self, Finding, Loaded, Report, Source, model::Config},
    edge::{ConnectionLimits, EdgeCounters},
    net::certs::FileWatch,
    observe::access_log::{AccessLog, Writer},
    policy::{self, Plugins},
};

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How long a changed configuration must stay as it is before it is read.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Why a gateway does not start, or ends badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration, with every reason.
    #[error(transparent)]
    Config(#[from] Report),
    /// The log cannot be set up.
    #[error(transparent)]
    Log(#[from] crate::observe::LogError),
    /// The operating system refused something.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The component host cannot be set up.
    #[error("the component host cannot start: {0}")]
    Policy(String),
}

/// What runs beside the gateway on its background thread, and what is told when it is ready.
pub trait Companion {
    /// Binds what it needs, and runs from then on; returns where, for the ready line.
    ///
    /// # Errors
    /// What is wrong, by key.
    fn start(&self, shared: &Arc<Shared>, config: &Config) -> Result<Option<String>, Vec<Finding>>;

    /// The gateway serves.
    fn ready(&self, shared: &Arc<Shared>);
}

/// Runs a gateway until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start; every reason at once.
pub fn run(source: Source, companion: &impl Companion) -> Result<(), RunError> {
    let loaded = load(&source)?;
    // Dropped last, so that why the gateway cannot start is told, too.
    let _last_words = crate::observe::init(&loaded.config.log)?;
    if let Err(error) = crate::edge::raise_file_limit() {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    let runtime = background()?;
    let writer = open_access_log(&loaded)?;
    let outcome = runtime.block_on(supervise(source, loaded, &writer, companion));
    runtime.shutdown_timeout(Duration::from_secs(1));
    writer.finish();
    outcome
}

/// Everything that `run` would refuse to start for, short of ports that are taken.
///
/// # Errors
/// Every reason at once.
pub fn check(source: &Source) -> Result<Checked, RunError> {
    let loaded = load(source)?;
    let runtime = background()?;
    let writer = AccessLog::open("off").map_err(io_error("access log"))?;
    // Not the gateway's own: whoever checks may not be the user that serves.
    let cache = policy::TemporaryState::new().map_err(io_error("cannot make a temporary directory"))?;
    runtime.block_on(async {
        let (shared, _requests) = shared(source.clone(), &loaded, cache.path(), writer.log())?;
        let (plugins, mut wrong) = prepare_plugins(&shared, &loaded).await;
        wrong.extend(listeners::check(&loaded.config, &shared.state));
        wrong.extend(Generation::check(&loaded.config, plugins.as_ref()));
        if wrong.is_empty() { Ok(Checked::of(&loaded)) } else { Err(report(&loaded, wrong).into()) }
    })
}

/// Reads a configuration; if it is refused, with all that the rooms would have to say of it.
fn load(source: &Source) -> Result<Loaded, Report> {
    config::load_and(source, |config| {
        let mut wrong = Generation::check(config, None);
        wrong.extend(listeners::check(config, &config.server.state_dir()));
        wrong
    })
}

/// What a configuration that passed holds.
#[derive(Debug)]
pub struct Checked {
    /// The files it was read from.
    pub files: Vec<String>,
    /// Its parts in words: `2 listeners, 3 routes, …`.
    pub parts: String,
}

impl Checked {
    fn of(loaded: &Loaded) -> Self {
        let config = &loaded.config;
        let parts = [
            (config.listener.len(), "listener"),
            (config.route.len(), "route"),
            (config.pool.len(), "pool"),
            (config.upstream.len(), "upstream"),
            (config.plugin.len(), "plugin"),
            (config.limit.len(), "limit"),
            (config.consumer.len(), "consumer"),
        ];
        let word = |(count, name): (usize, &str)| format!("{count} {name}{}", if count == 1 { "" } else { "s" });
        Self {
            files: loaded.files.iter().map(|file| file.display().to_string()).collect(),
            parts: parts.into_iter().filter(|(count, _)| *count > 0).map(word).collect::<Vec<_>>().join(", "),
        }
    }
}

fn background() -> Result<LocalRuntime, RunError> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(io_error("cannot start a runtime"))
}

fn open_access_log(loaded: &Loaded) -> Result<Writer, RunError> {
    let to = &loaded.config.log.access;
    AccessLog::open(to)
        .map_err(|error| report(loaded, vec![Finding::new("log.access", format!("cannot open {to}: {error}"))]).into())
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |error| RunError::Io { what, error }
}

fn shared(
    source: Source,
    loaded: &Loaded,
    cache: &Path,
    access_log: &Arc<AccessLog>,
) -> Result<(Arc<Shared>, mpsc::Receiver<ReloadRequest>), RunError> {
    let server = &loaded.config.server;
    let state = server.state_dir();
    let workers = server.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let plugins = Plugins::new(policy::Compiler::this_program(), cache, workers);
    let plugins = plugins.map_err(|error| RunError::Policy(error.to_string()))?;
    let (reload, requests) = mpsc::channel(16);
    let shared = Shared::new(Ingredients {
        source,
        state,
        workers,
        plugins: Arc::new(plugins),
        edge: Arc::new(EdgeCounters::default()),
        connections: ConnectionLimits::new(server.max_connections, server.per_address()),
        access_log: access_log.clone(),
        reload,
    });
    Ok((shared, requests))
}

fn report(loaded: &Loaded, wrong: Vec<Finding>) -> Report {
    Report::new(wrong.into_iter().map(|finding| loaded.problem(&finding.key, finding.message)).collect())
}

/// The plugins, loaded and tried, or what is wrong with them.
async fn prepare_plugins(shared: &Shared, loaded: &Loaded) -> (Option<policy::Prepared>, Vec<Finding>) {
    match shared.plugins.prepare(&loaded.config.plugin).await {
        Ok(prepared) => (Some(prepared), Vec::new()),
        Err(errors) => (None, plugin_findings(errors)),
    }
}

fn plugin_findings(errors: Vec<(String, policy::PluginError)>) -> Vec<Finding> {
    errors.into_iter().map(|(name, error)| Finding::new(format!("plugin.{name}"), error.to_string())).collect()
}

/// The background thread's own state.
struct Supervisor {
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Command>>,
    files: FileWatch,
    changed_at: Option<Instant>,
}

async fn supervise(
    source: Source,
    loaded: Loaded,
    writer: &Writer,
    companion: &impl Companion,
) -> Result<(), RunError> {
    let cache = loaded.config.server.state_dir();
    let (shared, mut requests) = shared(source, &loaded, &cache, writer.log())?;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shared.workers).map(|_| mpsc::channel(256)).unzip();
    let mut supervisor = Supervisor {
        shared: shared.clone(),
        workers: senders,
        files: FileWatch::new(loaded.files.iter().cloned()),
        changed_at: None,
    };
    let mut signals = Signals::new()?;
    // The companion binds before anything serves, so that a port in use is found with everything else.
    let admin = companion.start(&shared, &loaded.config);
    let prepared = supervisor.prepare(&loaded).await;
    let (admin, prepared) = match (admin, prepared) {
        (Ok(admin), Ok(prepared)) => (admin, prepared),
        (admin, prepared) => {
            let wrong = admin.err().into_iter().chain(prepared.err()).flatten().collect();
            return Err(report(&loaded, wrong).into());
        }
    };
    let threads = start_workers(&shared, receivers)?;
    supervisor.commit(prepared).await;
    tokio::task::spawn_local(follow_plugins(shared.clone()));
    tell_ready(&shared, admin.as_deref());
    companion.ready(&shared);

    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0_u64;
    loop {
        tokio::select! {
            _ = look.tick() => {
                looks += 1;
                supervisor.look(looks).await;
            }
            Some(request) = requests.recv() => supervisor.reload(request).await,
            Some(()) = signals.hangup.recv() => supervisor.reload(ReloadRequest { why: "SIGHUP", done: None }).await,
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    supervisor.drain(&mut signals).await;
    supervisor.end(threads).await;
    Ok(())
}

/// Swaps plugins whose files change. A task of its own: a compilation takes its time, and signals and reloads do not wait for it.
async fn follow_plugins(shared: Arc<Shared>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        shared.plugins.check_files().await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let on = |kind| signal(kind).map_err(io_error("cannot handle signals"));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }
}

fn start_workers(
    shared: &Arc<Shared>,
    receivers: Vec<mpsc::Receiver<Command>>,
) -> Result<Vec<JoinHandle<()>>, RunError> {
    let start = |(index, commands)| worker::spawn(index, shared.clone(), commands);
    let threads: io::Result<Vec<_>> = receivers.into_iter().enumerate().map(start).collect();
    threads.map_err(io_error("cannot start a worker"))
}

fn tell_ready(shared: &Shared, admin: Option<&str>) {
    let serving = shared.listeners.serving();
    let text = |listening: &Arc<listeners::Listening>| {
        format!("{}={}://{}", listening.name, listening.scheme(), listening.address)
    };
    let listeners: Vec<String> = serving.iter().map(text).collect();
    tracing::info!(listeners = listeners.join(" "), admin = admin.unwrap_or("none"), workers = shared.workers, "ready");
}

/// Everything of a new configuration that can be refused, ready to take over.
struct Next {
    generation: generation::Prepared,
    listeners: listeners::Prepared,
}

impl Supervisor {
    /// Builds all of a configuration beside what serves.
    async fn prepare(&self, loaded: &Loaded) -> Result<Next, Vec<Finding>> {
        let shared = &self.shared;
        let (plugins, mut wrong) = prepare_plugins(shared, loaded).await;
        let listeners = shared.listeners.prepare(&loaded.config, &shared.state, shared.workers, &mut wrong);
        let before = shared.current.load_full();
        let Some(plugins) = plugins else {
            wrong.extend(Generation::check(&loaded.config, None));
            return Err(wrong);
        };
        let generation = Generation::prepare(shared, loaded.clone(), plugins, before.as_deref(), wrong)?;
        Ok(Next { generation, listeners })
    }

    async fn commit(&self, next: Next) -> Arc<Generation> {
        let generation = next.generation.commit(&self.shared);
        let server = &generation.config().server;
        self.shared.connections.set(server.max_connections, server.per_address());
        self.shared.listeners.commit(next.listeners, &self.workers).await;
        generation
    }

    async fn look(&mut self, looks: u64) {
        self.shared.listeners.tick(&self.shared.state);
        if self.files.changed() {
            self.changed_at = Some(Instant::now());
        }
        if self.changed_at.is_some_and(|at| at.elapsed() >= DEBOUNCE) {
            self.changed_at = None;
            self.reload(ReloadRequest { why: "file changed", done: None }).await;
        }
        if looks.is_multiple_of(5) {
            self.sweep();
        }
    }

    /// Once a second: forget what nobody needs.
    fn sweep(&self) {
        let generation = self.shared.generation();
        generation.limits.values().for_each(|limiter| limiter.sweep());
        let now = Instant::now();
        generation.upstreams.values().for_each(|upstream| upstream.sweep(now));
        self.shared.failed_auth.sweep();
        self.shared.http.prune();
    }

    async fn reload(&mut self, request: ReloadRequest) {
        let outcome = self.try_reload(request.why).await;
        match &outcome {
            Ok(_) => self.shared.reloads.record(None),
            Err(report) => {
                let problems = report.to_string();
                tracing::error!(why = request.why, problems, "configuration refused, the old one serves on");
                self.shared.reloads.record(Some(problems));
            }
        }
        if let Some(done) = request.done {
            let _ = done.send(outcome);
        }
    }

    async fn try_reload(&mut self, why: &'static str) -> Result<ReloadSummary, Report> {
        let loaded = load(&self.shared.source)?;
        let next = self.prepare(&loaded).await.map_err(|wrong| report(&loaded, wrong))?;
        let before = self.shared.generation();
        let changes: Vec<String> = loaded.changes_since(&before.loaded).iter().map(ToString::to_string).collect();
        drop(before);
        let generation = self.commit(next).await;
        self.files = FileWatch::new(loaded.files.iter().cloned());
        tracing::info!(why, generation = generation.number, changes = changes.join("; "), "configuration reloaded");
        Ok(ReloadSummary { generation: generation.number, changes })
    }

    /// Readiness falls; after the delay listeners close, connections finish within the deadline. A second signal cuts it short.
    async fn drain(&self, signals: &mut Signals) {
        let shared = &self.shared;
        let server = shared.generation().config().server.clone();
        shared.draining.store(true, Ordering::Relaxed);
        tracing::info!(delay = %server.drain_delay, deadline = %server.drain_deadline, "draining");
        let finished = async {
            sleep(server.drain_delay.0).await;
            let drains = shared.listeners.drain_all();
            for drain in drains {
                drain.finished().await;
            }
        };
        let limit = server.drain_delay.0 + server.drain_deadline.0;
        tokio::select! {
            done = timeout(limit, finished) => if done.is_ok() {
                tracing::info!("drained");
            } else {
                tracing::warn!("drain deadline passed, closing what is still open");
            },
            _ = signals.terminate.recv() => tracing::warn!("second signal, closing what is still open"),
            _ = signals.interrupt.recv() => tracing::warn!("second signal, closing what is still open"),
        }
    }

    async fn end(self, threads: Vec<JoinHandle<()>>) {
        for worker in &self.workers {
            let _ = worker.send(Command::Stop).await;
        }
        let ended = Arc::new(AtomicU64::new(0));
        let count = ended.clone();
        let total = threads.len() as u64;
        let _ = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        pools::close_all(&self.shared).await;
        tracing::info!(workers = ended.load(Ordering::Relaxed), of = total, "stopped");
    }
}
