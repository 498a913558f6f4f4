//! What a pool counts and measures.
//!
//! Counters only grow. Times go into histograms that the driver empties now and then into those of its own: one for each
//! policy's interval, one for `/status`. So a checkout records each time once, and reading costs it nothing.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    backend::FailureClass,
    record::micros,
    tally::{Clamps, Closes},
};

/// Times up to an hour, to two digits.
#[derive(Clone)]
pub(crate) struct Timer(Histogram<u32>);

/// The times of a pool.
#[derive(Clone)]
pub(crate) struct Samples {
    /// From asking for a connection to having one, or giving up.
    pub(crate) wait: Timer,
    /// From checkout to return.
    pub(crate) hold: Timer,
    /// On the backend alone.
    pub(crate) rtt: Timer,
    pub(crate) create: Timer,
    pub(crate) validate: Timer,
}

/// A histogram in a few numbers, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Times measured.
    pub samples: u64,
    /// Half were shorter.
    pub p50_us: u64,
    /// 95 % were shorter.
    pub p95_us: u64,
    /// 99 % were shorter.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// What a pool has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections asked for.
    pub checkouts: u64,
    /// Those that had to wait.
    pub waited: u64,
    /// Those that gave up waiting.
    pub timeouts: u64,
    /// Those refused at once: the queue was full, or no connection could come.
    pub refused: u64,
    /// Waiters who left the queue without a connection, the timeouts among them.
    pub cancelled: u64,
    /// Checkouts that waited longer than `slow_checkout`.
    pub slow_checkouts: u64,
    /// Waiters served directly by a returned or a new connection.
    pub handoffs: u64,
    /// Connections moved to another worker's runtime.
    pub rehomed: u64,
    /// Connections made.
    pub creates: u64,
    /// Connections that could not be made, by class.
    pub create_failures: CreateFailures,
    /// Connections closed, by cause.
    pub closes: Closes,
    /// Closes that nobody confirmed within `linger`.
    pub closes_unconfirmed: u64,
    /// Round trips to find out whether a connection lives.
    pub probes: u64,
    /// Those that found it alive.
    pub validations_ok: u64,
    /// Those that did not, and sockets found closed.
    pub validations_failed: u64,
    /// Transactions rolled back after their caller.
    pub rollbacks: u64,
    /// Sessions reset after their caller.
    pub resets: u64,
    /// Running statements stopped after their caller.
    pub recoveries: u64,
    /// Connections that came back from callers.
    pub returns: u64,
    /// Times that the breaker opened.
    pub breaker_trips: u64,
    /// Errors that callers reported.
    pub errors: u64,
    /// Times that work was given to another connection, as the one it had was found dead before anything was sent.
    pub retries: u64,
    /// Times that it was not, as that had been done for a fifth of the callers.
    pub retries_refused: u64,
    /// Work that was sent after such retries.
    pub retries_sent: u64,
    /// Work that was not, after all.
    pub retries_failed: u64,
    /// Connections held longer than `held_warning`.
    pub held_long: u64,
    /// Requests ended as they held a connection longer than `held_limit`.
    pub held_ended: u64,
    /// Answers of policies that were not followed to the letter.
    pub clamped: Clamps,
}

/// Connections that could not be made, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CreateFailures {
    /// Refused, unroutable, name unknown.
    pub unreachable: u64,
    /// Took too long.
    pub timeout: u64,
    /// The server grants no more.
    pub server_full: u64,
    /// Credentials refused.
    pub authentication: u64,
    /// The server starts up, shuts down or recovers.
    pub unavailable: u64,
    /// The connection broke.
    pub broken: u64,
    /// Anything else.
    pub other: u64,
}

/// Good and bad outcomes of the last ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    cells: [(u32, u32); 10],
    /// The second that the newest cell stands for.
    second: u64,
}

