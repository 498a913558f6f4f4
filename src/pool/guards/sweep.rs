//! Which idle connections leave in one sweep.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    policy::EvictionOutput,
    pool::{
        record::Record,
        tally::{Cause, Clamp},
    },
};

/// Replacements made ahead of time in one sweep.
const REPLACEMENTS: usize = 3;

/// An idle connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) record: Record,
    /// What the policy said of it; none, if it was not asked.
    pub(crate) verdict: Option<u32>,
}

/// What a sweep is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepSituation {
    pub(crate) now: Instant,
    /// Connections idle, in use and being made.
    pub(crate) size: u32,
    pub(crate) min: u32,
    pub(crate) waiters: u32,
    /// Zero: no limit.
    pub(crate) lifetime: Duration,
    /// Zero: no limit.
    pub(crate) idle_timeout: Duration,
    /// How long a connection may be silent before it is probed; zero: for ever.
    pub(crate) keepalive: Duration,
}

/// What a sweep does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) close: Vec<(u64, Cause)>,
    pub(crate) probe: Vec<u64>,
    /// To be closed when others have been made for them.
    pub(crate) replace: Vec<u64>,
    /// Verdicts that were not followed.
    pub(crate) clamps: Vec<Clamp>,
}

struct Sweep<'a> {
    at: &'a SweepSituation,
    plan: Plan,
    /// Closes that are still allowed.
    closes: usize,
    /// Connections when all is done.
    left: u32,
}

/// Plans a sweep over all idle connections, the most recently used first. The operator's own limits come before what the
/// policy says, and those unused longest before others.
pub(crate) fn plan_sweep(idle: &[Candidate], at: &SweepSituation) -> Plan {
    let tenth = (at.size / 10).max(1) as usize;
    let mut sweep = Sweep { at, plan: Plan::default(), closes: tenth, left: at.size };
    let mut rest = Vec::with_capacity(idle.len());
    for candidate in idle.iter().rev() {
        if !sweep.ends(&candidate.record) {
            rest.push(candidate);
        }
    }
    for candidate in rest {
        sweep.follow(candidate, tenth);
    }
    sweep.plan
}

