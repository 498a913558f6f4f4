//! The pools of a generation: which stay, which are made, which drain.
//!
//! A pool's identity is its backend, its hosts, its database and its role. Where that stays, the pool stays, and its settings
//! change in place. Otherwise a new pool takes the name over, and the old one drains; both share one budget of connections
//! while they stand on the same server.

pub(super) mod budgets;
pub(super) mod served;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::timeout;

use self::served::Served;
use super::{
    generation::Generation,
    replicas::Turnover,
    servers::Terms,
    shared::Shared,
    template::{LONGEST_NAME, Pattern, Template},
};
use crate::{
    backend::{Database, Kind, ReplicasStatus, StatementsStatus, postgres::Postgres, sqlite::Sqlite},
    config::{
        Finding,
        model::{self, BackendKind, Config},
    },
    policy::{self, Hook, Plugins, PolicyError},
    pool::{Backend, Budget, Operation, OperationError, Policies, PolicyChange, Pool, PoolSettings, PoolStatus},
};

/// How long connections may take to say goodbye when the gateway ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// A pool of a generation.
#[derive(Clone)]
pub struct PoolEntry {
    /// For dialects.
    pub(super) database: Database,
    /// Its settings, with what the rest of the configuration makes of them.
    pub(super) effective: model::Pool,
    pub(super) identity: Identity,
    /// Whose statements it has run since it was made.
    pub(super) served: Served,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    backend: BackendKind,
    server: String,
    /// All that makes it the same one, without secrets.
    pub(super) whole: String,
    database: Option<String>,
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
pub(super) enum Ready {
    Postgres(Postgres),
    Sqlite(Sqlite),
}

/// What can be said of the pools before their policies are in service.
pub(super) struct Plan {
    pools: Vec<Planned>,
}

struct Planned {
    name: String,
    effective: model::Pool,
    settings: PoolSettings,
    identity: Identity,
    ready: Ready,
    /// As [`PoolEntry::served`].
    served: Served,
}

/// The pools of a new generation, and what is to be done when it takes over.
pub(super) struct Changes {
    entries: BTreeMap<String, PoolEntry>,
    templates: BTreeMap<String, Arc<Template>>,
    steps: Vec<Step>,
    terms: Terms,
    replicas: Turnover,
}

enum Step {
    Start(Kind),
    Postgres(Arc<Pool<Postgres>>, PoolSettings, PolicyChange, Postgres),
    Sqlite(Arc<Pool<Sqlite>>, PoolSettings, PolicyChange, Sqlite),
    Retire(Retiring),
    Template(Arc<Template>, Box<Pattern>),
    RetireTemplate(Arc<Template>),
}

impl PoolEntry {
    /// The pool at this moment.
    pub fn status(&self) -> PoolStatus {
        self.database.kind().status()
    }

    /// Its replicas at this moment, if it has some.
    pub fn replicas(&self) -> Option<ReplicasStatus> {
        self.database.replicas().map(|replicas| replicas.status())
    }

    /// What its statements have cost.
    pub fn statements(&self) -> StatementsStatus {
        self.database.kind().statements()
    }

    /// Does what an operator says to the pool.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn operate(&self, operation: Operation) -> Result<(), OperationError> {
        self.database.kind().operate(operation)
    }

    pub(super) fn effective(&self) -> &model::Pool {
        &self.effective
    }
}

