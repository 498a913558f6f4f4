//! Whether a caller may use a route.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{AccessError, ConsumerHandle, Consumers};
use crate::config::model::{Access, Consumer};

/// A route's `access`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Anyone may call.
    #[default]
    Open,
    /// The consumers of these names may call.
    AnyOf(Box<[Arc<str>]>),
}

/// Why a caller was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No key was shown, and the route asks for one.
    #[error("no key")]
    NoKey,
    /// The key is nobody's.
    #[error("unknown key")]
    UnknownKey,
    /// Two different keys were shown.
    #[error("two different keys")]
    TwoKeys,
    /// The consumer is known, and not let in here.
    #[error("consumer is not let in")]
    NotNamed,
}

impl Admission {
    /// The admission of a route; no `access` means open (that query routes must say so is the configuration's check).
    ///
    /// # Errors
    /// Every name that is no consumer.
    pub fn build(access: Option<&Access>, consumers: &BTreeMap<String, Consumer>) -> Result<Self, Vec<AccessError>> {
        let Some(Access::Consumers(names)) = access else { return Ok(Self::Open) };
        let unknown: Vec<AccessError> = names
            .iter()
            .filter(|name| !consumers.contains_key(*name))
            .map(|name| AccessError::Unknown(name.clone()))
            .collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        Ok(Self::AnyOf(names.iter().map(|name| name.as_str().into()).collect()))
    }

    /// Whether anyone may call.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }

    /// Who calls, if the caller may. On an open route a key that is not ours lets its caller in as nobody: it may be meant
    /// for the upstream. One of ours beside another is refused there, too: it is not the upstream's business.
    ///
    /// # Errors
    /// The caller may not.
    pub fn admit(&self, consumers: &Consumers, headers: &HeaderMap) -> Result<Option<Arc<ConsumerHandle>>, Denied> {
        match self {
            Self::Open if consumers.is_empty() => Ok(None),
            Self::Open => match consumers.authenticate(headers) {
                Err(Denied::TwoKeys) if consumers.know_one_of(headers) => Err(Denied::TwoKeys),
                who => Ok(who.unwrap_or_default()),
            },
            Self::AnyOf(names) => {
                let consumer = consumers.authenticate(headers)?.ok_or(Denied::NoKey)?;
                if names.contains(consumer.name()) { Ok(Some(consumer)) } else { Err(Denied::NotNamed) }
            }
        }
    }
}

impl Denied {
    /// 401 or 403.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoKey | Self::UnknownKey | Self::TwoKeys => StatusCode::UNAUTHORIZED,
            Self::NotNamed => StatusCode::FORBIDDEN,
        }
    }

    /// The `WWW-Authenticate` field that a 401 must carry (RFC 9110, section 11.6.1; RFC 6750, section 3).
    pub fn challenge(self) -> Option<HeaderValue> {
        match self {
            Self::NoKey => Some(HeaderValue::from_static("Bearer")),
            Self::UnknownKey => Some(HeaderValue::from_static("Bearer error=\"invalid_token\"")),
            Self::TwoKeys => Some(HeaderValue::from_static("Bearer error=\"invalid_request\"")),
            Self::NotNamed => None,
        }
    }

    /// What the client is told.
    pub fn public(self) -> &'static str {
        match self {
            Self::NoKey => "an API key is needed, in `Authorization: Bearer` or `X-API-Key`",
            Self::UnknownKey => "the API key is not valid",
            Self::TwoKeys => "`Authorization` and `X-API-Key` hold different keys",
            Self::NotNamed => "this consumer may not call here",
        }
    }

    /// Whether it counts against the caller's address: a key was shown, and wrong.
    pub fn is_suspicious(self) -> bool {
        matches!(self, Self::UnknownKey | Self::TwoKeys)
    }
}
