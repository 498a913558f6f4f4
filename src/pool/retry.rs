//! How much may be tried again: a share of what is tried at all, so that retries never become the load.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{backend::Backend, shell::Pool};

/// Retries for each checkout.
const SHARE: f64 = 0.2;
/// Retries a second, however few checkouts there are.
const PER_SECOND: f64 = 10.0;
/// Retries that may be saved up.
const MOST: f64 = 100.0;

/// A token bucket (Finagle's retry budget): checkouts and time put in, retries take out.
pub(super) struct RetryBudget {
    tokens: f64,
    at: Instant,
}

impl RetryBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: PER_SECOND, at: now }
    }

    pub(super) fn put_in(&mut self, checkouts: u32) {
        self.tokens = (self.tokens + SHARE * f64::from(checkouts)).min(MOST);
    }

    /// Whether there may be one more.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + PER_SECOND * since.as_secs_f64()).min(MOST);
        let may = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(may));
        may
    }
}

impl<B: Backend> Pool<B> {
    /// Whether work that was not sent, because its connection was found dead, may be given to another connection. Counts.
    pub fn may_retry(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let may = state.retries.take(now);
        let count = if may { &mut state.counters.retries } else { &mut state.counters.retries_refused };
        *count += 1;
        may
    }

    /// Counts what became of such work in the end.
    pub fn retried(self: &Arc<Self>, sent: bool) {
        let mut state = self.state.lock();
        let counters = &mut state.counters;
        let count = if sent { &mut counters.retries_sent } else { &mut counters.retries_failed };
        *count += 1;
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_checkouts_and_ten_a_second() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let most = |now, budget: &mut RetryBudget| (0..1_000).filter(|_| budget.take(now)).count();
        assert_eq!(most(now, &mut budget), 10);
        budget.put_in(50);
        assert_eq!(most(now, &mut budget), 10);
        assert_eq!(most(now + Duration::from_millis(500), &mut budget), 5);
        budget.put_in(1_000_000);
        assert_eq!(most(now + Duration::from_hours(1), &mut budget), 100);
        assert_eq!(most(now, &mut budget), 0, "time that seems to go back gives nothing");
    }
}
