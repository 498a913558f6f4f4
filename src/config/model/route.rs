//! Routes and what they lead to: upstreams, limits, consumers.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, value::SeqAccessDeserializer},
};

use super::{Allow, AllowMode, BackendKind, Pool, Serves, TunnelMode, default_body};
use crate::config::value::{Rate, Size, Span, maybe_word, word};

/// `[[route]]`: a match and exactly one target. All keys are live.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name in logs and figures; default: the match as text.
    #[serde(default)]
    pub name: Option<String>,
    /// Host names, exact or with a leading `*.` for one or more labels; none means any.
    #[serde(default)]
    pub host: Vec<String>,
    /// Prefix of the path, on segment boundaries: `/a` matches `/a` and `/a/b`, not `/ab`.
    #[serde(default)]
    pub path: Option<String>,
    /// The whole path. A route has `path` or `exact`.
    #[serde(default)]
    pub exact: Option<String>,
    /// Methods; none means any.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Target: a database query.
    #[serde(default)]
    pub query: Option<Query>,
    /// Target: an HTTP service.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// Target: a fixed answer.
    #[serde(default)]
    pub respond: Option<Respond>,
    /// Target: another place.
    #[serde(default)]
    pub redirect: Option<Redirect>,
    /// Rate limits that apply, by name; every one must admit the request.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Who may call. Query routes must say: `"open"` or a list of consumers. Other targets default to open.
    #[serde(default)]
    pub access: Option<Access>,
    /// Who is refused first when the gateway is overloaded: `low`, `normal` (default) or `high`.
    #[serde(default, deserialize_with = "word")]
    pub priority: Priority,
    /// Overall deadline of a query: queue, connect, validation, statement and answer. Default 30s.
    #[serde(default = "deadline")]
    pub deadline: Span,
    /// Largest request body. Default 1MiB for queries, no limit for proxying.
    #[serde(default)]
    pub max_body: Option<Size>,
    /// Let an encoded slash, backslash or NUL in the path through, unchanged, and a path that another route would match if its
    /// parameters (`/a;x=1`) were cut off. Default false: 400.
    #[serde(default)]
    pub allow_encoded_separators: bool,
    /// Which other origins' pages may call. Default none.
    #[serde(default)]
    pub cors: Option<Cors>,
}

/// Who may call a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Access {
    /// `"open"`: anyone.
    Open(Open),
    /// Names of consumers.
    Consumers(Vec<String>),
}

/// How long a route is served while the gateway is overloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Refused first.
    Low,
    /// Refused when all of `low` is, and that is not enough.
    #[default]
    Normal,
    /// Refused at the very top alone.
    High,
}

/// The word `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Open {
    /// Anyone may call.
    Open,
}

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

impl Query {
    /// The names of the pools that it may lead to; with endpoints its own, too, as tunnels do.
    pub fn pools(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.pool).chain(self.endpoints.values())
    }
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

/// Target of a proxy route.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The upstream.
    pub upstream: String,
    /// Take the route's `path` off before forwarding. Default false.
    #[serde(default)]
    pub strip_prefix: bool,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Body. Default empty.
    #[serde(default)]
    pub body: String,
    /// `Content-Type`. Default `text/plain; charset=utf-8`.
    #[serde(default = "plain_text")]
    pub content_type: String,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Absolute URL or absolute path. `{path}` becomes the request's path and query.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 308.
    #[serde(default = "permanent")]
    pub status: u16,
}

/// Cross-origin callers (Fetch standard, CORS protocol).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins such as `https://app.example.com`, or `*`.
    pub origins: Vec<String>,
    /// How long a browser may keep the answer to a preflight. Default 1h.
    #[serde(default = "hour")]
    pub max_age: Span,
}

