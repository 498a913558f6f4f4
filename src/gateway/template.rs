//! A pool that stands for many: one for each database that requests name, or for each role that consumers have; made on demand,
//! dropped when nobody uses it.
//!
//! The pool's `url` has a `*` where the name goes, so that a caller can reach no other database than those whose names fit.
//! A name is letters, digits, `-` and `_`, at most 63 of them: it cannot leave a directory, nor the database part of a URL.
//! A role is one that the pool lists; which one is its consumer's, never the caller's own word.
//!
//! **When things go wrong.** A name that no database has costs one connection attempt; its pool fails at once, is the first to
//! go, and the caller gets 404. Until a pool has had a connection it is not shown, and where there is room for no more, such
//! pools drive out a quarter of the others at most. Where all `max_pools` are in use, a further name gets 503. A pool that is
//! dropped drains as one that a reload takes away: who still holds it is served, and one that is made anew for its name shares
//! its budget.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, time::Instant};

use super::pools::{self, Identity, PoolEntry, Ready, Retiring, served::Served};
use crate::{
    backend::{BackendError, Database, Kind},
    config::model::{self, Per},
    policy::{Plugins, PolicyError},
    pool::{Budget, Policies, PolicyChange, Pool, PoolSettings, ServerBudget, Standing},
};

/// PostgreSQL cuts longer names off, and would take one for another; what stands around the `*` counts too.
pub(super) const LONGEST_NAME: usize = 63;
/// A pool that was asked for a shorter while ago is not dropped for another.
const FRESH: Duration = Duration::from_secs(1);
/// One in so many may be there in the place of another though nobody has been connected to its database yet.
const STRANGERS: usize = 4;

/// The pools of one `[pool.NAME]` with `per`.
pub struct Template {
    name: String,
    pub(super) identity: Identity,
    plugins: Arc<Plugins>,
    background: Handle,
    server: Option<Arc<ServerBudget>>,
    many: Mutex<Many>,
}

struct Many {
    pattern: Pattern,
    pools: BTreeMap<Box<str>, Member>,
    /// Of pools that were dropped, and may not be drained yet.
    budgets: BTreeMap<Box<str>, Weak<Budget>>,
    /// It serves only requests that came before the generation without it.
    retired: bool,
}

/// What pools are made of.
pub(super) struct Pattern {
    pub(super) effective: model::Pool,
    pub(super) settings: PoolSettings,
    pub(super) ready: Ready,
    pub(super) served: Served,
}

struct Member {
    entry: PoolEntry,
    asked: Instant,
}

/// Why there is no pool for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    /// It is no name.
    #[error("the name of a database is 1 to 63 letters, digits, `-` and `_`")]
    Name,
    /// The pool does not connect as it.
    #[error("the caller has no role in this database")]
    Role,
    /// As many are in use as there may be.
    #[error("too many databases are in use at a time")]
    TooMany,
    /// A policy is gone.
    #[error("the pool is being taken away")]
    Policy,
}

impl From<TemplateError> for BackendError {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::Name => Self::NoSuchDatabase,
            TemplateError::Role => Self::NoRole,
            TemplateError::TooMany | TemplateError::Policy => Self::Unavailable(error.to_string()),
        }
    }
}

impl Template {
    pub(super) fn new(
        name: &str,
        identity: Identity,
        pattern: Pattern,
        server: Option<Arc<ServerBudget>>,
        plugins: Arc<Plugins>,
        background: Handle,
    ) -> Arc<Self> {
        let many = Many { pattern, pools: BTreeMap::new(), budgets: BTreeMap::new(), retired: false };
        let many = Mutex::new(many);
        Arc::new(Self { name: name.to_owned(), identity, plugins, background, server, many })
    }

