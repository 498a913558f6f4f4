//! Times that a pool measures.
//!
//! They go into histograms under the pool's lock, each once. The [`Ledger`](super::ledger::Ledger) takes them off there now and
//! then, by swapping, and adds them up for whoever asks. So reading costs a checkout nothing.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::record::micros;
use crate::observe::figures::DurationsNow;

/// Upper bounds of the buckets in microseconds, 10 µs to 60 s: three a decade, which hold OpenTelemetry's advice for
/// `db.client.connection.*` and both ends of what a pool meets (a hand-off, a checkout's deadline); 22 series a figure.
const BOUNDS_US: [u64; 21] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Times up to an hour, to two digits; their sum is exact.
#[derive(Clone, Default)]
pub(crate) struct Timer {
    times: Option<Histogram<u32>>,
    sum_ns: u64,
}

/// The times of a pool.
#[derive(Clone, Default)]
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

/// Times in a few numbers, in microseconds; all 0 when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Times measured.
    pub samples: u64,
    /// Their average.
    pub mean_us: u64,
    /// Half were shorter.
    pub p50_us: u64,
    /// 95 % were shorter.
    pub p95_us: u64,
    /// 99 % were shorter.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// A pool's times since it began, in buckets that only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histograms {
    /// From asking for a connection to having one, or giving up.
    pub wait: DurationsNow,
    /// From checkout to return.
    pub hold: DurationsNow,
    /// On the backend alone.
    pub rtt: DurationsNow,
    /// Making a connection.
    pub create: DurationsNow,
    /// Validating one.
    pub validate: DurationsNow,
}

/// As [`Histograms`], still to be added to.
#[derive(Default)]
pub(crate) struct Totals {
    wait: Buckets,
    hold: Buckets,
    rtt: Buckets,
    create: Buckets,
    validate: Buckets,
}

#[derive(Default)]
struct Buckets {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_ns: u64,
}

impl Timer {
    pub(crate) fn record(&mut self, time: Duration) {
        self.room().saturating_record(u64::from(micros(time)).max(1));
        self.sum_ns = self.sum_ns.saturating_add(nanos(time));
    }

    fn add(&mut self, other: &Self) {
        if let Some(times) = other.measured() {
            self.room().add(times).expect("all timers have the same range");
            self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        }
    }

    fn clear(&mut self) {
        if let Some(times) = self.times.as_mut().filter(|times| !times.is_empty()) {
            times.reset();
            self.sum_ns = 0;
        }
    }

    pub(crate) fn samples(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    /// 0 when nothing was measured.
    pub(crate) fn at(&self, quantile: f64) -> u32 {
        self.measured().map_or(0, |times| u32::try_from(times.value_at_quantile(quantile)).unwrap_or(u32::MAX))
    }

    /// 0 when nothing was measured, else 1 at least.
    pub(crate) fn mean(&self) -> u32 {
        self.measured().map_or(0, |_| u32::try_from(self.mean_us()).unwrap_or(u32::MAX).max(1))
    }

    /// 0 when nothing was measured.
    pub(crate) fn min(&self) -> u32 {
        self.measured().map_or(0, |times| u32::try_from(times.min()).unwrap_or(u32::MAX))
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        let Some(times) = self.measured() else { return Quantiles::default() };
        Quantiles {
            samples: times.len(),
            mean_us: self.mean_us(),
            p50_us: times.value_at_quantile(0.5),
            p95_us: times.value_at_quantile(0.95),
            p99_us: times.value_at_quantile(0.99),
            max_us: times.max(),
        }
    }

    fn mean_us(&self) -> u64 {
        self.sum_ns.checked_div(self.len()).unwrap_or(0) / 1000
    }

    fn len(&self) -> u64 {
        self.times.as_ref().map_or(0, Histogram::len)
    }

    /// What was measured, if anything was.
    fn measured(&self) -> Option<&Histogram<u32>> {
        self.times.as_ref().filter(|times| !times.is_empty())
    }

    /// 13 KiB, from the first time that is measured on: a gateway may have a pool for each of many databases.
    fn room(&mut self) -> &mut Histogram<u32> {
        const LONGEST_US: u64 = 3_600_000_000;
        let range = || Histogram::new_with_bounds(1, LONGEST_US, 2).expect("one microsecond to an hour is a range");
        self.times.get_or_insert_with(range)
    }
}

impl Samples {
    pub(crate) fn add(&mut self, other: &Self) {
        self.wait.add(&other.wait);
        self.hold.add(&other.hold);
        self.rtt.add(&other.rtt);
        self.create.add(&other.create);
        self.validate.add(&other.validate);
    }