/// `[upstream.NAME]`. All keys are live; changed endpoints or TLS make a new upstream beside the old one's open
/// requests.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://host:port` or `https://host:port`, tried in turn.
    pub endpoints: Vec<String>,
    /// Connections open at a time, over all endpoints and workers. Default 256.
    #[serde(default = "upstream_connections")]
    pub max_connections: u32,
    /// Requests that may wait for a connection; more get 503. Default 1024.
    #[serde(default = "upstream_queue")]
    pub queue: u32,
    /// Longest wait for a connection; then 503. Default 5s.
    #[serde(default = "five_seconds")]
    pub queue_timeout: Span,
    /// Longest connect, TLS included. Default 3s.
    #[serde(default = "three_seconds")]
    pub connect_timeout: Span,
    /// Longest pause while sending the request. Default 30s.
    #[serde(default = "half_minute")]
    pub send_timeout: Span,
    /// Longest wait for the head of the answer, and longest pause in its body. Default 60s.
    #[serde(default = "minute")]
    pub read_timeout: Span,
    /// How long an unused connection is kept. Default 60s.
    #[serde(default = "minute")]
    pub idle_timeout: Span,
    /// How long an endpoint that failed is passed over while another is left. Default 10s.
    #[serde(default = "ten_seconds")]
    pub fail_timeout: Span,
    /// Longest silence on an upgraded connection (WebSocket). Default 1h.
    #[serde(default = "hour")]
    pub upgrade_idle_timeout: Span,
    /// `Host` sent: `preserve` the client's (default) or the `endpoint`'s own.
    #[serde(default, deserialize_with = "word")]
    pub host: HostHeader,
    /// TLS to the endpoints.
    #[serde(default)]
    pub tls: UpstreamTls,
}

/// Which `Host` an upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The endpoint's host and port.
    Endpoint,
}

/// TLS towards an upstream or a database.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// PEM file of the CAs to trust instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Name to verify and send as SNI instead of the endpoint's host.
    pub server_name: Option<String>,
}

/// `[limit.NAME]`. All keys are live; an unchanged limit keeps its counts over a reload.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// `client-address`, `consumer`, `header:NAME` or `all`.
    pub key: LimitKey,
    /// Requests admitted in the long run: `100/s`.
    pub rate: Rate,
    /// Requests admitted at once after a pause. Default: the rate's count.
    #[serde(default)]
    pub burst: Option<u32>,
    /// Distinct keys counted; the rest share one bucket. Default 65536, about 100 bytes each.
    #[serde(default = "max_keys")]
    pub max_keys: usize,
    /// Send `RateLimit-Policy` and `RateLimit`. Default true.
    #[serde(default = "yes")]
    pub headers: bool,
}

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitKey {
    /// The client's address; IPv6 by /64.
    ClientAddress,
    /// The authenticated consumer; the address where there is none.
    Consumer,
    /// The value of a header, hashed; requests without it share one key.
    Header(String),
    /// One bucket for all.
    All,
}

// Written out, not `untagged`: that forgets where in the list the mistake was, and what it was.
impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Word or list.
        struct Form;

        impl<'de> de::Visitor<'de> for Form {
            type Value = Access;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`\"open\"` or a list of consumers")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Access, E> {
                match text {
                    "open" => Ok(Access::Open(Open::Open)),
                    _ => Err(de::Error::custom(format!(
                        "`{text}` is not an access rule; write \"open\", or a list of consumers: [\"{text}\"]"
                    ))),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Access, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Access::Consumers)
            }
        }

        from.deserialize_any(Form)
    }
}

impl TryFrom<String> for LimitKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "client-address" => Ok(Self::ClientAddress),
            "consumer" => Ok(Self::Consumer),
            "all" => Ok(Self::All),
            _ => match text.strip_prefix("header:") {
                Some(name) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
                _ => Err(format!("`{text}` is not a limit key; use client-address, consumer, header:NAME or all")),
            },
        }
    }
}

impl From<LimitKey> for String {
    fn from(key: LimitKey) -> Self {
        match key {
            LimitKey::ClientAddress => "client-address".into(),
            LimitKey::Consumer => "consumer".into(),
            LimitKey::All => "all".into(),
            LimitKey::Header(name) => format!("header:{name}"),
        }
    }
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

impl Route {
    /// Largest request body, or none for no limit.
    pub fn body_limit(&self) -> Option<Size> {
        self.max_body.or_else(|| self.query.is_some().then(default_body))
    }
}

fn deadline() -> Span {
    Span::secs(30)
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

fn plain_text() -> String {
    "text/plain; charset=utf-8".into()
}

fn permanent() -> u16 {
    308
}

fn hour() -> Span {
    Span::secs(3600)
}

fn upstream_connections() -> u32 {
    256
}

fn upstream_queue() -> u32 {
    1024
}

fn three_seconds() -> Span {
    Span::secs(3)
}

fn five_seconds() -> Span {
    Span::secs(5)
}

fn ten_seconds() -> Span {
    Span::secs(10)
}

fn ten_minutes() -> Span {
    Span::secs(600)
}

fn half_minute() -> Span {
    Span::secs(30)
}

fn minute() -> Span {
    Span::secs(60)
}

fn max_keys() -> usize {
    65_536
}

fn yes() -> bool {
    true
}
