//! Answers that are kept: bounded in bytes and in number, and filled by one request while others wait for it.
//!
//! A state machine under a lock a shard, which takes `now` and waits for nothing. Whoever finds nothing fresh either fills
//! ([`Filling`]) or waits for the one who does; if that one leaves, the next who waited takes its place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::super::problem::Problem;

/// Locks; the keys are hashes, so that they spread.
const SHARDS: usize = 16;
/// Entries of one shard, however small.
const MOST: usize = 4096;
/// What an entry costs besides its bytes, about.
const OVERHEAD: usize = 320;

/// What is asked, by whom, of which definition: a digest of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(pub(super) [u8; 32]);

/// An answer.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) body: Bytes,
    pub(super) content_type: HeaderValue,
    /// Strong, quotes included.
    pub(super) etag: HeaderValue,
    pub(super) at: Instant,
    /// How long it is given as it is.
    pub(super) fresh: Duration,
    /// How long beyond that it may be given where there is no other.
    pub(super) stale: Duration,
}

/// All that is kept.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Bytes that each shard may hold.
    room: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<Key, Slot>,
    /// Those that hold something, by when they were used last.
    order: BTreeMap<u64, Key>,
    tick: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Slot {
    kept: Option<Arc<Kept>>,
    /// Its place in the order, if it holds something.
    used: Option<u64>,
    flight: Option<watch::Receiver<Option<Ended>>>,
    /// Answers to this were too large to keep: until then nobody waits for another.
    passes: Option<Instant>,
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// There is an answer.
    Kept(Arc<Kept>),
    /// There is one that cannot be kept.
    Passed,
    /// There is none.
    Failed(Box<Problem>),
}

/// What there is.
#[derive(Debug)]
pub(super) enum Look {
    /// An answer.
    Fresh(Arc<Kept>),
    /// Somebody is about to have one.
    Wait(watch::Receiver<Option<Ended>>),
    /// Nothing: the caller is to fill it.
    Fill(Filling),
    /// Nothing, and nothing is to be kept.
    Pass,
}

/// The duty to fill a place. Dropped without a word, it passes to somebody who waits.
#[derive(Debug)]
pub(super) struct Filling {
    cache: Arc<Cache>,
    key: Key,
    told: watch::Sender<Option<Ended>>,
}

/// What is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// Answers.
    pub entries: usize,
    /// Bytes, about.
    pub bytes: usize,
}

// === impl Cache ===

impl Cache {
    /// Holds at most so many bytes; none: keeps nothing.
    pub fn new(bytes: usize) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, room: AtomicUsize::new(bytes / SHARDS) })
    }

    /// From now on holds at most so many bytes.
    pub fn resize(&self, bytes: usize) {
        let room = bytes / SHARDS;
        if self.room.swap(room, Ordering::Relaxed) > room {
            self.shards.iter().for_each(|shard| shard.lock().make_room(room));
        }
    }

    /// What is held now.
    pub fn held(&self) -> Held {
        self.shards.iter().fold(Held::default(), |held, shard| {
            let shard = shard.lock();
            Held { entries: held.entries + shard.order.len(), bytes: held.bytes + shard.bytes }
        })
    }

    /// Forgets what is too old to be given. Called once a second; each lock is held for a moment.
    pub fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let over: Vec<Key> =
                shard.slots.iter().filter(|(_, slot)| slot.is_over(now)).map(|(key, _)| *key).collect();
            for key in &over {
                shard.forget(key);
            }
        }
    }

    /// What there is for `key`.
    pub(super) fn look(self: &Arc<Self>, key: Key, now: Instant) -> Look {
        if self.room.load(Ordering::Relaxed) == 0 {
            return Look::Pass;
        }
        let mut shard = self.shard(&key).lock();
        let slot = shard.slots.entry(key).or_default();
        if let Some(kept) = slot.kept.clone().filter(|kept| kept.age(now) < kept.fresh) {
            shard.touch(key);
            return Look::Fresh(kept);
        }
        if slot.passes.is_some_and(|until| now < until) {
            return Look::Pass;
        }
        // A flight whose pilot is gone without a word is none.
        if let Some(flight) = slot.flight.as_ref().filter(|flight| flight.has_changed().is_ok()) {
            return Look::Wait(flight.clone());
        }
        let (told, flight) = watch::channel(None);
        slot.flight = Some(flight);
        Look::Fill(Filling { cache: self.clone(), key, told })
    }

    /// The last good answer, if it is not too old to be given where there is no other.
    pub(super) fn last(&self, key: Key, now: Instant) -> Option<Arc<Kept>> {
        let mut shard = self.shard(&key).lock();
        let kept = shard.slots.get(&key)?.kept.clone();
        let kept = kept.filter(|kept| !kept.is_over(now))?;
        shard.touch(key);
        Some(kept)
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }
}

