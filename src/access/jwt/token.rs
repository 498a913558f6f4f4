//! One token: taken apart, verified, its claims held against the issuer's rules.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value};

use super::{
    KeySource,
    keys::{self, KeySet},
};
use crate::config::model::{self, Algorithm};

/// The largest token, in bytes. Those of large companies, with a group for everything, are about 4 KiB.
pub(crate) const LARGEST: usize = 8 << 10;

/// Types of tokens that are one for access: plain ones, and those of RFC 9068. A type that is said is held to, so that a token
/// made for another purpose (a logout, an event) is none for this (RFC 8725, section 3.11).
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// Who signs tokens, as the configuration says.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) settings: model::Issuer,
    pub(crate) source: Arc<KeySource>,
}

/// Why a token does not stand for anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is larger than 8 KiB.
    #[error("oversized")]
    Oversized,
    /// Not a signed token, or of a type that is for something else, or with extensions.
    #[error("malformed")]
    Malformed,
    /// It is not signed in a way that its issuer is allowed to.
    #[error("algorithm not allowed")]
    Algorithm,
    /// Its issuer is none of ours.
    #[error("unknown issuer")]
    Issuer,
    /// The issuer's keys have not come yet.
    #[error("no keys yet")]
    NoKeys,
    /// No key of the issuer has its id, and is for its algorithm.
    #[error("unknown key")]
    UnknownKey,
    /// The signature is not its key's.
    #[error("wrong signature")]
    Signature,
    /// It is for others.
    #[error("wrong audience")]
    Audience,
    /// It is over, or does not say when it will be.
    #[error("expired")]
    Expired,
    /// It has not begun.
    #[error("not valid yet")]
    Early,
    /// Its signature was not looked at: whoever shows it has failed too often.
    #[error("not verified, after too many failures")]
    Untried,
}

impl TokenFault {
    /// A word for the access log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Oversized => "token-oversized",
            Self::Malformed => "token-malformed",
            Self::Algorithm => "token-algorithm",
            Self::Issuer => "token-issuer",
            Self::NoKeys => "issuer-keys",
            Self::UnknownKey => "token-key",
            Self::Signature => "token-signature",
            Self::Audience => "token-audience",
            Self::Expired => "token-expired",
            Self::Early => "token-early",
            Self::Untried => "token-untried",
        }
    }

    /// Whether the token does not even say that it is of an issuer of ours.
    pub(crate) fn is_strange(self) -> bool {
        matches!(self, Self::Oversized | Self::Malformed | Self::Issuer)
    }
}

/// A token that holds.
#[derive(Debug)]
pub(crate) struct Sound {
    /// Whose it is, and the keys that it was verified by.
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) keys: Arc<KeySet>,
    pub(crate) claims: Map<String, Value>,
    /// Its end, with the leeway.
    pub(crate) ends: SystemTime,
}

/// A token in its parts, nothing of which is believed yet.
struct Parts<'a> {
    header: Header,
    claims: Map<String, Value>,
    signed: &'a [u8],
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Whether it is there, whatever it says.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(from).map(|_| true)
}

/// Whether a credential is meant to be a token: three parts in base64url (RFC 7515, section 3.1).
pub(crate) fn looks_like_one(credential: &[u8]) -> bool {
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    credential.split(|byte| *byte == b'.').count() == 3 && credential.iter().all(in_alphabet)
}

/// Verifies a token of one of these issuers, if its signature may be tried: that is what costs.
pub(crate) fn verify<'i>(
    token: &[u8],
    issuers: impl IntoIterator<Item = &'i Arc<Issuer>>,
    may_try: impl FnOnce() -> bool,
    now: SystemTime,
) -> Result<Sound, TokenFault> {
    if token.len() > LARGEST {
        return Err(TokenFault::Oversized);
    }
    let parts = Parts::of(token).ok_or(TokenFault::Malformed)?;
    let said = parts.claims.get("iss").and_then(Value::as_str);
    let issuer = issuers.into_iter().find(|issuer| said == Some(&*issuer.settings.issuer)).ok_or(TokenFault::Issuer)?;
    issuer.verify(parts, may_try, now)
}

