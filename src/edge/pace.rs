//! Whether a request body comes fast enough: pure accounting.
//!
//! Only the time counts in which we waited for the client; while the reader is busy elsewhere (an upstream that takes its
//! time), the client is not to blame. After each `window` of waiting, the bytes that came in it are held against the least
//! rate. A total timeout would break long uploads, and any-progress alone lets a byte every half minute hold a request open
//! for ever.

use std::time::Duration;

use tokio::time::Instant;

/// Progress of one request body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    window: Duration,
    /// Bytes that each window must bring.
    least: u64,
    waited: Duration,
    came: u64,
    since: Option<Instant>,
}

/// The client is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooSlow;

impl Pace {
    /// At least `rate` bytes a second over each `window`; a rate of 0 asks for one byte a window.
    pub(super) fn new(window: Duration, rate: u64) -> Self {
        let least = u128::from(rate) * window.as_millis() / 1_000;
        let least = u64::try_from(least).unwrap_or(u64::MAX).max(1);
        Self { window, least, waited: Duration::ZERO, came: 0, since: None }
    }

    /// Bytes came, or the end.
    pub(super) fn came(&mut self, bytes: usize, now: impl FnOnce() -> Instant) {
        self.came = self.came.saturating_add(bytes as u64);
        if let Some(since) = self.since.take() {
            self.waited += now().saturating_duration_since(since);
        }
    }

    /// Nothing is there. Tells when to look again at the latest.
    pub(super) fn wait(&mut self, now: Instant) -> Result<Instant, TooSlow> {
        if let Some(since) = self.since.replace(now) {
            self.waited += now.saturating_duration_since(since);
        }
        if self.waited >= self.window {
            if self.came < self.least {
                return Err(TooSlow);
            }
            self.waited = Duration::ZERO;
            self.came = 0;
        }
        Ok(now + self.window.saturating_sub(self.waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_window_must_bring_its_bytes() {
        let start = Instant::now();
        let mut pace = Pace::new(SECOND * 10, 100);
        assert_eq!(pace.wait(start), Ok(start + SECOND * 10));
        pace.came(999, || start + SECOND * 4);
        assert_eq!(pace.wait(start + SECOND * 4), Ok(start + SECOND * 10));
        pace.came(1, || start + SECOND * 6);
        assert_eq!(pace.wait(start + SECOND * 6), Ok(start + SECOND * 10));
        assert_eq!(pace.wait(start + SECOND * 10), Ok(start + SECOND * 20));
        pace.came(999, || start + SECOND * 15);
        assert_eq!(pace.wait(start + SECOND * 15), Ok(start + SECOND * 20));
        assert_eq!(pace.wait(start + SECOND * 20), Err(TooSlow));
    }

    #[test]
    fn only_waiting_counts() {
        let start = Instant::now();
        let mut pace = Pace::new(SECOND * 10, 100);
        assert_eq!(pace.wait(start), Ok(start + SECOND * 10));
        pace.came(1, || start + SECOND);
        // The reader was away for an hour.
        let later = start + SECOND * 3_600;
        assert_eq!(pace.wait(later), Ok(later + SECOND * 9));
        assert_eq!(pace.wait(later + SECOND * 9), Err(TooSlow));
    }

    #[test]
    fn without_a_rate_any_byte_will_do() {
        let start = Instant::now();
        let mut pace = Pace::new(SECOND, 0);
        pace.wait(start).unwrap();
        pace.came(1, || start);
        pace.wait(start).unwrap();
        assert!(pace.wait(start + SECOND).is_ok());
        assert_eq!(pace.wait(start + SECOND * 2), Err(TooSlow));
    }
}
