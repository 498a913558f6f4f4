//! What clients meet: times and failures.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::backend::BackendError;

/// What the clients of one thread met.
pub(super) struct Tally {
    latency: Histogram<u64>,
    wait: Histogram<u64>,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) rows: u64,
    errors: BTreeMap<String, Failures>,
}

/// A statement that was done.
pub(super) struct Done {
    pub(super) writes: bool,
    pub(super) rows: u64,
    /// From asking for a connection to the end of the answer.
    pub(super) took: Duration,
    /// Of it, until there was a connection.
    pub(super) waited: Duration,
}

/// Failures of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    /// `checkout saturated`, `SQLSTATE 23`, `timeout`.
    pub(super) class: String,
    /// How many.
    pub(super) count: u64,
    /// What the first of them said.
    pub(super) first: String,
}

/// Times in a few numbers, in microseconds; zero where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Times {
    /// Times measured.
    pub(super) samples: u64,
    pub(super) mean_us: f64,
    pub(super) p50_us: u64,
    pub(super) p95_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
}

impl Default for Tally {
    fn default() -> Self {
        const LONGEST_US: u64 = 3_600_000_000;
        let empty = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("one microsecond to an hour is a range");
        let (latency, wait) = (empty.clone(), empty);
        Self { latency, wait, reads: 0, writes: 0, rows: 0, errors: BTreeMap::new() }
    }
}

impl Tally {
    /// Counts a statement that was done.
    pub(super) fn done(&mut self, done: &Done) {
        let kind = if done.writes { &mut self.writes } else { &mut self.reads };
        *kind += 1;
        self.rows += done.rows;
        record(&mut self.latency, done.took);
        record(&mut self.wait, done.waited);
    }

    /// Counts one that failed. The wait of one that got no connection counts with the others.
    pub(super) fn failed(&mut self, error: &BackendError) {
        if let BackendError::Checkout(error) = error {
            record(&mut self.wait, error.waited());
        }
        let class = class_of(error);
        let new = || Failures { class: class.clone(), count: 0, first: error.to_string() };
        self.errors.entry(class.clone()).or_insert_with(new).count += 1;
    }

    /// Takes in what others met.
    pub(super) fn add(&mut self, other: Self) {
        self.latency.add(&other.latency).expect("all have the same range");
        self.wait.add(&other.wait).expect("all have the same range");
        self.reads += other.reads;
        self.writes += other.writes;
        self.rows += other.rows;
        for (class, failures) in other.errors {
            let count = failures.count;
            self.errors.entry(class).or_insert(Failures { count: 0, ..failures }).count += count;
        }
    }

    /// Failures by class, the most frequent first.
    pub(super) fn failures(&self) -> Vec<Failures> {
        let mut failures: Vec<_> = self.errors.values().cloned().collect();
        failures.sort_by_key(|failures| std::cmp::Reverse(failures.count));
        failures
    }

    /// From asking for a connection to the end of the answer, of statements that were done.
    pub(super) fn latency(&self) -> Times {
        Times::of(&self.latency)
    }

    /// From asking for a connection to having one, or giving up.
    pub(super) fn wait(&self) -> Times {
        Times::of(&self.wait)
    }
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            samples: histogram.len(),
            mean_us: histogram.mean().round(),
            p50_us: histogram.value_at_quantile(0.5),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// Few, whatever a database says.
fn class_of(error: &BackendError) -> String {
    match error {
        BackendError::Checkout(error) => format!("checkout {}", error.kind().as_str()),
        BackendError::Database(said) | BackendError::ReadOnly(said) => {
            let class = said.sqlstate.as_deref().and_then(|state| state.get(..2));
            class.map_or_else(|| "database".into(), |class| format!("SQLSTATE {class}"))
        }
        BackendError::NoSuchDatabase | BackendError::NoSuchEndpoint | BackendError::Forbidden => {
            "no such database".into()
        }
        BackendError::NoRole => "no role".into(),
        BackendError::Unavailable(_) => "unavailable".into(),
        BackendError::Timeout => "timeout".into(),
        BackendError::Held => "held too long".into(),
        BackendError::Lost { .. } => "lost".into(),
        BackendError::Unsupported(_) => "unsupported".into(),
        BackendError::TooLarge { .. } => "too large".into(),
        BackendError::NoReplica(_) => "no replica".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::DatabaseError;

    fn said(sqlstate: Option<&str>, message: &str) -> BackendError {
        let sqlstate = sqlstate.map(str::to_owned);
        BackendError::Database(Box::new(DatabaseError {
            sqlstate,
            message: message.into(),
            ..DatabaseError::default()
        }))
    }

    #[test]
    fn nothing_measured_is_zero() {
        let nothing = Tally::default();
        assert_eq!(
            (nothing.latency(), nothing.wait(), nothing.failures()),
            (Times::default(), Times::default(), vec![])
        );
    }

    #[test]
    fn threads_add_up() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        for ms in 1..=100 {
            let (took, waited) = (Duration::from_millis(ms), Duration::ZERO);
            let tally = if ms % 2 == 0 { &mut one } else { &mut other };
            tally.done(&Done { writes: ms % 10 == 0, rows: 2, took, waited });
        }
        one.failed(&said(Some("23505"), "duplicate"));
        other.failed(&said(Some("23503"), "no such parent"));
        other.failed(&said(None, "disk I/O error"));
        other.failed(&BackendError::Timeout);
        other.failed(&BackendError::Timeout);
        other.failed(&BackendError::Timeout);
        one.add(other);
        assert_eq!((one.reads, one.writes, one.rows), (90, 10, 200));
        let latency = one.latency();
        assert_eq!(latency.samples, 100);
        for (value, wanted) in [(latency.p50_us, 50_000), (latency.p95_us, 95_000), (latency.max_us, 100_000)] {
            assert!(value.abs_diff(wanted) <= 100, "{value} is not {wanted}");
        }
        assert_eq!(one.wait().max_us, 1, "the shortest there is");
        let failures: Vec<_> = one.failures().into_iter().map(|of| (of.class, of.count, of.first)).collect();
        assert_eq!(failures[0].0, "timeout");
        assert_eq!(failures[1], ("SQLSTATE 23".into(), 2, "database error 23505: duplicate".into()));
        assert_eq!((failures[2].0.as_str(), failures[2].1), ("database", 1));
    }

    #[test]
    fn the_longest_is_kept_as_the_longest_there_is() {
        let mut tally = Tally::default();
        let took = Duration::MAX;
        tally.done(&Done { writes: false, rows: 0, took, waited: took });
        assert!(tally.latency().max_us >= 3_600_000_000);
    }
}
