//! A pool's settings, as the pool uses them.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::Duration,
};

use super::{
    breaker::{Backoff, Thresholds},
    core::Gate,
    record::Limits,
    server::ServerTerms,
};
use crate::config::{
    model::{BackendKind, IdleOrder, Pool},
    value::{Secret, Span},
};

/// A pool's settings. Made from the configuration with [`Self::from_config`].
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// The kind of database, for figures and logs.
    pub backend: BackendKind,
    /// Connections kept open.
    pub min: u32,
    /// Connections at most; at least 1.
    pub max: u32,
    /// Connections kept idle at least.
    pub min_idle: u32,
    /// Connections of the maximum for callers who have waited for `reserve_after`; less than the maximum.
    pub reserve: u32,
    /// When the reserve is opened.
    pub reserve_after: Duration,
    /// Callers at most, holding or waiting; 0: no limit of its own.
    pub max_clients: u32,
    /// Connections begun in a second; 0: no limit.
    pub creates_per_second: u32,
    /// What all pools on the server may open together.
    pub server: ServerTerms,
    /// Which idle connection is lent.
    pub idle_order: IdleOrder,
    /// Waiters at most.
    pub queue: u32,
    /// Longest checkout, within the caller's deadline.
    pub checkout_timeout: Duration,
    /// Longest connect.
    pub connect_timeout: Duration,
    /// Longest single validation.
    pub validation_timeout: Duration,
    /// Connections being made at a time; at least 1.
    pub parallel_creates: u32,
    /// Oldest a connection may grow; zero: no limit.
    pub max_lifetime: Duration,
    /// Longest a connection above the minimum may lie unused; zero: no limit.
    pub idle_timeout: Duration,
    /// Checkouts after which a connection is closed; zero: no limit.
    pub max_uses: u64,
    /// How long a connection counts as open after a close that nobody confirmed.
    pub linger: Duration,
    /// Time between sizing decisions.
    pub sizing_interval: Duration,
    /// Time between sweeps of idle connections.
    pub sweep_interval: Duration,
    /// Most that a sizing decision may change the target; 0: no limit.
    pub max_step: u32,
    /// Least time between changes of the target.
    pub dwell: Duration,
    /// A checkout that waited longer is logged; zero: never.
    pub slow_checkout: Duration,
    /// A connection held longer is logged; zero: never.
    pub held_warning: Duration,
    /// Time between summaries in the log; zero: none.
    pub summary_interval: Duration,
    /// A request that holds a connection longer is ended; zero: never.
    pub held_limit: Duration,
    /// An idle connection that has not been heard of for longer is pinged; zero: never.
    pub keepalive: Duration,
    /// Cores the gateway runs on, as policies are told.
    pub cores: u32,
    pub(crate) thresholds: Thresholds,
    /// Changes when anything changes that shapes a session: old connections then leave.
    pub(crate) session: u64,
}

impl PoolSettings {
    /// The settings of `pool`, on a gateway that runs on `cores`. Reads the password's file or variable and the CA file again, to
    /// notice that they have changed.
    pub fn from_config(pool: &Pool, cores: u32) -> Self {
        let max = pool.max_size().max(1);
        let Span(initial) = pool.backoff.initial;
        Self {
            backend: pool.backend,
            min: pool.min().min(max),
            max,
            min_idle: pool.size.min_idle.min(max),
            reserve: pool.size.reserve.min(max - 1),
            reserve_after: pool.size.reserve_after.0,
            max_clients: pool.max_clients,
            creates_per_second: pool.creates_per_second,
            server: ServerTerms { connections: pool.server.connections, share: pool.server.share },
            idle_order: pool.idle_order,
            queue: pool.queue,
            checkout_timeout: pool.checkout_timeout.0,
            connect_timeout: pool.connect_timeout.0,
            validation_timeout: pool.validation_timeout.0,
            parallel_creates: pool.parallel_creates.max(1),
            max_lifetime: pool.max_lifetime.0,
            idle_timeout: pool.idle_timeout.0,
            max_uses: pool.max_uses,
            linger: pool.linger.0,
            // A zero would be a busy loop.
            sizing_interval: pool.sizing_interval.0.max(super::guards::SHORTEST_TICK),
            sweep_interval: pool.sweep_interval.0.max(super::guards::SHORTEST_TICK),
            max_step: pool.max_step,
            dwell: pool.dwell.0,
            slow_checkout: pool.slow_checkout.0,
            held_warning: pool.held_warning.0,
            summary_interval: pool.summary_interval.0,
            held_limit: pool.held_limit.0,
            keepalive: pool.keepalive.0,
            cores,
            thresholds: Thresholds {
                failures: pool.breaker.failures.max(1),
                successes: pool.breaker.successes.max(1),
                max_open: pool.breaker.max_open.0,
                backoff: Backoff {
                    initial: initial.max(Duration::from_millis(1)),
                    max: pool.backoff.max.0.max(initial),
                    jitter: if pool.backoff.jitter.is_nan() { 0.0 } else { pool.backoff.jitter.clamp(0.0, 1.0) },
                },
            },
            session: session(pool),
        }
    }

