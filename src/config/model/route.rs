//! Routes and what they lead to.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, value::SeqAccessDeserializer},
};

use super::defaults::{hour, permanent};
use super::{Query, default_body};
use crate::config::value::{Size, Span, word};

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

impl Route {
    /// Largest request body, or none for no limit.
    pub fn body_limit(&self) -> Option<Size> {
        self.max_body.or_else(|| self.query.is_some().then(default_body))
    }
}

fn deadline() -> Span {
    Span::secs(30)
}

fn plain_text() -> String {
    "text/plain; charset=utf-8".into()
}
