//! Tokens that were verified a moment ago.

use std::{
    collections::HashMap,
    mem,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{Issuer, keys::KeySet};
use crate::access::ConsumerHandle;

/// How long a token is believed without looking at its signature again.
const BELIEVED: Duration = Duration::from_mins(1);
/// Locks.
const SHARDS: usize = 16;
/// Tokens, and bytes of their text, in each half of a shard: 4096 tokens and 8 MiB of text in all. What is kept is their claims,
/// which take a few times their text. Only what an issuer has signed gets here.
const MOST: usize = 128;
const MOST_BYTES: usize = 256 << 10;

/// SHA-256 of a token.
pub(crate) type Digest = [u8; 32];

/// Tokens that were verified, by hash. Two halves a shard: what is used is carried from the old to the new one, and what is not
/// goes when the new one is full. It belongs to a generation, so that a changed configuration begins without.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    new: HashMap<Digest, Known>,
    old: HashMap<Digest, Known>,
    /// Of the texts behind `new`.
    bytes: usize,
}

/// What is known of a token.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) handle: Arc<ConsumerHandle>,
    pub(crate) claims: Arc<Map<String, Value>>,
    /// Its end, with the leeway.
    pub(crate) ends: SystemTime,
    /// What it was verified by, and when.
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) keys: Arc<KeySet>,
    pub(crate) at: SystemTime,
    /// Bytes of its text.
    pub(crate) length: usize,
}

impl Verified {
    /// What is known of a token, if that still holds.
    pub(crate) fn get(&self, token: &Digest, now: SystemTime) -> Option<Known> {
        let mut shard = self.shard(token).lock();
        if let Some(known) = shard.new.get(token) {
            return known.holds(now).then(|| known.clone());
        }
        let known = shard.old.remove(token).filter(|known| known.holds(now))?;
        shard.put(*token, known.clone());
        Some(known)
    }

    /// Remembers a token that was just verified.
    pub(crate) fn put(&self, token: Digest, known: Known) {
        self.shard(&token).lock().put(token, known);
    }

    fn shard(&self, token: &Digest) -> &Mutex<Shard> {
        &self.shards[usize::from(token[0]) % SHARDS]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(Mutex::lock).map(|shard| shard.new.len() + shard.old.len()).sum()
    }
}

impl Shard {
    fn put(&mut self, token: Digest, known: Known) {
        if self.new.len() >= MOST || self.bytes + known.length > MOST_BYTES {
            self.old = mem::take(&mut self.new);
            self.bytes = 0;
        }
        self.bytes += known.length;
        if let Some(before) = self.new.insert(token, known) {
            self.bytes -= before.length;
        }
    }
}

impl Known {
    /// Whether nothing has changed that could make it wrong.
    fn holds(&self, now: SystemTime) -> bool {
        let fresh = now.duration_since(self.at).is_ok_and(|age| age < BELIEVED);
        fresh && now < self.ends && Arc::ptr_eq(&self.keys, &self.issuer.source.keys())
    }
}
