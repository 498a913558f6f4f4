//! The life of a gateway: start, serve, drain, end.

use std::{io, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    ending,
    inputs::{self, InputWatch, Reading},
    listeners::{self, Command},
    overload,
    shared::{Ingredients, ReloadRequest, Shared},
    supervisor::{LOOK, Next, Supervisor, report},
    worker,
};
use crate::{
    config::{Finding, Loaded, Report, Source, model::Config},
    edge::{ConnectionLimits, EdgeCounters},
    observe::access_log::{AccessLog, Writer},
    policy::{Compiler, Plugins},
};

/// How long the access log may take to write what it was handed.
const LAST_LINES: Duration = Duration::from_secs(5);

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
    /// A signal came while it was ending.
    #[error("ended at once, at another signal: what was still open is cut, lines of the access log may be missing")]
    Cut,
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

/// Runs a gateway until SIGTERM or SIGINT. One more signal cuts the drain short, and one during the end ends it at once.
///
/// # Errors
/// It cannot start, every reason at once; or its end was cut.
pub fn run(source: Source, companion: &impl Companion) -> Result<(), RunError> {
    let Reading { outcome, watch } = inputs::read(&source, &[]);
    let loaded = outcome?;
    // Dropped last, so that why the gateway cannot start is told, too.
    let _last_words = crate::observe::init(&loaded.config.log)?;
    if let Err(error) = crate::edge::raise_file_limit() {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    let runtime = background()?;
    let writer = open_access_log(&loaded)?;
    let outcome = runtime.block_on(live(source, loaded, watch, &writer, companion));
    let patience = if matches!(outcome, Err(RunError::Cut)) { Duration::ZERO } else { LAST_LINES };
    runtime.shutdown_timeout(patience.min(Duration::from_secs(1)));
    if !writer.finish(patience) {
        tracing::warn!("the access log's last lines could not be written");
    }
    outcome
}

pub(super) fn background() -> Result<LocalRuntime, RunError> {
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

pub(super) fn io_error(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |error| RunError::Io { what, error }
}

/// What all threads will share, and where reloads are asked for. Compiled plugins are kept below `cache`.
pub(super) fn shared(
    compiler: Compiler,
    source: Source,
    loaded: &Loaded,
    cache: &Path,
    access_log: &Arc<AccessLog>,
) -> Result<(Arc<Shared>, mpsc::Receiver<ReloadRequest>), RunError> {
    let server = &loaded.config.server;
    let state = server.state_dir();
    let workers = server.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let plugins = Plugins::new(compiler, cache, workers);
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

/// From the first configuration to the end.
async fn live(
    source: Source,
    loaded: Loaded,
    watch: InputWatch,
    writer: &Writer,
    companion: &impl Companion,
) -> Result<(), RunError> {
    let cache = loaded.config.server.state_dir();
    let (shared, requests) = shared(Compiler::this_program(), source, &loaded, &cache, writer.log())?;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shared.workers).map(|_| mpsc::channel(256)).unzip();
    let mut supervisor = Supervisor::new(shared.clone(), senders, watch);
    let mut signals = Signals::new()?;
    // The companion binds before anything serves, so that a port in use is found with everything else.
    let admin = companion.start(&shared, &loaded.config);
    let prepared = tokio::select! {
        biased;
        () = signals.end.asked() => return Ok(()),
        prepared = supervisor.prepare(&loaded) => prepared,
    };
    let (admin, next) = both(admin, prepared).map_err(|wrong| report(&loaded, wrong))?;
    let threads = start_workers(&shared, receivers)?;
    let (_, deaf) = supervisor.commit(next).await;
    if !deaf.is_empty() {
        return Err(report(&loaded, deaf).into());
    }
    tokio::task::spawn_local(follow_plugins(shared.clone()));
    tokio::task::spawn_local(overload::watch(shared.clone()));
    tell_ready(&shared, admin.as_deref());
    companion.ready(&shared);
    serve(&mut supervisor, requests, &mut signals).await;
    ending::drain(&shared, signals.end.asked()).await;
    tokio::select! {
        () = ending::end(&shared, supervisor.into_workers(), threads, ending::STOP) => Ok(()),
        () = signals.end.asked() => Err(RunError::Cut),
    }
}

type Found<T> = Result<T, Vec<Finding>>;

/// Both, or all that is wrong with either.
fn both(admin: Found<Option<String>>, next: Found<Next>) -> Found<(Option<String>, Next)> {
    match (admin, next) {
        (Ok(admin), Ok(next)) => Ok((admin, next)),
        (admin, next) => Err(admin.err().into_iter().chain(next.err()).flatten().collect()),
    }
}

/// Follows files and reloads until a signal ends it.
async fn serve(supervisor: &mut Supervisor, mut requests: mpsc::Receiver<ReloadRequest>, signals: &mut Signals) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let request = tokio::select! {
            _ = look.tick() => supervisor.look(),
            Some(request) = requests.recv() => Some(request),
            Some(()) = signals.hangup.recv() => Some(ReloadRequest { why: "SIGHUP", done: None }),
            () = signals.end.asked() => return,
        };
        if let Some(request) = request
            && supervisor.reload(request, signals.end.asked()).await.is_break()
        {
            return;
        }
    }
}

/// Swaps plugins whose files change. A task of its own: a compilation takes its time, and signals and reloads do not wait for it.
/// A configuration that came together with a plugin may have been refused for want of what the plugin has now.
async fn follow_plugins(shared: Arc<Shared>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let swapped = shared.plugins.check_files().await;
        if swapped && shared.reloads.last().is_some_and(|last| last.error.is_some()) {
            shared.ask_for_reload("plugin changed");
        }
    }
}

struct Signals {
    hangup: Signal,
    end: EndSignals,
}

struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let on = |kind| signal(kind).map_err(io_error("cannot handle signals"));
        let end = EndSignals { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? };
        Ok(Self { hangup: on(SignalKind::hangup())?, end })
    }
}

impl EndSignals {
    /// Waits for the next. Cancel safe.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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
