//! The pools of a generation: which stay, which are made, which drain.
//!
//! A pool's identity is its backend, its hosts, its database and its role. Where that stays, the pool stays, and its settings
//! change in place. Otherwise a new pool takes the name over, and the old one drains; both share one budget of connections
//! while they stand on the same server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;

use super::{generation::Generation, shared::Shared};
use crate::{
    backend::{Database, Kind, postgres::Postgres, sqlite::Sqlite},
    config::{
        Finding,
        model::{self, Access, BackendKind, Config, Reset},
    },
    policy::{self, Hook, PolicyError},
    pool::{Backend, Policies, Pool, PoolSettings, PoolStatus},
};

/// How long connections may take to say goodbye when the gateway ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// A pool of a generation.
#[derive(Clone)]
pub struct PoolEntry {
    /// For dialects.
    pub(super) database: Database,
    /// Its settings, with what the rest of the configuration makes of them.
    effective: model::Pool,
    identity: Identity,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    backend: BackendKind,
    server: String,
    whole: String,
}

/// A pool on its way out.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Retiring {
    id: u64,
    name: String,
}

/// A pool's backend, read and checked; connected to nothing.
enum Ready {
    Postgres(Postgres),
    Sqlite(Sqlite),
}

/// What can be said of the pools before their policies are in service.
pub(super) struct Plan {
    pools: Vec<(String, model::Pool, Identity, Ready)>,
}

/// The pools of a new generation, and what is to be done when it takes over.
pub(super) struct Changes {
    entries: BTreeMap<String, PoolEntry>,
    steps: Vec<Step>,
}

enum Step {
    Start(Kind),
    Postgres(Arc<Pool<Postgres>>, PoolSettings, Policies, Postgres),
    Sqlite(Arc<Pool<Sqlite>>, PoolSettings, Policies, Sqlite),
    Retire(String, Kind),
}

impl PoolEntry {
    /// The pool at this moment.
    pub fn status(&self) -> PoolStatus {
        match self.database.kind() {
            Kind::Postgres(pool) => pool.status(),
            Kind::Sqlite(pool) => pool.status(),
        }
    }
}

impl Plan {
    /// Reads and checks all pools.
    pub(super) fn of(config: &Config, plugins: Option<&policy::Prepared>, wrong: &mut Vec<Finding>) -> Self {
        let mut pools = Vec::new();
        for (name, settings) in &config.pool {
            for (key, hook, reference) in [
                ("sizing", Hook::Sizing, &settings.sizing),
                ("eviction", Hook::Eviction, &settings.eviction),
                ("validation", Hook::Validation, &settings.validation),
            ] {
                if let Some(Err(error)) = plugins.map(|plugins| plugins.check(hook, reference)) {
                    wrong.push(Finding::new(format!("pool.{name}.{key}"), error.to_string()));
                }
            }
            let mut effective = settings.clone();
            if consumers_of(config, name) > 1 {
                effective.reset = Reset::Always;
            }
            match ready(&effective) {
                Ok((ready, identity)) => pools.push((name.clone(), effective, identity, ready)),
                Err(error) => wrong.push(Finding::new(format!("pool.{name}"), error)),
            }
        }
        Self { pools }
    }

    /// Makes the pools that are new. Their policies are in service.
    pub(super) fn make(self, shared: &Shared, before: Option<&Generation>) -> Result<Changes, Vec<Finding>> {
        let mut changes = Changes { entries: BTreeMap::new(), steps: Vec::new() };
        let mut wrong = Vec::new();
        for (name, effective, identity, ready) in self.pools {
            let old = before.and_then(|before| before.pools.get(&name));
            match changes.add(shared, &name, effective, identity, ready, old) {
                Ok(()) => {}
                Err(error) => wrong.push(Finding::new(format!("pool.{name}"), error.to_string())),
            }
        }
        for (name, old) in before.iter().flat_map(|before| &before.pools) {
            let stays = changes.entries.get(name).is_some_and(|entry| is_same(&entry.database, &old.database));
            if !stays {
                changes.steps.push(Step::Retire(name.clone(), old.database.kind().clone()));
            }
        }
        if wrong.is_empty() { Ok(changes) } else { Err(wrong) }
    }
}

impl Changes {
    pub(super) fn entries(&self) -> &BTreeMap<String, PoolEntry> {
        &self.entries
    }

