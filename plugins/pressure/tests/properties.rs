//! What holds for every sweep, and for two pools on one server.

use policy_eviction::{Candidate, Policy as _, Review, Signals, Verdict};
use policy_rig::eviction::{candidate, count, real, signals};
use pressure::{MOST, Memory, Pressure, Settings, yield_cost};
use proptest::collection::vec;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    (0.1..=1.0_f64, 1..2000_u32, 1..20_000_u32, 0.5..=1.0_f64, 0.0..=0.5_f64).prop_map(
        |(near, surplus_s, lifetime_s, replace_at, spread)| Settings {
            near,
            surplus_s,
            lifetime_s,
            replace_at,
            spread,
        },
    )
}

fn memory() -> impl Strategy<Value = Memory> {
    vec(real(), 0..20).prop_map(|carry| Memory::recalled(&carry))
}

fn review(settings: &Settings, signals: &Signals, idle: &[Candidate], memory: Memory) -> Review {
    Pressure::review(settings, signals, idle, &memory.carry())
}

proptest! {
    #[test]
    fn every_answer_is_one_that_the_host_follows(settings in settings(), signals in signals(), idle in vec(candidate(), 0..100), memory in memory()) {
        let review = review(&settings, &signals, &idle, memory);
        prop_assert_eq!(review.verdicts.len(), idle.len());
        prop_assert!(review.yield_cost <= MOST);
        prop_assert!(review.carry.iter().all(|number| number.is_finite()), "{:?}", review.carry);
        let (closes, replaced) = (count(&review.verdicts, Verdict::Close), count(&review.verdicts, Verdict::Replace));
        prop_assert!(closes <= (signals.size / 10).max(1));
        prop_assert!(replaced <= 3);
        let above = signals.size.saturating_sub(signals.creating).saturating_sub(signals.min_size);
        prop_assert!(closes <= above, "{closes} closed, {above} above the minimum");
    }

    #[test]
    fn nothing_leaves_while_anybody_waits(settings in settings(), signals in signals(), idle in vec(candidate(), 1..64), memory in memory()) {
        let waiting = Signals { waiters: signals.waiters.max(1), ..signals };
        let review = review(&settings, &waiting, &idle, memory);
        prop_assert!(review.verdicts.iter().all(|verdict| *verdict == Verdict::Keep));
        prop_assert_eq!(review.yield_cost, MOST);
    }

    #[test]
    fn with_room_at_the_server_the_young_and_fit_stay(settings in settings(), signals in signals(), idle in vec(candidate(), 1..64), memory in memory()) {
        let roomy = Signals { server_cap: 0, server_full: 0, ..signals };
        let verdicts = review(&settings, &roomy, &idle, memory).verdicts;
        for (candidate, verdict) in idle.iter().zip(verdicts) {
            let fit = candidate.epochs_behind == 0 && candidate.failed_probes == 0;
            if fit && f64::from(candidate.age_ms) < f64::from(settings.lifetime_s) * 250.0 {
                prop_assert_eq!(verdict, Verdict::Keep);
            }
        }
    }

    #[test]
    fn who_leaves_is_more_worn_than_who_stays(signals in signals(), ages in vec(60_000..1_500_000_u32, 2..64)) {
        let idle: Vec<_> = ages.iter().map(|age_ms| Candidate { age_ms: *age_ms, idle_ms: 60_000, ..Candidate::FRESH }).collect();
        let verdicts = review(&Settings::DEFAULT, &signals, &idle, Memory::default()).verdicts;
        let ages = |wanted: Verdict| ages.iter().zip(&verdicts).filter(move |(_, verdict)| **verdict == wanted).map(|(age, _)| *age);
        if let (Some(youngest), Some(oldest)) = (ages(Verdict::Close).min(), ages(Verdict::Keep).max()) {
            prop_assert!(youngest >= oldest, "one of {youngest} ms leaves before one of {oldest}");
        }
    }

    #[test]
    fn more_need_never_costs_less(signals in signals(), memory in memory(), more in 0..50_u32) {
        let cost = |signals: &Signals, memory: &Memory| yield_cost(signals, memory);
        let before = cost(&signals, &memory);
        let mean = signals.in_use_mean + f64::from(more);
        let busier = Signals { in_use_mean: if mean.is_nan() { signals.in_use_mean } else { mean }, ..signals };
        let nearer = Signals { min_size: signals.min_size.saturating_add(more), ..signals };
        let waiting = Signals { waiters: signals.waiters.saturating_add(more), ..signals };
        for needier in [busier, nearer, waiting] {
            prop_assert!(cost(&needier, &memory) >= before, "{needier:?}");
        }
        let Memory { peak, waited, hold_us, create_us } = memory;
        let more = f64::from(more);
        for needier in [
            Memory { peak: peak + more, ..memory },
            Memory { waited: (waited + more / 50.0).min(1.0), ..memory },
            Memory { hold_us: hold_us + more * 1e4, ..memory },
            Memory { create_us: create_us + more * 1e4, ..memory },
        ] {
            prop_assert!(cost(&signals, &needier) >= before, "{needier:?}");
        }
    }

    #[test]
    fn the_idle_neighbour_makes_room(size in 10..80_u32, min in 0..5_u32) {
        let mut quiet = Simulation::new(size, min);
        for _ in 0..600 {
            quiet.sweep(size);
        }
        let near = f64::from(size) * Settings::DEFAULT.near;
        let left = f64::from(quiet.size);
        // It leaves by tenths.
        prop_assert!(left < near && left >= near * 0.9 - 1.0, "{left} of {size} left");
    }
}

