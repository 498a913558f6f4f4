//! What looks after a gateway while it serves: files that change, reloads, sweeps.

use std::{convert::Infallible, future::Future, ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    generation::{self, Generation},
    inputs::{self, InputWatch, Reading},
    listeners::{self, Command},
    shared::{ReloadRequest, ReloadSummary, Shared},
};
use crate::{
    config::{Finding, Loaded, Report},
    policy,
};

/// How often files are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// How long a changed configuration must stay as it is before it is read.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Looks between two sweeps.
const SWEEP_EVERY: u64 = 5;

/// The background thread's own state.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Command>>,
    inputs: InputWatch,
    changed_at: Option<Instant>,
    upkeep: Upkeep,
}

/// What goes on whatever else does.
struct Upkeep {
    shared: Arc<Shared>,
    looks: u64,
}

/// Everything of a new configuration that can be refused, ready to take over.
pub(super) struct Next {
    generation: generation::Prepared,
    listeners: listeners::Prepared,
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>, workers: Vec<mpsc::Sender<Command>>, inputs: InputWatch) -> Self {
        Self { upkeep: Upkeep { shared: shared.clone(), looks: 0 }, shared, workers, inputs, changed_at: None }
    }

    /// Builds all of a configuration beside what serves. Cancel safe: what was built is dropped.
    pub(super) async fn prepare(&self, loaded: &Loaded) -> Result<Next, Vec<Finding>> {
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

    /// Puts what was prepared in service. To be run to its end. Returns listeners, too, that could not listen after all, because
    /// another process was quicker; the rest is in service.
    pub(super) async fn commit(&mut self, next: Next) -> (Arc<Generation>, Vec<Finding>) {
        let generation = next.generation.commit(&self.shared);
        generation.look_after_issuers();
        let server = &generation.config().server;
        self.shared.connections.set(server.max_connections, server.per_address());
        let deaf = self.shared.listeners.commit(next.listeners, &self.workers).await;
        self.inputs.accepted();
        (generation, deaf)
    }

    /// Called a few times a second. Returns the reload that a changed file asks for.
    pub(super) fn look(&mut self) -> Option<ReloadRequest> {
        self.upkeep.look();
        if self.inputs.changed() {
            self.changed_at = Some(Instant::now());
        }
        self.changed_at.take_if(|at| at.elapsed() >= DEBOUNCE)?;
        Some(ReloadRequest { why: "file changed", done: None })
    }

    /// Reads the configuration and puts it in service, or says why not. `Break`: `stop` came while it was being prepared, which
    /// may take as long as plugins compile; then nothing has changed.
    pub(super) async fn reload(&mut self, request: ReloadRequest, stop: impl Future<Output = ()>) -> ControlFlow<()> {
        let mut upkeep = Upkeep { shared: self.shared.clone(), looks: 0 };
        let prepared = tokio::select! {
            biased;
            () = stop => return ControlFlow::Break(()),
            prepared = self.prepare_next() => prepared,
            never = upkeep.go_on() => match never {},
        };
        let outcome = match prepared {
            Ok((loaded, next)) => Ok(self.take_over(request.why, &loaded, next).await),
            Err(report) => Err(self.refuse(request.why, report)),
        };
        if let Some(done) = request.done {
            let _ = done.send(outcome);
        }
        ControlFlow::Continue(())
    }

    async fn prepare_next(&mut self) -> Result<(Loaded, Next), Report> {
        let before: Vec<PathBuf> = self.shared.generation().loaded.files.clone();
        let Reading { outcome, watch } = inputs::read(&self.shared.source, &before);
        self.inputs = watch;
        self.changed_at = None;
        let loaded = outcome?;
        let next = self.prepare(&loaded).await.map_err(|wrong| report(&loaded, wrong))?;
        Ok((loaded, next))
    }

    async fn take_over(&mut self, why: &'static str, loaded: &Loaded, next: Next) -> ReloadSummary {
        let changes = loaded.changes_since(&self.shared.generation().loaded);
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let (generation, deaf) = self.commit(next).await;
        tracing::info!(why, generation = generation.number, changes = changes.join("; "), "configuration reloaded");
        let problems = (!deaf.is_empty()).then(|| report(loaded, deaf).to_string());
        if let Some(problems) = &problems {
            tracing::error!(why, problems, "the configuration serves without these listeners");
        }
        self.shared.reloads.record(problems);
        ReloadSummary { generation: generation.number, changes }
    }

    fn refuse(&self, why: &'static str, report: Report) -> Report {
        let problems = report.to_string();
        tracing::error!(why, problems, "configuration refused, the old one serves on");
        self.shared.reloads.record(Some(problems));
        report
    }

    /// The way to the workers.
    pub(super) fn into_workers(self) -> Vec<mpsc::Sender<Command>> {
        self.workers
    }
}

impl Upkeep {
    /// Called every [`LOOK`].
    fn look(&mut self) {
        self.shared.listeners.tick(&self.shared.state);
        self.shared.generation().look_after_issuers();
        self.looks += 1;
        if self.looks.is_multiple_of(SWEEP_EVERY) {
            self.sweep();
        }
    }

    /// The same by itself, while something else takes its time.
    async fn go_on(&mut self) -> Infallible {
        loop {
            sleep(LOOK).await;
            self.look();
        }
    }

    /// Forgets what nobody needs.
    fn sweep(&self) {
        let generation = self.shared.generation();
        generation.limits.values().for_each(|limiter| limiter.sweep());
        let now = Instant::now();
        generation.upstreams.values().for_each(|upstream| upstream.sweep(now));
        generation.templates.values().for_each(|template| template.sweep(now));
        self.shared.failed_auth.sweep();
        self.shared.query_cache.sweep(now);
        for file in generation.stock.allowed.values() {
            file.look(|write| drop(tokio::task::spawn_blocking(write)));
        }
        self.shared.http.prune();
        self.shared.alerts.look(&generation);
    }
}

/// The plugins, loaded and tried, or what is wrong with them.
pub(super) async fn prepare_plugins(shared: &Shared, loaded: &Loaded) -> (Option<policy::Prepared>, Vec<Finding>) {
    match shared.plugins.prepare(&loaded.config.plugin).await {
        Ok(prepared) => (Some(prepared), Vec::new()),
        Err(errors) => (None, plugin_findings(errors)),
    }
}

fn plugin_findings(errors: Vec<(String, policy::PluginError)>) -> Vec<Finding> {
    errors.into_iter().map(|(name, error)| Finding::new(format!("plugin.{name}"), error.to_string())).collect()
}

/// What rooms found wrong, each with its place.
pub(super) fn report(loaded: &Loaded, wrong: Vec<Finding>) -> Report {
    Report::new(wrong.into_iter().map(|finding| loaded.problem(&finding.key, finding.message)).collect())
}
