//! Alerts: a pool's figures that have been beyond their thresholds for a while. Pure: a status in, what stands out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use super::status::PoolStatus;
use crate::config::model::Alert as Thresholds;

/// Over how long callers and their errors are counted.
const WINDOW: Duration = Duration::from_mins(1);
/// Over how long utilisation is averaged.
const SHORT: Duration = Duration::from_secs(10);
/// Callers in the window below which a share of them says nothing.
const ENOUGH: u64 = 20;

/// What may be wrong with a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Checkouts take long: their p95, in seconds, of the last one to two minutes.
    SlowCheckout,
    /// Most connections are in use: the share of those that there may be.
    Utilisation,
    /// Callers get errors: the share of those of the last minute.
    Errors,
    /// The breaker has been open for long: seconds.
    BreakerOpen,
    /// Validations fail one after another: their number.
    FailedChecks,
}

/// An alert that stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// The pool.
    pub pool: Arc<str>,
    /// What is wrong.
    pub rule: Rule,
    /// The figure now, in the rule's unit.
    pub value: f64,
    /// What it should not exceed.
    pub threshold: f64,
    /// For how long.
    pub since_s: u64,
}

impl Rule {
    /// The name in logs and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowCheckout => "slow-checkout",
            Self::Utilisation => "utilisation",
            Self::Errors => "errors",
            Self::BreakerOpen => "breaker-open",
            Self::FailedChecks => "failed-checks",
        }
    }
}

/// What came of a look.
#[derive(Debug, Default)]
pub struct Look {
    /// All that stand.
    pub standing: Vec<Alert>,
    /// Those of them that did not before.
    pub begun: Vec<Alert>,
    /// Rules whose alerts have ended.
    pub ended: Vec<Rule>,
}

/// What is remembered of a pool from look to look.
#[derive(Default)]
pub struct Alarm {
    samples: VecDeque<Sample>,
    /// Since when the breaker has not been closed.
    barred: Option<Instant>,
    beyond: BTreeMap<Rule, Beyond>,
}

struct Sample {
    at: Instant,
    share: f64,
    callers: u64,
    bad: u64,
}

struct Beyond {
    since: Instant,
    told: bool,
}

impl Alarm {
    /// Looks at a pool. Call it about once a second.
    pub fn look(&mut self, now: Instant, status: &PoolStatus, thresholds: &Thresholds) -> Look {
        self.take(now, status);
        let mut look = Look::default();
        for (rule, value, threshold) in self.figures(now, status, thresholds) {
            if threshold <= 0.0 || value <= threshold {
                if self.beyond.remove(&rule).is_some_and(|beyond| beyond.told) {
                    look.ended.push(rule);
                }
                continue;
            }
            let beyond = self.beyond.entry(rule).or_insert(Beyond { since: now, told: false });
            let since = now.saturating_duration_since(beyond.since);
            // These two have waited long enough by themselves.
            let at_once = matches!(rule, Rule::BreakerOpen | Rule::FailedChecks);
            if !at_once && since < thresholds.after.0 {
                continue;
            }
            let alert = Alert { pool: status.name.clone(), rule, value, threshold, since_s: since.as_secs() };
            if !std::mem::replace(&mut beyond.told, true) {
                look.begun.push(alert.clone());
            }
            look.standing.push(alert);
        }
        look
    }

    fn take(&mut self, now: Instant, status: &PoolStatus) {
        let counters = &status.counters;
        self.samples.push_back(Sample {
            at: now,
            share: if status.limit == 0 { 0.0 } else { f64::from(status.in_use) / f64::from(status.limit) },
            callers: counters.checkouts,
            bad: counters.errors + counters.timeouts + counters.refused,
        });
        while self.samples.front().is_some_and(|sample| now.saturating_duration_since(sample.at) > WINDOW) {
            self.samples.pop_front();
        }
        self.barred = if status.breaker.state == "closed" { None } else { self.barred.or(Some(now)) };
    }

    /// Every rule with its figure now and its threshold.
    fn figures(&self, now: Instant, status: &PoolStatus, thresholds: &Thresholds) -> [(Rule, f64, f64); 5] {
        let p95 = Duration::from_micros(status.latency.wait.p95_us);
        let barred = self.barred.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        [
            (Rule::SlowCheckout, p95.as_secs_f64(), thresholds.checkout_p95.0.as_secs_f64()),
            (Rule::Utilisation, self.utilisation(now), thresholds.utilisation),
            (Rule::Errors, self.errors(), thresholds.errors),
            (Rule::BreakerOpen, barred.as_secs_f64(), thresholds.breaker_open.0.as_secs_f64()),
            (Rule::FailedChecks, status.failed_checks.into(), thresholds.failed_checks.into()),
        ]
    }

