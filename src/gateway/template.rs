//! A pool that stands for many: one for each database that requests name, made on demand, dropped when nobody uses it.
//!
//! The pool's `url` has a `*` where the name goes, so that a caller can reach no other database than those whose names fit.
//! A name is letters, digits, `-` and `_`, at most 63 of them: it cannot leave a directory, nor the database part of a URL.
//!
//! **When things go wrong.** A name that no database has costs one connection attempt; its pool fails at once, is the first to
//! go, and the caller gets 404. Where all `max_pools` are in use, a further name gets 503. A pool that is dropped drains as one
//! that a reload takes away: who still holds it is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, time::Instant};

use super::pools::{self, Identity, PoolEntry, Ready, Retiring};
use crate::{
    backend::{Database, Kind},
    config::model,
    policy::{Plugins, PolicyError},
    pool::{Budget, Policies, Pool, PoolSettings, ServerBudget},
};

/// PostgreSQL cuts longer names off, and would take one for another.
const LONGEST_NAME: usize = 63;
/// A pool that was asked for a shorter while ago is not dropped for another.
const FRESH: Duration = Duration::from_secs(1);

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
    /// Nothing is made any more.
    retired: bool,
}

/// What pools are made of.
pub(super) struct Pattern {
    pub(super) effective: model::Pool,
    pub(super) settings: PoolSettings,
    pub(super) ready: Ready,
    pub(super) served: BTreeSet<String>,
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
    /// As many are in use as there may be.
    #[error("too many databases are in use at a time")]
    TooMany,
    /// The template's configuration is gone, or a policy of it.
    #[error("the pool is being taken away")]
    Retired,
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
        let many = Mutex::new(Many { pattern, pools: BTreeMap::new(), retired: false });
        Arc::new(Self { name: name.to_owned(), identity, plugins, background, server, many })
    }

    /// The pool of the database `name`, made now if there is none.
    ///
    /// # Errors
    /// It is no name, or there are too many already.
    pub(super) fn database(&self, name: &str) -> Result<Database, TemplateError> {
        let now = Instant::now();
        let mut many = self.many.lock();
        if let Some(member) = many.pools.get_mut(name) {
            member.asked = now;
            return Ok(member.entry.database.clone());
        }
        if !is_name(name) {
            return Err(TemplateError::Name);
        }
        if many.retired {
            return Err(TemplateError::Retired);
        }
        let dropped = many.make_room(now)?;
        let entry = self.make(&many.pattern, name).map_err(|_policy| TemplateError::Retired)?;
        let database = entry.database.clone();
        many.pools.insert(name.into(), Member { entry, asked: now });
        drop(many);
        if let Some(dropped) = dropped {
            // Nobody uses it: there is nothing to wait for.
            pools::retire_unseen(dropped.entry.database.kind());
        }
        tracing::debug!(pool = self.name, database = name, "pool made");
        Ok(database)
    }

    fn make(&self, pattern: &Pattern, name: &str) -> Result<PoolEntry, PolicyError> {
        let Pattern { effective, settings, ready, served } = pattern;
        let policies = Policies {
            sizing: self.plugins.sizing(&effective.sizing)?,
            eviction: self.plugins.eviction(&effective.eviction)?,
            validation: self.plugins.validation(&effective.validation)?,
        };
        let budget = match &self.server {
            Some(server) => Budget::within(Arc::clone(server), settings.max),
            None => Budget::new(settings.max),
        };
        let pool_name = format!("{}:{name}", self.name);
        let (settings, background) = (settings.clone(), self.background.clone());
        let kind = match ready {
            Ready::Postgres(backend) => {
                let backend = backend.of_database(name);
                let pool = Pool::new(pool_name, settings, backend, policies, background, Some(budget));
                drop(self.background.spawn(Arc::clone(&pool).drive()));
                Kind::Postgres(pool)
            }
            Ready::Sqlite(backend) => {
                let backend = backend.of_database(name);
                let pool = Pool::new(pool_name, settings, backend, policies, background, Some(budget));
                drop(self.background.spawn(Arc::clone(&pool).drive()));
                Kind::Sqlite(pool)
            }
        };
        Ok(PoolEntry {
            database: Database::one_of_many(kind, effective.slow_query.0),
            effective: effective.clone(),
            identity: self.identity.clone(),
            served: served.clone(),
        })
    }

    /// The pools there are, by the names that logs and figures have for them: `TEMPLATE:DATABASE`.
    pub fn pools(&self) -> Vec<(String, PoolEntry)> {
        let many = self.many.lock();
        many.pools.iter().map(|(name, member)| (format!("{}:{name}", self.name), member.entry.clone())).collect()
    }

    /// Whose statements its pools have run.
    pub(super) fn served(&self) -> BTreeSet<String> {
        self.many.lock().pattern.served.clone()
    }

    /// Drops the pools that nobody has asked for and nobody uses. Called now and then.
    pub(super) fn sweep(&self, now: Instant) {
        let mut many = self.many.lock();
        let patience = many.pattern.effective.pool_idle_timeout.0;
        let unused = |member: &Member| {
            let since = now.saturating_duration_since(member.asked);
            let limit = if member.is_barren() { FRESH.min(patience) } else { patience };
            since >= limit && member.is_unused()
        };
        let (gone, kept) = std::mem::take(&mut many.pools).into_iter().partition(|(_, member)| unused(member));
        many.pools = kept;
        drop(many);
        for (name, member) in gone as BTreeMap<Box<str>, Member> {
            tracing::debug!(pool = self.name, database = &*name, "pool dropped: nobody uses it");
            pools::retire_unseen(member.entry.database.kind());
        }
    }

    /// Goes on with another configuration, in what there is and what will be.
    pub(super) fn reconfigure(&self, pattern: Pattern) {
        let mut many = self.many.lock();
        for (name, member) in &mut many.pools {
            match pools::policy_change(&self.plugins, &member.entry.effective, &pattern.effective) {
                Ok(policies) => {
                    let kind = member.entry.database.kind().clone();
                    let backend = pattern.ready.of_database(name);
                    pools::reconfigure(&kind, pattern.settings.clone(), policies, backend);
                    member.entry.database = Database::one_of_many(kind, pattern.effective.slow_query.0);
                    member.entry.effective = pattern.effective.clone();
                }
                // The draft was checked: a plugin that changed since will be told of by itself.
                Err(error) => {
                    tracing::error!(pool = self.name, database = &**name, %error, "policies stay as they are");
                }
            }
        }
        many.pattern = pattern;
    }

    /// Nothing is made from now on. Returns the pools there are, to be drained.
    pub(super) fn retire(&self) -> Vec<Retiring> {
        let mut many = self.many.lock();
        many.retired = true;
        let pools = std::mem::take(&mut many.pools).into_iter();
        let retiring = |(name, member): (Box<str>, Member)| {
            let kind = member.entry.database.kind().clone();
            Retiring::new(format!("{}:{name}", self.name), kind, self.identity.clone())
        };
        pools.map(retiring).collect()
    }
}

impl Many {
    /// Room for one more: where there is none, the pool goes that is missed least. Returns it.
    fn make_room(&mut self, now: Instant) -> Result<Option<Member>, TemplateError> {
        if self.pools.len() < self.pattern.effective.max_pools as usize {
            return Ok(None);
        }
        let droppable = self.pools.iter().filter(|(_, member)| {
            member.is_unused() && (member.is_barren() || now.saturating_duration_since(member.asked) >= FRESH)
        });
        let least = droppable.min_by_key(|(_, member)| (!member.is_barren(), member.asked));
        let name = least.map(|(name, _)| name.clone()).ok_or(TemplateError::TooMany)?;
        Ok(self.pools.remove(&name))
    }
}

impl Member {
    /// Nobody holds a connection or waits for one.
    fn is_unused(&self) -> bool {
        self.entry.database.kind().standing().callers == 0
    }

    /// It has no connection, and none can be made.
    fn is_barren(&self) -> bool {
        let standing = self.entry.database.kind().standing();
        standing.size == 0 && standing.barred
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