impl Plan {
    /// Reads and checks all pools.
    pub(super) fn of(
        config: &Config,
        plugins: Option<&policy::Prepared>,
        before: Option<&Generation>,
        cores: u32,
        wrong: &mut Vec<Finding>,
    ) -> Self {
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
            match Planned::of(name, settings, cores, Served::by(config, name), before) {
                Ok(planned) => pools.push(planned),
                Err(error) => wrong.push(Finding::new(format!("pool.{name}"), error)),
            }
        }
        Self { pools }
    }

    /// Makes the pools that are new. Their policies are in service.
    pub(super) fn make(self, shared: &Shared, before: Option<&Generation>) -> Result<Changes, Vec<Finding>> {
        let (none, no_templates) = (BTreeMap::new(), BTreeMap::new());
        let templates = before.map_or(&no_templates, |before| &before.templates);
        let before = before.map_or(&none, |before| &before.pools);
        let mut changes = Changes {
            entries: BTreeMap::new(),
            templates: BTreeMap::new(),
            steps: Vec::new(),
            terms: self.terms(),
            replicas: Turnover::default(),
        };
        let mut budgets = self.inherit(shared, before);
        let mut wrong = Vec::new();
        for Planned { name, effective, settings, identity, ready, served } in self.pools {
            if effective.per.is_some() {
                changes.template(shared, name, identity, Pattern { effective, settings, ready, served }, templates);
                continue;
            }
            let made = if let Some(old) = before.get(&name).filter(|old| old.identity == identity) {
                changes.keep(shared, &effective, settings, old, ready)
            } else {
                let inherited = budgets.remove(&name);
                let budget = inherited.unwrap_or_else(|| budgets::new(shared, &identity, settings.max, &changes.terms));
                changes.start(shared, &name, &effective, settings, ready, budget)
            };
            match made {
                Ok(kind) => {
                    let database = Database::new(kind, &effective);
                    changes.entries.insert(name, PoolEntry { database, effective, identity, served });
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
        for (name, old) in templates {
            if changes.templates.get(name).is_none_or(|new| !Arc::ptr_eq(new, old)) {
                changes.steps.push(Step::RetireTemplate(old.clone()));
            }
        }
        changes.replicas = Turnover::of(&mut changes.entries, before);
        if wrong.is_empty() { Ok(changes) } else { Err(wrong) }
    }
}

impl Identity {
    /// What the server calls the database, if there is a server.
    pub(super) fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// Whether both are on one server.
    fn is_beside(&self, other: &Self) -> bool {
        self.backend == other.backend && self.server == other.server
    }
}

impl Planned {
    /// A pool that has run the statements of more than one consumer since it was made resets every session: one may have left
    /// there what another must not meet, and it cannot always be seen. (Of a pool that is one for each role, each does.)
    fn of(
        name: &str,
        pool: &model::Pool,
        cores: u32,
        mut served: Served,
        before: Option<&Generation>,
    ) -> Result<Self, String> {
        // What tells whether secrets changed is taken before they are read for use: a change in between is seen at the next
        // reload, not lost.
        let settings = PoolSettings::from_config(pool, cores);
        let (ready, identity) = ready(pool)?;
        if let Some(old) = before.and_then(|before| before.pools.get(name)).filter(|old| old.identity == identity) {
            served.extend(&old.served);
        }
        let template = before.and_then(|before| before.templates.get(name));
        if let Some(old) = template.filter(|old| old.identity == identity) {
            served.extend(&old.served());
        }
        let mut effective = pool.clone();
        served.keep_apart(served::EVERYBODY, &mut effective, &ready);
        Ok(Self { name: name.to_owned(), effective, settings, identity, ready, served })
    }
}

impl Changes {
    pub(super) fn entries(&self) -> &BTreeMap<String, PoolEntry> {
        &self.entries
    }

    pub(super) fn templates(&self) -> &BTreeMap<String, Arc<Template>> {
        &self.templates
    }

    /// A template that stays takes the new pattern up when the generation does; another begins with none.
    fn template(
        &mut self,
        shared: &Shared,
        name: String,
        identity: Identity,
        pattern: Pattern,
        before: &BTreeMap<String, Arc<Template>>,
    ) {
        let template = if let Some(old) = before.get(&name).filter(|old| old.identity == identity) {
            self.steps.push(Step::Template(old.clone(), Box::new(pattern)));
            old.clone()
        } else {
            let on_a_server = identity.backend == BackendKind::Postgres;
            let server = on_a_server.then(|| shared.servers.on(&identity.server, &self.terms));
            Template::new(&name, identity, pattern, server, shared.plugins.clone(), shared.background.clone())
        };
        self.templates.insert(name, template);
    }

    /// A pool that stays: what is new for it changes in place, policies only where another one is named.
    fn keep(
        &mut self,
        shared: &Shared,
        effective: &model::Pool,
        settings: PoolSettings,
        old: &PoolEntry,
        ready: Ready,
    ) -> Result<Kind, PolicyError> {
        let was = &old.effective;
        let policies = policy_change(&shared.plugins, was, effective)?;
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
        settings: PoolSettings,
        ready: Ready,
        budget: Arc<Budget>,
    ) -> Result<Kind, PolicyError> {
        let policies = Policies {
            sizing: shared.plugins.sizing(&effective.sizing)?,
            eviction: shared.plugins.eviction(&effective.eviction)?,
            validation: shared.plugins.validation(&effective.validation)?,
        };
        let background = shared.background.clone();
        let kind = match ready {
            Ready::Postgres(backend) => {
                Kind::Postgres(Pool::new(name, settings, backend, policies, background, Some(budget)))
            }
            Ready::Sqlite(backend) => {
                Kind::Sqlite(Pool::new(name, settings, backend, policies, background, Some(budget)))
            }
        };
        self.steps.push(Step::Start(kind.clone()));
        Ok(kind)
    }

    /// Starts, changes and retires. Called on the background thread, before the new generation serves: whoever comes to a
    /// pool with it finds that pool as the new configuration wants it.
    pub(super) fn commit(self, shared: &Arc<Shared>) {
        shared.servers.take_up(&self.terms);
        for step in self.steps {
            match step {
                Step::Start(Kind::Postgres(pool)) => drop(tokio::task::spawn_local(pool.drive())),
                Step::Start(Kind::Sqlite(pool)) => drop(tokio::task::spawn_local(pool.drive())),
                Step::Postgres(pool, settings, policies, backend) => {
                    reconfigure(&Kind::Postgres(pool), settings, policies, Ready::Postgres(backend));
                }
                Step::Sqlite(pool, settings, policies, backend) => {
                    reconfigure(&Kind::Sqlite(pool), settings, policies, Ready::Sqlite(backend));
                }
                Step::Retire(retiring) => retire(shared, retiring),
                Step::Template(template, pattern) => template.reconfigure(*pattern),
                Step::RetireTemplate(template) => {
                    template.retire().into_iter().for_each(|retiring| retire(shared, retiring));
                }
            }
        }
        self.replicas.commit();
    }
}

/// Puts other settings in force in a pool that stays. The backend is of its kind.
pub(super) fn reconfigure(kind: &Kind, settings: PoolSettings, policies: PolicyChange, backend: Ready) {
    match (kind, backend) {
        (Kind::Postgres(pool), Ready::Postgres(backend)) => {
            let old = pool.backend();
            let resets_from_now_on = backend.always_resets() && !old.always_resets();
            pool.reconfigure(settings, policies, backend.replacing(&old));
            if resets_from_now_on {
                // Another consumer comes: what is open was not reset whenever it came back.
                pool.reconnect();
            }
        }
        (Kind::Sqlite(pool), Ready::Sqlite(backend)) => {
            let old = pool.backend();
            pool.reconfigure(settings, policies, backend.replacing(&old));
        }
        _ => {}
    }
}

/// Whether connections made now would be other sessions than those that the pool has: a secret was changed, say.
pub(super) fn is_outdated(kind: &Kind, settings: &PoolSettings) -> bool {
    match kind {
        Kind::Postgres(pool) => pool.is_outdated_by(settings),
        Kind::Sqlite(pool) => pool.is_outdated_by(settings),
    }
}

/// Policies that take the place of those in force: only where another one is named.
pub(super) fn policy_change(
    plugins: &Plugins,
    was: &model::Pool,
    now: &model::Pool,
) -> Result<PolicyChange, PolicyError> {
    Ok(PolicyChange {
        sizing: (was.sizing != now.sizing).then(|| plugins.sizing(&now.sizing)).transpose()?,
        eviction: (was.eviction != now.eviction).then(|| plugins.eviction(&now.eviction)).transpose()?,
        validation: (was.validation != now.validation).then(|| plugins.validation(&now.validation)).transpose()?,
    })
}

/// Closes the connections of all pools, those that drain as well; the gateway has drained.
pub(super) async fn close_all(shared: &Arc<Shared>) {
    let generation = shared.current.swap(None);
    let pools = generation.iter().flat_map(|generation| generation.pools.values());
    pools.filter_map(|entry| entry.database.replicas()).for_each(|replicas| replicas.stop());
    let serving = generation.iter().flat_map(|generation| generation.pools.values());
    let mut kinds: Vec<Kind> = serving.map(|entry| entry.database.kind().clone()).collect();
    let templates = generation.iter().flat_map(|generation| generation.templates.values());
    kinds.extend(templates.flat_map(|template| template.kinds()));
    kinds.extend(shared.retiring_pools().into_iter().map(|retiring| retiring.kind));
    let goodbyes = kinds.iter().map(|kind| async move {
        match kind {
            Kind::Postgres(pool) => goodbye(pool).await,
            Kind::Sqlite(pool) => goodbye(pool).await,
        }
    });
    futures_util::future::join_all(goodbyes).await;
}

/// Closes a pool's connections, and waits for them for a while.
pub(super) async fn goodbye<B: Backend>(pool: &Arc<Pool<B>>) {
    pool.shut();
    if timeout(GOODBYE, pool.drained()).await.is_err() {
        tracing::warn!(pool = %pool.name(), "connections were still open at the end");
    }
}

impl Retiring {
    pub(super) fn new(name: String, kind: Kind, identity: Identity) -> Self {
        Self { name, kind, identity }
    }
}

impl Ready {
    /// The longest name that can stand where a template has its `*`.
    pub(super) fn longest_name(&self) -> usize {
        match self {
            Self::Postgres(backend) => LONGEST_NAME.saturating_sub(backend.around_name()),
            Self::Sqlite(_) => LONGEST_NAME,
        }
    }

    /// The same for the database that `name` stands for in a template.
    pub(super) fn of_database(&self, name: &str) -> Self {
        match self {
            Self::Postgres(backend) => Self::Postgres(backend.of_database(name)),
            Self::Sqlite(backend) => Self::Sqlite(backend.of_database(name)),
        }
    }

    /// The same as the role `name`; none if the template may not connect as that.
    pub(super) fn of_role(&self, name: &str) -> Option<Self> {
        match self {
            Self::Postgres(backend) => backend.of_role(name).map(Self::Postgres),
            Self::Sqlite(_) => None,
        }
    }
}

/// Drains a pool that nobody uses and no configuration names: that takes as long as its goodbyes.
pub(super) fn retire_unseen(kind: &Kind) {
    match kind {
        Kind::Postgres(pool) => pool.retire(),
        Kind::Sqlite(pool) => pool.retire(),
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
            let (server, whole) = (postgres.hosts(), postgres.identity());
            let database = Some(postgres.database().to_owned());
            let identity = Identity { backend: pool.backend, server, whole, database };
            Ok((Ready::Postgres(postgres), identity))
        }
        BackendKind::Sqlite => {
            let url = pool.url.reveal()?;
            let sqlite = Sqlite::new(&url, &pool.sqlite).map_err(|error| error.to_string())?;
            let sqlite = sqlite.noting(pool.statements);
            let identity = Identity { backend: pool.backend, server: url.clone(), whole: url, database: None };
            Ok((Ready::Sqlite(sqlite), identity))
        }
    }
}
