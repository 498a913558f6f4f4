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
    pool::{Backend, Budget, Policies, PolicyChange, Pool, PoolSettings, PoolStatus},
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
#[derive(Clone, serde::Serialize)]
pub struct Retiring {
    name: String,
    #[serde(skip)]
    kind: Kind,
    #[serde(skip)]
    identity: Identity,
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
    Postgres(Arc<Pool<Postgres>>, PoolSettings, PolicyChange, Postgres),
    Sqlite(Arc<Pool<Sqlite>>, PoolSettings, PolicyChange, Sqlite),
    Retire(Retiring),
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
        let none = BTreeMap::new();
        let before = before.map_or(&none, |before| &before.pools);
        let mut changes = Changes { entries: BTreeMap::new(), steps: Vec::new() };
        let mut budgets = self.budgets_left(shared, before);
        let mut wrong = Vec::new();
        for (name, effective, identity, ready) in self.pools {
            let made = match before.get(&name).filter(|old| old.identity == identity) {
                Some(old) => changes.keep(shared, &effective, old, ready),
                None => changes.start(shared, &name, &effective, ready, take_budget(&mut budgets, &identity)),
            };
            match made {
                Ok(kind) => {
                    let database = Database::new(kind, effective.slow_query.0);
                    changes.entries.insert(name, PoolEntry { database, effective, identity });
                }
                Err(error) => wrong.push(Finding::new(format!("pool.{name}"), error.to_string())),
            }
        }
        for (name, old) in before {
            if changes.entries.get(name).is_none_or(|entry| entry.identity != old.identity) {
                let (kind, identity) = (old.database.kind().clone(), old.identity.clone());
                changes.steps.push(Step::Retire(Retiring { name: name.clone(), kind, identity }));
            }
        }
        if wrong.is_empty() { Ok(changes) } else { Err(wrong) }
    }

    /// Budgets of pools that drain or are about to: a new pool on the same server takes one over, whatever the old one was
    /// called, so that the two never exceed the cap together. Those of pools that stay are theirs.
    fn budgets_left(&self, shared: &Shared, before: &BTreeMap<String, PoolEntry>) -> Vec<(Identity, Arc<Budget>)> {
        let keeps = |name: &String, old: &PoolEntry| {
            self.pools.iter().any(|(kept, _, identity, _)| kept == name && *identity == old.identity)
        };
        let (kept, gone): (Vec<_>, Vec<_>) = before.iter().partition(|(name, old)| keeps(name, old));
        let kept: Vec<_> = kept.into_iter().map(|(_, entry)| budget_of(entry.database.kind())).collect();
        let gone = gone.into_iter().map(|(_, entry)| (entry.identity.clone(), budget_of(entry.database.kind())));
        let mut left: Vec<(Identity, Arc<Budget>)> = Vec::new();
        let retiring = shared.retiring_pools();
        for (identity, budget) in gone.chain(retiring.into_iter().map(|pool| (pool.identity, budget_of(&pool.kind)))) {
            let known = kept.iter().chain(left.iter().map(|(_, budget)| budget)).any(|one| Arc::ptr_eq(one, &budget));
            if !known {
                left.push((identity, budget));
            }
        }
        left
    }
}

fn take_budget(left: &mut Vec<(Identity, Arc<Budget>)>, of: &Identity) -> Option<Arc<Budget>> {
    let same = |(identity, _): &(Identity, _)| identity.backend == of.backend && identity.server == of.server;
    left.iter().position(same).map(|place| left.remove(place).1)
}

pub(super) fn budget_of(kind: &Kind) -> Arc<Budget> {
    match kind {
        Kind::Postgres(pool) => pool.budget(),
        Kind::Sqlite(pool) => pool.budget(),
    }
}

impl Changes {
    pub(super) fn entries(&self) -> &BTreeMap<String, PoolEntry> {
        &self.entries
    }

