//! What holds whatever a policy answers. Pure: a proposal and the situation in, a ruling out, and how it was clamped.
//!
//! A target stays within its bounds. It does not grow while connections cannot be made, and shrinks by a tenth at a time while
//! anybody waits. `max_step` and `dwell` hold it back where the operator wants that. A policy that changes its mind more than six
//! times in a minute is frozen for a minute. Of the idle connections, at most a tenth of the pool leaves in one sweep, so that
//! neither a policy nor a process that stood still for long empties the pool at one blow; never below the minimum, but for
//! those past their lifetime.

mod sweep;

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

pub(crate) use self::sweep::{Candidate, Plan, SweepSituation, plan_sweep};
use super::tally::Clamp;
use crate::policy::SizingOutput;

/// Changes of direction in [`FLAP_WINDOW`] that freeze a target.
const FLAPS: usize = 6;
const FLAP_WINDOW: Duration = Duration::from_mins(1);
/// How long it then stays.
const FROZEN: Duration = Duration::from_mins(1);
/// Ticks come no closer: a policy costs up to 2 ms a call.
pub(crate) const SHORTEST_TICK: Duration = Duration::from_millis(100);
const LONGEST_TICK: Duration = Duration::from_mins(1);

/// What a sizing answer is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) now: Instant,
    /// The target now.
    pub(crate) target: u32,
    pub(crate) min: u32,
    /// What the target may be at most.
    pub(crate) max: u32,
    /// What the target and the reserve may be together.
    pub(crate) beyond: u32,
    /// Idle connections kept, whatever the policy says.
    pub(crate) min_idle: u32,
    /// The pool's own setting: the least that the reserve is.
    pub(crate) reserve: u32,
    /// The pool's own setting.
    pub(crate) parallel: u32,
    /// The pool's own setting.
    pub(crate) interval: Duration,
    /// 0: no limit.
    pub(crate) max_step: u32,
    /// Zero: none.
    pub(crate) dwell: Duration,
    /// Whether connections can be made.
    pub(crate) may_grow: bool,
    pub(crate) waiters: u32,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) target: u32,
    pub(crate) min_idle: u32,
    pub(crate) reserve: u32,
    pub(crate) parallel: u32,
    pub(crate) next_tick: Duration,
    /// Where that is not what was proposed.
    pub(crate) clamps: Vec<Clamp>,
}

/// What the guard of a target remembers.
#[derive(Debug, Default)]
pub(crate) struct SizingGuard {
    changed: Option<Instant>,
    grew: bool,
    flaps: VecDeque<Instant>,
    frozen_until: Option<Instant>,
}

/// A target, and how it came to be another than was proposed.
struct Bent {
    target: u32,
    clamps: Vec<Clamp>,
}

impl Bent {
    fn to(&mut self, target: u32, why: Clamp) {
        if self.target != target {
            self.target = target;
            self.clamps.push(why);
        }
    }
}

impl SizingGuard {
    /// Rules on a proposal.
    pub(crate) fn rule(&mut self, proposal: &SizingOutput, at: &Situation) -> Ruling {
        let Bent { target, clamps } = self.rule_target(proposal.target, at);
        let most_parallel = at.parallel.max(at.max / 4).max(1);
        let next_tick = match proposal.next_tick_ms {
            0 => at.interval,
            ms => Duration::from_millis(ms.into()),
        };
        let parallel = if proposal.parallel_creates == 0 { at.parallel } else { proposal.parallel_creates };
        let (min_idle, reserve) = (proposal.min_idle.max(at.min_idle), proposal.reserve.max(at.reserve));
        let mut ruling = Ruling {
            target,
            min_idle: min_idle.min(target),
            reserve: reserve.min(at.beyond - target),
            parallel: parallel.clamp(1, most_parallel),
            next_tick: next_tick.clamp(SHORTEST_TICK, LONGEST_TICK),
            clamps,
        };
        let followed = ruling.min_idle == min_idle
            && ruling.reserve == reserve
            && ruling.parallel == parallel
            && ruling.next_tick == next_tick;
        if !followed {
            ruling.clamps.push(Clamp::Extras);
        }
        ruling
    }

    /// Another policy decides now: it does not answer for how often the last one changed its mind.
    pub(crate) fn forgive(&mut self) {
        self.flaps.clear();
        self.frozen_until = None;
    }

    /// Whether the target is frozen.
    pub(crate) fn is_frozen(&self, now: Instant) -> bool {
        self.frozen_until.is_some_and(|until| now < until)
    }