#[test]
fn the_ranking_of_neighbours_is_the_obvious_one() {
    let pool = |size, in_use_peak| Signals {
        size,
        min_size: 2,
        in_use_mean: f64::from(in_use_peak) / 2.0,
        in_use_peak,
        interval_ms: 1000,
        samples: 1000,
        checkouts: 1000,
        hold_p99_us: 20_000,
        create_mean_us: 10_000,
        ..Signals::EMPTY
    };
    let cost = |signals: Signals| review(&Settings::DEFAULT, &signals, &[], Memory::default()).yield_cost;
    let ranked = [
        ("asleep", cost(pool(20, 0))),
        ("at ease", cost(pool(20, 6))),
        ("small", cost(Signals { size: 4, ..pool(4, 2) })),
        ("busy", cost(pool(20, 19))),
        ("busy with reports", cost(Signals { hold_p99_us: 3_000_000, ..pool(20, 19) })),
        ("its callers waited", cost(Signals { waited: 600, hold_p99_us: 3_000_000, ..pool(20, 20) })),
        ("at its minimum", cost(pool(2, 0))),
    ];
    for pair in ranked.windows(2) {
        assert!(pair[0].1 < pair[1].1, "{pair:?} in {ranked:?}");
    }
}

/// A pool that nobody uses, on a server that grants it no more than it has.
struct Simulation {
    size: u32,
    min: u32,
    idle_ms: u32,
    memory: Memory,
}

impl Simulation {
    fn new(size: u32, min: u32) -> Self {
        Self { size, min, idle_ms: 0, memory: Memory { peak: f64::from(size), ..Memory::default() } }
    }

    fn sweep(&mut self, server_cap: u32) {
        self.idle_ms += 1000;
        let one = Candidate { age_ms: 100_000 + self.idle_ms, idle_ms: self.idle_ms, ..Candidate::FRESH };
        let idle = vec![one; self.size as usize];
        let signals = Signals { interval_ms: 1000, size: self.size, min_size: self.min, server_cap, ..Signals::EMPTY };
        let review = review(&Settings::DEFAULT, &signals, &idle, self.memory);
        self.memory = Memory::recalled(&review.carry);
        self.size -= count(&review.verdicts, Verdict::Close);
    }
}