    pub(crate) fn clear(&mut self) {
        for timer in [&mut self.wait, &mut self.hold, &mut self.rtt, &mut self.create, &mut self.validate] {
            timer.clear();
        }
    }
}

impl Totals {
    pub(crate) fn add(&mut self, samples: &Samples) {
        self.wait.add(&samples.wait);
        self.hold.add(&samples.hold);
        self.rtt.add(&samples.rtt);
        self.create.add(&samples.create);
        self.validate.add(&samples.validate);
    }

    pub(crate) fn now(&self) -> Histograms {
        Histograms {
            wait: self.wait.now(),
            hold: self.hold.now(),
            rtt: self.rtt.now(),
            create: self.create.now(),
            validate: self.validate.now(),
        }
    }
}

impl Buckets {
    /// A time is taken for the shortest that its cell of the timer stands for: one that is a bound counts as within it, one that is
    /// less than 1 % beyond may.
    fn add(&mut self, timer: &Timer) {
        let Some(times) = timer.measured() else { return };
        for cell in times.iter_recorded() {
            let least = times.lowest_equivalent(cell.value_iterated_to());
            self.counts[BOUNDS_US.partition_point(|bound| *bound < least)] += cell.count_since_last_iteration();
        }
        self.sum_ns = self.sum_ns.saturating_add(timer.sum_ns);
    }

    fn now(&self) -> DurationsNow {
        let (buckets, count) = (self.counts.to_vec(), self.counts.iter().sum());
        DurationsNow { bounds_us: &BOUNDS_US, buckets, sum: self.sum_ns as f64 / 1e9, count }
    }
}

/// At most five centuries.
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    fn timer(times: impl IntoIterator<Item = Duration>) -> Timer {
        let mut timer = Timer::default();
        times.into_iter().for_each(|time| timer.record(time));
        timer
    }

    #[test]
    fn times_are_kept_to_two_digits() {
        let mut timer = timer([]);
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
    fn an_average_is_exact_and_what_is_cleared_is_gone() {
        let mut timer = timer([0, 1_500, 3_000].map(Duration::from_nanos));
        assert_eq!((timer.quantiles().mean_us, timer.mean()), (1, 1));
        timer.add(&timer.clone());
        timer.record(Duration::from_millis(1));
        assert_eq!(timer.quantiles().mean_us, 144, "1009 µs by seven");
        timer.clear();
        assert_eq!(timer.quantiles(), Quantiles::default());
    }

    #[test]
    fn a_time_falls_into_the_bucket_that_ends_at_it() {
        let mut buckets = Buckets::default();
        for (at, bound) in BOUNDS_US.into_iter().enumerate() {
            let far = bound + bound.div_ceil(100);
            buckets.add(&timer([bound, far].map(Duration::from_micros)));
            assert_eq!((buckets.counts[at], buckets.counts[at + 1]), (if at == 0 { 1 } else { 2 }, 1), "{bound} µs");
        }
        buckets.add(&timer([Duration::ZERO, Duration::from_hours(2)]));
        assert_eq!((buckets.counts[0], buckets.counts[BOUNDS_US.len()]), (2, 2));
    }

    #[test]
    fn what_is_added_up_in_pieces_is_what_was_measured() {
        let mut totals = Totals::default();
        assert_eq!((totals.now().wait.count, totals.now().wait.sum), (0, 0.0), "nothing, and no NaN");
        let mut samples = Samples::default();
        for round in 1..=10_u64 {
            for piece in 0..100 {
                samples.wait.record(Duration::from_nanos(round * 10_007 * piece));
            }
            totals.add(&samples);
            samples.clear();
            assert_eq!(totals.now().wait.count, round * 100);
        }
        let now = totals.now().wait;
        assert_eq!(now.buckets.iter().sum::<u64>(), now.count);
        let exact = (10_007_u64 * 55 * 4_950) as f64 / 1e9;
        assert!((now.sum - exact).abs() < 1e-9, "{} of {exact}", now.sum);
        assert_eq!(totals.now().hold.count, 0);
    }
}
