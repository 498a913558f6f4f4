//! The configuration as types: one struct a table, every key documented with its unit and default.
//!
//! Only shapes and defaults live here. What a value may be next to another (a route's pool exists, two routes do not
//! collide) is decided in [`super::check()`].

mod consumer;
mod defaults;
mod edge;
mod issuer;
mod limit;
mod named;
mod plugin;
mod pool;
mod query;
mod route;
mod upstream;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use consumer::{Claim, Consumer, Queries, Tokens, TunnelMode};
pub use edge::{ClientCertificates, Http2, HttpsRedirect, Listener, SelfSigned, Tls, TlsPair, TlsVersion, UnknownSni};
pub use issuer::{Algorithm, Issuer};
pub use limit::{Limit, LimitKey};
pub use named::{Allow, AllowMode, Claims, Named, NamedParam, OnExhausted, ParamType, Serves};
pub use plugin::{NativeOnly, Plugin, PluginPolicy, PolicyRef};
pub use pool::{
    BackendKind, Backoff, Breaker, IdleOrder, LoginRole, Per, Pool, PoolSize, Replicas, Reset, SqliteTuning,
    Synchronous,
};
pub use query::{Dialect, NamedBy, Query, TunnelAuth};
pub use route::{Access, Cors, Open, Priority, Proxy, Redirect, Respond, Route};
pub use upstream::{HostHeader, Upstream, UpstreamTls};

use super::value::{Secret, Size, Span, address, networks, word};

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Process-wide settings.
    pub server: Server,
    /// What is logged, and how.
    pub log: Log,
    /// The operator's listener; absent means none.
    pub admin: Option<Admin>,
    /// When a pool's figures are worth a word.
    pub alert: Alert,
    /// When the gateway itself is under pressure.
    pub overload: Overload,
    /// Sockets that accept, by name.
    pub listener: BTreeMap<String, Listener>,
    /// Policy components, by name.
    pub plugin: BTreeMap<String, Plugin>,
    /// Connection pools, by name.
    pub pool: BTreeMap<String, Pool>,
    /// HTTP services, by name.
    pub upstream: BTreeMap<String, Upstream>,
    /// Rate limits, by name.
    pub limit: BTreeMap<String, Limit>,
    /// Who signs tokens, by name.
    pub issuer: BTreeMap<String, Issuer>,
    /// Authenticated callers, by name.
    pub consumer: BTreeMap<String, Consumer>,
    /// Queries that are asked for by name.
    pub named: BTreeMap<String, Named>,
    /// Matches and their targets.
    pub route: Vec<Route>,
}

impl Config {
    /// The login role of a consumer, for pools that are one for each: as its `role` says, else its own name.
    pub fn role_of<'a>(&'a self, consumer: &'a str) -> &'a str {
        self.consumer.get(consumer).and_then(|consumer| consumer.role.as_deref()).unwrap_or(consumer)
    }
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads; default: one a core. (restart)
    pub workers: Option<usize>,
    /// Where tokens, the local CA and compiled plugins are kept; default: `$STATE_DIRECTORY`, else `var`. (restart)
    pub state: Option<PathBuf>,
    /// Client connections at a time, over all listeners. Default 10000. (live)
    pub max_connections: u32,
    /// Client connections at a time from one address (IPv6: one /64); default: an eighth of `max_connections`. (live)
    pub max_connections_per_address: Option<u32>,
    /// Networks whose `X-Forwarded-For` is believed, read from right to left. Default none. (live)
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Memory for answers of named queries that are kept; 0B: none is kept. Default 32MiB. (live)
    pub query_cache: Size,
    /// How long readiness is already down while connections are still accepted, at shutdown. Default 0s. (live)
    pub drain_delay: Span,
    /// How long open connections may take to finish at shutdown. Default 120s. (live)
    pub drain_deadline: Span,
}

/// `[log]`. Level and format need a restart.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `pretty`, `json`, or `auto`: pretty on a terminal, JSON otherwise. Default auto. (restart)
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
    /// Filter in `tracing` syntax: `info`, `warn,sluicegate::pool=debug`. Default info. (restart)
    pub filter: String,
    /// `stdout`, `off`, or a path that is appended to, one JSON object a request. Default stdout. (restart)
    pub access: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address to listen on; plain HTTP, so keep it on loopback or a private network. (restart)
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// `token` (default) or `open`: whether reading needs the token of `<state>/admin.token`. Changing always does.
    /// (live)
    #[serde(default, deserialize_with = "word")]
    pub access: AdminAccess,
    /// The token, instead of one made at first start in `<state>/admin.token`. (live)
    #[serde(default)]
    pub token: Option<Secret>,
    /// Pools that must have a working connection for `/readyz` to say so. Default none. (live)
    #[serde(default)]
    pub ready_requires: Vec<String>,
    /// `Host` names answered besides `localhost` and IP addresses (against DNS rebinding). (live)
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// `[alert]`: thresholds for every pool. An alert is a line in the log when it begins and when it ends, and stands in
/// `/status` and in the metrics meanwhile. A threshold of 0 turns its rule off. All are live.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alert {
    /// How long a figure must have been beyond its threshold; the breaker and the checks have waited by themselves. Default 30s.
    pub after: Span,
    /// 95 % of checkouts of the last one to two minutes take no longer. Default 100ms.
    pub checkout_p95: Span,
    /// Connections in use, of those that may be, in the mean of ten seconds. Default 0.8.
    pub utilisation: f64,
    /// Checkouts that fail and connections that break under their callers, of all checkouts of the last minute. Default 0.01.
    pub errors: f64,
    /// How long the breaker may be open. Default 5m.
    pub breaker_open: Span,
    /// Validations that may fail in a row. Default 3.
    pub failed_checks: u32,
}

impl Default for Alert {
    fn default() -> Self {
        Self {
            after: Span::secs(30),
            checkout_p95: Span::millis(100),
            utilisation: 0.8,
            errors: 0.01,
            breaker_open: Span::secs(300),
            failed_checks: 3,
        }
    }
}

/// `[overload]`: how full the gateway itself may be before it refuses requests, those of routes with the lowest priority
/// first. A threshold of 0 turns its resource off. All are live.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// Memory in use, of the least that the control groups, the machine and `memory_limit` allow. Default 0.85.
    pub memory: f64,
    /// Processor time taken, of what the control groups or the cores allow, for seconds on end. Default 0.8.
    pub cpu: f64,
    /// Memory that the process may take, where that is less than its control group and the machine allow.
    pub memory_limit: Option<Size>,
}

impl Default for Overload {
    fn default() -> Self {
        Self { memory: 0.85, cpu: 0.8, memory_limit: None }
    }
}

/// Who may read the admin listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminAccess {
    /// Bearers of the token.
    #[default]
    Token,
    /// Anyone who reaches the address; changes still need the token.
    Open,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: None,
            state: None,
            max_connections: 10_000,
            max_connections_per_address: None,
            trusted_proxies: Vec::new(),
            query_cache: Size::mib(32),
            drain_delay: Span::secs(0),
            drain_deadline: Span::secs(120),
        }
    }
}

impl Server {
    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        let fallback = || std::env::var_os("STATE_DIRECTORY").map_or_else(|| PathBuf::from("var"), PathBuf::from);
        self.state.clone().unwrap_or_else(fallback)
    }

    /// The cap on connections from one address.
    pub fn per_address(&self) -> u32 {
        self.max_connections_per_address.unwrap_or((self.max_connections / 8).max(1))
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".into(), access: "stdout".into() }
    }
}

fn default_body() -> Size {
    Size::mib(1)
}
