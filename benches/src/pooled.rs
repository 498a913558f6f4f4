//! The gateway's pools and policies, made by themselves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluicegate::{
    backend::{Database, Kind, postgres::Postgres},
    config::model::{self, PolicyRef},
    policy::{Compiler, Plugins},
    pool::{Backend, Policies, Pool, PoolSettings},
};
use tokio::{runtime::Handle, time::timeout};

/// Components of `plugins/dist`, in service.
pub struct Components {
    plugins: Plugins,
    /// Where they lie compiled.
    _state: tempfile::TempDir,
}

impl Components {
    /// Puts these in service: a name, its file without `.wasm`, its configuration.
    pub async fn load(wanted: &[(&str, &str, Value)]) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let plugins = Plugins::new(Compiler::InProcess, state.path(), 2)?;
        let dist = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
        let table = |file: &str, config: &Value| -> Result<model::Plugin> {
            let path = dist.join(file).with_extension("wasm");
            Ok(serde_json::from_value(json!({ "path": path, "config": config }))?)
        };
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(name, file, config)| Ok(((*name).to_owned(), table(file, config)?)))
            .collect::<Result<_>>()?;
        let applied = plugins.apply(&wanted.into_iter().collect()).await;
        applied.map_err(|errors| anyhow::anyhow!("{errors:?}")).context("run `make plugins-testing`")?;
        Ok(Self { plugins, _state: state })
    }

    /// None: the native policies alone.
    pub async fn none() -> Result<Self> {
        Self::load(&[]).await
    }

    /// The registry.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// What a pool's table names.
    pub fn policies(&self, table: &model::Pool) -> Result<Policies> {
        Ok(Policies {
            sizing: self.plugins.sizing(&table.sizing)?,
            eviction: self.plugins.eviction(&table.eviction)?,
            validation: self.plugins.validation(&table.validation)?,
        })
    }

    /// A pool of that table, driven on the current runtime, with its minimum open.
    pub async fn pool<B: Backend>(&self, table: &model::Pool, backend: B) -> Result<Arc<Pool<B>>> {
        let settings = PoolSettings::from_config(table, 2);
        let pool = Pool::new("bench", settings, backend, self.policies(table)?, Handle::current(), None);
        tokio::task::spawn_local(pool.clone().drive());
        let open = async {
            while pool.status().idle < table.min() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(20), open).await.context("the pool does not fill up to its minimum")?;
        Ok(pool)
    }

    /// The same for PostgreSQL at `url`, with other keys of the table.
    pub async fn postgres(&self, url: &str, keys: Value) -> Result<Arc<Pool<Postgres>>> {
        let table = table("postgres", url, keys)?;
        let backend = Postgres::new(&table).context("the database's URL")?;
        self.pool(&table, backend).await
    }
}

/// A pool's table.
pub fn table(backend: &str, url: &str, keys: Value) -> Result<model::Pool> {
    let mut table = json!({ "backend": backend, "url": url });
    let (Value::Object(all), Value::Object(keys)) = (&mut table, keys) else { anyhow::bail!("keys are a table") };
    all.extend(keys);
    Ok(serde_json::from_value(table)?)
}

/// `{ plugin = NAME, fallback = NATIVE }`.
pub fn plugin(name: &str, fallback: &str) -> Value {
    json!({ "plugin": name, "fallback": fallback })
}

/// The same as a table reads it.
pub fn reference(name: &str, fallback: &str) -> Result<PolicyRef> {
    Ok(serde_json::from_value(plugin(name, fallback))?)
}

/// What work is given to.
pub fn database(pool: &Arc<Pool<Postgres>>) -> Database {
    Database::new(Kind::Postgres(pool.clone()), Duration::ZERO)
}

/// Closes all that a pool has open, and waits until the server has confirmed it.
pub async fn close<B: Backend>(pool: &Arc<Pool<B>>) -> Result<()> {
    pool.shut();
    let drained = timeout(Duration::from_secs(10), pool.drained()).await;
    ensure!(drained.is_ok(), "connections were still open after ten seconds: {:?}", pool.status().counters);
    Ok(())
}
