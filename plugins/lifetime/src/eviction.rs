//! The decision.

use policy_eviction::{Candidate, Policy, Review, Signals, Verdict};

use crate::{Lifetime, Settings};

impl Policy for Lifetime {
    type Settings = Settings;

    const CARRY_VERSION: u32 = 0;

    fn review(settings: &Settings, signals: &Signals, idle: &[Candidate], _: &[f64]) -> Review {
        let mut sweep = Sweep {
            settings,
            pressed: is_pressed(signals),
            spare: signals.spare(),
            replacements: settings.replacements,
        };
        let mut verdicts = vec![Verdict::Keep; idle.len()];
        // What must go, goes first: it leaves less to spare for the others.
        for (verdict, candidate) in verdicts.iter_mut().zip(idle) {
            *verdict = sweep.must_go(candidate);
        }
        // The longest unused leave first.
        for (verdict, candidate) in verdicts.iter_mut().zip(idle).rev() {
            if *verdict == Verdict::Keep && !sweep.pressed {
                *verdict = sweep.may_go(candidate);
            }
        }
        Review { verdicts, yield_cost: yield_cost(signals), carry: Vec::new() }
    }

    fn self_check() -> Result<(), String> {
        let signals = Signals { size: 4, min_size: 2, in_use_mean: 1.0, ..Signals::EMPTY };
        let fresh = Candidate { age_ms: 1_000_000, idle_ms: 1000, ..Candidate::FRESH };
        let aging = Candidate { age_ms: 1_750_000, idle_ms: 1000, ..Candidate::FRESH };
        let unused = Candidate { idle_ms: 180_000, ..fresh };
        let stale = Candidate { epochs_behind: 1, ..fresh };
        let review = Self::review(&Settings::DEFAULT, &signals, &[fresh, stale, aging, unused], &[]);
        review.proves(&[Verdict::Keep, Verdict::Close, Verdict::Replace, Verdict::Close], 250)
    }
}

/// A sweep under way.
struct Sweep<'a> {
    settings: &'a Settings,
    pressed: bool,
    /// Connections above the pool's minimum that are left.
    spare: u32,
    /// Replacements that are left.
    replacements: u32,
}

impl Sweep<'_> {
    /// What does not depend on how busy the pool is.
    fn must_go(&mut self, candidate: &Candidate) -> Verdict {
        if candidate.is_unfit() {
            self.spare = self.spare.saturating_sub(1);
            Verdict::Close
        } else if candidate.failed_probes > 0 {
            Verdict::Probe
        } else {
            Verdict::Keep
        }
    }

    fn may_go(&mut self, candidate: &Candidate) -> Verdict {
        if self.spare > 0 && candidate.is_unused_for(self.settings.idle_s) {
            self.spare -= 1;
            Verdict::Close
        } else if self.replacements > 0 && self.is_aging(candidate) {
            self.replacements -= 1;
            Verdict::Replace
        } else {
            Verdict::Keep
        }
    }

    /// The rest of its life is the time in which its turn to be replaced must come.
    fn is_aging(&self, candidate: &Candidate) -> bool {
        let life_ms = candidate.life_ms(self.settings.lifetime_s, self.settings.spread);
        f64::from(candidate.age_ms) >= life_ms * self.settings.replace_at
    }
}

fn is_pressed(signals: &Signals) -> bool {
    signals.waiters > 0 || signals.create_failures > 0 || signals.server_full > 0 || signals.breaker != 0
}

