//! What a run is remembered by: what was run, and what came of it.

use std::{collections::BTreeMap, fmt::Write as _, time::SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    load::Outcome,
    plan::Plan,
    sample::Sample,
    tally::{Failures, Times},
};
use crate::{config::model::PolicyRef, gateway::SinglePool, pool::DecisionCount};

/// What a report says of itself, so that no other JSON is taken for one.
pub(super) const FORMAT: &str = "sluicegate bench pool 1";

/// A report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) format: String,
    /// The version that ran it.
    pub(super) sluicegate: String,
    /// When it was saved.
    pub(super) date: String,
    pub(super) pool: String,
    pub(super) backend: String,
    /// The files of the configuration.
    pub(super) files: Vec<String>,
    /// Threads that a gateway would have, at most so many have clients.
    pub(super) workers: usize,
    pub(super) plan: Option<Plan>,
    /// The pool's keys as they were in force; secrets are left out.
    pub(super) settings: Value,
    pub(super) policies: Vec<Policy>,
    /// Whether Ctrl-C ended it.
    pub(super) interrupted: bool,
    pub(super) elapsed_ms: u64,
    /// Statements done a second, until clients were told to end.
    pub(super) per_second: f64,
    /// Statements done, those that came to their end later too.
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) rows: u64,
    pub(super) failed: u64,
    /// Statements that were cut at the end.
    pub(super) unfinished: u64,
    pub(super) errors: Vec<Failures>,
    /// From asking for a connection to the end of the answer, of statements that were done.
    pub(super) latency: Times,
    /// From asking for a connection to having one, or giving up.
    pub(super) wait: Times,
    /// Since the pool began.
    pub(super) creates: u64,
    pub(super) create_failures: BTreeMap<String, u64>,
    pub(super) closes: BTreeMap<String, u64>,
    pub(super) decisions: Vec<Decisions>,
    /// Answers of policies that were not followed to the letter.
    pub(super) clamped: BTreeMap<String, u64>,
    pub(super) samples: Vec<Sample>,
}

/// Who decides at a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Policy {
    /// `sizing`, `eviction` or `validation`.
    pub(super) hook: String,
    /// The plugin's name in the configuration; none: the native policy decides.
    pub(super) plugin: Option<String>,
    /// The name and the version that the component gives itself.
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    /// SHA-256 of the component.
    pub(super) sha256: Option<String>,
    /// The native policy that decides, or stands in.
    pub(super) native: String,
}

/// How often somebody decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decisions {
    pub(super) hook: String,
    pub(super) by: String,
    pub(super) count: u64,
}

impl Report {
    pub(super) fn of(pool: &SinglePool, plan: Plan, outcome: Outcome) -> Self {
        let Outcome { tally, unfinished, samples, elapsed, per_second, interrupted, pool: status } = outcome;
        let errors = tally.failures();
        Self {
            format: FORMAT.into(),
            sluicegate: env!("CARGO_PKG_VERSION").into(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            pool: status.name.to_string(),
            backend: status.backend.into(),
            files: pool.files.iter().map(|file| file.display().to_string()).collect(),
            workers: pool.workers,
            plan: Some(plan),
            settings: serde_json::to_value(&pool.settings).unwrap_or_default(),
            policies: policies(pool),
            interrupted,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            per_second,
            reads: tally.reads,
            writes: tally.writes,
            rows: tally.rows,
            failed: errors.iter().map(|failures| failures.count).sum(),
            unfinished,
            errors,
            latency: tally.latency(),
            wait: tally.wait(),
            creates: status.counters.creates,
            create_failures: counted(status.counters.create_failures.iter()),
            closes: counted(status.counters.closes.iter()),
            decisions: decisions(&status.decisions),
            clamped: counted(status.counters.clamped.iter()),
            samples: samples.taken,
        }
    }

    /// `2..20`.
    pub(super) fn size(&self) -> String {
        let bound = |name: &str| self.settings["size"][name].as_u64();
        let max = bound("max").map_or_else(|| "default".into(), |max| max.to_string());
        format!("{}..{max}", bound("min").unwrap_or_default())
    }

    /// The policy at a hook in a few words.
    pub(super) fn policy(&self, hook: &str) -> String {
        self.policies.iter().find(|policy| policy.hook == hook).map(Policy::words).unwrap_or_default()
    }

    /// How many of all that ended failed, 0 to 1.
    pub(super) fn failed_share(&self) -> f64 {
        let all = self.reads as f64 + self.writes as f64 + self.failed as f64;
        if all > 0.0 { self.failed as f64 / all } else { 0.0 }
    }

    /// A figure's mean over the samples and its highest; none without samples.
    pub(super) fn over_time(&self, figure: impl Fn(&Sample) -> f64) -> Option<(f64, f64)> {
        let count = self.samples.len();
        let figures = || self.samples.iter().map(&figure);
        (count > 0).then(|| (figures().sum::<f64>() / count as f64, figures().fold(0.0, f64::max)))
    }

    /// For whoever ran it.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("pool {} ({}), size {}\n", self.pool, self.backend, self.size());
        for policy in &self.policies {
            let _ = writeln!(text, "  {:12}{}", policy.hook, policy.words());
        }
        let clients = self.plan.as_ref().map_or(0, |plan| plan.clients);
        let (took, ended) = (self.elapsed_ms as f64 / 1e3, if self.interrupted { ", interrupted" } else { "" });
        let (done, rate) = (self.reads + self.writes, self.per_second);
        let _ = writeln!(text, "{clients} clients, {took:.1} s{ended}: {done} statements, {rate:.1} a second");
        let (writes, failed, cut) = (self.writes, self.failed, self.unfinished);
        let _ = writeln!(text, "  {writes} of them writes; {failed} failed; {cut} cut at the end");
        let _ = writeln!(text, "{:14}{:>10}{:>10}{:>10}{:>10}", "", "p50", "p95", "p99", "max");
        for (name, times) in [("  latency", self.latency), ("  wait", self.wait)] {
            let [p50, p95, p99, max] =
                [times.p50_us, times.p95_us, times.p99_us, times.max_us].map(|us| time(us as f64));
            let _ = writeln!(text, "{name:14}{p50:>10}{p95:>10}{p99:>10}{max:>10}");
        }
        if let Some((mean, most)) = self.over_time(|sample| f64::from(sample.in_use)) {
            let _ =
                writeln!(text, "connections: {mean:.1} in use, {most} at most; {} made{}", self.creates, self.gone());
        }
        for Failures { class, count, first } in &self.errors {
            let _ = writeln!(text, "failed: {class}: {count}, first: {first}");
        }
        text.trim_end().to_owned()
    }