// === impl Filling ===

impl Filling {
    /// There is an answer, for all. Whether it is kept: one that is too large for that is given to those who wait for it.
    pub(super) fn keep(self, kept: Arc<Kept>) -> bool {
        let room = self.cache.room.load(Ordering::Relaxed);
        let mut shard = self.cache.shard(&self.key).lock();
        let stays = shard.put(self.key, kept.clone(), room);
        drop(shard);
        self.told.send_replace(Some(Ended::Kept(kept)));
        stays
    }

    /// There is an answer, which is too large to be kept: for `pause` nobody waits for one.
    pub(super) fn pass(self, now: Instant, pause: Duration) {
        let mut shard = self.cache.shard(&self.key).lock();
        if shard.slots.len() < 2 * MOST {
            shard.slots.entry(self.key).or_default().passes = Some(now + pause);
        }
        drop(shard);
        self.told.send_replace(Some(Ended::Passed));
    }

    /// There is none, for anybody who waited.
    pub(super) fn fail(self, problem: Problem) {
        self.told.send_replace(Some(Ended::Failed(Box::new(problem))));
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(&self.key).lock();
        let Some(slot) = shard.slots.get_mut(&self.key) else { return };
        slot.flight = None;
        if slot.kept.is_none() && slot.passes.is_none() {
            shard.slots.remove(&self.key);
        }
    }
}

// === impl Shard ===

impl Shard {
    fn put(&mut self, key: Key, kept: Arc<Kept>, room: usize) -> bool {
        self.empty(&key);
        let cost = kept.cost();
        if cost > room {
            return false;
        }
        self.make_room(room - cost);
        self.bytes += cost;
        let slot = self.slots.entry(key).or_default();
        (slot.kept, slot.passes) = (Some(kept), None);
        self.touch(key);
        true
    }

    /// It was used now.
    fn touch(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        self.tick += 1;
        if let Some(before) = slot.used.replace(self.tick) {
            self.order.remove(&before);
        }
        self.order.insert(self.tick, key);
    }

    /// Drops what was used longest ago, until no more than so many bytes are held.
    fn make_room(&mut self, bytes: usize) {
        while self.bytes > bytes || self.order.len() >= MOST {
            let Some((_, key)) = self.order.pop_first() else { return };
            self.forget(&key);
        }
    }

    /// Takes out what is held; who fills it goes on.
    fn forget(&mut self, key: &Key) {
        self.empty(key);
        let idle = self.slots.get(key).is_some_and(|slot| slot.flight.is_none());
        if idle {
            self.slots.remove(key);
        }
    }

    fn empty(&mut self, key: &Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.passes = None;
        if let Some(kept) = slot.kept.take() {
            self.bytes -= kept.cost();
        }
        if let Some(used) = slot.used.take() {
            self.order.remove(&used);
        }
    }
}

impl Slot {
    fn is_over(&self, now: Instant) -> bool {
        let kept = self.kept.as_ref().is_none_or(|kept| kept.is_over(now));
        kept && self.flight.is_none() && self.passes.is_none_or(|until| until <= now)
    }
}

