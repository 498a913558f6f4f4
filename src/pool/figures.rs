//! What a pool counts. Counters only grow; a [`Meter`] remembers where they stood when its beholder last looked.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    backend::FailureClass,
    samples::Samples,
    tally::{Clamps, Closes},
};

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
    /// It grants no more of them to the role, or in the database.
    pub account_full: u64,
    /// Credentials refused.
    pub authentication: u64,
    /// There is no such database.
    pub missing: u64,
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

impl CreateFailures {
    pub(crate) fn count(&mut self, class: FailureClass) {
        let counter = match class {
            FailureClass::Unreachable => &mut self.unreachable,
            FailureClass::Timeout => &mut self.timeout,
            FailureClass::ServerFull => &mut self.server_full,
            FailureClass::AccountFull => &mut self.account_full,
            FailureClass::Authentication => &mut self.authentication,
            FailureClass::Missing => &mut self.missing,
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
            (FailureClass::AccountFull, self.account_full),
            (FailureClass::Authentication, self.authentication),
            (FailureClass::Missing, self.missing),
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

/// The most there were at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peaks {
    /// Connections in use.
    pub(crate) in_use: u32,
    /// Callers in the queue.
    pub(crate) waiters: u32,
}

impl Peaks {
    pub(crate) fn max(self, other: Self) -> Self {
        Self { in_use: self.in_use.max(other.in_use), waiters: self.waiters.max(other.waiters) }
    }
}

/// What happened between two looks of the same beholder.
pub(crate) struct Meter {
    pub(crate) at: Instant,
    pub(crate) counters: Counters,
    pub(crate) samples: Samples,
    pub(crate) area: f64,
    pub(crate) peaks: Peaks,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        let (counters, samples) = (Counters::default(), Samples::default());
        Self { at: now, counters, samples, area: 0.0, peaks: Peaks::default() }
    }

    /// Takes in what was measured since the last look of anybody.
    pub(crate) fn take_in(&mut self, samples: &Samples, peaks: Peaks) {
        self.samples.add(samples);
        self.peaks = self.peaks.max(peaks);
    }

    /// Begins the next interval.
    pub(crate) fn restart(&mut self, now: Instant, counters: &Counters, area: f64) {
        self.at = now;
        self.counters = *counters;
        self.area = area;
        self.samples.clear();
        self.peaks = Peaks::default();
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

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
