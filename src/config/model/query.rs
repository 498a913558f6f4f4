//! What a route does with queries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::defaults::{hour, ten_minutes, yes};
use super::{Allow, AllowMode, BackendKind, Pool, Serves, TunnelMode};
use crate::config::value::{Size, Span, maybe_word, word};

/// Target of a query route.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The HTTP shape: `json`, or `neon`.
    #[serde(deserialize_with = "word")]
    pub dialect: Dialect,
    /// The pool.
    pub pool: String,
    /// Pools by what a connection string calls them: the first label of its host (dialect `neon`). Where there are any, no other
    /// label will do. Default none: `pool`, whatever the host is.
    #[serde(default)]
    pub endpoints: BTreeMap<String, String>,
    /// Where a request names its database, if the pool is one for each: `path`, the one segment behind the route's `path`; or
    /// `header:NAME`.
    #[serde(default)]
    pub database: Option<NamedBy>,
    /// Most rows in one answer; more is 507. Default 1000000.
    #[serde(default = "max_rows")]
    pub max_rows: u64,
    /// Most bytes in one answer; more is 507, or a last line with an error in NDJSON. Default 64MiB.
    #[serde(default = "max_response")]
    pub max_response: Size,
    /// Most statements in a batch. Default 1000.
    #[serde(default = "max_batch")]
    pub max_batch: usize,
    /// Every request of the route is read only, whatever it says. Default false.
    #[serde(default)]
    pub read_only: bool,
    /// Named queries that may be asked for: a list, or `"*"` for all. Default none.
    #[serde(default)]
    pub named: Serves,
    /// Whether callers may send SQL of their own. Default true.
    #[serde(default = "yes")]
    pub raw: bool,
    /// Which SQL of callers' own passes. Default all.
    #[serde(default)]
    pub allow: Option<Allow>,
    /// For how long a WebSocket tunnel holds a connection (dialect `neon`): `session`, `transaction`, or `off`. Default `session`,
    /// but `off` where the pool is not PostgreSQL, PgBouncer stands before it, or the route is read only.
    #[serde(default, deserialize_with = "maybe_word")]
    pub tunnel: Option<TunnelMode>,
    /// How a tunnel's client shows who it is: `password`, its key or token in clear text within TLS; or `scram`, for consumers
    /// that have a `scram`. Default `password`.
    #[serde(default, deserialize_with = "word")]
    pub tunnel_auth: TunnelAuth,
    /// Longest silence on a tunnel. Default 10m.
    #[serde(default = "ten_minutes")]
    pub tunnel_idle: Span,
    /// Longest life of a tunnel; 0s: no bound. Default 1h.
    #[serde(default = "hour")]
    pub tunnel_lifetime: Span,
    /// Each statement is followed by a comment with the request's `traceparent`; it then has no name at the server.
    /// (PostgreSQL) Default false.
    #[serde(default)]
    pub trace_comment: bool,
    /// Answers over 4 KiB go out in gzip or zstd to clients who ask for it. Default true.
    #[serde(default = "yes")]
    pub compress: bool,
}

/// Where a request names its database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum NamedBy {
    /// Behind the route's `path`, as the one segment that is left.
    Path,
    /// In a header.
    Header(String),
}

/// An HTTP dialect for queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Sluicegate's own.
    Json,
    /// That of the drivers for Neon's databases, of PostgreSQL.
    Neon,
}

/// How a tunnel's client shows who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelAuth {
    /// By its key or token, in clear text within TLS.
    #[default]
    Password,
    /// By SCRAM-SHA-256, against the consumer's verifier.
    Scram,
}

impl TryFrom<String> for NamedBy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("header:") {
            Some(name) if http::HeaderName::from_bytes(name.as_bytes()).is_ok() => {
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            None if text == "path" => Ok(Self::Path),
            _ => Err(format!("`{text}` does not say where a database is named; use path or header:NAME")),
        }
    }
}

impl From<NamedBy> for String {
    fn from(by: NamedBy) -> Self {
        match by {
            NamedBy::Path => "path".into(),
            NamedBy::Header(name) => format!("header:{name}"),
        }
    }
}

impl Query {
    /// The names of the pools that it may lead to; with endpoints its own, too, as tunnels do.
    pub fn pools(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.pool).chain(self.endpoints.values())
    }

    /// Whether not all SQL of callers' own passes.
    pub fn holds_to_texts(&self) -> bool {
        !self.raw || self.allow.as_ref().is_some_and(|allow| allow.mode == AllowMode::Enforce)
    }

    /// For how long a tunnel to `pool` holds a connection.
    pub fn tunnel_to(&self, pool: &Pool) -> TunnelMode {
        match self.why_no_tunnel(pool) {
            None => self.tunnel.unwrap_or(TunnelMode::Session),
            Some(_) => TunnelMode::Off,
        }
    }

    /// Why there can be no tunnel to `pool`, if there can be none.
    pub fn why_no_tunnel(&self, pool: &Pool) -> Option<&'static str> {
        if self.dialect != Dialect::Neon {
            Some("a tunnel is of the dialect `neon`")
        } else if pool.backend != BackendKind::Postgres {
            Some("the pool is not of PostgreSQL, whose protocol a tunnel speaks")
        } else if pool.behind_pgbouncer {
            Some("PgBouncer stands before a pool, and shares sessions out by itself: a tunnel needs one of its own")
        } else if self.read_only {
            Some("the route is read only, to which a tunnel cannot be held: grant less to the pool's role instead")
        } else if self.holds_to_texts() {
            Some("not all SQL of callers' own passes, to which a tunnel cannot be held")
        } else {
            None
        }
    }
}

fn max_rows() -> u64 {
    1_000_000
}

fn max_response() -> Size {
    Size::mib(64)
}

fn max_batch() -> usize {
    1000
}