/// The share of the pool that is busy; everything, where callers wait or nothing is above the minimum.
fn yield_cost(signals: &Signals) -> u32 {
    if is_pressed(signals) || signals.size <= signals.min_size {
        return 1000;
    }
    // Not a number, as from 0 / 0, becomes 0.
    (signals.in_use_mean / f64::from(signals.size) * 1000.0).clamp(0.0, 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use policy_eviction::{Candidate, Policy as _, Signals, Verdict};

    use super::yield_cost;
    use crate::{Lifetime, Settings};

    const POOL: Signals = Signals { min_size: 2, size: 10, in_use_mean: 2.0, ..Signals::EMPTY };
    const FRESH: Candidate = Candidate { age_ms: 60_000, idle_ms: 1000, ..Candidate::FRESH };
    const UNUSED: Candidate = Candidate { age_ms: 600_000, idle_ms: 180_000, ..FRESH };
    const AGING: Candidate = Candidate { age_ms: 1_710_000, ..FRESH };
    const EXPIRED: Candidate = Candidate { age_ms: 1_800_000, ..FRESH };
    const STALE: Candidate = Candidate { epochs_behind: 1, ..FRESH };

    fn verdicts(signals: &Signals, idle: &[Candidate]) -> Vec<Verdict> {
        Lifetime::review(&Settings::DEFAULT, signals, idle, &[]).verdicts
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Lifetime::self_check(), Ok(()));
    }

    #[test]
    fn each_age_has_its_verdict() {
        let just_not = Candidate { age_ms: 1_709_999, ..FRESH };
        let not_unused = Candidate { idle_ms: 179_999, ..UNUSED };
        let idle = [FRESH, just_not, not_unused, AGING, EXPIRED, UNUSED, STALE];
        let expected = [
            Verdict::Keep,
            Verdict::Keep,
            Verdict::Keep,
            Verdict::Replace,
            Verdict::Replace,
            Verdict::Close,
            Verdict::Close,
        ];
        assert_eq!(verdicts(&POOL, &idle), expected);
    }

    #[test]
    fn the_longest_unused_leave_first_and_the_minimum_stays() {
        let pool = Signals { size: 4, ..POOL };
        assert_eq!(
            verdicts(&pool, &[UNUSED, UNUSED, UNUSED, UNUSED]),
            [Verdict::Keep, Verdict::Keep, Verdict::Close, Verdict::Close]
        );
        let making = Signals { creating: 1, ..pool };
        assert_eq!(verdicts(&making, &[UNUSED; 3]), [Verdict::Keep, Verdict::Keep, Verdict::Close]);
    }

    #[test]
    fn at_the_minimum_the_expired_are_replaced() {
        let pool = Signals { size: 2, ..POOL };
        let both = Candidate { idle_ms: 180_000, ..EXPIRED };
        assert_eq!(verdicts(&pool, &[EXPIRED, UNUSED]), [Verdict::Replace, Verdict::Keep]);
        assert_eq!(verdicts(&pool, &[both]), [Verdict::Replace]);
        assert_eq!(verdicts(&POOL, &[both]), [Verdict::Close], "nobody needs another one");
    }

    #[test]
    fn a_few_are_replaced_at_a_time() {
        let replaced = verdicts(&POOL, &[AGING; 6]).iter().filter(|verdict| **verdict == Verdict::Replace).count();
        assert_eq!(replaced, 3);
    }

    #[test]
    fn under_pressure_only_what_must_go_goes() {
        let idle = [EXPIRED, AGING, UNUSED, STALE, Candidate { failed_probes: 2, ..FRESH }];
        for pressed in [
            Signals { waiters: 1, ..POOL },
            Signals { create_failures: 1, ..POOL },
            Signals { server_full: 1, ..POOL },
            Signals { breaker: 2, ..POOL },
        ] {
            assert_eq!(
                verdicts(&pressed, &idle),
                [Verdict::Keep, Verdict::Keep, Verdict::Keep, Verdict::Close, Verdict::Close]
            );
        }
    }

    #[test]
    fn a_failed_probe_is_tried_once_more() {
        let doubtful = Candidate { failed_probes: 1, ..FRESH };
        assert_eq!(verdicts(&POOL, &[doubtful]), [Verdict::Probe]);
    }

    #[test]
    fn what_must_go_leaves_less_to_spare() {
        let pool = Signals { size: 3, ..POOL };
        assert_eq!(verdicts(&pool, &[STALE, UNUSED]), [Verdict::Close, Verdict::Keep]);
    }

    #[test]
    fn jitter_ends_lives_apart() {
        let at = |jitter_permille, age_ms| verdicts(&POOL, &[Candidate { age_ms, jitter_permille, ..FRESH }])[0];
        assert_eq!(at(1000, 1_539_000), Verdict::Replace);
        assert_eq!(at(1000, 1_538_999), Verdict::Keep);
        assert_eq!(at(500, 1_539_000), Verdict::Keep);
        assert_eq!(at(500, 1_624_500), Verdict::Replace);
        assert_eq!(at(u32::MAX, 1_539_000), Verdict::Replace);
    }

    #[test]
    fn a_slot_costs_what_is_busy() {
        assert_eq!(yield_cost(&POOL), 200);
        assert_eq!(yield_cost(&Signals { waiters: 1, ..POOL }), 1000);
        assert_eq!(yield_cost(&Signals { size: 2, ..POOL }), 1000);
        assert_eq!(yield_cost(&Signals { in_use_mean: f64::NAN, ..POOL }), 0);
        assert_eq!(yield_cost(&Signals { in_use_mean: f64::INFINITY, ..POOL }), 1000);
    }
}
