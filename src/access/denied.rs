//! Why a caller is not let in, and what is said of it.

use http::{HeaderValue, StatusCode};

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
    /// The consumer's time is over.
    #[error("consumer has expired")]
    Expired,
    /// The consumer may not call from this address.
    #[error("not from this address")]
    Network,
    /// The consumer may not use this method.
    #[error("not with this method")]
    Method,
}

impl Denied {
    /// 401 or 403.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoKey | Self::UnknownKey | Self::TwoKeys | Self::Expired => StatusCode::UNAUTHORIZED,
            Self::NotNamed | Self::Network | Self::Method => StatusCode::FORBIDDEN,
        }
    }

    /// The `WWW-Authenticate` field that a 401 must carry (RFC 9110, section 11.6.1; RFC 6750, section 3).
    pub fn challenge(self) -> Option<HeaderValue> {
        match self {
            Self::NoKey => Some(HeaderValue::from_static("Bearer")),
            Self::UnknownKey | Self::Expired => Some(HeaderValue::from_static("Bearer error=\"invalid_token\"")),
            Self::TwoKeys => Some(HeaderValue::from_static("Bearer error=\"invalid_request\"")),
            Self::NotNamed | Self::Network | Self::Method => None,
        }
    }

    /// What the client is told.
    pub fn public(self) -> &'static str {
        match self {
            Self::NoKey => "an API key is needed, in `Authorization: Bearer` or `X-API-Key`",
            Self::UnknownKey => "the API key is not valid",
            Self::TwoKeys => "`Authorization` and `X-API-Key` hold different keys",
            Self::NotNamed => "this consumer may not call here",
            Self::Expired => "the consumer has expired",
            Self::Network => "this consumer may not call from this address",
            Self::Method => "this consumer may not use this method",
        }
    }

    /// A word for the access log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoKey | Self::UnknownKey | Self::TwoKeys | Self::NotNamed => "access",
            Self::Expired => "expired",
            Self::Network => "network",
            Self::Method => "method",
        }
    }

    /// Whether it counts against the caller's address: a key was shown, and wrong.
    pub fn is_suspicious(self) -> bool {
        matches!(self, Self::UnknownKey | Self::TwoKeys)
    }
}
