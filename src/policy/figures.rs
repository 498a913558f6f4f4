//! What the calls of a slot's hooks came to, over all its versions.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

use super::FaultKind;
use crate::observe;

/// Buckets of [`Durations`]: four an octave of nanoseconds, up to 2^36 (68 s).
const BUCKETS: usize = 144;
/// One validation call in so many is timed: reading the clock twice costs a third of a call.
const SAMPLED: u64 = 64;

/// What one hook's calls came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HookFigures {
    /// Calls that the component was asked to answer, trials apart.
    pub calls: u64,
    /// Calls that the fallback (or the last good answer) answered, by cause.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Calls that were timed: all of sizing and eviction, one in 64 of validation.
    pub timed: u64,
    /// Mean time of a call in microseconds, a new instance included.
    pub mean_us: f64,
    /// 99 % were no slower, in microseconds, to within a quarter.
    pub p99_us: f64,
    /// The slowest, in microseconds.
    pub max_us: f64,
}

/// Counts of one hook.
pub(super) struct Counters {
    /// One for each worker, as a shared one would be fought over.
    calls: Box<[Shard]>,
    faults: [AtomicU64; FaultKind::ALL.len()],
    durations: Durations,
}

#[repr(align(128))]
#[derive(Default)]
struct Shard(AtomicU64);

struct Durations {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Counters {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            calls: (0..lanes.max(1)).map(|_| Shard::default()).collect(),
            faults: Default::default(),
            durations: Durations::default(),
        }
    }

    /// Counts a call. True when it should be timed, if not all are.
    #[inline]
    pub(super) fn call(&self) -> bool {
        let shard = &self.calls[observe::worker().min(self.calls.len() - 1)];
        shard.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLED)
    }

    pub(super) fn took(&self, time: Duration) {
        self.durations.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn fault(&self, kind: FaultKind) {
        self.faults[kind.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> HookFigures {
        let faults = FaultKind::ALL.into_iter().map(|kind| (kind, self.faults[kind.index()].load(Ordering::Relaxed)));
        let timed = self.durations.count();
        HookFigures {
            calls: self.calls.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum(),
            faults: faults.filter(|(_, count)| *count > 0).collect(),
            timed,
            mean_us: micros(self.durations.sum_ns.load(Ordering::Relaxed)) / timed.max(1) as f64,
            p99_us: micros(self.durations.quantile(0.99)),
            max_us: micros(self.durations.max_ns.load(Ordering::Relaxed)),
        }
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }
}

impl Durations {
    fn add(&self, nanos: u64) {
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
        self.max_ns.fetch_max(nanos, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The upper end of the bucket that holds the quantile, but no more than the greatest.
    fn quantile(&self, quantile: f64) -> u64 {
        let rank = (self.count() as f64 * quantile).ceil() as u64;
        let mut below = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            below += bucket.load(Ordering::Relaxed);
            if below >= rank && below > 0 {
                return upper_end(index).min(self.max_ns.load(Ordering::Relaxed));
            }
        }
        0
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// The octave, and within it the quarter.
fn bucket(nanos: u64) -> usize {
    if nanos < 4 {
        return nanos as usize;
    }
    let octave = nanos.ilog2();
    let quarter = (nanos >> (octave - 2)) & 3;
    ((octave as usize - 1) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The greatest number in a bucket.
fn upper_end(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let octave = bucket / 4 + 1;
    let quarter = (bucket % 4) as u64;
    ((5 + quarter) << (octave - 2)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_ends_at_or_above_what_is_in_it_and_within_a_quarter(nanos in 0..1_u64 << 36) {
            let end = upper_end(bucket(nanos));
            prop_assert!(end >= nanos && end <= nanos + nanos / 4, "{nanos} is in a bucket up to {end}");
        }
    }

    #[test]
    fn the_figures_add_up() {
        let counters = Counters::new(1);
        let sampled = (0..128).filter(|_| counters.call()).count();
        assert_eq!(sampled, 2);
        for micros in [1; 99] {
            counters.took(Duration::from_micros(micros));
        }
        counters.took(Duration::from_hours(1));
        counters.fault(FaultKind::Trap);
        let figures = counters.read();
        assert_eq!((figures.calls, figures.timed), (128, 100));
        assert_eq!(figures.faults, BTreeMap::from([(FaultKind::Trap, 1)]));
        assert!(figures.p99_us >= 1.0 && figures.p99_us < 1.25, "{}", figures.p99_us);
        assert!((figures.max_us - 3.6e9).abs() < 1.0);
        assert_eq!(Counters::new(0).read(), HookFigures::default());
    }
}