impl Timer {
    fn new() -> Self {
        const LONGEST_US: u64 = 3_600_000_000;
        Self(Histogram::new_with_bounds(1, LONGEST_US, 2).expect("one microsecond to an hour is a range"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::from(micros(time)).max(1));
    }

    fn add(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        self.0.add(&other.0).expect("all timers have the same range");
    }

    pub(crate) fn samples(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn at(&self, quantile: f64) -> u32 {
        u32::try_from(self.0.value_at_quantile(quantile)).unwrap_or(u32::MAX)
    }

    /// 0 when nothing was measured.
    pub(crate) fn mean(&self) -> u32 {
        self.0.mean() as u32
    }

    /// 0 when nothing was measured.
    pub(crate) fn min(&self) -> u32 {
        if self.0.is_empty() { 0 } else { u32::try_from(self.0.min()).unwrap_or(u32::MAX) }
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        Quantiles {
            samples: self.0.len(),
            p50_us: self.0.value_at_quantile(0.5),
            p95_us: self.0.value_at_quantile(0.95),
            p99_us: self.0.value_at_quantile(0.99),
            max_us: self.0.max(),
        }
    }
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self { wait: Timer::new(), hold: Timer::new(), rtt: Timer::new(), create: Timer::new(), validate: Timer::new() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.wait.add(&other.wait);
        self.hold.add(&other.hold);
        self.rtt.add(&other.rtt);
        self.create.add(&other.create);
        self.validate.add(&other.validate);
    }

    pub(crate) fn clear(&mut self) {
        for timer in [&mut self.wait, &mut self.hold, &mut self.rtt, &mut self.create, &mut self.validate] {
            timer.0.reset();
        }
    }
}

impl CreateFailures {
    pub(crate) fn count(&mut self, class: FailureClass) {
        let counter = match class {
            FailureClass::Unreachable => &mut self.unreachable,
            FailureClass::Timeout => &mut self.timeout,
            FailureClass::ServerFull => &mut self.server_full,
            FailureClass::Authentication => &mut self.authentication,
            FailureClass::Unavailable => &mut self.unavailable,
            FailureClass::Broken => &mut self.broken,
            FailureClass::Other => &mut self.other,
        };
        *counter += 1;
    }

    /// All classes together.
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, n)| n).sum()
    }

    /// Each class's name and count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            (FailureClass::Unreachable, self.unreachable),
            (FailureClass::Timeout, self.timeout),
            (FailureClass::ServerFull, self.server_full),
            (FailureClass::Authentication, self.authentication),
            (FailureClass::Unavailable, self.unavailable),
            (FailureClass::Broken, self.broken),
            (FailureClass::Other, self.other),
        ]
        .into_iter()
        .map(|(class, n)| (class.as_str(), n))
    }
}

impl Pulse {
    /// Counts an outcome, `since` the pool began.
    pub(crate) fn beat(&mut self, since: Duration, good: bool) {
        self.turn(since.as_secs());
        let (goods, bads) = &mut self.cells[(self.second % 10) as usize];
        *if good { goods } else { bads } += 1;
    }

    /// Good and bad ones of the last ten seconds.
    pub(crate) fn recent(&mut self, since: Duration) -> (u32, u32) {
        self.turn(since.as_secs());
        self.cells.iter().fold((0, 0), |(goods, bads), (good, bad)| (goods + good, bads + bad))
    }

    fn turn(&mut self, second: u64) {
        for passed in (self.second + 1..=second).take(10) {
            self.cells[(passed % 10) as usize] = (0, 0);
        }
        if second > self.second + 10 {
            self.cells = Default::default();
        }
        self.second = self.second.max(second);
    }
}

/// What happened between two looks of the same beholder.
pub(crate) struct Meter {
    pub(crate) at: Instant,
    pub(crate) counters: Counters,
    pub(crate) samples: Samples,
    pub(crate) area: f64,
    pub(crate) in_use_peak: u32,
    pub(crate) waiters_peak: u32,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            at: now,
            counters: Counters::default(),
            samples: Samples::new(),
            area: 0.0,
            in_use_peak: 0,
            waiters_peak: 0,
        }
    }

    /// Takes in what was measured since the last look of anybody.
    pub(crate) fn take_in(&mut self, samples: &Samples, (in_use_peak, waiters_peak): (u32, u32)) {
        self.samples.add(samples);
        self.in_use_peak = self.in_use_peak.max(in_use_peak);
        self.waiters_peak = self.waiters_peak.max(waiters_peak);
    }

    /// Begins the next interval.
    pub(crate) fn restart(&mut self, now: Instant, counters: &Counters, area: f64) {
        self.at = now;
        self.counters = *counters;
        self.area = area;
        self.samples.clear();
        self.in_use_peak = 0;
        self.waiters_peak = 0;
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_two_digits() {
        let mut timer = Timer::new();
        assert_eq!((timer.min(), timer.mean(), timer.quantiles()), (0, 0, Quantiles::default()));
        for ms in 1..=100 {
            timer.record(Duration::from_millis(ms));
        }
        timer.record(Duration::from_secs(1_000_000));
        let quantiles = timer.quantiles();
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 50 < wanted;
        assert!(near(quantiles.p50_us, 51_000) && near(quantiles.p99_us, 100_000), "{quantiles:?}");
        assert!(quantiles.max_us >= 3_600_000_000, "the longest are kept as the longest there is");
        assert_eq!(timer.samples(), 101);
    }

    #[test]
    fn the_pulse_forgets_after_ten_seconds() {
        let mut pulse = Pulse::default();
        let at = Duration::from_secs;
        pulse.beat(at(1), true);
        pulse.beat(at(5), false);
        pulse.beat(at(10), false);
        assert_eq!(pulse.recent(at(10)), (1, 2));
        assert_eq!(pulse.recent(at(11)), (0, 2));
        assert_eq!(pulse.recent(at(19)), (0, 1));
        assert_eq!(pulse.recent(at(1_000_000)), (0, 0));
        pulse.beat(at(3), true);
        assert_eq!(pulse.recent(at(1_000_000)), (1, 0), "a clock that seems to go back does no harm");
    }
}