    fn rule_target(&mut self, proposed: u32, at: &Situation) -> Bent {
        // Without a single connection nobody could ever be served.
        let least = at.min.clamp(1, at.max);
        let current = at.target.clamp(least, at.max);
        let mut bent = Bent { target: proposed, clamps: Vec::new() };
        bent.to(proposed.clamp(least, at.max), Clamp::Bounds);
        if bent.target > current && !at.may_grow {
            bent.to(current, Clamp::Growth);
        }
        if bent.target < current && at.waiters > 0 {
            // A policy that watches the database may see that fewer connections would serve sooner; it must be sure of it.
            bent.to(bent.target.max(current - (current / 10).max(1)), Clamp::Waiters);
        }
        if self.is_frozen(at.now) {
            bent.to(current, Clamp::Frozen);
        }
        if at.max_step > 0 {
            let (low, high) = (current.saturating_sub(at.max_step), current.saturating_add(at.max_step));
            bent.to(bent.target.clamp(low, high), Clamp::Step);
        }
        if self.changed.is_some_and(|changed| at.now.saturating_duration_since(changed) < at.dwell) {
            bent.to(current, Clamp::Dwell);
        }
        if bent.target != current && self.flaps_too_much(at.now, bent.target > current) {
            bent.to(current, Clamp::Frozen);
        }
        bent
    }

    /// Takes note of a change; whether it is one change of direction too many.
    fn flaps_too_much(&mut self, now: Instant, grows: bool) -> bool {
        let turns = self.changed.is_some() && self.grew != grows;
        if turns {
            self.flaps.retain(|at| now.saturating_duration_since(*at) < FLAP_WINDOW);
            self.flaps.push_back(now);
            if self.flaps.len() > FLAPS {
                self.flaps.clear();
                self.frozen_until = Some(now + FROZEN);
                return true;
            }
        }
        self.changed = Some(now);
        self.grew = grows;
        false
    }
}

/// At most so many of something in a second.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    since: Option<Instant>,
    used: u32,
}

