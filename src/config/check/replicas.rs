//! `[pool.NAME.replicas]`.

use super::Check;
use crate::config::{
    key,
    model::{BackendKind, Pool},
    value::Span,
};

/// Replicas of one pool: what a request has tried is kept in as many bits.
const MOST: usize = 64;

impl Check<'_> {
    pub(super) fn replicas(&mut self) {
        let config = self.config;
        for (name, pool) in &config.pool {
            let at = key::join("pool", name);
            let often = pool.replicas.check_interval >= Span::millis(100);
            self.unless(often, format!("{at}.replicas.check_interval"), "must be at least 100ms");
            if pool.replicas.pools.is_empty() {
                continue;
            }
            let message = "replicas are for PostgreSQL: SQLite reads side by side from one pool";
            self.unless(pool.backend == BackendKind::Postgres, format!("{at}.replicas.pools"), message);
            let alone = "a pool that stands for many (`per`) has no replicas";
            self.unless(pool.per.is_none(), format!("{at}.replicas.pools"), alone);
            let few = pool.replicas.pools.len() <= MOST;
            self.unless(few, format!("{at}.replicas.pools"), format!("must be at most {MOST}"));
            for (index, replica) in pool.replicas.pools.iter().enumerate() {
                let twice = pool.replicas.pools[..index].contains(replica);
                self.replica(name, replica, twice, format!("{at}.replicas.pools[{index}]"));
            }
        }
    }

    fn replica(&mut self, primary: &str, name: &str, twice: bool, at: String) {
        let config = self.config;
        if twice {
            return self.wrong(at, format!("`{name}` is there already"));
        }
        if name == primary {
            return self.wrong(at, "a pool is not a replica of its own");
        }
        let Some(pool) = config.pool.get(name) else {
            return self.refer(at, "pool", name, config.pool.keys());
        };
        if pool.backend != BackendKind::Postgres && !self.doubtful.contains(&key::join("pool", name)) {
            return self.wrong(at, format!("`{name}` is no PostgreSQL"));
        }
        if !pool.replicas.pools.is_empty() {
            return self.wrong(at, format!("`{name}` has replicas of its own: name them here, side by side"));
        }
        if pool.per.is_some() {
            return self.wrong(at, format!("`{name}` stands for many (`per`), and cannot be a replica"));
        }
        let refuses =
            format!("`{name}` takes only servers that take writes (target_session_attrs), which no replica does");
        self.unless(!self.wants_writes(name, pool), at, refuses);
    }

    fn wants_writes(&self, name: &str, pool: &Pool) -> bool {
        let url = self.secrets.get(&format!("{}.url", key::join("pool", name)));
        let query = url.and_then(|url| url.rsplit_once('?')).map_or("", |(_, query)| query);
        pool.backend == BackendKind::Postgres && query.split('&').any(|pair| pair == "target_session_attrs=read-write")
    }
}