impl<'a> Parts<'a> {
    fn of(token: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(token).ok()?;
        let (message, signature) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let typed = header.typ.as_deref().is_none_or(|r#type| {
            let bare = r#type.strip_prefix("application/").unwrap_or(r#type);
            TYPES.iter().any(|known| known.eq_ignore_ascii_case(bare))
        });
        let plain = typed && !header.crit;
        plain.then_some(Self { header, claims, signed: message.as_bytes(), signature })
    }
}

impl Issuer {
    /// Whether a token that one lets stand, the other does, too; how old its keys may be apart.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let rules = |issuer: &Self| {
            let model::Issuer { issuer, audience, algorithms, .. } = &issuer.settings;
            (issuer.clone(), audience.clone(), algorithms.clone())
        };
        Arc::ptr_eq(&self.source, &other.source) && rules(self) == rules(other)
    }

    fn verify(
        self: &Arc<Self>,
        parts: Parts<'_>,
        may_try: impl FnOnce() -> bool,
        now: SystemTime,
    ) -> Result<Sound, TokenFault> {
        let keys = self.source.keys();
        let allowed = self.settings.algorithms.iter().find(|algorithm| keys::name(**algorithm) == parts.header.alg);
        let algorithm = *allowed.ok_or(TokenFault::Algorithm)?;
        let mut tried = keys.find(parts.header.kid.as_deref(), algorithm).peekable();
        if tried.peek().is_none() {
            self.source.want();
            return Err(if keys.is_awaited() { TokenFault::NoKeys } else { TokenFault::UnknownKey });
        }
        if !may_try() {
            return Err(TokenFault::Untried);
        }
        if !tried.any(|key| signed_by(&parts, key, algorithm)) {
            return Err(TokenFault::Signature);
        }
        drop(tried);
        let ends = self.check_claims(&parts.claims, now)?;
        Ok(Sound { issuer: self.clone(), keys, claims: parts.claims, ends })
    }

    /// Whether it is for us, and now. Its issuer is known to be right.
    fn check_claims(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, TokenFault> {
        let ours =
            |audience: &Value| audience.as_str().is_some_and(|one| self.settings.audience.iter().any(|own| own == one));
        let for_us = match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        if !for_us {
            return Err(TokenFault::Audience);
        }
        let leeway = self.settings.leeway.0;
        let end = claims.get("exp").and_then(moment).and_then(|end| end.checked_add(leeway));
        let end = end.ok_or(TokenFault::Expired)?;
        if now >= end {
            return Err(TokenFault::Expired);
        }
        let begun = match claims.get("nbf") {
            None => true,
            Some(said) => moment(said).is_some_and(|beginning| beginning <= now + leeway),
        };
        if begun { Ok(end) } else { Err(TokenFault::Early) }
    }
}

fn signed_by(parts: &Parts<'_>, key: &keys::PublicKey, algorithm: Algorithm) -> bool {
    let verified = jsonwebtoken::crypto::verify(parts.signature, parts.signed, &key.key, crate_name(algorithm));
    verified.unwrap_or(false)
}

/// As the crate calls it.
fn crate_name(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    use jsonwebtoken::Algorithm as Theirs;
    match algorithm {
        Algorithm::RS256 => Theirs::RS256,
        Algorithm::RS384 => Theirs::RS384,
        Algorithm::RS512 => Theirs::RS512,
        Algorithm::PS256 => Theirs::PS256,
        Algorithm::PS384 => Theirs::PS384,
        Algorithm::PS512 => Theirs::PS512,
        Algorithm::ES256 => Theirs::ES256,
        Algorithm::ES384 => Theirs::ES384,
        Algorithm::EdDSA => Theirs::EdDSA,
    }
}

/// A NumericDate (RFC 7519, section 2): seconds since 1970, perhaps with a fraction.
fn moment(said: &Value) -> Option<SystemTime> {
    let seconds = said.as_f64().filter(|seconds| *seconds >= 0.0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}