    /// The pool of the database, or of the role, `name`; made now if there is none.
    ///
    /// # Errors
    /// It is no name of such, or there are too many already.
    pub(super) fn database(&self, name: &str) -> Result<Database, TemplateError> {
        let now = Instant::now();
        let mut many = self.many.lock();
        if let Some(member) = many.pools.get_mut(name) {
            member.asked = now;
            return Ok(member.entry.database.clone());
        }
        let one = many.pattern.one(name)?;
        let dropped = many.make_room(now)?;
        let budget = many.budgets.get(name).and_then(Weak::upgrade);
        let made = self.make(one, name, budget);
        let database = made.as_ref().map(|entry| entry.database.clone()).map_err(|_policy| TemplateError::Policy);
        let last = database.as_ref().ok().filter(|_| many.retired).map(|database| database.kind().clone());
        if let Ok(entry) = made {
            many.budgets.remove(name);
            many.pools.insert(name.into(), Member { entry, asked: now });
            tracing::debug!(pool = self.name, of = name, "pool made");
        }
        drop(many);
        // Nobody uses it, or only who came before the reload: there is nothing to wait for.
        for gone in dropped.into_iter().chain(last) {
            pools::retire_unseen(&gone);
        }
        database
    }

    fn make(&self, one: Pattern, name: &str, budget: Option<Arc<Budget>>) -> Result<PoolEntry, PolicyError> {
        let Pattern { effective, settings, ready, served } = one;
        let policies = Policies {
            sizing: self.plugins.sizing(&effective.sizing)?,
            eviction: self.plugins.eviction(&effective.eviction)?,
            validation: self.plugins.validation(&effective.validation)?,
        };
        let budget = budget.unwrap_or_else(|| match &self.server {
            Some(server) => Budget::within(Arc::clone(server), settings.max),
            None => Budget::new(settings.max),
        });
        let pool_name = format!("{}:{name}", self.name);
        let background = self.background.clone();
        let kind = match ready {
            Ready::Postgres(backend) => {
                let pool = Pool::new(pool_name, settings, backend, policies, background, Some(budget));
                drop(self.background.spawn(Arc::clone(&pool).drive()));
                Kind::Postgres(pool)
            }
            Ready::Sqlite(backend) => {
                let pool = Pool::new(pool_name, settings, backend, policies, background, Some(budget));
                drop(self.background.spawn(Arc::clone(&pool).drive()));
                Kind::Sqlite(pool)
            }
        };
        Ok(PoolEntry { database: one_of(&effective, kind), effective, identity: self.identity.clone(), served })
    }

    /// The pools that have had a connection, by the names that logs and figures have for them: `TEMPLATE:DATABASE`.
    pub fn pools(&self) -> Vec<(String, PoolEntry)> {
        let many = self.many.lock();
        let proven = many.pools.iter().filter(|(_, member)| member.standing().proven);
        proven.map(|(name, member)| (format!("{}:{name}", self.name), member.entry.clone())).collect()
    }

    /// All of them.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.many.lock().pools.values().map(|member| member.entry.database.kind().clone()).collect()
    }

    /// Whose statements its pools have run.
    pub(super) fn served(&self) -> Served {
        self.many.lock().pattern.served.clone()
    }

    /// Drops the pools that nobody has asked for and nobody uses. Called now and then.
    pub(super) fn sweep(&self, now: Instant) {
        let mut many = self.many.lock();
        many.budgets.retain(|_, budget| budget.strong_count() > 0);
        let patience = many.pattern.effective.pool_idle_timeout.0;
        let is_over = |member: &Member| {
            let standing = member.standing();
            let limit = if standing.proven { patience } else { FRESH.min(patience) };
            standing.callers == 0 && now.saturating_duration_since(member.asked) >= limit
        };
        let over: Vec<Box<str>> =
            many.pools.iter().filter(|(_, member)| is_over(member)).map(|(name, _)| name.clone()).collect();
        let gone: Vec<Kind> = over.iter().filter_map(|name| many.take(name)).collect();
        drop(many);
        for (name, kind) in over.iter().zip(&gone) {
            tracing::debug!(pool = self.name, of = &**name, "pool dropped: nobody uses it");
            pools::retire_unseen(kind);
        }
    }

    /// Goes on with another configuration, in what there is and what will be. Pools of roles that it has no more drain.
    pub(super) fn reconfigure(&self, pattern: Pattern) {
        let mut many = self.many.lock();
        let mut gone = Vec::new();
        for (name, member) in &mut many.pools {
            let Ok(one) = pattern.one(name) else {
                gone.push(name.clone());
                continue;
            };
            let kind = member.entry.database.kind().clone();
            if member.entry.effective == one.effective && !pools::is_outdated(&kind, &one.settings) {
                continue;
            }
            let policies = pools::policy_change(&self.plugins, &member.entry.effective, &one.effective);
            // The draft was checked: a plugin that changed since will be told of by itself.
            let policies = policies.unwrap_or_else(|error| {
                tracing::error!(pool = self.name, of = &**name, %error, "policies stay as they are");
                PolicyChange::default()
            });
            pools::reconfigure(&kind, one.settings, policies, one.ready);
            member.entry.database = one_of(&one.effective, kind);
            member.entry.effective = one.effective;
        }
        let gone: Vec<Kind> = gone.iter().filter_map(|name| many.take(name)).collect();
        many.pattern = pattern;
        drop(many);
        gone.iter().for_each(pools::retire_unseen);
    }

    /// Another generation has none of it. Returns the pools there are, to be drained; whoever came before still finds them.
    pub(super) fn retire(&self) -> Vec<Retiring> {
        let mut many = self.many.lock();
        many.retired = true;
        let retiring = |(name, member): (&str, &Member)| {
            let kind = member.entry.database.kind().clone();
            Retiring::new(format!("{}:{name}", self.name), kind, self.identity.clone())
        };
        many.pools.iter().map(|(name, member)| retiring((name, member))).collect()
    }
}

