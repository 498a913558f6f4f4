//! Pools of database connections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::defaults::{
    five_seconds, half_minute, hour, minute, one_second, ten_minutes, ten_seconds, two_minutes, zero,
};
use super::{
    UpstreamTls,
    plugin::{PolicyRef, native},
};
use crate::config::{
    machine,
    value::{Secret, Size, Span, maybe_word, word},
};

/// `[pool.NAME]`. `backend` and `url` (less its password) are its identity: change them and a new pool replaces the
/// old one, which drains. All other keys are live; those that shape a session (marked) apply to new connections, and
/// old ones retire.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// `postgres` or `sqlite`.
    #[serde(deserialize_with = "word")]
    pub backend: BackendKind,
    /// `postgres://user:password@host:port/database?sslmode=…` or `sqlite:path`; text, `{ env = … }` or `{ file = … }`.
    pub url: Secret,
    /// Password, where it is not in the URL. (session)
    #[serde(default)]
    pub password: Option<Secret>,
    /// `database`: one pool for each database that requests name; `role`: one for each role that consumers have (PostgreSQL). They
    /// are made on demand; `url` has a `*` where the name goes. Default: one pool.
    #[serde(default, deserialize_with = "maybe_word")]
    pub per: Option<Per>,
    /// With `per = "role"`: the roles that it may connect as, by name.
    #[serde(default)]
    pub roles: BTreeMap<String, LoginRole>,
    /// With `per`: pools at a time. Default 64.
    #[serde(default = "max_pools")]
    pub max_pools: u32,
    /// With `per`: how long a pool is kept that nobody asks for. Default 10m.
    #[serde(default = "ten_minutes")]
    pub pool_idle_timeout: Span,
    /// Bounds of the number of connections; default: 0 to four a core, less on little memory.
    #[serde(default)]
    pub size: PoolSize,
    /// Sizing policy. Default `{ native = "fixed" }`: always the maximum, made on demand.
    #[serde(default = "fixed")]
    pub sizing: PolicyRef,
    /// Eviction policy. Default `{ native = "lifetime" }`.
    #[serde(default = "lifetime")]
    pub eviction: PolicyRef,
    /// Validation policy. Default `{ native = "bypass-window" }`: trust a connection for 500 ms, then ping.
    #[serde(default = "bypass_window")]
    pub validation: PolicyRef,
    /// Callers that may wait for a connection; more are refused at once. Default 1024.
    #[serde(default = "queue")]
    pub queue: u32,
    /// Longest wait for a connection, within the route's deadline. Default 5s.
    #[serde(default = "five_seconds")]
    pub checkout_timeout: Span,
    /// Longest connect: dial, TLS, authentication. Default 5s.
    #[serde(default = "five_seconds")]
    pub connect_timeout: Span,
    /// Longest single validation. Default 1s.
    #[serde(default = "one_second")]
    pub validation_timeout: Span,
    /// Connections being made at a time. Default 2.
    #[serde(default = "parallel_creates")]
    pub parallel_creates: u32,
    /// Connections begun in a second; 0: no limit. Default 0.
    #[serde(default)]
    pub creates_per_second: u32,
    /// What this pool and all others on the same server may open together. (PostgreSQL)
    #[serde(default)]
    pub server: PoolServer,
    /// Which idle connection is lent: `lifo` or `fifo`. Default `lifo`.
    #[serde(default)]
    pub idle_order: IdleOrder,
    /// Callers at most, those that hold a connection and those that wait; 0: as many as `size.max` and `queue` allow. Default 0.
    #[serde(default)]
    pub max_clients: u32,
    /// Oldest a connection may grow, whatever the policy says. Default 1h, less up to 10 % jitter.
    #[serde(default = "hour")]
    pub max_lifetime: Span,
    /// Longest a connection may lie unused above the minimum, whatever the policy says. Default 10m, less up to 10 %
    /// jitter.
    #[serde(default = "ten_minutes")]
    pub idle_timeout: Span,
    /// Checkouts after which a connection is closed, less up to 10 % jitter; 0: no limit. Default 0.
    #[serde(default)]
    pub max_uses: u64,
    /// After a close without the server's end of file, how long the connection counts as open. Default 5s.
    #[serde(default = "five_seconds")]
    pub linger: Span,
    /// How often the sizing policy is asked when nothing happens. Default 1s.
    #[serde(default = "one_second")]
    pub sizing_interval: Span,
    /// How often idle connections are looked at. Default 1s.
    #[serde(default = "one_second")]
    pub sweep_interval: Span,
    /// Most connections a sizing decision may add or take away at once; 0: no limit (the policy's business). Default 0.
    #[serde(default)]
    pub max_step: u32,
    /// Least time between two changes of the target; 0s: none. Default 0s.
    #[serde(default = "zero")]
    pub dwell: Span,
    /// Pauses between failing attempts to connect.
    #[serde(default)]
    pub backoff: Backoff,
    /// When to stop trying on a caller's time.
    #[serde(default)]
    pub breaker: Breaker,
    /// A checkout that waited longer is logged. Default 1s; 0s: never.
    #[serde(default = "one_second")]
    pub slow_checkout: Span,
    /// A query that took longer is logged, by fingerprint, without literals. Default 1s; 0s: never.
    #[serde(default = "one_second")]
    pub slow_query: Span,
    /// Fingerprints of statements whose figures are kept, the heaviest; 0: none, at most 1000. Default 100.
    #[serde(default = "statements")]
    pub statements: usize,
    /// A slow query is logged with its text as it came, literals and all. Default false.
    #[serde(default)]
    pub log_literals: bool,
    /// A slow query is logged with its parameters. Default false.
    #[serde(default)]
    pub log_parameters: bool,
    /// A connection held longer is logged, with the route that holds it. Default 30s; 0s: never.
    #[serde(default = "half_minute")]
    pub held_warning: Span,
    /// How often the log is told in a line what the pool has done since the last. Default 0s: never.
    #[serde(default = "zero")]
    pub summary_interval: Span,
    /// A request that holds a connection longer is ended: its statement is cancelled, the connection closed. Default 0s: never.
    #[serde(default = "zero")]
    pub held_limit: Span,
    /// An idle connection that has not been heard of for longer is pinged, whatever the policy says, less up to 10 % jitter.
    /// Default 0s: never.
    #[serde(default = "zero")]
    pub keepalive: Span,
    /// When session state is reset: `tracked`, on cause; `always`, behind every answer. Default tracked. A pool that
    /// serves more than one consumer is always reset. (PostgreSQL)
    #[serde(default, deserialize_with = "word")]
    pub reset: Reset,
    /// A PgBouncer in transaction mode stands between: unnamed statements only. Default false. (PostgreSQL, session)
    #[serde(default)]
    pub behind_pgbouncer: bool,
    /// Prepared statements kept on a connection. Default 256; 0: none. (PostgreSQL, session)
    #[serde(default = "statement_cache")]
    pub statement_cache: usize,
    /// Server-side `statement_timeout`; 0s: none. Default 30s. (PostgreSQL, session)
    #[serde(default = "half_minute")]
    pub statement_timeout: Span,
    /// Server-side `idle_in_transaction_session_timeout`; 0s: none. Default 10s. (PostgreSQL, session)
    #[serde(default = "ten_seconds")]
    pub idle_in_transaction_timeout: Span,
    /// `application_name`. Default `sluicegate`. (PostgreSQL, session)
    #[serde(default = "application_name")]
    pub application_name: String,
    /// TCP keep-alive: idle time before the first probe. Default 60s; 0s: off. (PostgreSQL, session)
    #[serde(default = "minute")]
    pub tcp_keepalive: Span,
    /// TCP user timeout (RFC 5482): how long what was sent may stay unacknowledged, or unsent as the server takes nothing.
    /// Default 2m; 0s: the kernel's own, a quarter of an hour. (PostgreSQL, session)
    #[serde(default = "two_minutes")]
    pub tcp_user_timeout: Span,
    /// TLS to the server, where the URL's `sslmode` asks for it. (PostgreSQL, session)
    #[serde(default)]
    pub tls: UpstreamTls,
    /// SQLite pragmas. (session)
    #[serde(default)]
    pub sqlite: SqliteTuning,
    /// Pools that reads go to. (PostgreSQL)
    #[serde(default)]
    pub replicas: Replicas,
}

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// PostgreSQL, and what speaks its protocol.
    Postgres,
    /// SQLite, embedded.
    Sqlite,
}