    fn utilisation(&self, now: Instant) -> f64 {
        let recent = self.samples.iter().rev();
        let recent = recent.take_while(|sample| now.saturating_duration_since(sample.at) <= SHORT);
        let (sum, count) = recent.fold((0.0, 0_u32), |(sum, count), sample| (sum + sample.share, count + 1));
        sum / f64::from(count.max(1))
    }

    fn errors(&self) -> f64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return 0.0 };
        let callers = last.callers.saturating_sub(first.callers);
        if callers < ENOUGH {
            return 0.0;
        }
        last.bad.saturating_sub(first.bad) as f64 / callers as f64
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;
    use crate::pool::advice::tests::well;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks once a second at what `status` is after so many seconds; returns which rules began and ended, and when.
    fn history(seconds: u32, status: impl Fn(u32) -> PoolStatus) -> Vec<(u32, Rule, bool)> {
        let (mut alarm, begun) = (Alarm::default(), Instant::now());
        let mut history = Vec::new();
        for second in 0..seconds {
            let look = alarm.look(begun + SECOND * second, &status(second), &Thresholds::default());
            history.extend(look.begun.iter().map(|alert| (second, alert.rule, true)));
            history.extend(look.ended.iter().map(|rule| (second, *rule, false)));
            assert!(look.begun.iter().all(|alert| look.standing.contains(alert)));
        }
        history
    }

    #[test]
    fn a_pool_that_is_well_raises_nothing() {
        assert_eq!(history(300, |_| well()), []);
    }

    #[test]
    fn a_slow_checkout_is_told_when_it_has_lasted_and_once() {
        let slow = |second| {
            let mut status = well();
            status.latency.wait.p95_us = if (10..100).contains(&second) { 100_001 } else { 100_000 };
            status
        };
        assert_eq!(history(200, slow), [(40, Rule::SlowCheckout, true), (100, Rule::SlowCheckout, false)]);
        let short = |second: u32| {
            let mut status = well();
            status.latency.wait.p95_us = if (second + 1).is_multiple_of(30) { 0 } else { 900_000 };
            status
        };
        assert_eq!(history(200, short), [], "it never lasts");
    }

    #[test]
    fn utilisation_is_a_mean_and_not_a_moment() {
        let busy =
            |second: u32| PoolStatus { limit: 10, in_use: if second.is_multiple_of(2) { 10 } else { 7 }, ..well() };
        assert_eq!(history(100, busy)[..1], [(30, Rule::Utilisation, true)]);
        let less =
            |second: u32| PoolStatus { limit: 10, in_use: if second.is_multiple_of(2) { 10 } else { 5 }, ..well() };
        assert_eq!(history(100, less), []);
    }

    #[test]
    fn errors_are_a_share_of_those_who_called() {
        let failing = |each: u64| {
            move |second: u32| {
                let mut status = well();
                status.counters.checkouts = 1_000 + 100 * u64::from(second);
                status.counters.timeouts = each * u64::from(second);
                status
            }
        };
        assert_eq!(history(100, failing(1)), [], "one in a hundred is not more than one in a hundred");
        assert_eq!(history(100, failing(2)), [(31, Rule::Errors, true)]);
        let few = |second: u32| {
            let mut status = well();
            status.counters.checkouts = u64::from(second / 10);
            status.counters.timeouts = u64::from(second / 10);
            status
        };
        assert_eq!(history(100, few), [], "six callers a minute say nothing");
    }

    #[test]
    fn a_breaker_and_checks_have_waited_by_themselves() {
        let open = |second: u32| {
            let mut status = well();
            // Each probe makes it half open.
            status.breaker.state = if second.is_multiple_of(30) { "half-open" } else { "open" };
            status
        };
        assert_eq!(history(400, open), [(301, Rule::BreakerOpen, true)]);
        let checks = |second| PoolStatus { failed_checks: second, ..well() };
        assert_eq!(history(10, checks), [(4, Rule::FailedChecks, true)]);
    }

    #[test]
    fn a_threshold_of_nothing_turns_its_rule_off() {
        let off = Thresholds { checkout_p95: crate::config::value::Span::secs(0), ..Thresholds::default() };
        let (mut alarm, now) = (Alarm::default(), Instant::now());
        let mut status = well();
        status.latency.wait.p95_us = 9_000_000;
        for second in 0..100 {
            assert_eq!(alarm.look(now + SECOND * second, &status, &off).standing, []);
        }
    }
}
