//! The decision.

use policy_eviction::{Candidate, Policy, Review, Signals, Verdict};

use crate::{Memory, Pressure, Settings, yield_cost};

/// Connections replaced at a time: as many as the host follows.
const REPLACEMENTS: u32 = 3;
/// What an error on a connection adds to its wear, in lifetimes, up to [`ERRORS_MOST`].
const ERROR: f64 = 0.05;
/// What all its errors add at most: they may have been the callers'.
const ERRORS_MOST: f64 = 0.5;
/// What a cached statement adds: a thousand, and the server's process is as large as half a lifetime makes it.
const STATEMENT: f64 = 0.0005;
/// What all its statements add at most.
const STATEMENTS_MOST: f64 = 0.5;

impl Policy for Pressure {
    type Settings = Settings;

    const CARRY_VERSION: u32 = 1;

    fn review(settings: &Settings, signals: &Signals, idle: &[Candidate], carry: &[f64]) -> Review {
        let memory = Memory::recalled(carry).with(signals);
        let mut sweep = Sweep::new(settings, signals, idle);
        // What leaves while somebody waits, leaves another one waiting for its successor.
        if signals.waiters == 0 {
            sweep.send_off_the_unfit();
            if !is_failing(signals) {
                sweep.give_back_surplus(&memory);
                sweep.renew_the_old();
            }
        }
        Review { verdicts: sweep.verdicts, yield_cost: yield_cost(signals, &memory), carry: memory.carry().to_vec() }
    }

    fn self_check() -> Result<(), String> {
        let signals = Signals { interval_ms: 1000, size: 20, min_size: 2, server_cap: 20, ..Signals::EMPTY };
        let fresh = Candidate { age_ms: 600_000, idle_ms: 1000, ..Candidate::FRESH };
        let surplus = Candidate { idle_ms: 60_000, ..fresh };
        let worn = Candidate { errors: 3, ..surplus };
        let stale = Candidate { epochs_behind: 1, ..fresh };
        let known = Memory { peak: 4.0, waited: 0.0, hold_us: 100_000.0, create_us: 50_000.0 };
        let review = Self::review(&Settings::DEFAULT, &signals, &[fresh, worn, stale, surplus], &known.carry());
        // A tenth is busy, by mean and peak, and a twentieth is the minimum's: 1 - 0.9 * 0.95, at three quarters of the hurt.
        review.proves(&[Verdict::Keep, Verdict::Close, Verdict::Close, Verdict::Keep], 108)
    }
}

/// Whether connections cannot be made, for another reason than a full server. What works is worth keeping then.
const fn is_failing(signals: &Signals) -> bool {
    signals.breaker != 0 || signals.create_failures > signals.server_full
}

/// Whether the server has nothing left to grant, as far as this pool knows.
const fn is_at_cap(signals: &Signals) -> bool {
    signals.server_full > 0 || (signals.server_cap > 0 && signals.size >= signals.server_cap)
}

fn is_near_cap(signals: &Signals, near: f64) -> bool {
    let close = f64::from(signals.size) >= near * f64::from(signals.server_cap);
    is_at_cap(signals) || (signals.server_cap > 0 && close)
}

/// A sweep under way.
struct Sweep<'a> {
    settings: &'a Settings,
    signals: &'a Signals,
    idle: &'a [Candidate],
    verdicts: Vec<Verdict>,
    /// Connections above the pool's minimum that are left.
    spare: u32,
    /// Closes that are left. The host follows a tenth, those unused longest first: beyond, its order would be the one that counts.
    closes: u32,
    /// Replacements that are left.
    replacements: u32,
}

impl<'a> Sweep<'a> {
    fn new(settings: &'a Settings, signals: &'a Signals, idle: &'a [Candidate]) -> Self {
        Self {
            settings,
            signals,
            idle,
            verdicts: vec![Verdict::Keep; idle.len()],
            spare: signals.spare(),
            closes: (signals.size / 10).max(1),
            replacements: if is_at_cap(signals) {
                0
            } else if is_near_cap(signals, settings.near) {
                1
            } else {
                REPLACEMENTS
            },
        }
    }