/// What a pool stands for, where it stands for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One for each database.
    Database,
    /// One for each login role.
    Role,
}

/// A role that a pool may connect as.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoginRole {
    /// Its password; none where the server asks for none. (session)
    pub password: Option<Secret>,
}

/// Bounds of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSize {
    /// Connections kept open, warmed at start. Default 0.
    pub min: u32,
    /// Connections at most, counted at the server. Default: four a core, at most one for each 64 MiB of memory, at
    /// least 2.
    pub max: Option<u32>,
    /// Connections kept idle at least, within the maximum, however many are in use. Default 0.
    pub min_idle: u32,
    /// Connections of the maximum that are opened only for callers who have waited for `reserve_after`. Default 0.
    pub reserve: u32,
    /// When the reserve is opened. Default 1s.
    pub reserve_after: Span,
}

impl Default for PoolSize {
    fn default() -> Self {
        Self { min: 0, max: None, min_idle: 0, reserve: 0, reserve_after: one_second() }
    }
}

/// What all pools on one server may open together; where they differ, the least holds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolServer {
    /// Connections. Default: `share` of what the server grants, as it says when a connection is made: its `max_connections` less
    /// the reserved ones; no limit behind PgBouncer.
    pub connections: Option<u32>,
    /// The part of what the server grants that the gateway may use. Default 0.8.
    pub share: f64,
}