    /// The gate as these settings alone have it, before a policy has spoken.
    pub(crate) fn gate(&self) -> Gate {
        Gate {
            target: self.most(),
            reserve: self.reserve,
            reserve_after: self.reserve_after,
            max: self.max,
            ceiling: u32::MAX,
            parallel: self.parallel_creates,
            pace: match self.creates_per_second {
                0 => Duration::ZERO,
                rate => Duration::from_secs(1) / rate,
            },
            queue: self.queue,
            clients: if self.max_clients == 0 { u32::MAX } else { self.max_clients },
            order: self.idle_order,
        }
    }

    /// What a target may be at most: the reserve is not for everybody.
    pub(crate) fn most(&self) -> u32 {
        self.max.saturating_sub(self.reserve).max(1)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { lifetime: self.max_lifetime, uses: self.max_uses }
    }

    /// Longest cleaning of a connection after its use.
    pub(crate) fn mend_timeout(&self) -> Duration {
        self.connect_timeout.min(Duration::from_secs(5))
    }
}

/// A number that differs when a connection opened now would differ from one opened before. Never leaves the process.
fn session(pool: &Pool) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut secret = |secret: &Secret| secret.reveal().ok().hash(&mut hasher);
    secret(&pool.url);
    pool.password.as_ref().map(&mut secret);
    pool.roles.values().filter_map(|role| role.password.as_ref()).for_each(&mut secret);
    pool.behind_pgbouncer.hash(&mut hasher);
    pool.statement_cache.hash(&mut hasher);
    for span in [pool.statement_timeout, pool.idle_in_transaction_timeout, pool.tcp_keepalive, pool.tcp_user_timeout] {
        span.hash(&mut hasher);
    }
    pool.application_name.hash(&mut hasher);
    (&pool.tls.ca, pool.tls.ca_digest(), &pool.tls.server_name).hash(&mut hasher);
    format!("{:?}", pool.sqlite).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
impl Default for PoolSettings {
    fn default() -> Self {
        let table = serde_json::json!({ "backend": "sqlite", "url": "sqlite::memory:", "size": { "max": 5 } });
        Self::from_config(&serde_json::from_value(table).unwrap(), 2)
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(with: Value) -> PoolSettings {
        let mut table = json!({ "backend": "postgres", "url": "postgres://u@h/d" });
        table.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        PoolSettings::from_config(&serde_json::from_value(table).unwrap(), 2)
    }

    #[test]
    fn nonsense_is_made_harmless() {
        let odd = json!({ "size": { "min": 9, "max": 0 }, "parallel_creates": 0, "sweep_interval": "0s",
            "breaker": { "failures": 0, "successes": 0 }, "backoff": { "initial": "0s", "max": "0s", "jitter": 9.0 } });
        let odd = settings(odd);
        assert_eq!((odd.min, odd.max, odd.parallel_creates), (9, 9, 1));
        assert!(odd.sweep_interval > Duration::ZERO && odd.thresholds.backoff.initial > Duration::ZERO);
        assert_eq!((odd.thresholds.failures, odd.thresholds.successes), (1, 1));
    }

    #[test]
    fn only_what_shapes_a_session_makes_connections_outdated() {
        let base = settings(json!({})).session;
        assert_eq!(settings(json!({ "queue": 7, "size": { "max": 3 }, "reset": "always" })).session, base);
        for shaping in [
            json!({ "password": "new" }),
            json!({ "behind_pgbouncer": true }),
            json!({ "statement_cache": 0 }),
            json!({ "statement_timeout": "7s" }),
            json!({ "tcp_user_timeout": "7s" }),
            json!({ "application_name": "other" }),
            json!({ "tls": { "server_name": "db" } }),
            json!({ "sqlite": { "synchronous": "full" } }),
        ] {
            assert_ne!(settings(shaping.clone()).session, base, "{shaping}");
        }
    }

    #[test]
    fn another_ca_in_the_same_file_makes_connections_outdated() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let session = |content: &str| {
            std::fs::write(&file, content).unwrap();
            settings(json!({ "tls": { "ca": file } })).session
        };
        let first = session("one");
        assert_eq!(session("one"), first);
        assert_ne!(session("two"), first);
    }
}
