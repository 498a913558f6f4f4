//! API keys: made, found in a request, hashed.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use rand::{TryRngCore, rngs::OsRng};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Denied, Identity, Shown, Verifier};
use crate::config::value::sha256;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Marks a key as ours, for people and for secret scanners.
const PREFIX: &str = "sg_";

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

/// A key that was just made. The text is shown once and kept nowhere.
pub struct NewKey {
    /// What the consumer sends: `sg_` and 43 characters, 256 random bits.
    pub text: String,
    /// What the configuration holds: its SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// What it holds for SCRAM.
    pub scram: String,
}

/// Makes a key.
///
/// # Errors
/// The system has no randomness to give.
pub fn new_key() -> io::Result<NewKey> {
    let mut secret = [0_u8; 32];
    OsRng.try_fill_bytes(&mut secret).map_err(io::Error::other)?;
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let sha256 = Digest::of(text.as_bytes()).to_string();
    let scram = Verifier::new(text.as_bytes()).ok_or_else(|| io::Error::other("no randomness for a salt"))?;
    Ok(NewKey { text, sha256, scram: scram.to_string() })
}

/// The key in this file, which is made, for nobody else to read, if it is not there. Blocks on the file.
///
/// # Errors
/// It can be neither read nor made, with its place.
pub fn kept_key(path: &Path) -> Result<String, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = new_key().map_err(|error| format!("no random numbers: {error}"))?.text;
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).map_err(told)?;
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(told)?;
            writeln!(file, "{key}").map_err(told)?;
            Ok(key)
        }
        Err(error) => Err(told(error)),
    }
}

/// Takes the key out of a request that was let in by it: it is the gateway's secret, not the upstream's business. A token stays, as
/// it is the caller's word, which a service may want to verify for itself; so does what is nobody's, where a certificate said
/// who calls.
pub fn conceal(headers: &mut HeaderMap, identity: &Identity) {
    if !identity.by_key {
        return;
    }
    headers.remove(API_KEY);
    if headers.get_all(header::AUTHORIZATION).iter().any(|value| bearer(value).is_some()) {
        headers.remove(header::AUTHORIZATION);
    }
}

/// What a request shows as a key, and what else it shows as one; what is empty is nothing. Two are looked at, where somebody sends one to us and one to the
/// upstream; nobody has more, and each may cost a signature.
///
/// # Errors
/// There are more than two.
pub(super) fn all_shown<'a>(shown: &Shown<'a>) -> Result<[Option<&'a [u8]>; 2], Denied> {
    let headers = shown.headers;
    let in_api_key = headers.get_all(API_KEY).iter().map(|value| value.as_bytes().trim_ascii());
    let all = headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer).chain(in_api_key).chain(shown.secret);
    let mut found = [None; 2];
    for key in all.filter(|key| !key.is_empty()) {
        match &mut found {
            [Some(one), _] | [_, Some(one)] if *one == key => {}
            [free @ None, _] | [_, free @ None] => *free = Some(key),
            _ => return Err(Denied::TwoKeys),
        }
    }
    Ok(found)
}

/// The key that a request shows.
pub(super) fn shown<'a>(shown: &Shown<'a>) -> Result<Option<&'a [u8]>, Denied> {
    match all_shown(shown)? {
        [one, None] => Ok(one),
        _ => Err(Denied::TwoKeys),
    }
}

/// Whether what a request shows may be meant for its upstream alone: it goes on to one, and shows nothing where only keys of ours
/// are shown, nor anything that looks like one.
pub(super) fn may_be_foreign(shown: &Shown<'_>) -> bool {
    let ours = |value: &HeaderValue| bearer(value).is_some_and(|text| text.starts_with(PREFIX.as_bytes()));
    let elsewhere = shown.secret.is_some() || shown.headers.contains_key(API_KEY);
    shown.upstream && !elsewhere && !shown.headers.get_all(header::AUTHORIZATION).iter().any(ours)
}

/// The token of a `Bearer` credential (RFC 6750, section 2.1); the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

// === impl Digest ===

impl Digest {
    pub(super) fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    pub(super) fn bytes(self) -> [u8; 32] {
        self.0
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        sha256(text).map(Self)
    }
}

impl ConstantTimeEq for Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Enough to tell keys apart in a log, not to look one up.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("text", &"***").field("sha256", &self.sha256).field("scram", &"***").finish()
    }
}