impl Allowance {
    /// Whether there may be one more now, of at most `most` in `span`.
    pub(crate) fn take(&mut self, now: Instant, most: u32, span: Duration) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= span) {
            *self = Self { since: Some(now), used: 0 };
        }
        self.used += 1;
        self.used <= most
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn situation(now: Instant) -> Situation {
        Situation {
            now,
            target: 10,
            min: 2,
            max: 20,
            beyond: 20,
            min_idle: 0,
            reserve: 0,
            parallel: 2,
            interval: Duration::from_secs(1),
            max_step: 0,
            dwell: Duration::ZERO,
            may_grow: true,
            waiters: 0,
        }
    }

    fn target(target: u32) -> SizingOutput {
        SizingOutput { target, ..SizingOutput::default() }
    }

    fn rule(proposed: u32, at: &Situation) -> (u32, Vec<Clamp>) {
        let ruling = SizingGuard::default().rule(&target(proposed), at);
        (ruling.target, ruling.clamps)
    }

    #[test]
    fn a_target_stays_within_its_bounds() {
        let at = situation(Instant::now());
        assert_eq!(rule(15, &at), (15, vec![]));
        assert_eq!(rule(u32::MAX, &at), (20, vec![Clamp::Bounds]));
        assert_eq!(rule(0, &at), (2, vec![Clamp::Bounds]));
        assert_eq!(rule(0, &Situation { min: 0, ..at }), (1, vec![Clamp::Bounds]), "one at least");
        let shrunk = Situation { max: 5, waiters: 9, ..at };
        assert_eq!(rule(20, &shrunk).0, 5, "a lower maximum holds whoever waits");
    }

    #[test]
    fn no_growth_while_connections_cannot_be_made_and_slow_shrinking_while_callers_wait() {
        let at = Situation { may_grow: false, waiters: 1, ..situation(Instant::now()) };
        assert_eq!(rule(11, &at), (10, vec![Clamp::Growth]));
        assert_eq!(rule(9, &at), (9, vec![]));
        assert_eq!(rule(2, &at), (9, vec![Clamp::Waiters]));
        let large = Situation { max: 200, beyond: 200, target: 200, ..at };
        assert_eq!(rule(2, &large), (180, vec![Clamp::Waiters]));
        let small = Situation { min: 1, target: 2, ..at };
        assert_eq!(rule(1, &small), (1, vec![]));
    }

    #[test]
    fn step_and_dwell_hold_back() {
        let now = Instant::now();
        let at = Situation { max_step: 2, dwell: Duration::from_secs(5), ..situation(now) };
        let mut guard = SizingGuard::default();
        assert_eq!(guard.rule(&target(20), &at).target, 12);
        let later = |secs| Situation { now: now + Duration::from_secs(secs), target: 12, ..at };
        assert_eq!(guard.rule(&target(20), &later(4)).clamps, [Clamp::Step, Clamp::Dwell]);
        assert_eq!(guard.rule(&target(20), &later(5)).target, 14);
    }

    #[test]
    fn a_policy_that_flaps_is_frozen_for_a_minute() {
        let now = Instant::now();
        let mut guard = SizingGuard::default();
        let mut current = 10;
        let mut frozen_at = None;
        for second in 0..40 {
            let at = Situation { now: now + Duration::from_secs(second), target: current, ..situation(now) };
            let proposed = if second % 2 == 0 { 5 } else { 10 };
            let ruling = guard.rule(&target(proposed), &at);
            current = ruling.target;
            if ruling.clamps.contains(&Clamp::Frozen) {
                frozen_at.get_or_insert(second);
                assert!(guard.is_frozen(at.now));
            }
        }
        assert_eq!(frozen_at, Some(7), "the seventh change of direction is one too many");
        let frozen = Situation { now: now + Duration::from_secs(40), target: current, ..situation(now) };
        assert_eq!(guard.rule(&target(12), &frozen).target, current);
        let thawed = Situation { now: now + Duration::from_secs(68), target: current, ..situation(now) };
        assert_eq!(guard.rule(&target(12), &thawed).target, 12);
    }

    #[test]
    fn another_policy_does_not_answer_for_the_last_ones_flapping() {
        let now = Instant::now();
        let mut guard = SizingGuard { frozen_until: Some(now + Duration::from_mins(1)), ..SizingGuard::default() };
        assert_eq!(guard.rule(&target(12), &situation(now)).target, situation(now).target);
        guard.forgive();
        assert_eq!(guard.rule(&target(12), &situation(now)).target, 12);
    }

    #[test]
    fn a_steady_climb_is_no_flapping() {
        let now = Instant::now();
        let mut guard = SizingGuard::default();
        for second in 0..30_u32 {
            let at = Situation {
                now: now + Duration::from_secs(second.into()),
                target: 10 + second,
                max: 100,
                beyond: 100,
                ..situation(now)
            };
            assert_eq!(guard.rule(&target(11 + second), &at).target, 11 + second);
        }
    }

    #[test]
    fn the_rest_of_an_answer_is_bounded_too() {
        let at = situation(Instant::now());
        let wild = SizingOutput {
            target: 15,
            min_idle: 99,
            reserve: u32::MAX,
            parallel_creates: 99,
            next_tick_ms: 1,
            ..SizingOutput::default()
        };
        let ruling = SizingGuard::default().rule(&wild, &at);
        assert_eq!((ruling.min_idle, ruling.reserve, ruling.parallel), (15, 5, 5));
        assert_eq!((ruling.next_tick, ruling.clamps), (SHORTEST_TICK, vec![Clamp::Extras]));
        let silent = SizingGuard::default().rule(&target(15), &at);
        assert_eq!((silent.parallel, silent.next_tick, silent.clamps), (2, at.interval, vec![]));
    }

    proptest! {
        #[test]
        fn no_answer_leads_out_of_bounds(
            answers in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), 0..5_000_u64), 1..60),
            (min, max, kept, idle) in (0..20_u32, 1..40_u32, 0..5_u32, 0..5_u32),
        ) {
            let mut guard = SizingGuard::default();
            let beyond = max + kept;
            let own = Situation { beyond, reserve: kept, min_idle: idle, ..situation(Instant::now()) };
            let mut at = Situation { min: min.min(max), max, target: max, ..own };
            for (proposed, min_idle, reserve, parallel_creates, ms) in answers {
                at.now += Duration::from_millis(ms);
                let proposal = SizingOutput { target: proposed, min_idle, reserve, parallel_creates, ..SizingOutput::default() };
                let ruling = guard.rule(&proposal, &at);
                prop_assert!((1..=max).contains(&ruling.target) && ruling.target >= at.min);
                prop_assert!(ruling.target + ruling.reserve <= beyond && ruling.min_idle <= ruling.target);
                prop_assert!(ruling.reserve >= kept && ruling.min_idle >= idle.min(ruling.target));
                prop_assert!(ruling.parallel >= 1 && ruling.parallel <= 2.max(max / 4));
                at.target = ruling.target;
            }
        }
    }

    #[test]
    fn an_allowance_is_renewed_with_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut allowance = Allowance::default();
        assert!(allowance.take(now, 2, second) && allowance.take(now, 2, second) && !allowance.take(now, 2, second));
        assert!(!allowance.take(now + Duration::from_millis(999), 2, second));
        assert!(allowance.take(now + second, 2, second));
    }
}
