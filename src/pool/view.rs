//! A pool as its policies see it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    breaker::Position,
    core::{Counts, Gate},
    figures::{Counters, Meter},
    record::{Record, millis},
    settings::PoolSettings,
};
use crate::policy::{Bounds, Flows, Gauges, IdleConnection, Latencies, PoolView};

/// A pool at a moment.
pub(super) struct Glance {
    pub(super) now: Instant,
    pub(super) counts: Counts,
    pub(super) gate: Gate,
    pub(super) counters: Counters,
    /// Connection seconds in use since the pool began.
    pub(super) area: f64,
    pub(super) oldest_wait: Option<Instant>,
    pub(super) breaker: Position,
    /// Connections that the server grants, to this pool or to all pools on it; none, if nothing is known.
    pub(super) server_cap: Option<u32>,
    /// Whether connections can be made.
    pub(super) may_grow: bool,
}

/// What a policy is told: the pool now, and what happened since `meter` was last restarted.
pub(super) fn of(glance: &Glance, meter: &Meter, settings: &PoolSettings, born: Instant) -> PoolView {
    let interval = glance.now.saturating_duration_since(meter.at);
    PoolView {
        now_ms: glance.now.saturating_duration_since(born).as_secs_f64() * 1000.0,
        interval_ms: millis(interval),
        bounds: Bounds {
            min_size: settings.min,
            max_size: settings.max,
            server_cap: glance.server_cap.unwrap_or(0),
            cores: settings.cores,
        },
        gauges: gauges(glance, meter, interval),
        flows: flows(&glance.counters, &meter.counters),
        latencies: latencies(meter),
        breaker: glance.breaker as u32,
    }
}

fn gauges(glance: &Glance, meter: &Meter, interval: Duration) -> Gauges {
    let Counts { idle, in_use, creating, waiters, .. } = glance.counts;
    let seconds = interval.as_secs_f64();
    let mean = if seconds > 0.0 { (glance.area - meter.area) / seconds } else { f64::from(in_use) };
    Gauges {
        target: glance.gate.target,
        size: glance.counts.size(),
        idle,
        in_use,
        creating,
        waiters,
        oldest_wait_ms: glance.oldest_wait.map_or(0, |since| millis(glance.now.saturating_duration_since(since))),
        in_use_mean: mean.max(0.0),
        in_use_peak: meter.peaks.in_use.max(in_use),
        waiters_peak: meter.peaks.waiters.max(waiters),
    }
}

fn flows(now: &Counters, then: &Counters) -> Flows {
    let since = |now: u64, then: u64| u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
    let (closed, before) = (&now.closes, &then.closes);
    Flows {
        checkouts: since(now.checkouts, then.checkouts),
        waited: since(now.waited, then.waited),
        timeouts: since(now.timeouts, then.timeouts),
        refused: since(now.refused, then.refused),
        creates: since(now.creates, then.creates),
        create_failures: since(now.create_failures.total(), then.create_failures.total()),
        server_full: since(
            now.create_failures.server_full + now.create_failures.account_full,
            then.create_failures.server_full + then.create_failures.account_full,
        ),
        closed_idle: since(closed.idle, before.idle),
        closed_lifetime: since(closed.lifetime + closed.outdated, before.lifetime + before.outdated),
        closed_broken: since(
            closed.broken + closed.purged + closed.unclean + closed.abandoned,
            before.broken + before.purged + before.unclean + before.abandoned,
        ),
        closed_surplus: since(
            closed.surplus + closed.policy + closed.discarded + closed.yielded,
            before.surplus + before.policy + before.discarded + before.yielded,
        ),
    }
}

fn latencies(meter: &Meter) -> Latencies {
    let samples = &meter.samples;
    Latencies {
        samples: samples.hold.samples(),
        wait_p50_us: samples.wait.at(0.5),
        wait_p99_us: samples.wait.at(0.99),
        hold_mean_us: samples.hold.mean(),
        hold_p99_us: samples.hold.at(0.99),
        rtt_samples: samples.rtt.samples(),
        rtt_min_us: samples.rtt.min(),
        rtt_mean_us: samples.rtt.mean(),
        rtt_p99_us: samples.rtt.at(0.99),
        create_mean_us: samples.create.mean(),
    }
}

/// An idle connection as the eviction policy sees it.
pub(super) fn idle(record: &Record, statements: u32, epoch: u32, now: Instant) -> IdleConnection {
    let since = |then: Instant| millis(now.saturating_duration_since(then));
    IdleConnection {
        age_ms: since(record.created),
        idle_ms: since(record.returned),
        uses: u32::try_from(record.uses).unwrap_or(u32::MAX),
        errors: record.errors,
        failed_probes: record.failed_probes,
        since_validated_ms: since(record.validated),
        jitter_permille: record.jitter_permille,
        epochs_behind: epoch.wrapping_sub(record.epoch),
        statements,
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    #[test]
    fn flows_are_differences_and_gauges_means_over_the_interval() {
        let born = Instant::now();
        let mut meter = Meter::new(born);
        meter.counters.checkouts = 100;
        meter.area = 7.0;
        meter.peaks.in_use = 4;
        let mut counters = Counters { checkouts: 130, ..Counters::default() };
        counters.closes.purged = 2;
        counters.closes.policy = 3;
        let settings = PoolSettings::default();
        let glance = Glance {
            now: born + Duration::from_millis(2_500),
            counts: Counts { idle: 1, in_use: 3, creating: 1, closing: 9, lingering: 0, waiters: 2 },
            gate: settings.gate(),
            counters,
            area: 12.0,
            oldest_wait: Some(born + Duration::from_secs(2)),
            breaker: Position::HalfOpen,
            server_cap: None,
            may_grow: false,
        };
        let view = of(&glance, &meter, &settings, born);
        assert_eq!((view.interval_ms, view.breaker), (2_500, 1));
        assert_eq!((view.gauges.size, view.gauges.oldest_wait_ms, view.gauges.in_use_peak), (5, 500, 4));
        assert!((view.gauges.in_use_mean - 2.0).abs() < 1e-9);
        assert_eq!((view.flows.checkouts, view.flows.closed_broken, view.flows.closed_surplus), (30, 2, 3));
    }
}
