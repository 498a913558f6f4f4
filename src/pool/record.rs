//! What the pool remembers of a connection.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::backend::Connection;

/// A connection and its record, as it travels between idle stack, waiter and lease.
pub(crate) struct Held<C> {
    pub(crate) conn: C,
    pub(crate) record: Record,
}

/// What the pool remembers of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// Unique in its pool, for ever.
    pub(crate) id: u64,
    /// Its place in the register of uses.
    pub(crate) seat: usize,
    /// The pool's epoch when it was begun.
    pub(crate) epoch: u32,
    pub(crate) created: Instant,
    /// When it last came back; when it was made, before the first time.
    pub(crate) returned: Instant,
    /// When a round trip last proved it good; when it was made, at first.
    pub(crate) validated: Instant,
    /// How long the last verdict trusts it.
    pub(crate) valid_for: Duration,
    /// Checkouts so far.
    pub(crate) uses: u64,
    /// Errors so far.
    pub(crate) errors: u32,
    /// The last error since it was validated.
    pub(crate) last_error: Option<UseError>,
    /// Probes that failed in a row.
    pub(crate) failed_probes: u32,
    /// 0 to 1000, fixed: spreads what would otherwise come all at once.
    pub(crate) jitter_permille: u32,
    /// Where its socket is registered.
    pub(crate) home: Home,
}

/// The thread whose runtime hears of a socket's readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    /// The worker's index, which chooses the idle stack.
    pub(crate) worker: usize,
    /// Never used twice, unlike an index: a worker that was stopped and started again is another home.
    pub(crate) thread: u64,
}

/// What went wrong while a connection was used; the numbers are those of `validation.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseError {
    /// Reading or writing failed.
    Io = 1,
    /// A deadline passed.
    Timeout = 2,
    /// SQLSTATE class 08, or 57P: the server ends the connection.
    Connection = 3,
    /// SQLSTATE class 28.
    Authentication = 4,
    /// SQLSTATE 25006: the server has become a replica.
    ReadOnly = 5,
    /// Any other error.
    Other = 6,
}

/// How old and how used a connection may grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Zero: no limit.
    pub(crate) lifetime: Duration,
    /// Zero: no limit.
    pub(crate) uses: u64,
}

impl<C: Connection> Held<C> {
    /// Moves the socket to the current thread's runtime, if it is another's. Returns whether it was.
    pub(crate) fn come_home(&mut self) -> io::Result<bool> {
        let here = Home::here();
        let away = self.record.home.thread != here.thread;
        if away {
            self.conn.rehome()?;
        }
        self.record.home = here;
        Ok(away)
    }
}

impl Home {
    /// The current thread.
    pub(crate) fn here() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static THREAD: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        Self { worker: crate::observe::worker(), thread: THREAD.with(|thread| *thread) }
    }
}

impl Record {
    /// Whether it has outlived the limits, each less up to a tenth by its jitter. A connection that was never used has not:
    /// else a lifetime shorter than a wait would make connections for ever.
    pub(crate) fn outlived(&self, now: Instant, limits: Limits) -> bool {
        if self.uses == 0 {
            return false;
        }
        let old = !limits.lifetime.is_zero() && now - self.created >= self.shortened(limits.lifetime);
        let spare = limits.uses / 10 * u64::from(self.jitter_permille) / 1000;
        old || (limits.uses > 0 && self.uses >= limits.uses - spare)
    }

    /// `span`, less up to a tenth by its jitter.
    pub(crate) fn shortened(&self, span: Duration) -> Duration {
        span.saturating_sub(span / 10_000 * self.jitter_permille.min(1000))
    }

    /// How long it has not been heard of: since its return or its last validation.
    pub(crate) fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.returned.max(self.validated))
    }

    /// Whether the last verdict still holds.
    pub(crate) fn is_trusted(&self, now: Instant) -> bool {
        self.last_error.is_none() && self.silent(now) < self.valid_for
    }
}

/// Whole milliseconds, as the policies are told them.
pub(crate) fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Whole microseconds, as the policies are told them.
pub(crate) fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
pub(crate) fn record(now: Instant) -> Record {
    Record {
        id: 1,
        seat: 0,
        epoch: 0,
        created: now,
        returned: now,
        validated: now,
        valid_for: Duration::ZERO,
        uses: 1,
        errors: 0,
        last_error: None,
        failed_probes: 0,
        jitter_permille: 0,
        home: Home::here(),
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    #[test]
    fn lifetime_and_uses_end_up_to_a_tenth_early() {
        let now = Instant::now();
        let limits = Limits { lifetime: Duration::from_secs(100), uses: 100 };
        let fresh = record(now);
        let jittered = Record { jitter_permille: 1000, ..fresh };
        let at = |secs| now + Duration::from_secs(secs);
        assert!(!fresh.outlived(at(99), limits) && fresh.outlived(at(100), limits));
        assert!(!jittered.outlived(at(89), limits) && jittered.outlived(at(90), limits));
        assert!(!Record { uses: 99, ..fresh }.outlived(now, limits));
        assert!(Record { uses: 100, ..fresh }.outlived(now, limits));
        assert!(Record { uses: 90, ..jittered }.outlived(now, limits));
        let never = Limits { lifetime: Duration::ZERO, uses: 0 };
        assert!(!Record { uses: u64::MAX, ..fresh }.outlived(at(1_000_000), never));
        assert!(!Record { uses: 0, ..fresh }.outlived(at(1_000_000), limits), "an unused one is not old");
    }

    #[test]
    fn trust_lasts_from_the_last_sign_of_life_and_ends_with_an_error() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let trusted = Record { valid_for: Duration::from_millis(500), ..record(now) };
        assert!(trusted.is_trusted(at(499)) && !trusted.is_trusted(at(500)));
        assert!(Record { validated: at(400), ..trusted }.is_trusted(at(899)));
        assert!(!Record { last_error: Some(UseError::Io), ..trusted }.is_trusted(now));
    }
}