impl Kept {
    /// How old it is.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.age(now) >= self.fresh + self.stale
    }

    fn cost(&self) -> usize {
        self.body.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(n: u8) -> Key {
        // The first byte chooses the shard: all in one.
        let mut key = [0; 32];
        key[1] = n;
        Key(key)
    }

    fn answer(at: Instant, text: &str) -> Arc<Kept> {
        Arc::new(Kept {
            body: text.to_owned().into(),
            content_type: HeaderValue::from_static("application/json"),
            etag: HeaderValue::from_static("\"x\""),
            at,
            fresh: 10 * SECOND,
            stale: 20 * SECOND,
        })
    }

    fn fill(cache: &Arc<Cache>, key: Key, now: Instant) -> Filling {
        match cache.look(key, now) {
            Look::Fill(filling) => filling,
            other => panic!("{other:?}"),
        }
    }

    fn is_fresh(cache: &Arc<Cache>, key: Key, now: Instant) -> bool {
        matches!(cache.look(key, now), Look::Fresh(_))
    }

    #[tokio::test]
    async fn one_fills_and_the_others_wait() {
        let (cache, now) = (Cache::new(1 << 20), Instant::now());
        let filling = fill(&cache, key(1), now);
        let Look::Wait(mut flight) = cache.look(key(1), now) else { panic!("somebody fills it") };
        assert!(matches!(cache.look(key(2), now), Look::Fill(_)), "another question waits for nobody");
        filling.keep(answer(now, "a"));
        flight.changed().await.unwrap();
        assert!(matches!(&*flight.borrow(), Some(Ended::Kept(kept)) if kept.body == "a"));
        assert!(is_fresh(&cache, key(1), now + 9 * SECOND) && !is_fresh(&cache, key(1), now + 10 * SECOND));
    }

    #[tokio::test]
    async fn who_leaves_hands_its_duty_on_and_who_fails_tells() {
        let (cache, now) = (Cache::new(1 << 20), Instant::now());
        let filling = fill(&cache, key(1), now);
        let Look::Wait(mut flight) = cache.look(key(1), now) else { panic!() };
        drop(filling);
        assert!(flight.changed().await.is_err(), "gone without a word");
        let next = fill(&cache, key(1), now);
        let Look::Wait(mut flight) = cache.look(key(1), now) else { panic!() };
        next.fail(Problem::bad_request("no"));
        flight.changed().await.unwrap();
        assert!(matches!(&*flight.borrow(), Some(Ended::Failed(_))));
        drop(fill(&cache, key(1), now));
        assert_eq!(cache.shards[0].lock().slots.len(), 0, "nothing is left of it");
    }

    #[test]
    fn what_is_too_large_is_waited_for_by_nobody() {
        let (cache, now) = (Cache::new(1 << 20), Instant::now());
        fill(&cache, key(1), now).pass(now, 10 * SECOND);
        assert!(matches!(cache.look(key(1), now + 9 * SECOND), Look::Pass));
        drop(fill(&cache, key(1), now + 10 * SECOND));
        cache.sweep(now + 10 * SECOND);
        assert_eq!(cache.shards[0].lock().slots.len(), 0);
    }

    #[test]
    fn an_old_answer_is_given_while_there_is_no_other_and_then_forgotten() {
        let (cache, now) = (Cache::new(1 << 20), Instant::now());
        fill(&cache, key(1), now).keep(answer(now, "a"));
        let refill = fill(&cache, key(1), now + 11 * SECOND);
        assert!(cache.last(key(1), now + 29 * SECOND).is_some());
        assert!(cache.last(key(1), now + 30 * SECOND).is_none());
        drop(refill);
        cache.sweep(now + 29 * SECOND);
        assert_eq!(cache.held().entries, 1);
        cache.sweep(now + 30 * SECOND);
        assert_eq!(cache.held(), Held::default());
    }

    #[test]
    fn bytes_and_entries_are_bounded_and_what_is_used_stays() {
        let (cache, now) = (Cache::new(SHARDS * 3 * (OVERHEAD + 10)), Instant::now());
        for n in 1..=3 {
            fill(&cache, key(n), now).keep(answer(now, "0123456789"));
        }
        assert!(is_fresh(&cache, key(1), now));
        fill(&cache, key(4), now).keep(answer(now, "0123456789"));
        assert_eq!([1, 2, 3, 4].map(|n| cache.last(key(n), now).is_some()), [true, false, true, true]);
        assert_eq!(cache.held(), Held { entries: 3, bytes: 3 * (OVERHEAD + 10) });
        assert!(!fill(&cache, key(5), now).keep(answer(now, &"x".repeat(10_000))));
        assert_eq!(cache.held().entries, 3, "one that does not fit drives nobody out");
        cache.resize(SHARDS * (OVERHEAD + 10));
        assert_eq!(cache.held().entries, 1);
        cache.resize(0);
        assert_eq!(cache.held(), Held::default());
        assert!(matches!(cache.look(key(1), now), Look::Pass));
    }

    #[test]
    fn the_least_answers_are_bounded_in_number() {
        let (cache, now) = (Cache::new(1 << 30), Instant::now());
        for n in 0..MOST + 100 {
            let mut key = [0; 32];
            key[1..9].copy_from_slice(&n.to_be_bytes());
            fill(&cache, Key(key), now).keep(answer(now, ""));
        }
        assert_eq!(cache.held().entries, MOST);
        let shard = cache.shards[0].lock();
        assert_eq!(shard.slots.len(), MOST);
    }

    #[test]
    fn a_filling_that_is_overtaken_by_eviction_still_keeps() {
        let (cache, now) = (Cache::new(1 << 20), Instant::now());
        fill(&cache, key(1), now).keep(answer(now, "old"));
        let filling = fill(&cache, key(1), now + 11 * SECOND);
        cache.sweep(now + 60 * SECOND);
        filling.keep(answer(now + 60 * SECOND, "new"));
        assert_eq!(cache.last(key(1), now + 61 * SECOND).unwrap().body, "new");
        assert_eq!(cache.held(), Held { entries: 1, bytes: OVERHEAD + 3 });
    }
}