impl Pattern {
    /// What the pool of one database, or of one role, is made of.
    fn one(&self, name: &str) -> Result<Self, TemplateError> {
        let mut effective = self.effective.clone();
        let ready = match self.effective.per {
            Some(Per::Role) => {
                let ready = self.ready.of_role(name).ok_or(TemplateError::Role)?;
                self.served.keep_apart(name, &mut effective, &ready);
                ready
            }
            _ if !is_name(name) || name.len() > self.ready.longest_name() => return Err(TemplateError::Name),
            _ => self.ready.of_database(name),
        };
        Ok(Self { effective, settings: self.settings.clone(), ready, served: self.served.clone() })
    }
}

impl Many {
    /// Room for one more: where there is none, the pool goes that is missed least, those first that have never had a connection.
    /// Returns it.
    fn make_room(&mut self, now: Instant) -> Result<Option<Kind>, TemplateError> {
        let most = self.pattern.effective.max_pools as usize;
        if self.pools.len() < most {
            return Ok(None);
        }
        let standings: Vec<(&Box<str>, Instant, Standing)> =
            self.pools.iter().map(|(name, member)| (name, member.asked, member.standing())).collect();
        let strangers = standings.iter().filter(|(_, _, standing)| !standing.proven).count();
        let crowded = strangers >= (most / STRANGERS).max(1);
        let droppable = standings.iter().filter(|(_, asked, standing)| {
            let fresh = now.saturating_duration_since(*asked) < FRESH;
            standing.callers == 0 && if standing.proven { !fresh && !crowded } else { standing.size == 0 }
        });
        let least = droppable.min_by_key(|(_, asked, standing)| (standing.proven, *asked));
        let name = least.map(|(name, ..)| (*name).clone()).ok_or(TemplateError::TooMany)?;
        Ok(self.take(&name))
    }

    /// Takes a pool out; one that is made anew for its name shares its budget.
    fn take(&mut self, name: &str) -> Option<Kind> {
        let member = self.pools.remove(name)?;
        let kind = member.entry.database.kind().clone();
        self.budgets.insert(name.into(), Arc::downgrade(&pools::budgets::budget_of(&kind)));
        Some(kind)
    }
}

impl Member {
    fn standing(&self) -> Standing {
        self.entry.database.kind().standing()
    }
}

/// That a database does not exist is the mistake of a caller who has named it; nobody names a role.
fn one_of(effective: &model::Pool, kind: Kind) -> Database {
    match effective.per {
        Some(Per::Role) => Database::new(kind, effective),
        _ => Database::one_of_many(kind, effective),
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for good in ["a", "acme-7", "tenant_1", "A"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", ".", "..", "a/b", "a%2Fb", "a?b", "a b", "ä", "a\0", "a*", "a;b", "a'b", long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
