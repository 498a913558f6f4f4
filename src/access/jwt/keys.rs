//! An issuer's public keys: a JWK Set (RFC 7517, RFC 7518 section 6, RFC 8037).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use crate::config::model::Algorithm;

/// Keys of a set. Issuers have two to five; a set that is larger is no set of signing keys.
const MOST_KEYS: usize = 64;
/// Keys that one token is tried with. More than one is only in question where keys have no id, or share one.
const MOST_TRIED: usize = 4;
/// Bits of an RSA modulus: fewer can be factored, more take too long (what the cryptography takes, too).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const RSA: &[Algorithm] = {
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    &[RS256, RS384, RS512, PS256, PS384, PS512]
};

/// The keys that can verify something.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<PublicKey>,
    /// Whether a document said so; else none has come yet.
    read: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct PublicKey {
    id: Option<Box<str>>,
    /// What it may verify.
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Why a document is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeysError {
    #[error("is no JWK Set: {0}")]
    Form(String),
    #[error("holds {0} keys, more than {MOST_KEYS}")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// A key as it is written. Members that are not named here (`d`, `x5c`, …) are not looked at.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a document. Keys of kinds that are not known are passed over (RFC 7517, section 5), shared secrets among them. A set
    /// that is left with none is one: so an issuer takes back what it has signed.
    pub(super) fn parse(document: &[u8]) -> Result<Self, KeysError> {
        let document: Document =
            serde_json::from_slice(document).map_err(|error| KeysError::Form(error.to_string()))?;
        if document.keys.len() > MOST_KEYS {
            return Err(KeysError::TooMany(document.keys.len()));
        }
        let jwks = document.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        let keys = jwks.filter_map(|jwk: Jwk| PublicKey::of(&jwk)).collect();
        Ok(Self { keys, read: true })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, as none has come yet.
    pub(super) fn is_awaited(&self) -> bool {
        !self.read
    }

    /// The keys that a token of this algorithm and key id is to be tried with: those of that id, else those that have none.
    pub(super) fn find<'a>(&'a self, id: Option<&'a str>, algorithm: Algorithm) -> impl Iterator<Item = &'a PublicKey> {
        let has_id = move |key: &PublicKey| id.is_some() && key.id.as_deref() == id;
        let by_id = self.keys.iter().any(has_id);
        let fits = move |key: &&PublicKey| match id {
            Some(_) if by_id => has_id(key),
            Some(_) => key.id.is_none(),
            None => true,
        };
        self.keys.iter().filter(fits).filter(move |key| key.algorithms.contains(&algorithm)).take(MOST_TRIED)
    }
}

impl PublicKey {
    fn of(jwk: &Jwk) -> Option<Self> {
        let for_signatures = jwk.r#use.as_deref().is_none_or(|r#use| r#use == "sig");
        let for_verifying = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures || !for_verifying {
            return None;
        }
        let (key, mut algorithms) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (rsa(jwk)?, RSA.to_vec()),
            ("EC", Some("P-256")) => (ec(jwk, 32)?, vec![Algorithm::ES256]),
            ("EC", Some("P-384")) => (ec(jwk, 48)?, vec![Algorithm::ES384]),
            ("OKP", Some("Ed25519")) => {
                (DecodingKey::from_ed_der(&number(jwk.x.as_ref(), 32)?), vec![Algorithm::EdDSA])
            }
            _ => return None,
        };
        if let Some(only) = &jwk.alg {
            algorithms.retain(|algorithm| name(*algorithm) == only);
        }
        (!algorithms.is_empty()).then(|| Self { id: jwk.kid.as_deref().map(Into::into), algorithms, key })
    }
}

fn rsa(jwk: &Jwk) -> Option<DecodingKey> {
    let modulus = decoded(jwk.n.as_ref()?)?;
    let exponent = decoded(jwk.e.as_ref()?)?;
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let significant = &modulus[leading..];
    let bits = significant.len() * 8 - significant.first()?.leading_zeros() as usize;
    let sound = RSA_BITS.contains(&bits) && (1..=5).contains(&exponent.len());
    sound.then(|| DecodingKey::from_rsa_raw_components(significant, &exponent))
}

/// An uncompressed point (SEC 1, section 2.3.3).
fn ec(jwk: &Jwk, length: usize) -> Option<DecodingKey> {
    let mut point = vec![4];
    point.extend(number(jwk.x.as_ref(), length)?);
    point.extend(number(jwk.y.as_ref(), length)?);
    Some(DecodingKey::from_ec_der(&point))
}

fn number(text: Option<&String>, length: usize) -> Option<Vec<u8>> {
    decoded(text?).filter(|bytes| bytes.len() == length)
}

fn decoded(text: &String) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// As RFC 7518 and RFC 8037 call it.
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
    }
}