    fn add(
        &mut self,
        shared: &Shared,
        name: &str,
        effective: model::Pool,
        identity: Identity,
        ready: Ready,
        old: Option<&PoolEntry>,
    ) -> Result<(), PolicyError> {
        let settings = PoolSettings::from_config(&effective, shared.cores());
        let policies = || {
            Ok(Policies {
                sizing: shared.plugins.sizing(&effective.sizing)?,
                eviction: shared.plugins.eviction(&effective.eviction)?,
                validation: shared.plugins.validation(&effective.validation)?,
            })
        };
        let kept = old.filter(|old| old.identity == identity);
        let kind = match (kept.map(|old| old.database.kind().clone()), ready) {
            (Some(Kind::Postgres(pool)), Ready::Postgres(backend)) => {
                if kept.is_none_or(|old| old.effective != effective) || pool.is_outdated_by(&settings) {
                    self.steps.push(Step::Postgres(pool.clone(), settings, policies()?, backend));
                }
                Kind::Postgres(pool)
            }
            (Some(Kind::Sqlite(pool)), Ready::Sqlite(backend)) => {
                if kept.is_none_or(|old| old.effective != effective) || pool.is_outdated_by(&settings) {
                    self.steps.push(Step::Sqlite(pool.clone(), settings, policies()?, backend));
                }
                Kind::Sqlite(pool)
            }
            (_, ready) => {
                let neighbour = old.filter(|old| old.identity.server == identity.server);
                let budget = neighbour.map(|old| match old.database.kind() {
                    Kind::Postgres(pool) => pool.budget(),
                    Kind::Sqlite(pool) => pool.budget(),
                });
                let background = shared.background.clone();
                let kind = match ready {
                    Ready::Postgres(backend) => {
                        Kind::Postgres(Pool::new(name, settings, backend, policies()?, background, budget))
                    }
                    Ready::Sqlite(backend) => {
                        Kind::Sqlite(Pool::new(name, settings, backend, policies()?, background, budget))
                    }
                };
                self.steps.push(Step::Start(kind.clone()));
                kind
            }
        };
        let database = Database::new(kind, effective.slow_query.0);
        self.entries.insert(name.to_owned(), PoolEntry { database, effective, identity });
        Ok(())
    }

    /// Starts, changes and retires. Called on the background thread.
    pub(super) fn commit(self, shared: &Arc<Shared>) {
        for step in self.steps {
            match step {
                Step::Start(Kind::Postgres(pool)) => drop(tokio::task::spawn_local(pool.drive())),
                Step::Start(Kind::Sqlite(pool)) => drop(tokio::task::spawn_local(pool.drive())),
                Step::Postgres(pool, settings, policies, backend) => {
                    let backend = backend.replacing(&pool.backend());
                    pool.reconfigure(settings, policies, backend);
                }
                Step::Sqlite(pool, settings, policies, backend) => pool.reconfigure(settings, policies, backend),
                Step::Retire(name, Kind::Postgres(pool)) => retire(shared, name, pool),
                Step::Retire(name, Kind::Sqlite(pool)) => retire(shared, name, pool),
            }
        }
    }
}

/// Closes the connections of all pools; the gateway has drained.
pub(super) async fn close_all(shared: &Arc<Shared>) {
    let Some(generation) = shared.current.swap(None) else { return };
    let goodbyes = generation.pools.values().map(|entry| async {
        match entry.database.kind() {
            Kind::Postgres(pool) => goodbye(pool).await,
            Kind::Sqlite(pool) => goodbye(pool).await,
        }
    });
    futures_util::future::join_all(goodbyes).await;
}

async fn goodbye<B: Backend>(pool: &Arc<Pool<B>>) {
    pool.shut();
    if timeout(GOODBYE, pool.drained()).await.is_err() {
        tracing::warn!(pool = %pool.name(), "connections were still open at the end");
    }
}

fn retire<B: Backend>(shared: &Arc<Shared>, name: String, pool: Arc<Pool<B>>) {
    let id = shared.request_id();
    tracing::info!(pool = name, "pool drains");
    shared.retiring.lock().push(Retiring { id, name: name.clone() });
    pool.retire();
    let shared = shared.clone();
    tokio::task::spawn_local(async move {
        pool.drained().await;
        shared.retiring.lock().retain(|retiring| retiring.id != id);
        tracing::info!(pool = name, "pool drained");
    });
}

fn is_same(one: &Database, other: &Database) -> bool {
    match (one.kind(), other.kind()) {
        (Kind::Postgres(one), Kind::Postgres(other)) => Arc::ptr_eq(one, other),
        (Kind::Sqlite(one), Kind::Sqlite(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn ready(pool: &model::Pool) -> Result<(Ready, Identity), String> {
    match pool.backend {
        BackendKind::Postgres => {
            let postgres = Postgres::new(pool).map_err(|error| error.to_string())?;
            let whole = postgres.identity();
            let server = whole.rsplit_once('/').and_then(|(left, _)| left.rsplit_once('@')).map_or("", |(_, at)| at);
            let identity = Identity { backend: pool.backend, server: server.to_owned(), whole: whole.clone() };
            Ok((Ready::Postgres(postgres), identity))
        }
        BackendKind::Sqlite => {
            let url = pool.url.reveal()?;
            let sqlite = Sqlite::new(&url, &pool.sqlite).map_err(|error| error.to_string())?;
            Ok((Ready::Sqlite(sqlite), Identity { backend: pool.backend, server: url.clone(), whole: url }))
        }
    }
}

/// Consumers whose statements a pool runs: each that a route names, and everybody unnamed as one.
fn consumers_of(config: &Config, pool: &str) -> usize {
    let routes = config.route.iter().filter(|route| route.query.as_ref().is_some_and(|query| query.pool == pool));
    let names = routes.flat_map(|route| match &route.access {
        Some(Access::Consumers(names)) => names.iter().map(String::as_str).collect(),
        Some(Access::Open(_)) | None => vec![""],
    });
    names.collect::<BTreeSet<_>>().len()
}
