//! What is observed of a connection, for its deadlines.
//!
//! One [`Watch`] is shared by a connection's socket, its requests and its answers. All of them live on one thread; atomics are
//! there because answers must be `Send`, and their uncontended relaxed operations cost what plain ones do.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use tokio::time::{Duration, Instant};

use super::{
    counters::EdgeCounters,
    deadline::{NEVER, View},
};

/// The observations of one connection. Times are milliseconds since `base`.
#[derive(Debug)]
pub(super) struct Watch {
    base: Instant,
    http2: AtomicBool,
    open: AtomicU32,
    waiting: AtomicU32,
    waiting_since: AtomicU64,
    idle_since: AtomicU64,
    served: AtomicBool,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    written: AtomicU64,
    unread: AtomicBool,
    completed: AtomicU32,
    abandoned: AtomicU32,
    /// What an answer said last, as a [`Said`].
    said: AtomicU8,
    pub(super) counters: Arc<EdgeCounters>,
}

/// What an answer told while it was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    /// The client is the one to act.
    Offered,
    /// We are.
    Asked,
}

impl Watch {
    pub(super) fn new(base: Instant, counters: Arc<EdgeCounters>) -> Self {
        Self {
            base,
            http2: AtomicBool::new(false),
            open: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            waiting_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            served: AtomicBool::new(false),
            head_since: AtomicU64::new(NEVER),
            blocked_since: AtomicU64::new(NEVER),
            written: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            completed: AtomicU32::new(0),
            abandoned: AtomicU32::new(0),
            said: AtomicU8::new(Said::Nothing as u8),
            counters,
        }
    }

    pub(super) fn base(&self) -> Instant {
        self.base
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    pub(super) fn view(&self) -> View {
        View {
            open: self.open.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            waiting_since: self.waiting_since.load(Relaxed),
            idle_since: self.idle_since.load(Relaxed),
            served: self.served.load(Relaxed),
            head_since: self.head_since.load(Relaxed),
            blocked_since: self.blocked_since.load(Relaxed),
        }
    }

    pub(super) fn set_http2(&self) {
        self.http2.store(true, Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    // === answers ===

    /// Forgets what was said, before an answer is polled: others may have been dropped meanwhile.
    pub(super) fn hush(&self) {
        self.say(Said::Nothing);
    }

    /// What the answer that was just polled has said last.
    pub(super) fn said(&self) -> Said {
        match self.said.load(Relaxed) {
            said if said == Said::Offered as u8 => Said::Offered,
            said if said == Said::Asked as u8 => Said::Asked,
            _ => Said::Nothing,
        }
    }

    fn say(&self, said: Said) {
        self.said.store(said as u8, Relaxed);
    }

    /// When the last answer began to wait for its client.
    pub(super) fn waiting_since(&self) -> Instant {
        self.base + Duration::from_millis(self.waiting_since.load(Relaxed))
    }

    /// Whether every request has an answer that waits for its client.
    pub(super) fn all_wait(&self) -> bool {
        self.waiting.load(Relaxed) == self.open.load(Relaxed)
    }

    /// Answers that were given up before their end, less half of those that came to it.
    pub(super) fn excess(&self) -> u32 {
        self.abandoned.load(Relaxed).saturating_sub(self.completed.load(Relaxed) / 2)
    }

    // === the socket ===

    /// Bytes came from the client. Between HTTP/1 requests they begin a head.
    pub(super) fn read(&self) {
        if self.open.load(Relaxed) == 0 && self.head_since.load(Relaxed) == NEVER && !self.is_http2() {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// The socket took `bytes`.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.store(self.written.load(Relaxed) + bytes as u64, Relaxed);
        if self.blocked_since.load(Relaxed) != NEVER {
            self.blocked_since.store(NEVER, Relaxed);
        }
    }

    /// The socket takes nothing now, though we have bytes.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Relaxed) == NEVER {
            self.blocked_since.store(self.now(), Relaxed);
        }
    }

    /// Bytes that the socket has taken.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    // === requests ===

    /// A request whose body nobody will read to its end.
    pub(super) fn left_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    /// Whether the client may still be sending what nobody reads.
    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }
}

/// A request being answered. It moves from the handler into the answer's body; a request body that is still being read has
/// one of its own.
#[derive(Debug)]
pub(super) struct Flight {
    watch: Arc<Watch>,
    waiting: bool,
    /// Whether the answer is still owed.
    owed: bool,
}

impl Flight {
    /// A request has begun.
    pub(super) fn new(watch: &Arc<Watch>) -> Self {
        let mut flight = Self::body(watch);
        flight.owed = true;
        flight
    }

    /// A request's body is being read.
    pub(super) fn body(watch: &Arc<Watch>) -> Self {
        watch.open.fetch_add(1, Relaxed);
        watch.served.store(true, Relaxed);
        watch.head_since.store(NEVER, Relaxed);
        Self { watch: watch.clone(), waiting: false, owed: false }
    }

    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// All of the answer was handed over, or we have given it up ourselves.
    pub(super) fn done(&mut self) {
        if std::mem::take(&mut self.owed) {
            self.watch.completed.fetch_add(1, Relaxed);
        }
    }

    /// A piece of the answer was handed over; until the next is asked for, the client is the one to act.
    pub(super) fn offered(&mut self) {
        if !self.waiting {
            self.waiting = true;
            self.watch.waiting.fetch_add(1, Relaxed);
            self.watch.waiting_since.store(self.watch.now(), Relaxed);
            self.watch.say(Said::Offered);
        }
    }

    /// More of the answer is asked for.
    pub(super) fn asked(&mut self) {
        if self.waiting {
            self.waiting = false;
            self.watch.waiting.fetch_sub(1, Relaxed);
            self.watch.say(Said::Asked);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.asked();
        if self.owed {
            self.watch.abandoned.fetch_add(1, Relaxed);
        }
        if self.watch.open.fetch_sub(1, Relaxed) == 1 {
            self.watch.idle_since.store(self.watch.now(), Relaxed);
        }
    }
}