    /// A pool that stays: what is new for it changes in place, policies only where another one is named.
    fn keep(
        &mut self,
        shared: &Shared,
        effective: &model::Pool,
        old: &PoolEntry,
        ready: Ready,
    ) -> Result<Kind, PolicyError> {
        let settings = PoolSettings::from_config(effective, shared.cores());
        let (was, plugins) = (&old.effective, &shared.plugins);
        let policies = PolicyChange {
            sizing: (was.sizing != effective.sizing).then(|| plugins.sizing(&effective.sizing)).transpose()?,
            eviction: (was.eviction != effective.eviction)
                .then(|| plugins.eviction(&effective.eviction))
                .transpose()?,
            validation: (was.validation != effective.validation)
                .then(|| plugins.validation(&effective.validation))
                .transpose()?,
        };
        let kind = old.database.kind().clone();
        match (&kind, ready) {
            (Kind::Postgres(pool), Ready::Postgres(backend)) if was != effective || pool.is_outdated_by(&settings) => {
                self.steps.push(Step::Postgres(pool.clone(), settings, policies, backend));
            }
            (Kind::Sqlite(pool), Ready::Sqlite(backend)) if was != effective || pool.is_outdated_by(&settings) => {
                self.steps.push(Step::Sqlite(pool.clone(), settings, policies, backend));
            }
            // Nothing is new. (The kinds agree: they are part of the identity.)
            _ => {}
        }
        Ok(kind)
    }

    fn start(
        &mut self,
        shared: &Shared,
        name: &str,
        effective: &model::Pool,
        ready: Ready,
        budget: Option<Arc<Budget>>,
    ) -> Result<Kind, PolicyError> {
        let settings = PoolSettings::from_config(effective, shared.cores());
        let policies = Policies {
            sizing: shared.plugins.sizing(&effective.sizing)?,
            eviction: shared.plugins.eviction(&effective.eviction)?,
            validation: shared.plugins.validation(&effective.validation)?,
        };
        let background = shared.background.clone();
        let kind = match ready {
            Ready::Postgres(backend) => {
                Kind::Postgres(Pool::new(name, settings, backend, policies, background, budget))
            }
            Ready::Sqlite(backend) => Kind::Sqlite(Pool::new(name, settings, backend, policies, background, budget)),
        };
        self.steps.push(Step::Start(kind.clone()));
        Ok(kind)
    }

    /// Starts, changes and retires. Called on the background thread.
    pub(super) fn commit(self, shared: &Arc<Shared>) {
        for step in self.steps {
            match step {
                Step::Start(Kind::Postgres(pool)) => drop(tokio::task::spawn_local(pool.drive())),
                Step::Start(Kind::Sqlite(pool)) => drop(tokio::task::spawn_local(pool.drive())),
                Step::Postgres(pool, settings, policies, backend) => {
                    let old = pool.backend();
                    let resets_from_now_on = backend.always_resets() && !old.always_resets();
                    pool.reconfigure(settings, policies, backend.replacing(&old));
                    if resets_from_now_on {
                        // Another consumer comes: what lies idle was not reset when it came back.
                        pool.purge();
                    }
                }
                Step::Sqlite(pool, settings, policies, backend) => pool.reconfigure(settings, policies, backend),
                Step::Retire(retiring) => retire(shared, retiring),
            }
        }
    }
}

/// Closes the connections of all pools, those that drain as well; the gateway has drained.
pub(super) async fn close_all(shared: &Arc<Shared>) {
    let generation = shared.current.swap(None);
    let serving = generation.iter().flat_map(|generation| generation.pools.values());
    let mut kinds: Vec<Kind> = serving.map(|entry| entry.database.kind().clone()).collect();
    kinds.extend(shared.retiring_pools().into_iter().map(|retiring| retiring.kind));
    let goodbyes = kinds.iter().map(|kind| async move {
        match kind {
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

fn retire(shared: &Arc<Shared>, retiring: Retiring) {
    match retiring.kind.clone() {
        Kind::Postgres(pool) => drain(shared, retiring, pool),
        Kind::Sqlite(pool) => drain(shared, retiring, pool),
    }
}

fn drain<B: Backend>(shared: &Arc<Shared>, retiring: Retiring, pool: Arc<Pool<B>>) {
    let name = retiring.name.clone();
    tracing::info!(pool = name, "pool drains");
    let gone = retiring.kind.clone();
    shared.retiring.lock().push(retiring);
    pool.retire();
    let shared = shared.clone();
    tokio::task::spawn_local(async move {
        pool.drained().await;
        shared.retiring.lock().retain(|retiring| !is_same(&retiring.kind, &gone));
        tracing::info!(pool = name, "pool drained");
    });
}

fn is_same(one: &Kind, other: &Kind) -> bool {
    match (one, other) {
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
