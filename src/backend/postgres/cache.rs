//! Prepared statements of one connection.
//!
//! A text is given a name when it is seen a second time, so that what runs once leaves nothing at the server. What
//! controls transactions or sessions never has one: `EXECUTE` could reach it. Names are never used again on the same
//! connection. A statement that is pushed out is closed at the head of the next request. Two tables are bounded: the
//! statements by `capacity`, the texts seen once by their hashes in four times as many slots.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::statement::Traits;
use crate::backend::work::Columns;

/// Longer texts are not cached: they are seldom sent twice, and 256 of them would weigh.
const LONGEST_TEXT: usize = 16 << 10;

/// The statements prepared on a connection, least recently used out first.
#[derive(Debug)]
pub(super) struct Statements {
    capacity: usize,
    prepared: HashMap<Arc<str>, Prepared>,
    seen: Box<[u64]>,
    hasher: RandomState,
    clock: u64,
    names: u64,
    preparing: usize,
    evicted: Vec<Arc<str>>,
}

/// A statement that the server knows, or will when it has read what was sent.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) name: Arc<str>,
    /// The result's columns, once the server has described them.
    pub(super) columns: Option<Arc<Columns>>,
    pub(super) traits: Traits,
    ready: bool,
    used: u64,
}

/// What to do with a text.
#[derive(Debug)]
pub(super) enum Sight {
    /// Run it unnamed.
    First,
    /// Prepare it under this name.
    Second(Arc<str>, Traits),
    /// It is prepared.
    Known(Prepared),
}

// === impl Statements ===

impl Statements {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            prepared: HashMap::new(),
            seen: vec![0; (4 * capacity).clamp(1, 4096)].into(),
            hasher: RandomState::new(),
            clock: 0,
            names: 0,
            preparing: 0,
            evicted: Vec::new(),
        }
    }

    /// Looks a text up that is about to run. After [`Sight::Second`] the statement counts as being prepared until
    /// [`Statements::confirm`] or [`Statements::settle`]. `traits` is asked for texts that get a name.
    pub(super) fn sight(&mut self, sql: &str, traits: impl FnOnce() -> Traits) -> Sight {
        self.clock += 1;
        if let Some(found) = self.prepared.get_mut(sql) {
            found.used = self.clock;
            return Sight::Known(found.clone());
        }
        if self.capacity == 0 || sql.len() > LONGEST_TEXT || !self.seen_before(sql) {
            return Sight::First;
        }
        let traits = traits();
        if traits.control || traits.session || traits.copy {
            return Sight::First;
        }
        self.make_room();
        self.names += 1;
        let name: Arc<str> = format!("sg{}", self.names).into();
        let entry = Prepared { name: name.clone(), columns: None, traits, ready: false, used: self.clock };
        self.prepared.insert(sql.into(), entry);
        self.preparing += 1;
        Sight::Second(name, traits)
    }

    /// The server has prepared `sql`.
    pub(super) fn confirm(&mut self, sql: &str) {
        if let Some(entry) = self.prepared.get_mut(sql).filter(|entry| !entry.ready) {
            entry.ready = true;
            self.preparing -= 1;
        }
    }

    /// The server has described the result of `sql`.
    pub(super) fn describe(&mut self, sql: &str, columns: &Arc<Columns>) {
        if let Some(entry) = self.prepared.get_mut(sql) {
            entry.columns = Some(columns.clone());
        }
    }

    /// All replies are read: what is not confirmed was never prepared.
    pub(super) fn settle(&mut self) {
        if self.preparing > 0 {
            self.prepared.retain(|_, entry| entry.ready);
            self.preparing = 0;
        }
    }

    /// Replies were thrown away: what is not confirmed may or may not be prepared.
    pub(super) fn abandon(&mut self) {
        let unsure = self.prepared.values().filter(|entry| !entry.ready).map(|entry| entry.name.clone());
        self.evicted.extend(unsure);
        self.settle();
    }

    /// Forgets one statement; the server is told with the next request.
    pub(super) fn forget(&mut self, sql: &str) {
        if let Some(entry) = self.prepared.remove(sql) {
            self.preparing -= usize::from(!entry.ready);
            self.evicted.push(entry.name);
        }
    }

    /// The server has none left.
    pub(super) fn clear(&mut self) {
        self.prepared.clear();
        self.evicted.clear();
        self.preparing = 0;
    }

    /// Names to be closed, once.
    pub(super) fn take_evicted(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.evicted)
    }

    /// Gives names back that could not be closed.
    pub(super) fn put_evicted(&mut self, names: Vec<Arc<str>>) {
        self.evicted.extend(names);
    }

    pub(super) fn len(&self) -> usize {
        self.prepared.len()
    }

    fn seen_before(&mut self, sql: &str) -> bool {
        let hash = self.hasher.hash_one(sql).max(1);
        let slots = self.seen.len() as u64;
        let slot = usize::try_from(hash % slots).unwrap_or(0);
        std::mem::replace(&mut self.seen[slot], hash) == hash
    }

    fn make_room(&mut self) {
        while self.prepared.len() >= self.capacity {
            let Some(oldest) = self.prepared.iter().min_by_key(|(_, entry)| entry.used).map(|(sql, _)| sql.clone())
            else {
                return;
            };
            self.forget(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(sight: Sight) -> String {
        match sight {
            Sight::First => "first".to_owned(),
            Sight::Second(name, _) => format!("second {name}"),
            Sight::Known(prepared) => format!("known {}", prepared.name),
        }
    }

    fn see(cache: &mut Statements, sql: &str) -> String {
        let sight = name(cache.sight(sql, Traits::default));
        cache.confirm(sql);
        sight
    }

    #[test]
    fn the_second_sight_gives_a_name_and_the_oldest_goes() {
        let mut cache = Statements::new(2);
        for sql in ["a", "b", "c"] {
            see(&mut cache, sql);
        }
        // Slots of texts seen once may collide, so look until each has its name.
        for sql in ["a", "b"] {
            while !see(&mut cache, sql).starts_with("known") {}
        }
        assert_eq!(cache.len(), 2);
        see(&mut cache, "a");
        while !see(&mut cache, "c").starts_with("known") {}
        assert!(see(&mut cache, "a").starts_with("known"));
        assert_eq!(cache.len(), 2);
        assert_eq!(cache.take_evicted().len(), 1);
        assert!(!see(&mut cache, "b").starts_with("known"), "b was the least recently used");
    }

    #[test]
    fn what_is_not_confirmed_is_not_kept() {
        let mut cache = Statements::new(8);
        cache.sight("a", Traits::default);
        assert_eq!(name(cache.sight("a", Traits::default)), "second sg1");
        cache.settle();
        assert_eq!(name(cache.sight("a", Traits::default)), "second sg2");
        cache.abandon();
        assert_eq!(cache.take_evicted().iter().map(|name| &**name).collect::<Vec<_>>(), ["sg2"]);
    }

    #[test]
    fn without_capacity_nothing_is_named() {
        let mut cache = Statements::new(0);
        for _ in 0..3 {
            assert_eq!(see(&mut cache, "a"), "first");
        }
    }
}
