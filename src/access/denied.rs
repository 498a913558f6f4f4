//! Why a caller is not let in, and what is said of it.

use http::{HeaderValue, StatusCode};

use super::TokenFault;

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
    /// The token does not hold.
    #[error("token: {0}")]
    Token(TokenFault),
    /// The token holds, or the certificate does, and stands for nobody.
    #[error("no consumer")]
    NoConsumer,
    /// It stands for several.
    #[error("several consumers")]
    Ambiguous,
    /// The connection's certificate is over.
    #[error("certificate has expired")]
    CertificateExpired,
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
    /// 401 or 403; 503 while a token cannot be verified, 429 where it is not to be.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Token(TokenFault::NoKeys) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Token(TokenFault::Untried) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotNamed | Self::Network | Self::Method | Self::NoConsumer | Self::Ambiguous => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The `WWW-Authenticate` field that a 401 must carry (RFC 9110, section 11.6.1; RFC 6750, section 3).
    pub fn challenge(self) -> Option<HeaderValue> {
        if self.status() != StatusCode::UNAUTHORIZED {
            return None;
        }
        Some(HeaderValue::from_static(match self {
            Self::NoKey => "Bearer",
            Self::TwoKeys => "Bearer error=\"invalid_request\"",
            Self::Token(TokenFault::Expired) => {
                "Bearer error=\"invalid_token\", error_description=\"the token has expired\""
            }
            _ => "Bearer error=\"invalid_token\"",
        }))
    }

    /// What the client is told. Of a token that does not hold, only what its owner can do something about.
    pub fn public(self) -> &'static str {
        match self {
            Self::NoKey => "an API key or a token is needed, in `Authorization: Bearer` (a key in `X-API-Key`, too)",
            Self::UnknownKey => "the API key is not valid",
            Self::TwoKeys => "two different keys or tokens were sent",
            Self::Token(TokenFault::Expired) => "the token has expired",
            Self::Token(TokenFault::Early) => "the token is not valid yet",
            Self::Token(TokenFault::Audience) => "the token is for somebody else",
            Self::Token(TokenFault::Oversized) => "the token is larger than 8 KiB",
            Self::Token(TokenFault::Untried) => "too many failed authentications from this address",
            Self::Token(TokenFault::NoKeys) => "tokens of this issuer cannot be verified at the moment",
            Self::Token(_) => "the token is not valid",
            Self::NoConsumer => "the token or certificate is good, and stands for no consumer",
            Self::Ambiguous => "the token or certificate stands for more than one consumer",
            Self::CertificateExpired => "the certificate of this connection has expired",
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
            Self::Token(fault) => fault.reason(),
            Self::NoConsumer => "no-consumer",
            Self::Ambiguous => "ambiguous",
            Self::CertificateExpired => "certificate-expired",
            Self::Expired => "expired",
            Self::Network => "network",
            Self::Method => "method",
        }
    }

    /// Whether what was shown may be meant for others: it is nothing that was ever ours.
    pub(super) fn is_strange(self) -> bool {
        match self {
            Self::UnknownKey => true,
            Self::Token(fault) => fault.is_strange(),
            _ => false,
        }
    }

    /// Whether a caller may pass where anybody may: nobody in particular has been recognised.
    pub(super) fn leaves_nobody(self) -> bool {
        match self {
            Self::TwoKeys | Self::UnknownKey | Self::NoConsumer => true,
            // One of an issuer of ours, of which nothing is known.
            Self::Token(fault) => fault != TokenFault::Untried,
            _ => false,
        }
    }

    /// Whether it counts against the caller's address: something was shown that no honest caller has.
    pub fn is_suspicious(self) -> bool {
        match self {
            Self::UnknownKey | Self::TwoKeys => true,
            Self::Token(fault) => {
                !matches!(fault, TokenFault::NoKeys | TokenFault::Expired | TokenFault::Early | TokenFault::Untried)
            }
            _ => false,
        }
    }
}
