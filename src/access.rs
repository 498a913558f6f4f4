//! Who calls, and what they may do.
//!
//! A consumer shows an API key, in `Authorization: Bearer KEY` or in `X-API-Key: KEY`. The configuration holds only the
//! SHA-256 of each key; as keys are 256 random bits ([`new_key`]), no salt and no slow hash is needed. The hash of what came
//! is compared with every known one in constant time, without leaving early, so that the time taken tells nothing.
//!
//! [`Consumers`] answers *who*, [`Admission`] (a route's `access`) *whether*. Both are immutable and belong to a generation.
//! What outlives a generation is the [`ConsumerHandle`]: one for each key, kept over reloads as long as the key stays. When
//! it goes, [`Consumers::revoke_missing`] tells the handle, and with it every connection opened under the key (WebSockets,
//! which are asked only once who they are).
//!
//! When things go wrong: a missing, unknown or contradictory key is 401, a known consumer who is not named is 403; the
//! answer never says how close a key came. Failures are limited by address ([`FailedAuth`]); a valid key is served even from
//! an address that is over that limit, for a neighbour behind the same NAT is not to blame, and 256 bits are not guessed.
//!
//! Left out: JWT, client certificates, Basic.

mod admission;
mod failed;
mod handle;
mod key;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
};

use http::HeaderMap;
use subtle::ConstantTimeEq;

pub use admission::{Admission, Denied};
pub use failed::FailedAuth;
pub use handle::ConsumerHandle;
pub use key::{NewKey, conceal, new_key};

use crate::config::model::Consumer;
use key::Digest;

/// Every consumer of a configuration, by key.
#[derive(Debug, Default)]
pub struct Consumers {
    keys: Vec<(Digest, Arc<ConsumerHandle>)>,
}

/// Why consumers cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Not 64 hexadecimal digits. The text is not repeated: it may be a key, pasted by mistake.
    #[error(
        "consumer `{consumer}`: `key_sha256[{index}]` is not 64 hexadecimal digits; `sluicegate key new` prints them"
    )]
    NotADigest {
        /// The consumer.
        consumer: String,
        /// Which of its keys.
        index: usize,
    },
    /// Two entries for one key: it would be unclear who calls.
    #[error("consumer `{consumer}`: `key_sha256[{index}]` is also a key of `{other}`")]
    Shared {
        /// The consumer.
        consumer: String,
        /// Which of its keys.
        index: usize,
        /// Who has it already.
        other: String,
    },
    /// A route lets in somebody who does not exist.
    #[error("no consumer is called `{0}`")]
    Unknown(String),
}

impl Consumers {
    /// Reads the consumers.
    ///
    /// # Errors
    /// Every key that is malformed or given twice.
    pub fn build(consumers: &BTreeMap<String, Consumer>) -> Result<Self, Vec<AccessError>> {
        Self::build_after(consumers, &Self::default())
    }

    /// Reads the consumers of a new configuration; keys that stay keep their handle.
    ///
    /// # Errors
    /// Every key that is malformed or given twice.
    pub fn build_after(consumers: &BTreeMap<String, Consumer>, before: &Self) -> Result<Self, Vec<AccessError>> {
        let mut keys: Vec<(Digest, Arc<ConsumerHandle>)> = Vec::new();
        let mut errors = Vec::new();
        for (name, consumer) in consumers {
            for (index, text) in consumer.key_sha256.iter().enumerate() {
                let Some(digest) = Digest::from_hex(text) else {
                    errors.push(AccessError::NotADigest { consumer: name.clone(), index });
                    continue;
                };
                if let Some((_, holder)) = keys.iter().find(|(known, _)| *known == digest) {
                    let other = holder.name().to_string();
                    errors.push(AccessError::Shared { consumer: name.clone(), index, other });
                    continue;
                }
                let kept = before.keys.iter().find(|(known, holder)| *known == digest && **holder.name() == **name);
                let handle = kept.map_or_else(|| Arc::new(ConsumerHandle::new(name)), |(_, holder)| holder.clone());
                keys.push((digest, handle));
            }
        }
        if errors.is_empty() { Ok(Self { keys }) } else { Err(errors) }
    }

    /// Tells the handles that are not in `after` that their key is gone. Called when `after` has taken over.
    pub fn revoke_missing(&self, after: &Self) {
        for (_, handle) in &self.keys {
            if !after.keys.iter().any(|(_, kept)| Arc::ptr_eq(kept, handle)) {
                handle.revoke();
            }
        }
    }

    /// Who calls; none for a caller who shows no key. An `Authorization` of another scheme than `Bearer` is not ours.
    ///
    /// # Errors
    /// The key is unknown, or two different ones were shown.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Arc<ConsumerHandle>>, Denied> {
        let Some(shown) = key::shown(headers)? else { return Ok(None) };
        self.holder(shown).map(|handle| Some(handle.clone())).ok_or(Denied::UnknownKey)
    }

    /// Whether any key is ours, of those that a request shows.
    fn know_one_of(&self, headers: &HeaderMap) -> bool {
        key::all_shown(headers).any(|shown| self.holder(shown).is_some())
    }

    /// Takes as long whoever it is, and if it is nobody.
    fn holder(&self, shown: &[u8]) -> Option<&Arc<ConsumerHandle>> {
        let digest = Digest::of(shown);
        let mut found = None;
        for (known, handle) in &self.keys {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(handle);
            }
        }
        found
    }

    /// Whether there are no keys at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// A consumer's number: the same in every generation of this process, and in no other process.
fn id(name: &str) -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    SEED.hash_one(name)
}
