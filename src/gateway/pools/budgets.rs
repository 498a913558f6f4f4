//! What pools may open together: with those whose place they take, and with all others on the same server.

use std::{collections::BTreeMap, sync::Arc};

use super::{Identity, Plan, Planned, PoolEntry};
use crate::{
    backend::Kind,
    config::model::BackendKind,
    gateway::{
        servers::{self, Terms},
        shared::Shared,
    },
    pool::Budget,
};

/// What a pool leaves behind.
struct Gone {
    name: String,
    identity: Identity,
    budget: Arc<Budget>,
}

impl Gone {
    fn of(name: &str, identity: &Identity, kind: &Kind) -> Self {
        Self { name: name.to_owned(), identity: identity.clone(), budget: budget_of(kind) }
    }
}

impl Plan {
    /// What is said of each server.
    pub(super) fn terms(&self) -> Terms {
        let said = self.pools.iter().filter(|pool| pool.identity.backend == BackendKind::Postgres);
        servers::terms(said.map(|pool| (pool.identity.server.as_str(), pool.settings.server)))
    }

    /// By name of a new pool, the budget that it takes over from a pool on the same server that drains or is about to: the two
    /// never exceed the cap together. Each takes that of its own name first, then what is left goes round: a pool may have
    /// been renamed.
    ///
    /// Where pools are split or joined in one reload that is not exact: one of 10 and two of 5 may hold 15 until the one has drained.
    pub(super) fn inherit(
        &self,
        shared: &Shared,
        before: &BTreeMap<String, PoolEntry>,
    ) -> BTreeMap<String, Arc<Budget>> {
        let mut left = self.left_behind(shared, before);
        let stays = |planned: &&Planned| before.get(&planned.name).is_some_and(|old| old.identity == planned.identity);
        let fresh: Vec<&Planned> =
            self.pools.iter().filter(|planned| planned.effective.per.is_none() && !stays(planned)).collect();
        let mut heirs = BTreeMap::new();
        for by_name in [true, false] {
            for heir in &fresh {
                let fits =
                    |gone: &Gone| gone.identity.is_beside(&heir.identity) && (!by_name || gone.name == heir.name);
                if !heirs.contains_key(&heir.name)
                    && let Some(at) = left.iter().position(fits)
                {
                    heirs.insert(heir.name.clone(), left.swap_remove(at).budget);
                }
            }
        }
        heirs
    }

    /// Pools that drain or are about to, and whose budget no pool that stays has.
    fn left_behind(&self, shared: &Shared, before: &BTreeMap<String, PoolEntry>) -> Vec<Gone> {
        let stays = |name: &String, old: &PoolEntry| {
            self.pools.iter().any(|planned| planned.name == *name && planned.identity == old.identity)
        };
        let (kept, going): (Vec<_>, Vec<_>) = before.iter().partition(|(name, old)| stays(name, old));
        let kept: Vec<_> = kept.into_iter().map(|(_, entry)| budget_of(entry.database.kind())).collect();
        let going = going.into_iter().map(|(name, entry)| Gone::of(name, &entry.identity, entry.database.kind()));
        let draining = shared.retiring_pools();
        let mut left: Vec<Gone> = Vec::new();
        for gone in going.chain(draining.iter().map(|pool| Gone::of(&pool.name, &pool.identity, &pool.kind))) {
            let known =
                kept.iter().chain(left.iter().map(|gone| &gone.budget)).any(|one| Arc::ptr_eq(one, &gone.budget));
            if !known {
                left.push(gone);
            }
        }
        left
    }
}

/// A budget of its own, within that of its server.
pub(super) fn new(shared: &Shared, identity: &Identity, max: u32, terms: &Terms) -> Arc<Budget> {
    match identity.backend {
        BackendKind::Postgres => Budget::within(shared.servers.on(&identity.server, terms), max),
        BackendKind::Sqlite => Budget::new(max),
    }
}

/// The budget of a pool.
pub(in crate::gateway) fn budget_of(kind: &Kind) -> Arc<Budget> {
    match kind {
        Kind::Postgres(pool) => pool.budget(),
        Kind::Sqlite(pool) => pool.budget(),
    }
}