    fn gone(&self) -> String {
        let closes = self.closes.iter().map(|(cause, count)| format!(", {count} closed ({cause})"));
        let failures = self.create_failures.iter().map(|(class, count)| format!(", {count} not made ({class})"));
        closes.chain(failures).collect()
    }
}

impl Policy {
    /// `utilisation 1.2.0 (3fa8…), else fixed`.
    pub(super) fn words(&self) -> String {
        let Some(plugin) = &self.plugin else { return self.native.clone() };
        let version = self.version.as_deref().unwrap_or("not loaded");
        let hash: String = self.sha256.iter().flat_map(|sha256| sha256.chars().take(8)).collect();
        format!("{plugin} {version} {hash}, else {}", self.native).replace(" ,", ",")
    }
}

fn policies(pool: &SinglePool) -> Vec<Policy> {
    let plugins = pool.plugins();
    let settings = &pool.settings;
    let hooks = [("sizing", &settings.sizing), ("eviction", &settings.eviction), ("validation", &settings.validation)];
    hooks
        .into_iter()
        .map(|(hook, reference): (_, &PolicyRef)| {
            let serving = plugins.iter().find(|plugin| Some(plugin.plugin.as_str()) == reference.plugin());
            Policy {
                hook: hook.into(),
                plugin: reference.plugin().map(str::to_owned),
                name: serving.and_then(|plugin| plugin.name.clone()),
                version: serving.and_then(|plugin| plugin.version.clone()),
                sha256: serving.and_then(|plugin| plugin.sha256).map(|digest| digest.to_string()),
                native: reference.native().into(),
            }
        })
        .collect()
}

/// By hook and by who decided, whichever version it was.
fn decisions(of: &[DecisionCount]) -> Vec<Decisions> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for decided in of {
        *counts.entry((decided.hook, decided.by)).or_default() += decided.count;
    }
    counts.into_iter().map(|((hook, by), count)| Decisions { hook: hook.into(), by: by.into(), count }).collect()
}

/// Those that happened.
fn counted(counts: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    counts.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Microseconds, to three digits, in the unit that suits them.
pub(super) fn time(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1e3 => return format!("{us:.0} µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = usize::from(value < 100.0) + usize::from(value < 10.0);
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report of a run that did nothing.
    pub(in super::super) fn empty() -> Report {
        Report { format: FORMAT.into(), pool: "main".into(), ..Report::default() }
    }

    #[test]
    fn times_are_read_at_a_glance() {
        for (us, text) in [
            (0.0, "0 µs"),
            (999.0, "999 µs"),
            (1_000.0, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (123_456.0, "123 ms"),
            (1_500_000.0, "1.50 s"),
            (3_600e6, "3600 s"),
        ] {
            assert_eq!(time(us), text);
        }
    }

    #[test]
    fn a_run_that_did_nothing_has_figures_all_the_same() {
        let report = empty();
        assert_eq!(report.failed_share().to_bits(), 0.0_f64.to_bits());
        assert_eq!(report.over_time(|sample| f64::from(sample.in_use)), None);
        assert_eq!(report.size(), "0..default");
        assert!(report.summary().contains("0 statements, 0.0 a second"), "{}", report.summary());
    }

    #[test]
    fn figures_over_time_are_a_mean_and_a_peak() {
        let samples = [1, 3, 8].map(|in_use| Sample { in_use, ..Sample::default() }).to_vec();
        let report = Report { samples, reads: 9, failed: 3, ..empty() };
        assert_eq!(report.over_time(|sample| f64::from(sample.in_use)), Some((4.0, 8.0)));
        assert!((report.failed_share() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let policy = Policy { hook: "sizing".into(), native: "fixed".into(), ..Policy::default() };
        let errors = vec![Failures { class: "timeout".into(), count: 1, first: "too \"late\"".into() }];
        let samples = vec![Sample { per_second: 0.1, ..Sample::default() }];
        let report = Report { policies: vec![policy], errors, samples, per_second: 12.3, ..empty() };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn a_policy_is_named_with_its_version_and_hash() {
        let native = Policy { native: "fixed".into(), ..Policy::default() };
        assert_eq!(native.words(), "fixed");
        let absent = Policy { plugin: Some("mine".into()), ..native.clone() };
        assert_eq!(absent.words(), "mine not loaded, else fixed");
        let loaded = Policy { version: Some("1.2.0".into()), sha256: Some("3fa85f64c0ffee".into()), ..absent };
        assert_eq!(loaded.words(), "mine 1.2.0 3fa85f64, else fixed");
    }
}
