//! A line in the log now and then with what a pool has done since the last: for whoever has logs, but no scrapes. PgBouncer's
//! `stats_period` is the model.

use tokio::time::Instant;
use tracing::info;

use super::{backend::Backend, figures::Meter, record::millis, samples::Quantiles, shell::Pool, view::Glance};

/// What a pool did in an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    interval_ms: u32,
    pub(super) checkouts: u64,
    pub(super) waits: u64,
    pub(super) wait: Quantiles,
    pub(super) hold: Quantiles,
    pub(super) errors: u64,
    pub(super) timeouts: u64,
    refused: u64,
    pub(super) created: u64,
    closed: u64,
    pub(super) size: u32,
    pub(super) in_use_peak: u32,
}

impl Summary {
    fn of(glance: &Glance, meter: &Meter) -> Self {
        let (now, then) = (&glance.counters, &meter.counters);
        Self {
            interval_ms: millis(glance.now.saturating_duration_since(meter.at)),
            checkouts: now.checkouts - then.checkouts,
            waits: now.waited - then.waited,
            wait: meter.samples.wait.quantiles(),
            hold: meter.samples.hold.quantiles(),
            errors: now.errors - then.errors,
            timeouts: now.timeouts - then.timeouts,
            refused: now.refused - then.refused,
            created: now.creates - then.creates,
            closed: now.closes.total() - then.closes.total(),
            size: glance.counts.size(),
            in_use_peak: meter.peaks.in_use.max(glance.counts.in_use),
        }
    }

    /// Tells the log.
    pub(super) fn say(&self, pool: &str) {
        let Self { interval_ms, checkouts, waits, wait, hold, .. } = *self;
        let Self { errors, timeouts, refused, created, closed, size, in_use_peak, .. } = *self;
        info!(
            pool,
            interval_ms,
            checkouts,
            waits,
            wait_mean_us = wait.mean_us,
            wait_p95_us = wait.p95_us,
            wait_p99_us = wait.p99_us,
            use_mean_us = hold.mean_us,
            use_p95_us = hold.p95_us,
            use_p99_us = hold.p99_us,
            errors,
            timeouts,
            refused,
            created,
            closed,
            size,
            in_use_peak,
            "pool summary"
        );
    }
}

impl<B: Backend> Pool<B> {
    /// The summary of the interval that has ended, and when the next one ends; none: nobody wants to know. A new length of the
    /// interval holds for the one that is under way.
    pub(super) fn summarise(&self, now: Instant) -> (Option<Summary>, Option<Instant>) {
        let every = self.settings.load().summary_interval;
        let mut steering = self.steering.lock();
        if every.is_zero() {
            steering.ledger.summary = None;
            return (None, None);
        }
        let due = steering.ledger.summary.as_ref().map(|meter| meter.at + every);
        if let Some(due) = due.filter(|due| *due > now) {
            return (None, Some(due));
        }
        let glance = self.glance(&mut steering);
        let summary = steering.ledger.summary.as_ref().map(|meter| Summary::of(&glance, meter));
        let meter = steering.ledger.summary.get_or_insert_with(|| Meter::new(now));
        meter.restart(glance.now, &glance.counters, glance.area);
        (summary, Some(glance.now + every))
    }

    /// The summary of the interval that has not ended, but the pool has.
    pub(super) fn last_summary(&self) -> Option<Summary> {
        let mut steering = self.steering.lock();
        let glance = self.glance(&mut steering);
        steering.ledger.summary.take().map(|meter| Summary::of(&glance, &meter))
    }
}
