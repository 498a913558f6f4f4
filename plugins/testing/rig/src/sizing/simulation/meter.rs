//! What the pool reports to the policy, and to the test.

use policy_sizing::Signals;

/// How a stretch of time went.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// The target at the end of each second.
    pub targets: Vec<u32>,
    /// How often the target changed its direction.
    pub turns: u32,
    /// Of a hundred who were served, all but one waited no longer.
    pub wait_p99_ms: u32,
    /// On the database alone.
    pub rtt_mean_ms: f64,
    /// Statements served.
    pub served_per_s: f64,
    /// Connections in use.
    pub in_use_mean: f64,
    /// Callers who gave up.
    pub timeouts: u32,
}

impl Stretch {
    /// The lowest target.
    pub fn least(&self) -> u32 {
        self.targets.iter().copied().min().unwrap_or(0)
    }

    /// The highest target.
    pub fn most(&self) -> u32 {
        self.targets.iter().copied().max().unwrap_or(0)
    }

    /// The mean target.
    pub fn mean(&self) -> f64 {
        self.targets.iter().map(|target| f64::from(*target)).sum::<f64>() / self.targets.len().max(1) as f64
    }

    /// Seconds until the target first was at least `enough`.
    pub fn seconds_to(&self, enough: u32) -> Option<usize> {
        self.targets.iter().position(|target| *target >= enough).map(|at| at + 1)
    }
}

/// A sum of times, and how many.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    ms: u64,
    count: u32,
}

impl Sum {
    fn add(&mut self, ms: u64) {
        self.ms += ms;
        self.count += 1;
    }

    fn mean_ms(self) -> f64 {
        self.ms as f64 / f64::from(self.count.max(1))
    }
}

/// Counts since the last question, and since the stretch began.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) flows: Flows,
    use_area: u64,
    peak: u32,
    round_trips: Sum,
    holds: Sum,
    grew: Option<bool>,
    stretch: Totals,
}

/// Flows since the last question.
#[derive(Debug, Default)]
pub(super) struct Flows {
    pub(super) checkouts: u32,
    pub(super) timeouts: u32,
    pub(super) create_failures: u32,
    pub(super) server_full: u32,
}

#[derive(Debug, Default)]
struct Totals {
    targets: Vec<u32>,
    turns: u32,
    waits: Vec<u32>,
    round_trips: Sum,
    use_area: u64,
    timeouts: u32,
}

impl Meter {
    pub(super) fn begin(&mut self) {
        self.stretch = Totals::default();
    }

    pub(super) fn note_target(&mut self, target: u32) {
        self.stretch.targets.push(target);
    }

    pub(super) fn note_turn(&mut self, from: u32, to: u32) {
        if from != to {
            let grows = to > from;
            self.stretch.turns += u32::from(self.grew.is_some_and(|grew| grew != grows));
            self.grew = Some(grows);
        }
    }

    /// Once each millisecond.
    pub(super) fn note_use(&mut self, in_use: u32) {
        self.use_area += u64::from(in_use);
        self.stretch.use_area += u64::from(in_use);
        self.peak = self.peak.max(in_use);
    }

    pub(super) fn note_wait(&mut self, ms: u64) {
        self.stretch.waits.push(ms as u32);
    }

    pub(super) fn note_timeout(&mut self) {
        self.stretch.timeouts += 1;
    }

    pub(super) fn note_round_trip(&mut self, ms: u64) {
        self.round_trips.add(ms);
        self.stretch.round_trips.add(ms);
    }

    pub(super) fn note_hold(&mut self, ms: u64) {
        self.holds.add(ms);
    }

    /// What it knows of the last `interval` milliseconds.
    pub(super) fn signals(&self, interval: u64) -> Signals {
        Signals {
            in_use_mean: self.use_area as f64 / interval.max(1) as f64,
            in_use_peak: self.peak,
            checkouts: self.flows.checkouts,
            timeouts: self.flows.timeouts,
            create_failures: self.flows.create_failures,
            server_full: self.flows.server_full,
            samples: self.holds.count,
            hold_mean_us: (self.holds.mean_ms() * 1000.0) as u32,
            rtt_samples: self.round_trips.count,
            rtt_mean_us: (self.round_trips.mean_ms() * 1000.0) as u32,
            ..Signals::EMPTY
        }
    }

    /// A question was asked.
    pub(super) fn restart(&mut self) {
        self.flows = Flows::default();
        (self.use_area, self.peak) = (0, 0);
        (self.round_trips, self.holds) = (Sum::default(), Sum::default());
    }

    pub(super) fn stretch(&mut self, seconds: u64) -> Stretch {
        let totals = std::mem::take(&mut self.stretch);
        let mut waits = totals.waits;
        waits.sort_unstable();
        Stretch {
            targets: totals.targets,
            turns: totals.turns,
            wait_p99_ms: waits.get(waits.len() * 99 / 100).copied().unwrap_or(0),
            rtt_mean_ms: totals.round_trips.mean_ms(),
            served_per_s: f64::from(totals.round_trips.count) / seconds.max(1) as f64,
            in_use_mean: totals.use_area as f64 / (seconds * 1000).max(1) as f64,
            timeouts: totals.timeouts,
        }
    }
}