impl Sweep<'_> {
    /// The operator's limits. True when the connection's fate is settled.
    fn ends(&mut self, record: &Record) -> bool {
        let age = self.at.now.saturating_duration_since(record.created);
        let unused = self.at.now.saturating_duration_since(record.returned);
        let lifetime = record.shortened(self.at.lifetime);
        let timeout = record.shortened(self.at.idle_timeout);
        let cause = if !lifetime.is_zero() && age >= lifetime {
            Cause::Lifetime
        } else if !timeout.is_zero() && unused >= timeout && self.left > self.at.min {
            Cause::Idle
        } else {
            return self.replaces_early(record, age, lifetime);
        };
        // What does not leave in this sweep leaves in the next; nobody is given one past its lifetime.
        self.close(record.id, cause);
        true
    }

    /// A connection that the minimum needs is replaced before its lifetime ends, so that no caller pays for the connect.
    fn replaces_early(&mut self, record: &Record, age: Duration, lifetime: Duration) -> bool {
        let near = !lifetime.is_zero() && age >= lifetime.mul_f64(0.95);
        let needed = self.left <= self.at.min;
        let go = near && needed && self.at.waiters == 0 && self.plan.replace.len() < REPLACEMENTS;
        if go {
            self.plan.replace.push(record.id);
        }
        go
    }

    /// The policy's verdict.
    fn follow(&mut self, candidate: &Candidate, most_probes: usize) {
        let id = candidate.record.id;
        match candidate.verdict {
            Some(EvictionOutput::CLOSE) => {
                let may = self.at.waiters == 0 && self.left > self.at.min && self.close(id, Cause::Policy);
                self.clamp_unless(may);
            }
            Some(EvictionOutput::PROBE) => {
                let may = self.plan.probe.len() < most_probes;
                self.clamp_unless(may);
                if may {
                    self.plan.probe.push(id);
                }
            }
            Some(EvictionOutput::REPLACE) => {
                let may = self.at.waiters == 0 && self.plan.replace.len() < REPLACEMENTS;
                self.clamp_unless(may);
                if may {
                    self.plan.replace.push(id);
                }
            }
            _ => self.keep_alive(&candidate.record, most_probes),
        }
    }

    /// What the policy would leave alone is probed all the same when it has been silent for long.
    fn keep_alive(&mut self, record: &Record, most_probes: usize) {
        let due = record.shortened(self.at.keepalive);
        let silent = !due.is_zero() && record.silent(self.at.now) >= due;
        if silent && self.at.waiters == 0 && self.plan.probe.len() < most_probes {
            self.plan.probe.push(record.id);
        }
    }

    fn close(&mut self, id: u64, cause: Cause) -> bool {
        let may = self.closes > 0;
        if may {
            self.closes -= 1;
            self.left = self.left.saturating_sub(1);
            self.plan.close.push((id, cause));
        }
        may
    }

    fn clamp_unless(&mut self, followed: bool) {
        if !followed {
            self.plan.clamps.push(Clamp::Closing);
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::record::record;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(now: Instant, size: u32, min: u32) -> SweepSituation {
        SweepSituation {
            now,
            size,
            min,
            waiters: 0,
            lifetime: 3600 * SECOND,
            idle_timeout: 600 * SECOND,
            keepalive: Duration::ZERO,
        }
    }

    /// Idle connections made and returned so many seconds ago, the most recently used first, with a verdict each.
    fn idle(now: Instant, these: &[(u64, u64, u32)]) -> Vec<Candidate> {
        let candidate = |(id, (age, unused, verdict)): (usize, &(u64, u64, u32))| {
            let record = Record {
                id: id as u64,
                created: now - SECOND * *age as u32,
                returned: now - SECOND * *unused as u32,
                ..record(now)
            };
            Candidate { record, verdict: Some(*verdict) }
        };
        these.iter().enumerate().map(candidate).collect()
    }

    fn plan(size: u32, min: u32, these: &[(u64, u64, u32)]) -> Plan {
        let now = Instant::now() + 100_000 * SECOND;
        plan_sweep(&idle(now, these), &at(now, size, min))
    }

    #[test]
    fn those_past_their_lifetime_go_first_even_below_the_minimum() {
        let plan = plan(2, 2, &[(4000, 1, 1), (10, 10, 1)]);
        assert_eq!(plan.close, [(0, Cause::Lifetime)]);
        assert_eq!(plan.clamps, [Clamp::Closing], "the policy's close is below the minimum");
    }

    #[test]
    fn those_unused_too_long_go_down_to_the_minimum_whatever_the_policy_says() {
        assert_eq!(plan(20, 19, &[(700, 650, 0), (700, 660, 0)]).close, [(1, Cause::Idle)]);
        assert_eq!(plan(20, 18, &[(700, 650, 0), (700, 660, 0)]).close, [(1, Cause::Idle), (0, Cause::Idle)]);
        assert_eq!(plan(20, 20, &[(700, 650, 0)]).close, []);
    }

    #[test]
    fn close_all_closes_a_tenth_those_unused_longest_first() {
        let all = vec![(10, 10, EvictionOutput::CLOSE); 30];
        let plan = plan(30, 0, &all);
        assert_eq!(plan.close, [(29, Cause::Policy), (28, Cause::Policy), (27, Cause::Policy)]);
        assert_eq!(plan.clamps.len(), 27);
    }

    #[test]
    fn a_process_that_stood_still_does_not_empty_its_pool_at_one_blow() {
        let all = vec![(2000, 1900, 0); 10];
        assert_eq!(plan(10, 0, &all).close.len(), 1);
    }

    #[test]
    fn nothing_is_closed_at_the_policys_word_while_anybody_waits() {
        let now = Instant::now() + 100_000 * SECOND;
        let at = SweepSituation { waiters: 1, ..at(now, 10, 0) };
        let plan = plan_sweep(&idle(now, &[(10, 10, EvictionOutput::CLOSE), (10, 10, EvictionOutput::REPLACE)]), &at);
        assert!(plan.close.is_empty() && plan.replace.is_empty());
    }

    #[test]
    fn what_the_minimum_needs_is_replaced_before_its_end() {
        assert_eq!(plan(2, 2, &[(3500, 1, 0)]).replace, [0]);
        assert_eq!(plan(3, 2, &[(3500, 1, 0)]).replace, [0_u64; 0], "it may go at its end");
        assert_eq!(plan(9, 9, &[(3500, 1, 0); 9]).replace.len(), REPLACEMENTS);
    }

    #[test]
    fn probes_and_unknown_verdicts() {
        let plan = plan(10, 0, &[(10, 10, EvictionOutput::PROBE), (10, 10, EvictionOutput::PROBE), (10, 10, 77)]);
        assert_eq!((plan.probe, plan.close), (vec![1], vec![]));
    }

    #[test]
    fn the_silent_are_probed_whatever_the_policy_says_a_tenth_at_a_time() {
        let now = Instant::now() + 100_000 * SECOND;
        let silent = |these: &[(u64, u64, u32)]| {
            let mut idle = idle(now, these);
            for candidate in &mut idle {
                candidate.record.validated = candidate.record.created;
            }
            idle
        };
        let kept_alive = |waiters, these: &[(u64, u64, u32)]| {
            let at = SweepSituation { keepalive: 60 * SECOND, waiters, ..at(now, 20, 0) };
            plan_sweep(&silent(these), &at).probe
        };
        assert_eq!(kept_alive(0, &[(300, 59, 0), (300, 60, 0), (300, 61, 77)]), [2, 1]);
        assert_eq!(kept_alive(0, &[(300, 70, 0); 9]).len(), 2, "a tenth");
        assert_eq!(kept_alive(1, &[(300, 70, 0); 9]), [0_u64; 0], "somebody waits");
        assert_eq!(kept_alive(0, &[(300, 70, EvictionOutput::CLOSE)]), [0_u64; 0], "it is closed");
        let mut early = silent(&[(300, 55, 0)]);
        early[0].record.jitter_permille = 1000;
        let at = SweepSituation { keepalive: 60 * SECOND, ..at(now, 20, 0) };
        assert_eq!(plan_sweep(&early, &at).probe, [0], "54 s are its due");
        early[0].record.validated = now - 10 * SECOND;
        assert_eq!(plan_sweep(&early, &at).probe, [0_u64; 0], "a probe was heard of");
        let never = SweepSituation { keepalive: Duration::ZERO, ..at };
        assert_eq!(plan_sweep(&silent(&[(300, 300, 0)]), &never).probe, [0_u64; 0]);
    }

    proptest! {
        #[test]
        fn no_answer_empties_a_pool(
            these in prop::collection::vec((0..8_000_u64, 0..2_000_u64, any::<u32>().prop_map(|n| n % 6)), 0..60),
            (busy, min) in (0..20_u32, 0..40_u32),
        ) {
            let now = Instant::now() + 100_000 * SECOND;
            let size = these.len() as u32 + busy;
            let plan = plan_sweep(&idle(now, &these), &at(now, size, min));
            prop_assert!(plan.close.len() as u32 <= (size / 10).max(1));
            let soft = plan.close.iter().filter(|(_, cause)| *cause != Cause::Lifetime).count() as u32;
            prop_assert!(soft == 0 || size - plan.close.len() as u32 >= min.saturating_sub(plan.close.len() as u32 - soft));
            let mut ids: Vec<u64> =
                plan.close.iter().map(|(id, _)| *id).chain(plan.probe.clone()).chain(plan.replace.clone()).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), plan.close.len() + plan.probe.len() + plan.replace.len(), "one fate each");
        }
    }
}
