//! What pools on one server may open together.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::sync::{AtomicU32, Ordering};

/// A cap on connections that several pools share: when a reload replaces a pool by another on the same server, the new one
/// takes over the old one's budget, so that the two together never exceed the cap while the old one drains.
///
/// Each connection is counted from before it is made until its permit comes back. A pool that is refused here is told when
/// another gives something back.
pub struct Budget {
    cap: AtomicU32,
    live: AtomicU32,
    bells: parking_lot::Mutex<Vec<Weak<Notify>>>,
}

impl Budget {
    /// A budget of `cap` connections.
    pub fn new(cap: u32) -> Arc<Self> {
        Arc::new(Self { cap: AtomicU32::new(cap), live: AtomicU32::new(0), bells: parking_lot::Mutex::new(Vec::new()) })
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

    /// Counts one more connection, if the cap allows.
    pub(crate) fn try_take(&self) -> bool {
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
    }

    /// Has `bell` rung whenever something is given back.
    pub(crate) fn join(&self, bell: &Arc<Notify>) {
        let mut bells = self.bells.lock();
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(bell));
    }

    /// Tells the pools' drivers that there is room, unless there is only one pool.
    pub(crate) fn ring(&self) {
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

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    #[test]
    fn the_cap_holds_in_both_directions() {
        let budget = Budget::new(2);
        assert!(budget.try_take() && budget.try_take() && !budget.try_take());
        budget.set_cap(1);
        budget.give_back(1);
        assert!(!budget.try_take());
        budget.set_cap(3);
        assert!(budget.try_take() && budget.try_take() && !budget.try_take());
        assert_eq!((budget.live(), budget.cap()), (3, 3));
    }

    #[tokio::test]
    async fn a_pool_hears_when_its_sister_gives_back() {
        let budget = Budget::new(1);
        let (old, new) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        budget.join(&old);
        budget.join(&new);
        assert!(budget.try_take());
        budget.give_back(1);
        budget.ring();
        new.notified().await;
    }
}
