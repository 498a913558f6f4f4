//! Where the buckets are: a sharded map that cannot grow beyond its cap.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicUsize, Ordering},
};

use governor::{
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};
use parking_lot::Mutex;

use super::Key;

/// About this many keys share a lock, so that a sweep never holds one for long.
const KEYS_A_SHARD: usize = 1024;
/// Locks at most.
const MAX_SHARDS: usize = 256;
/// Below this many keys a map is not worth shrinking.
const SMALL: usize = 64;

/// The time at which each key's bucket is full again, for at most `max` keys, and one more for all keys beyond.
#[derive(Debug)]
pub(super) struct Store {
    shards: Box<[Mutex<Shard>]>,
    overflow: Mutex<Option<Nanos>>,
    len: AtomicUsize,
    max: usize,
    choose: RandomState,
}

type Shard = HashMap<Key, Nanos>;

impl Store {
    pub(super) fn new(max: usize) -> Self {
        let shards = (max / KEYS_A_SHARD).next_power_of_two().clamp(16, MAX_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            overflow: Mutex::new(None),
            len: AtomicUsize::new(0),
            max,
            choose: RandomState::new(),
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        // The number of shards is a power of two.
        let index = self.choose.hash_one(key) as usize & (self.shards.len() - 1);
        &self.shards[index]
    }

    /// Takes one of the `max` places.
    fn reserve(&self) -> bool {
        let more = |len| (len < self.max).then_some(len + 1);
        self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Bytes held by the maps, by their capacity.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        // A slot, and a control byte beside it.
        let slot = size_of::<(Key, Nanos)>() + 1;
        self.shards.iter().map(|shard| shard.lock().capacity() * 8 / 7 * slot).sum()
    }
}

impl StateStore for Store {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(key).lock();
        if let Some(bucket) = shard.get_mut(key) {
            let (answer, next) = decide(Some(*bucket))?;
            *bucket = next;
            return Ok(answer);
        }
        if self.reserve() {
            // A full bucket has a permit, as a burst is at least 1.
            let decided = decide(None);
            match &decided {
                Ok((_, next)) => _ = shard.insert(*key, *next),
                Err(_) => _ = self.len.fetch_sub(1, Ordering::Relaxed),
            }
            return decided.map(|(answer, _)| answer);
        }
        drop(shard);
        let mut bucket = self.overflow.lock();
        let (answer, next) = decide(*bucket)?;
        *bucket = Some(next);
        Ok(answer)
    }
}

impl ShrinkableKeyedStateStore<Key> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let before = shard.len();
            shard.retain(|_, full_at| *full_at > drop_below);
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    /// Halves what is mostly empty; moving every key each second would cost more than it gives back.
    fn shrink_to_fit(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.capacity() > SMALL && shard.capacity() / 4 > shard.len() {
                let wanted = shard.len() * 2;
                shard.shrink_to(wanted);
            }
        }
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
