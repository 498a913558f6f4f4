//! One pool of a configuration by itself, with its policies: no listener, no route, no worker but the caller's.

use std::{path::PathBuf, sync::Arc};

use super::{
    inputs,
    pools::{Plan, goodbye},
    run::{RunError, background, io_error, shared},
    shared::Shared,
    supervisor::{prepare_plugins, report},
};
use crate::{
    backend::{Database, Kind},
    config::{
        Finding, Loaded, Report, Source,
        model::{self, PolicyRef, PoolSize},
    },
    observe::access_log::AccessLog,
    policy::{Compiler, PluginStatus, TemporaryState},
};

/// A pool that is driven on the current runtime, and nothing else of its configuration.
pub struct SinglePool {
    /// For whoever has work for it.
    pub database: Database,
    /// Its settings as they are in force.
    pub settings: model::Pool,
    /// Files that the configuration was read from.
    pub files: Vec<PathBuf>,
    /// Threads that a gateway would serve it with, as its policies are told.
    pub workers: usize,
    shared: Arc<Shared>,
}

impl SinglePool {
    /// Its plugins as they are now.
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.shared.plugins.status()
    }
}

/// Makes one pool as a gateway would, of a configuration that a gateway would start with, lends it to `work`, and
/// closes its connections. `size` gives another minimum and maximum. `work` runs on the runtime that drives the
/// pool, and its future should not keep that busy.
///
/// # Errors
/// All that is wrong with the configuration, or there is no such pool.
pub fn with_pool<T>(
    source: &Source,
    name: &str,
    size: Option<PoolSize>,
    work: impl AsyncFnOnce(&SinglePool) -> T,
) -> Result<T, RunError> {
    let mut loaded = inputs::load(source)?;
    keep_only(&mut loaded, name, size)?;
    if let Err(error) = crate::edge::raise_file_limit() {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    let runtime = background()?;
    let writer = AccessLog::open("off").map_err(io_error("access log"))?;
    // Not the gateway's own, as in `check`.
    let cache = TemporaryState::new().map_err(io_error("cannot make a temporary directory"))?;
    runtime.block_on(async {
        let (shared, _requests) =
            shared(Compiler::this_program(), source.clone(), &loaded, cache.path(), writer.log())?;
        let pool = start(shared, &loaded, name).await.map_err(|wrong| report(&loaded, wrong))?;
        let done = work(&pool).await;
        match pool.database.kind() {
            Kind::Postgres(pool) => goodbye(pool).await,
            Kind::Sqlite(pool) => goodbye(pool).await,
        }
        Ok(done)
    })
}

/// Leaves nothing in the configuration but the pool, its plugins, and the routes that say whose statements it runs.
fn keep_only(loaded: &mut Loaded, name: &str, size: Option<PoolSize>) -> Result<(), Report> {
    let config = &mut loaded.config;
    let Some(pool) = config.pool.get_mut(name) else {
        let names: Vec<_> = config.pool.keys().map(String::as_str).collect();
        let known =
            if names.is_empty() { "there is none".to_owned() } else { format!("there is {}", names.join(", ")) };
        let unknown = Finding::new("pool", format!("no pool is called `{name}`: {known}"));
        return Err(report(loaded, vec![unknown]));
    };
    if let Some(PoolSize { min, max, .. }) = size {
        pool.size = PoolSize { min, max, ..pool.size };
    }
    // What is measured is this pool, not those that it would send reads to.
    pool.replicas.pools.clear();
    let asked =
        [&pool.sizing, &pool.eviction, &pool.validation].map(PolicyRef::plugin).map(|name| name.map(str::to_owned));
    config.pool.retain(|other, _| other == name);
    config.plugin.retain(|plugin, _| asked.iter().flatten().any(|asked| asked == plugin));
    Ok(())
}

async fn start(shared: Arc<Shared>, loaded: &Loaded, name: &str) -> Result<SinglePool, Vec<Finding>> {
    let (plugins, mut wrong) = prepare_plugins(&shared, loaded).await;
    let plan = Plan::of(&loaded.config, plugins.as_ref(), None, shared.cores(), &mut wrong);
    let Some(plugins) = plugins.filter(|_| wrong.is_empty()) else { return Err(wrong) };
    shared.plugins.commit(plugins);
    let changes = plan.make(&shared, None)?;
    let Some(entry) = changes.entries().get(name).cloned() else {
        let many = "stands for many (`per`): name a pool of one database, with the same keys";
        return Err(vec![Finding::new(format!("pool.{name}"), many)]);
    };
    changes.commit(&shared);
    let settings = entry.effective().clone();
    Ok(SinglePool { database: entry.database, settings, files: loaded.files.clone(), workers: shared.workers, shared })
}
