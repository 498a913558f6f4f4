//! From a file to a version that may serve: read, compile (or find compiled), link, try. Nothing of it runs on a worker,
//! and what takes long runs on a blocking thread or in the compiler process.

use std::{path::Path, sync::Arc};

use serde::Serialize;
use wasmtime::component::Component;

use super::{
    Compiler, Description, Hook, PluginError,
    cache::Cache,
    compile::CompileLimits,
    content::{self, Content, Digest},
    engine::Host,
    trial,
    version::{Version, imports, names_of_exports},
};
use crate::config::model::Plugin;

/// Calls over which [`Report::pace_us`] is taken.
const PACE_CALLS: u32 = 200;

/// Loads components. One at a time, as whoever asks does.
pub(super) struct Loader {
    pub(super) host: Arc<Host>,
    cache: Arc<Cache>,
    compiler: Compiler,
}

/// What a component's file holds, as far as can be told without running its policies.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Length of the file.
    pub bytes: usize,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// What it imports besides types. A policy that imports anything is refused.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The hooks among its exports.
    pub hooks: Vec<Hook>,
    /// Who it says it is, if it can be linked and started.
    pub description: Option<Description>,
    /// Why it would be refused so far.
    pub refusal: Option<String>,
}

/// What `plugin check` finds of a component that passes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Who it says it is.
    pub description: Option<Description>,
    /// Each hook, and the mean time of a call in microseconds, instance included where it is new for each call.
    pub pace_us: Vec<(Hook, f64)>,
}

impl Loader {
    pub(super) fn new(host: Arc<Host>, state: &Path, compiler: Compiler) -> Self {
        let cache = Arc::new(Cache::new(state, host.engine()));
        Self { host, cache, compiler }
    }

    /// Reads and checks the file.
    pub(super) async fn read(&self, settings: &Plugin) -> Result<Content, PluginError> {
        let settings = settings.clone();
        blocking(move || content::read(&settings)).await
    }

    /// Makes a version of it that passed its trial.
    pub(super) async fn load(&self, content: Content, settings: &Plugin) -> Result<Version, PluginError> {
        let sha256 = content.sha256;
        let component = self.compiled(content, settings).await?;
        let (host, settings) = (Arc::clone(&self.host), settings.clone());
        blocking(move || {
            host.start_clock().map_err(PluginError::host)?;
            let mut version = Version::link(&host, &component, sha256, &settings)?;
            trial::pass(&mut version)?;
            Ok(version)
        })
        .await
    }

    /// Looks at a component without judging it, as far as it goes.
    pub(super) async fn inspect(&self, settings: &Plugin) -> Result<Inspection, PluginError> {
        let content = self.read(settings).await?;
        let (bytes, sha256) = (content.bytes.len(), content.sha256);
        let component = self.compiled(content, settings).await?;
        let (host, settings) = (Arc::clone(&self.host), settings.clone());
        blocking(move || {
            host.start_clock().map_err(PluginError::host)?;
            let linked = Version::link(&host, &component, sha256, &settings);
            let introduced = linked.and_then(|mut version| trial::introduce(&mut version).map(|_| version));
            let (hooks, description, refusal) = match introduced {
                Ok(mut version) => (version.exports.hooks(), version.description.take(), None),
                Err(error) => (Vec::new(), None, Some(error.to_string())),
            };
            let (imports, exports) = (imports(&component), names_of_exports(&component));
            Ok(Inspection { bytes, sha256, imports, exports, hooks, description, refusal })
        })
        .await
    }

    /// Does all that happens before a component serves, and times it.
    pub(super) async fn check(&self, settings: &Plugin) -> Result<Report, PluginError> {
        let content = self.read(settings).await?;
        let version = self.load(content, settings).await?;
        blocking(move || {
            let paced = |hook| match trial::pace(&version, hook, PACE_CALLS) {
                Ok(mean) => Ok((hook, mean.as_secs_f64() * 1e6)),
                Err(fault) => Err(PluginError::Trial { hook, detail: fault.to_string() }),
            };
            let pace_us = version.exports.hooks().into_iter().map(paced).collect::<Result<_, _>>()?;
            Ok(Report { sha256: version.sha256, description: version.description.clone(), pace_us })
        })
        .await
    }

    async fn compiled(&self, content: Content, settings: &Plugin) -> Result<Component, PluginError> {
        let key = self.cache.key(content.sha256);
        let (cache, host, wanted) = (Arc::clone(&self.cache), Arc::clone(&self.host), key.clone());
        let found = blocking(move || {
            if let Some(component) = cache.load(host.engine(), &wanted) {
                return Ok(Err(component));
            }
            // The compiler reads what was checked here, not what the plugin's path may hold by then.
            let wasm = cache.scratch(&wanted, "wasm")?;
            super::cache::Scratch::write(wasm.path(), &content.bytes).map_err(|error| cache.failed(error))?;
            Ok(Ok((wasm, cache.scratch(&wanted, "cwasm")?)))
        });
        let (wasm, out) = match found.await? {
            Ok(files) => files,
            Err(component) => return Ok(component),
        };
        self.compiler.compile(&wasm, &out, CompileLimits::from(settings)).await?;
        let (cache, host) = (Arc::clone(&self.cache), Arc::clone(&self.host));
        blocking(move || cache.admit(host.engine(), &key, &out)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(PluginError::host(error)))
}
