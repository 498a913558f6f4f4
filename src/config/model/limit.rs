//! Rate limits.

use serde::{Deserialize, Serialize};

use super::defaults::yes;
use crate::config::value::Rate;

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

fn max_keys() -> usize {
    65_536
}
