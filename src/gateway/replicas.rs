//! Replicas over reloads: each pool that has some is told where its reads go, and one set of them checks at a time.

use std::{collections::BTreeMap, sync::Arc};

use super::pools::PoolEntry;
use crate::{
    backend::{Database, Kind, Replicas, postgres::Postgres},
    config::model::Config,
    pool::Pool,
};

/// Sets that come, and sets that go.
#[derive(Default)]
pub(super) struct Turnover {
    come: Vec<Arc<Replicas>>,
    go: Vec<Arc<Replicas>>,
}

impl Turnover {
    /// Gives the pools of a new generation their replicas. Sets that have not changed stay the same objects, and go on checking.
    pub(super) fn of(entries: &mut BTreeMap<String, PoolEntry>, before: &BTreeMap<String, PoolEntry>) -> Self {
        let mut kept = Vec::new();
        let mut turnover = Self::default();
        for (name, set) in sets(entries, before) {
            let old = before.get(&name).and_then(|old| old.database.replicas());
            match old.filter(|old| Arc::ptr_eq(old, &set)) {
                Some(_) => kept.push(name.clone()),
                None => turnover.come.push(set.clone()),
            }
            if let Some(entry) = entries.get_mut(&name) {
                entry.database = entry.database.clone().reading_from(set);
            }
        }
        let gone = before.iter().filter(|(name, _)| !kept.contains(name));
        turnover.go.extend(gone.filter_map(|(_, old)| old.database.replicas().cloned()));
        turnover
    }

    /// Called on the background thread. Two sets that check the same replicas would each count by its own measure.
    pub(super) fn commit(self) {
        self.go.iter().for_each(|set| set.stop());
        self.come.iter().for_each(Replicas::start);
    }
}

/// The replicas of each pool that has some, by its name.
fn sets(entries: &BTreeMap<String, PoolEntry>, before: &BTreeMap<String, PoolEntry>) -> Vec<(String, Arc<Replicas>)> {
    let with_some = entries.iter().filter(|(_, entry)| !entry.effective().replicas.pools.is_empty());
    let set = |(name, entry): (&String, &PoolEntry)| {
        let settings = &entry.effective().replicas;
        let pools: Vec<_> = settings.pools.iter().filter_map(|name| postgres(&entries.get(name)?.database)).collect();
        let old = before.get(name).and_then(|old| old.database.replicas());
        Some((name.clone(), Replicas::new(&postgres(&entry.database)?, &pools, settings, old)))
    };
    with_some.filter_map(set).collect()
}

/// The configuration's checks let no other kind be a replica, or have some.
fn postgres(database: &Database) -> Option<Arc<Pool<Postgres>>> {
    match database.kind() {
        Kind::Postgres(pool) => Some(pool.clone()),
        Kind::Sqlite(_) => None,
    }
}

/// Whether statements of a route that leads to `target` may run on `pool`.
pub(super) fn leads_to(config: &Config, target: &str, pool: &str) -> bool {
    let replicas = config.pool.get(target).map(|target| &target.replicas.pools);
    target == pool || replicas.is_some_and(|replicas| replicas.iter().any(|replica| replica == pool))
}