impl Default for PoolServer {
    fn default() -> Self {
        Self { connections: None, share: 0.8 }
    }
}

/// Which idle connection is lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleOrder {
    /// The last returned: what a low load does not need grows old and leaves.
    #[default]
    Lifo,
    /// The one returned longest ago: all are used in turn, as it suits a server behind a load balancer.
    Fifo,
}

/// Pauses between failing attempts, doubled each time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// First pause. Default 200ms.
    pub initial: Span,
    /// Longest pause. Default 10s.
    pub max: Span,
    /// Random part, up and down, of each pause. Default 0.1.
    pub jitter: f64,
}

/// When a failing database is given a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures in a row that open it. Default 5.
    pub failures: u32,
    /// Longest it stays open without a probe. Default 30s.
    pub max_open: Span,
    /// Successful probes that close it. Default 2.
    pub successes: u32,
}

/// When a connection's session state is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reset {
    /// When the statement, its tag or the server's messages give cause.
    #[default]
    Tracked,
    /// Behind every answer.
    Always,
}

/// SQLite pragmas.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqliteTuning {
    /// Wait for another process's lock. Default 5s.
    pub busy_timeout: Span,
    /// Page cache of each connection. Default 8MiB.
    pub cache: Size,
    /// Memory map of the file. Default 64MiB; 0B: none.
    pub mmap: Size,
    /// `synchronous`: `off`, `normal` (default) or `full`.
    #[serde(deserialize_with = "word")]
    pub synchronous: Synchronous,
}

/// Where reads go instead: pools on standbys of the same primary.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replicas {
    /// Their names. Default none: reads stay here.
    pub pools: Vec<String>,
    /// A replica that is further behind gets no reads. Default 10s; 0s: not looked at.
    pub max_lag: Span,
    /// Whether reads come here when no replica can serve. Default true; false: they fail.
    pub fallback: bool,
    /// How often each replica is looked at. Default 1s.
    pub check_interval: Span,
}

impl Default for Replicas {
    fn default() -> Self {
        Self { pools: Vec::new(), max_lag: ten_seconds(), fallback: true, check_interval: one_second() }
    }
}

/// SQLite's `synchronous`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// May corrupt on power loss.
    Off,
    /// Safe with WAL; the last commits may be lost on power loss.
    #[default]
    Normal,
    /// Every commit is on disk.
    Full,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Span::millis(200), max: Span::secs(10), jitter: 0.1 }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, max_open: Span::secs(30), successes: 2 }
    }
}

impl Default for SqliteTuning {
    fn default() -> Self {
        Self { busy_timeout: Span::secs(5), cache: Size::mib(8), mmap: Size::mib(64), synchronous: Synchronous::Normal }
    }
}

impl Pool {
    /// Connections kept open.
    pub fn min(&self) -> u32 {
        self.size.min
    }

    /// Connections at most: `size.max`, or what suits this machine; never less than one, or than the minimum.
    pub fn max_size(&self) -> u32 {
        self.size.max.unwrap_or_else(machine::default_pool_size).max(self.size.min).max(1)
    }
}

fn fixed() -> PolicyRef {
    native("fixed")
}

fn lifetime() -> PolicyRef {
    native("lifetime")
}

fn bypass_window() -> PolicyRef {
    native("bypass-window")
}

fn queue() -> u32 {
    1024
}

fn max_pools() -> u32 {
    64
}

fn parallel_creates() -> u32 {
    2
}

fn statements() -> usize {
    100
}

fn statement_cache() -> usize {
    256
}

fn application_name() -> String {
    "sluicegate".into()
}
