//! Letting open connections finish.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Asks listeners and their connections to finish, and tells when they have. Cheap to clone; all clones are one.
///
/// Once started, accept loops take what waits in their queue and close; an HTTP/1 connection closes after its current
/// request, an HTTP/2 connection says GOAWAY and serves what it has. Nothing is cut: whoever wants a deadline drops the
/// tasks when it has passed.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    started: AtomicBool,
    start: Notify,
    held: AtomicUsize,
    done: Notify,
}

/// Holds up [`Drain::finished`] while it lives: one for each accept loop and each connection.
#[derive(Debug)]
pub struct Hold(Drain);

impl Drain {
    /// A drain that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts it, once and for all.
    pub fn start(&self) {
        self.0.started.store(true, Ordering::SeqCst);
        self.0.start.notify_waiters();
    }

    /// Whether it has started.
    pub fn is_started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    /// Waits for the start. Cancel safe.
    pub async fn started(&self) {
        let notified = self.0.start.notified();
        if !self.is_started() {
            notified.await;
        }
    }

    /// Something that has to end before the drain is finished.
    pub fn hold(&self) -> Hold {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        Hold(self.clone())
    }

    /// What has not ended yet: accept loops and connections, upgraded ones among them.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::SeqCst)
    }

    /// Waits until it has started and nothing is held. Cancel safe.
    pub async fn finished(&self) {
        self.started().await;
        loop {
            let notified = self.0.done.notified();
            if self.held() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.0.held.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.0.done.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_finishes_when_started_and_released() {
        let drain = Drain::new();
        assert!(drain.finished().now_or_never().is_none());
        let (first, second) = (drain.hold(), drain.hold());
        drain.start();
        let mut finished = Box::pin(drain.finished());
        assert!(finished.as_mut().now_or_never().is_none());
        drop(first);
        assert!(finished.as_mut().now_or_never().is_none());
        drop(second);
        assert!(finished.now_or_never().is_some());
        assert!(drain.finished().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_start_is_seen_by_all_who_wait_and_all_who_come_later() {
        let drain = Drain::new();
        let mut early = Box::pin(drain.started());
        assert!(early.as_mut().now_or_never().is_none());
        drain.clone().start();
        assert!(early.now_or_never().is_some());
        assert!(drain.started().now_or_never().is_some());
    }
}
