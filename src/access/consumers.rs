//! Every consumer of a configuration, and how one is known.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use subtle::ConstantTimeEq;

use super::{
    ConsumerHandle, Denied, Grant, Identity, Shown,
    key::{self, Digest},
};
use crate::config::model::Consumer;

/// Every consumer of a configuration, by what it shows.
#[derive(Debug, Default)]
pub struct Consumers {
    grants: BTreeMap<Arc<str>, Arc<Grant>>,
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
    /// A bound that cannot be held to.
    #[error("consumer `{consumer}`: {what}")]
    Bound {
        /// The consumer.
        consumer: String,
        /// What is wrong.
        what: String,
    },
    /// A route lets in somebody who does not exist.
    #[error("no consumer is called `{0}`")]
    Unknown(String),
}

impl Consumers {
    /// Reads the consumers.
    ///
    /// # Errors
    /// Every key that is malformed or given twice, every bound that cannot be held to.
    pub fn build(consumers: &BTreeMap<String, Consumer>) -> Result<Self, Vec<AccessError>> {
        Self::build_after(consumers, &Self::default())
    }

    /// Reads the consumers of a new configuration; keys that stay, with the same rights, keep their handle.
    ///
    /// # Errors
    /// As [`Consumers::build`].
    pub fn build_after(consumers: &BTreeMap<String, Consumer>, before: &Self) -> Result<Self, Vec<AccessError>> {
        let mut made = Self::default();
        let mut errors = Vec::new();
        for (name, consumer) in consumers {
            match Grant::build(name, consumer, before.grants.get(name.as_str()).map(|grant| &**grant)) {
                Ok(grant) => drop(made.grants.insert(name.as_str().into(), Arc::new(grant))),
                Err(error) => errors.push(error),
            }
            for (index, text) in consumer.key_sha256.iter().flatten().enumerate() {
                if let Err(error) = made.add_key(name, index, text, before) {
                    errors.push(error);
                }
            }
        }
        if errors.is_empty() { Ok(made) } else { Err(errors) }
    }

    fn add_key(&mut self, name: &str, index: usize, text: &str, before: &Self) -> Result<(), AccessError> {
        let consumer = || name.to_owned();
        let digest = Digest::from_hex(text).ok_or_else(|| AccessError::NotADigest { consumer: consumer(), index })?;
        if let Some((_, holder)) = self.keys.iter().find(|(known, _)| *known == digest) {
            return Err(AccessError::Shared { consumer: consumer(), index, other: holder.name().to_string() });
        }
        let kept = before.keys.iter().find(|(known, holder)| *known == digest && **holder.name() == *name);
        let kept = kept.map(|(_, holder)| holder).filter(|_| self.keeps_rights(name, before));
        let handle = kept.cloned().unwrap_or_else(|| Arc::new(ConsumerHandle::new(name)));
        self.keys.push((digest, handle));
        Ok(())
    }

    /// Whether what is open under this consumer's name may stay so.
    fn keeps_rights(&self, name: &str, before: &Self) -> bool {
        match (self.grants.get(name), before.grants.get(name)) {
            (Some(now), Some(then)) => now.keeps(then),
            _ => false,
        }
    }

    /// Tells the handles that are not in `after` that their credential is gone. Called when `after` has taken over.
    pub fn revoke_missing(&self, after: &Self) {
        for (_, handle) in &self.keys {
            if !after.keys.iter().any(|(_, kept)| Arc::ptr_eq(kept, handle)) {
                handle.revoke();
            }
        }
    }

    /// Who calls, within the consumer's own bounds; none for a caller who shows no key. An `Authorization` of another scheme than
    /// `Bearer` is not ours.
    ///
    /// # Errors
    /// The key is unknown, two different ones were shown, or the consumer may not do this.
    pub fn authenticate(&self, shown: &Shown<'_>, now: SystemTime) -> Result<Option<Identity>, Denied> {
        let Some(key) = key::shown(shown)? else { return Ok(None) };
        let handle = self.holder(key).ok_or(Denied::UnknownKey)?;
        let grant = self.grants.get(handle.name()).ok_or(Denied::UnknownKey)?;
        grant.check(shown.client, shown.method, now)?;
        Ok(Some(Identity::new(handle.clone(), grant.clone())))
    }

    /// Whether any key is ours, of those that a request shows.
    pub(super) fn know_one_of(&self, shown: &Shown<'_>) -> bool {
        key::all_shown(shown).any(|key| self.holder(key).is_some())
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

    /// Whether nobody can be known at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
