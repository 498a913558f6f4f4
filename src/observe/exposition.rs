//! Figures as text, for a scrape: OpenMetrics, which Prometheus reads.
//!
//! Whoever has figures adds samples under a name; samples of one name make a family. Names are OpenTelemetry's with dots as
//! underscores and base units as suffix; counters get `_total`.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::figures::DurationsNow;

/// The media type of what [`Exposition::render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// A collection of samples.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    samples: Vec<(Labels, Sample)>,
}

#[derive(Debug)]
enum Sample {
    Counter(u64),
    Gauge(f64),
    Histogram(DurationsNow),
}

impl Exposition {
    /// Adds a count of things that happened.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.add(name, help, labels, Sample::Counter(value));
    }

    /// Adds a level.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.add(name, help, labels, Sample::Gauge(value));
    }

    /// Adds durations, in seconds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: DurationsNow,
    ) {
        self.add(name, help, labels, Sample::Histogram(value));
    }

    fn add(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], sample: Sample) {
        let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let family = self.families.entry(name).or_insert_with(|| Family { help, samples: Vec::new() });
        family.samples.push((labels, sample));
    }

    /// The text.
    pub fn render(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("writing to a string cannot fail");
        text
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, family) in &self.families {
            let Some((_, first)) = family.samples.first() else { continue };
            let mut metric = encoder.encode_descriptor(name, family.help, None, first.kind())?;
            for (labels, sample) in &family.samples {
                sample.encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl Sample {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }

    fn encode(&self, mut to: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Counter(value) => to.encode_counter::<NoLabelSet, u64, u64>(value, None),
            Self::Gauge(value) => to.encode_gauge(value),
            Self::Histogram(now) => {
                let bounds = now.bounds_us.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(now.buckets.iter().copied()).collect();
                to.encode_histogram::<NoLabelSet>(now.sum, now.count, &buckets, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::figures::Durations;

    #[test]
    fn families_are_rendered_once_with_all_their_samples() {
        let durations = Durations::default();
        durations.record(Duration::from_millis(3));
        let mut out = Exposition::default();
        out.counter("sluicegate_reloads", "Reloads", &[("outcome", "ok")], 2);
        out.counter("sluicegate_reloads", "Reloads", &[("outcome", "a \"quoted\" one")], 1);
        out.gauge("db_client_connection_count", "Connections", &[("state", "idle")], 3.0);
        out.histogram("http_server_request_duration_seconds", "Durations", &[], durations.now());
        let text = out.render();
        for line in [
            "# TYPE sluicegate_reloads counter",
            "sluicegate_reloads_total{outcome=\"ok\"} 2",
            "sluicegate_reloads_total{outcome=\"a \\\"quoted\\\" one\"} 1",
            "db_client_connection_count{state=\"idle\"} 3.0",
            "http_server_request_duration_seconds_bucket{le=\"0.0025\"} 0",
            "http_server_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "http_server_request_duration_seconds_bucket{le=\"+Inf\"} 1",
            "http_server_request_duration_seconds_count",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE sluicegate_reloads").count(), 1);
    }
}
