//! The tunnels that are open, counted, and how they are asked to end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Every tunnel of the process.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: AtomicUsize,
    opened: AtomicU64,
    closing: AtomicBool,
    close: Notify,
    /// Notified when the last one ends.
    empty: Notify,
}

/// Counts one tunnel while it lasts.
pub struct Entered(Arc<Tunnels>);

impl Tunnels {
    /// Tunnels open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Tunnels opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Ends all tunnels, and those to come: the deadline of a drain has passed.
    pub fn close_all(&self) {
        self.closing.store(true, Ordering::Release);
        self.close.notify_waiters();
    }

    /// Completes when no tunnel is open. Cancel safe.
    pub async fn drained(&self) {
        wait(&self.empty, || self.open() == 0).await;
    }

    /// Completes when the tunnels are to end.
    pub async fn closing(&self) {
        wait(&self.close, || self.closing.load(Ordering::Acquire)).await;
    }

    /// Counts a tunnel that opens, until what this gives is dropped.
    pub fn enter(self: &Arc<Self>) -> Entered {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }
}

/// Waits until a condition holds that is notified after it began to.
async fn wait(notify: &Notify, holds: impl Fn() -> bool) {
    loop {
        let notified = notify.notified();
        tokio::pin!(notified);
        // Registered before the look, so that no call is missed in between.
        notified.as_mut().enable();
        if holds() {
            return;
        }
        notified.await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}
