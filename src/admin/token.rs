//! The admin token: given in the configuration, or made at first start and kept in the state directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{access, config::model};

/// As the configuration's check has it for tokens that are given there.
const SHORTEST: usize = 16;

/// What an operator must show. Only its hash is kept.
pub(super) struct Token([u8; 32]);

impl Token {
    /// Reads the token, or makes one.
    pub(super) fn open(settings: &model::Admin, state: &Path) -> Result<Self, String> {
        let text = match &settings.token {
            Some(secret) => secret.reveal()?,
            None => access::kept_key(&place(state))?,
        };
        if text.len() < SHORTEST {
            return Err(format!("the token is shorter than {SHORTEST} characters: too easily guessed"));
        }
        Ok(Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Whether a request shows it. The comparison takes the same time for every wrong token.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown =
            value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, shown)) = shown else { return false };
        let digest: [u8; 32] = Sha256::digest(shown.trim().as_bytes()).into();
        digest.ct_eq(&self.0).into()
    }
}

/// The token of a gateway with these settings, for whoever speaks to it. Makes none.
///
/// # Errors
/// It cannot be read, with its place.
pub fn token(settings: &model::Admin, state: &Path) -> Result<String, String> {
    if let Some(secret) = &settings.token {
        return secret.reveal();
    }
    let path = place(state);
    let text = fs::read_to_string(&path);
    text.map(|text| text.trim().to_owned()).map_err(|error| format!("{}: {error}", path.display()))
}

fn place(state: &Path) -> PathBuf {
    state.join("admin.token")
}