    /// Those that nobody may be given, or that seem dead. At the minimum another is made first, where there is room for it.
    fn send_off_the_unfit(&mut self) {
        for (verdict, candidate) in self.verdicts.iter_mut().zip(self.idle).rev() {
            if candidate.is_unfit() {
                if self.spare > 0 && self.closes > 0 {
                    *verdict = Verdict::Close;
                    self.spare -= 1;
                    self.closes -= 1;
                } else if self.spare == 0 && self.replacements > 0 {
                    *verdict = Verdict::Replace;
                    self.replacements -= 1;
                }
            } else if candidate.failed_probes > 0 {
                *verdict = Verdict::Probe;
            }
        }
    }

    /// Near the cap, what has long been unused and would not be missed at the remembered peak.
    fn give_back_surplus(&mut self, memory: &Memory) {
        if is_near_cap(self.signals, self.settings.near) {
            let leaving = self.verdicts.iter().filter(|verdict| **verdict == Verdict::Close).count() as u32;
            let beyond_peak = (f64::from(self.signals.made()) - memory.peak) as u32;
            self.close_most_worn(beyond_peak.saturating_sub(leaving), Settings::is_surplus);
        }
    }

    /// The aging leave ahead of their end: the surplus ones for good, the others once another is there.
    fn renew_the_old(&mut self) {
        self.close_most_worn(self.spare, |settings, candidate| {
            settings.is_surplus(candidate) && settings.is_aging(candidate)
        });
        while self.replacements > 0 {
            let Some(verdict) = self.most_worn(Settings::is_aging) else { return };
            *verdict = Verdict::Replace;
            self.replacements -= 1;
        }
    }

    /// Closes up to `most` of those `wanted`, as far as the minimum and the host allow.
    fn close_most_worn(&mut self, most: u32, wanted: impl Fn(&Settings, &Candidate) -> bool) {
        for _ in 0..most.min(self.spare).min(self.closes) {
            let Some(verdict) = self.most_worn(&wanted) else { return };
            *verdict = Verdict::Close;
            self.spare -= 1;
            self.closes -= 1;
        }
    }

    /// Of those that are still to stay; among equals the longest unused. A look at each is enough: few leave in a sweep.
    fn most_worn(&mut self, wanted: impl Fn(&Settings, &Candidate) -> bool) -> Option<&mut Verdict> {
        let settings = self.settings;
        let mut worst: Option<(&mut Verdict, f64)> = None;
        for (verdict, candidate) in self.verdicts.iter_mut().zip(self.idle) {
            if *verdict != Verdict::Keep || !wanted(settings, candidate) {
                continue;
            }
            let wear = settings.wear(candidate);
            if worst.as_ref().is_none_or(|(_, most)| wear >= *most) {
                worst = Some((verdict, wear));
            }
        }
        worst.map(|(verdict, _)| verdict)
    }
}

impl Settings {
    fn is_surplus(&self, candidate: &Candidate) -> bool {
        candidate.is_unused_for(self.surplus_s)
    }

    /// The rest of its life is the time in which its turn to be replaced must come.
    fn is_aging(&self, candidate: &Candidate) -> bool {
        self.lived(candidate) >= self.replace_at
    }

    /// The share of its lifetime that is over.
    fn lived(&self, candidate: &Candidate) -> f64 {
        f64::from(candidate.age_ms) / candidate.life_ms(self.lifetime_s, self.spread)
    }

    fn wear(&self, candidate: &Candidate) -> f64 {
        let errors = (f64::from(candidate.errors) * ERROR).min(ERRORS_MOST);
        let statements = (f64::from(candidate.statements) * STATEMENT).min(STATEMENTS_MOST);
        self.lived(candidate) + errors + statements
    }
}

#[cfg(test)]
mod tests {
    use policy_eviction::{Candidate, Policy as _, Signals, Verdict};

