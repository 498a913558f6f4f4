//! Figures of HTTP, by route and class of status, under OpenTelemetry's names.
//!
//! A route's figures are found once, when a generation is built, and live as long as some generation has the route: a reload
//! goes on counting. Routes come from the configuration, never from a request, so the number of series is bounded.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::pressure::Resource;

/// Upper bounds of the duration buckets in microseconds: OpenTelemetry's advice for HTTP, with two finer ones below.
const BUCKETS_US: [u64; 16] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// All routes' figures.
#[derive(Default)]
pub struct HttpFigures {
    routes: Mutex<BTreeMap<String, Arc<RouteFigures>>>,
}

/// One route's figures.
#[derive(Default)]
pub struct RouteFigures {
    active: AtomicI64,
    /// By class of status, 1xx to 5xx.
    classes: [Durations; 5],
    /// Requests refused for want of a resource: memory, processor time.
    refused: [AtomicU64; 2],
    /// Answers that broke off.
    aborted: AtomicU64,
    sent: AtomicU64,
}

/// A histogram of durations.
#[derive(Default)]
pub struct Durations {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DurationsNow {
    /// Upper bounds of the buckets in microseconds, growing.
    pub bounds_us: &'static [u64],
    /// Count in each bucket, and in one more that is unbounded; not cumulative.
    pub buckets: Vec<u64>,
    /// Sum in seconds.
    pub sum: f64,
    /// Count.
    pub count: u64,
}

impl HttpFigures {
    /// The figures of the route of this name.
    pub fn route(&self, name: &str) -> Arc<RouteFigures> {
        self.routes.lock().entry(name.to_owned()).or_default().clone()
    }

    /// Forgets the routes that no generation has any more. Call it now and then.
    pub fn prune(&self) {
        self.routes.lock().retain(|_, figures| Arc::strong_count(figures) > 1);
    }

    /// All routes that some generation has, by name.
    pub fn routes(&self) -> Vec<(String, Arc<RouteFigures>)> {
        self.routes.lock().iter().map(|(name, figures)| (name.clone(), figures.clone())).collect()
    }
}

impl RouteFigures {
    /// A request begins.
    pub fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// It ended, `complete` or broken off, with this status after so long and so many bytes of body.
    pub fn end(&self, status: u16, took: Duration, bytes: u64, complete: bool) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].record(took);
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        if !complete {
            self.aborted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests under way.
    pub fn active(&self) -> i64 {
        self.active.load(Ordering::Relaxed)
    }

    /// A request was refused for want of a resource.
    pub fn refuse(&self, cause: Resource) {
        self.refused[usize::from(cause == Resource::Cpu)].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests refused, by what was short.
    pub fn refused(&self) -> [(Resource, u64); 2] {
        let [memory, cpu] = self.refused.each_ref().map(|count| count.load(Ordering::Relaxed));
        [(Resource::Memory, memory), (Resource::Cpu, cpu)]
    }

    /// Answers that broke off.
    pub fn aborted(&self) -> u64 {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Bytes of bodies sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Durations by class of status: `1xx` to `5xx`.
    pub fn durations(&self) -> [(&'static str, DurationsNow); 5] {
        let names = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        std::array::from_fn(|class| (names[class], self.classes[class].now()))
    }
}

impl Durations {
    /// Adds one.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What there is.
    pub fn now(&self) -> DurationsNow {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count = buckets.iter().sum();
        DurationsNow { bounds_us: &BUCKETS_US, buckets, sum: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_ends_at_it() {
        let durations = Durations::default();
        durations.record(Duration::from_millis(1));
        durations.record(Duration::from_micros(1_001));
        durations.record(Duration::from_mins(1));
        let now = durations.now();
        assert_eq!((now.buckets[0], now.buckets[1], now.buckets[BUCKETS_US.len()], now.count), (1, 1, 1, 3));
    }

    #[test]
    fn a_route_is_forgotten_with_the_last_generation_that_has_it() {
        let figures = HttpFigures::default();
        let (old, new) = (figures.route("a"), figures.route("a"));
        let _other = figures.route("b");
        let names = || figures.routes().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        drop(old);
        figures.prune();
        assert_eq!(names(), ["a", "b"]);
        drop(new);
        figures.prune();
        assert_eq!(names(), ["b"]);
    }

    #[test]
    fn a_route_goes_on_counting_over_a_reload() {
        let figures = HttpFigures::default();
        figures.route("a").begin();
        figures.route("a").end(503, Duration::from_millis(2), 10, false);
        let again = figures.route("a");
        assert_eq!((again.active(), again.aborted(), again.sent(), again.durations()[4].1.count), (0, 1, 10, 1));
    }
}
