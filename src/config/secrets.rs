//! What must not be shown, and still has to be checked, watched and compared.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use sha2::{Digest, Sha256};

use super::{
    env::Environment,
    key,
    model::{BackendKind, Config, Pool},
    value::{Secret, SecretFile},
};

/// What makes a pool the same pool after a reload: backend, URL without password, and role. To compare, not to show.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolIdentity([u8; 32]);

/// The contents of all secrets by key, or why they cannot be had.
pub(super) struct Revealed(pub(super) BTreeMap<String, Result<String, String>>);

/// Digests of what is not in the configuration itself, kept to see what a reload changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Fingerprints {
    /// Of the content of each secret and each CA file, by key.
    pub contents: BTreeMap<String, [u8; 32]>,
    /// Of each pool, by the key of its URL.
    pub identities: BTreeMap<String, PoolIdentity>,
}

/// Whether what stands at `key`, or in its place by mistake, must not be shown: [`Config::secrets`], and what is kept of API keys,
/// where somebody may put a key itself.
pub(super) fn is_secret(key: &str) -> bool {
    std::iter::successors(Some(key), |key| key::parent(key)).any(|key| {
        let is = |table: &str, name: &str| key.starts_with(table) && key.ends_with(name);
        is("admin.token", "") || is("pool.", ".url") || is("pool.", ".password") || is_kept_of_a_key(key)
    })
}

/// Whether `key` is where the digests of a consumer's API keys are, or its verifier: neither lets anybody in, but a key that a
/// person has chosen can be guessed by them.
pub(super) fn is_kept_of_a_key(key: &str) -> bool {
    key.starts_with("consumer.") && [".key_sha256", ".scram"].iter().any(|name| key.ends_with(name))
}

impl Config {
    /// Every secret with its key.
    pub fn secrets(&self) -> Vec<(String, &Secret)> {
        let token =
            self.admin.iter().filter_map(|admin| admin.token.as_ref()).map(|token| ("admin.token".into(), token));
        let pools = self.pool.iter().flat_map(|(name, pool)| {
            let url = (format!("pool.{name}.url"), &pool.url);
            let password = pool.password.iter().map(move |password| (format!("pool.{name}.password"), password));
            let roles = pool.roles.iter().filter_map(move |(role, login)| {
                Some((format!("pool.{name}.roles.{role}.password"), login.password.as_ref()?))
            });
            std::iter::once(url).chain(password).chain(roles)
        });
        token.chain(pools).collect()
    }

    /// The files that hold secrets.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let file = |secret: &Secret| match secret {
            Secret::File(SecretFile { file }) => Some(file.clone()),
            _ => None,
        };
        self.secrets().into_iter().filter_map(|(_, secret)| file(secret)).collect()
    }
}

impl Pool {
    /// The identity of this pool with its URL revealed.
    pub fn identity(&self, url: &str) -> PoolIdentity {
        let (backend, url) = match self.backend {
            BackendKind::Postgres => ("postgres", without_password(url)),
            BackendKind::Sqlite => ("sqlite", url.to_owned()),
        };
        PoolIdentity(digest([backend, &url]))
    }
}

impl fmt::Debug for PoolIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolIdentity")
    }
}

impl Revealed {
    /// Reads every secret.
    pub(super) fn read(config: &Config, environment: &Environment) -> Self {
        let reveal = |secret: &Secret| secret.reveal_in(|name| environment.get(name));
        Self(config.secrets().into_iter().map(|(key, secret)| (key, reveal(secret))).collect())
    }

    /// The content at `key`, if it can be had.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_deref().ok()
    }

    /// Digests of all that could be read.
    pub(super) fn fingerprints(&self, config: &Config) -> Fingerprints {
        let secrets = self.0.keys().filter_map(|key| Some((key.clone(), digest([self.get(key)?]))));
        let authorities = config.authorities().into_iter().filter_map(|(key, tls)| Some((key, tls.ca_digest()?)));
        let contents = secrets.chain(authorities);
        let identities = config.pool.iter().filter_map(|(name, pool)| {
            let key = format!("pool.{name}.url");
            let identity = pool.identity(self.get(&key)?);
            Some((key, identity))
        });
        Fingerprints { contents: contents.collect(), identities: identities.collect() }
    }
}

/// SHA-256 of the parts, each with its length, so that no two lists of parts run into one.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// `postgres://user:password@host/db?password=x` as `postgres://user@host/db`.
fn without_password(url: &str) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("password="));
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = userinfo.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{hosts}/{path}?{}", kept.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_of_place_and_role() {
        let same = |a: &str, b: &str| without_password(a) == without_password(b);
        assert!(same(
            "postgres://u:one@h:5432/d?sslmode=require",
            "postgres://u:two@h:5432/d?sslmode=require&password=x"
        ));
        assert!(same("postgres://u@h/d", "postgres://u:x@h/d"));
        for other in ["postgres://v:p@h/d", "postgres://u:p@g/d", "postgres://u:p@h/e", "postgres://u:p@h/d?sslmode=x"]
        {
            assert!(!same("postgres://u:p@h/d", other), "{other}");
        }
    }

    #[test]
    fn no_secret_is_forgotten() {
        let text = include_str!("every_key.toml");
        let config: Config = toml_edit::de::from_str(text).unwrap();
        let shown = serde_json::to_string(&config).unwrap();
        assert_eq!(shown.matches("\"***\"").count(), config.secrets().len());
    }
}