    use crate::{Memory, Pressure, Settings};

    /// Half of it is enough, and the server refused more than it has.
    const POOL: Signals = Signals {
        interval_ms: 1000,
        min_size: 4,
        server_cap: 20,
        size: 20,
        in_use_mean: 6.0,
        in_use_peak: 8,
        ..Signals::EMPTY
    };
    /// The same with room left at the server.
    const ROOM: Signals = Signals { server_cap: 0, ..POOL };
    const FRESH: Candidate = Candidate { age_ms: 300_000, idle_ms: 1000, ..Candidate::FRESH };
    const SURPLUS: Candidate = Candidate { idle_ms: 60_000, ..FRESH };
    const AGING: Candidate = Candidate { age_ms: 1_710_000, ..FRESH };
    const STALE: Candidate = Candidate { epochs_behind: 1, ..FRESH };

    fn verdicts(signals: &Signals, idle: &[Candidate]) -> Vec<Verdict> {
        Pressure::review(&Settings::DEFAULT, signals, idle, &[]).verdicts
    }

    fn leaving(signals: &Signals, idle: &[Candidate]) -> usize {
        verdicts(signals, idle).iter().filter(|verdict| **verdict == Verdict::Close).count()
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Pressure::self_check(), Ok(()));
    }

    #[test]
    fn surplus_goes_back_near_the_cap_and_only_there() {
        assert_eq!(leaving(&POOL, &[FRESH, SURPLUS]), 1);
        assert_eq!(leaving(&ROOM, &[FRESH, SURPLUS]), 0, "the server never refused");
        assert_eq!(leaving(&Signals { server_full: 1, create_failures: 1, ..ROOM }, &[SURPLUS]), 1, "it just did");
        assert_eq!(leaving(&Signals { size: 16, ..POOL }, &[SURPLUS]), 1, "80 % of what it grants");
        assert_eq!(leaving(&Signals { size: 15, ..POOL }, &[SURPLUS]), 0);
        assert_eq!(leaving(&POOL, &[Candidate { idle_ms: 59_999, ..SURPLUS }]), 0, "it may be wanted yet");
    }

    #[test]
    fn the_oldest_and_the_most_worn_leave_first() {
        let old = Candidate { age_ms: 900_000, ..SURPLUS };
        let failing = Candidate { errors: 8, ..SURPLUS };
        let large = Candidate { statements: 600, ..SURPLUS };
        let only = |idle: &[Candidate]| {
            let verdicts = verdicts(&Signals { size: 19, ..POOL }, idle);
            verdicts.iter().position(|verdict| *verdict == Verdict::Close)
        };
        assert_eq!(only(&[SURPLUS, old, SURPLUS]), Some(1));
        assert_eq!(only(&[failing, SURPLUS, SURPLUS]), Some(0));
        assert_eq!(only(&[SURPLUS, large, SURPLUS]), Some(1));
        assert_eq!(only(&[SURPLUS, SURPLUS, SURPLUS]), Some(2), "among equals the longest unused");
    }

    #[test]
    fn a_tenth_at_a_time() {
        assert_eq!(leaving(&POOL, &[SURPLUS; 12]), 2);
        assert_eq!(leaving(&Signals { size: 9, server_cap: 9, in_use_peak: 0, ..POOL }, &[SURPLUS; 9]), 1);
    }

    #[test]
    fn the_minimum_and_the_peak_stay() {
        assert_eq!(leaving(&Signals { min_size: 19, ..POOL }, &[SURPLUS; 12]), 1);
        assert_eq!(leaving(&Signals { min_size: 20, ..POOL }, &[SURPLUS; 12]), 0);
        assert_eq!(leaving(&Signals { min_size: 19, creating: 1, ..POOL }, &[SURPLUS; 12]), 0);
        assert_eq!(leaving(&Signals { in_use_peak: 19, ..POOL }, &[SURPLUS; 12]), 1);
        assert_eq!(leaving(&Signals { in_use_peak: 20, ..POOL }, &[SURPLUS; 12]), 0);
    }

    #[test]
    fn a_peak_is_remembered() {
        let known = Memory { peak: 20.0, ..Memory::default() };
        let quiet = Signals { in_use_peak: 0, in_use_mean: 0.0, ..POOL };
        let closed = |carry: &[f64]| {
            let review = Pressure::review(&Settings::DEFAULT, &quiet, &[SURPLUS; 12], carry);
            (review.verdicts.iter().filter(|verdict| **verdict == Verdict::Close).count(), review.carry)
        };
        let (at_once, mut carry) = closed(&known.carry());
        assert_eq!(at_once, 0);
        for _ in 0..30 {
            carry = closed(&carry).1;
        }
        assert_eq!(closed(&carry).0, 2, "half a minute later it has faded");
    }

    #[test]
    fn nothing_leaves_while_anybody_waits() {
        let waiting = Signals { waiters: 1, ..POOL };
        let dead = Candidate { failed_probes: 2, ..FRESH };
        assert_eq!(verdicts(&waiting, &[SURPLUS, AGING, STALE, dead]), [Verdict::Keep; 4]);
    }

    #[test]
    fn while_connections_cannot_be_made_only_the_unfit_go() {
        for failing in [Signals { breaker: 2, ..POOL }, Signals { create_failures: 2, server_full: 1, ..POOL }] {
            assert_eq!(
                verdicts(&failing, &[SURPLUS, AGING, STALE]),
                [Verdict::Keep, Verdict::Keep, Verdict::Close],
                "what works is worth keeping"
            );
        }
    }

    #[test]
    fn the_unfit_go_first_and_are_replaced_at_the_minimum() {
        let dead = Candidate { failed_probes: 2, ..FRESH };
        let doubtful = Candidate { failed_probes: 1, ..FRESH };
        assert_eq!(
            verdicts(&POOL, &[SURPLUS, STALE, dead, doubtful]),
            [Verdict::Keep, Verdict::Close, Verdict::Close, Verdict::Probe]
        );
        let least = Signals { min_size: 20, ..ROOM };
        assert_eq!(verdicts(&least, &[STALE; 5]).iter().filter(|verdict| **verdict == Verdict::Replace).count(), 3);
    }

    #[test]
    fn what_comes_near_its_end_is_replaced_ahead() {
        assert_eq!(verdicts(&ROOM, &[FRESH, AGING]), [Verdict::Keep, Verdict::Replace]);
        assert_eq!(verdicts(&ROOM, &[Candidate { age_ms: 1_709_999, ..AGING }]), [Verdict::Keep]);
        assert_eq!(verdicts(&ROOM, &[AGING; 5]).iter().filter(|verdict| **verdict == Verdict::Replace).count(), 3);
        let jittered = Candidate { age_ms: 1_539_000, jitter_permille: 1000, ..FRESH };
        assert_eq!(verdicts(&ROOM, &[jittered]), [Verdict::Replace]);
    }

    #[test]
    fn a_surplus_one_is_not_replaced_but_closed() {
        let both = Candidate { idle_ms: 60_000, ..AGING };
        assert_eq!(verdicts(&ROOM, &[both, AGING]), [Verdict::Close, Verdict::Replace]);
        assert_eq!(verdicts(&Signals { min_size: 20, ..ROOM }, &[both]), [Verdict::Replace], "the minimum needs it");
    }

    #[test]
    fn a_replacement_needs_a_slot_that_the_server_has() {
        let replaced = |signals: &Signals| {
            verdicts(signals, &[AGING; 5]).iter().filter(|verdict| **verdict == Verdict::Replace).count()
        };
        assert_eq!(replaced(&Signals { size: 15, ..POOL }), 3);
        assert_eq!(replaced(&Signals { size: 16, ..POOL }), 1);
        assert_eq!(replaced(&Signals { size: 19, ..POOL }), 1);
        assert_eq!(replaced(&POOL), 0);
    }
}
