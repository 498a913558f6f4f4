//! What pools on one server may open together.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::{
    server::{MemberId, ServerBudget},
    sync::{AtomicU32, Ordering},
};

/// A cap on connections that several pools share: when a reload replaces a pool by another on the same server, the new one
/// takes over the old one's budget, so that the two together never exceed the cap while the old one drains.
///
/// Each connection is counted from before it is made until its permit comes back. A pool that is refused here is told when
/// another gives something back.
///
/// A budget may lie within that of a server, which is over all pools there: then both must have room.
pub struct Budget {
    cap: AtomicU32,
    live: AtomicU32,
    bells: parking_lot::Mutex<Vec<Weak<Notify>>>,
    within: Option<(Arc<ServerBudget>, MemberId)>,
}

/// Whether there is room for one connection more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes, and it is counted.
    Taken,
    /// The pool, and those it takes the place of, have all they may.
    Full,
    /// All pools on the server together have.
    ServerFull,
}

impl Budget {
    /// A budget of `cap` connections.
    pub fn new(cap: u32) -> Arc<Self> {
        Arc::new(Self::of(cap, None))
    }

    /// The same, within what all pools on `server` may open together.
    pub fn within(server: Arc<ServerBudget>, cap: u32) -> Arc<Self> {
        let id = server.join();
        Arc::new(Self::of(cap, Some((server, id))))
    }

    fn of(cap: u32, within: Option<(Arc<ServerBudget>, MemberId)>) -> Self {
        let bells = parking_lot::Mutex::new(Vec::new());
        Self { cap: AtomicU32::new(cap), live: AtomicU32::new(0), bells, within }
    }

    /// The server's budget, and who this one is there.
    pub(crate) fn server(&self) -> Option<(&Arc<ServerBudget>, MemberId)> {
        self.within.as_ref().map(|(server, id)| (server, *id))
    }

    /// Connections open now, over all pools that share it.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }

    /// Connections at most.
    pub fn cap(&self) -> u32 {
        self.cap.load(Ordering::Acquire)
    }

    /// Changes the cap. Connections above a lower one stay until they are given back; nothing is opened meanwhile.
    pub fn set_cap(&self, cap: u32) {
        self.cap.store(cap, Ordering::Release);
        self.ring();
    }

    /// Counts one more connection, if the cap and the server's allow.
    pub(crate) fn try_take(&self) -> Room {
        if !self.try_take_own() {
            return Room::Full;
        }
        match &self.within {
            Some((server, id)) if !server.try_take(*id) => {
                self.live.fetch_sub(1, Ordering::AcqRel);
                Room::ServerFull
            }
            _ => Room::Taken,
        }
    }

    /// Whether the pools on the server have all they may together, or nothing is left but what this one has claimed.
    pub(crate) fn is_server_pressed(&self) -> bool {
        self.within.as_ref().is_some_and(|(server, id)| server.is_pressed(*id))
    }

    fn try_take_own(&self) -> bool {
        let mut live = self.live.load(Ordering::Acquire);
        while live < self.cap.load(Ordering::Acquire) {
            match self.live.compare_exchange_weak(live, live + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(found) => live = found,
            }
        }
        false
    }

    /// Counts `n` connections less. Who waits for them is told by [`Self::ring`], outside locks.
    pub(crate) fn give_back(&self, n: u32) {
        let before = self.live.fetch_sub(n, Ordering::AcqRel);
        debug_assert!(before >= n, "a permit was given back twice");
        if let Some((server, _)) = &self.within {
            server.give_back(n);
        }
    }

    /// Has `bell` rung whenever something is given back.
    pub(crate) fn join(&self, bell: &Arc<Notify>) {
        let mut bells = self.bells.lock();
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(bell));
    }

    /// Tells the pools' drivers that there is room, unless there is only one pool.
    pub(crate) fn ring(&self) {
        if let Some((server, _)) = &self.within {
            server.ring();
        }
        let mut bells = self.bells.lock();
        if bells.len() > 1 {
            bells.retain(|bell| {
                bell.upgrade().is_some_and(|bell| {
                    bell.notify_one();
                    true
                })
            });
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        if let Some((server, id)) = &self.within {
            server.leave(*id);
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::{super::server::ServerTerms, *};

    fn takes(budget: &Budget) -> bool {
        budget.try_take() == Room::Taken
    }

    #[test]
    fn the_cap_holds_in_both_directions() {
        let budget = Budget::new(2);
        assert!(takes(&budget) && takes(&budget) && !takes(&budget));
        budget.set_cap(1);
        budget.give_back(1);
        assert!(!takes(&budget));
        budget.set_cap(3);
        assert!(takes(&budget) && takes(&budget) && !takes(&budget));
        assert_eq!((budget.live(), budget.cap()), (3, 3));
    }

    #[test]
    fn both_the_pools_cap_and_the_servers_hold() {
        let server = ServerBudget::new(ServerTerms { connections: Some(3), share: 1.0 });
        let (one, other) = (Budget::within(server.clone(), 2), Budget::within(server.clone(), 2));
        assert!(takes(&one) && takes(&one) && takes(&other));
        assert_eq!((one.try_take(), other.try_take()), (Room::Full, Room::ServerFull));
        assert_eq!((other.live(), server.status().connections), (1, 3), "a refusal is not counted");
        one.give_back(1);
        assert!(takes(&other));
    }

    #[tokio::test]
    async fn a_pool_hears_when_its_sister_gives_back() {
        let budget = Budget::new(1);
        let (old, new) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        budget.join(&old);
        budget.join(&new);
        assert!(takes(&budget));
        budget.give_back(1);
        budget.ring();
        new.notified().await;
    }
}
