//! What holds for every sweep.

use lifetime::{Lifetime, Settings};
use policy_eviction::{Candidate, Policy as _, Review, Signals, Verdict};
use policy_rig::eviction::{candidate, count, signals};
use proptest::collection::vec;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    (1..2000_u32, 1..20_000_u32, 0.5..=1.0_f64, 0.0..=0.5_f64, 1..10_u32).prop_map(
        |(idle_s, lifetime_s, replace_at, spread, replacements)| Settings {
            idle_s,
            lifetime_s,
            replace_at,
            spread,
            replacements,
        },
    )
}

fn review(settings: &Settings, signals: &Signals, idle: &[Candidate]) -> Review {
    Lifetime::review(settings, signals, idle, &[])
}

fn must_go(candidate: &Candidate) -> bool {
    candidate.epochs_behind > 0 || candidate.failed_probes > 1
}

proptest! {
    #[test]
    fn every_connection_has_a_verdict(settings in settings(), signals in signals(), idle in vec(candidate(), 0..100)) {
        let review = review(&settings, &signals, &idle);
        prop_assert_eq!(review.verdicts.len(), idle.len());
        prop_assert!(review.yield_cost <= 1000);
        prop_assert!(count(&review.verdicts, Verdict::Replace) <= settings.replacements);
    }

    #[test]
    fn the_minimum_stays(settings in settings(), signals in signals(), idle in vec(candidate(), 0..100)) {
        let verdicts = review(&settings, &signals, &idle).verdicts;
        let forced = idle.iter().filter(|candidate| must_go(candidate)).count() as u32;
        let chosen = count(&verdicts, Verdict::Close) - forced;
        let above = signals.size.saturating_sub(signals.creating).saturating_sub(signals.min_size);
        prop_assert!(chosen <= above.saturating_sub(forced), "{chosen} chosen, {above} above the minimum, {forced} forced");
    }

    #[test]
    fn what_must_go_goes_and_what_is_young_and_used_stays(settings in settings(), signals in signals(), idle in vec(candidate(), 1..64)) {
        let verdicts = review(&settings, &signals, &idle).verdicts;
        for (candidate, verdict) in idle.iter().zip(verdicts) {
            if must_go(candidate) {
                prop_assert_eq!(verdict, Verdict::Close);
            } else if candidate.failed_probes == 1 {
                prop_assert_eq!(verdict, Verdict::Probe);
            } else if candidate.idle_ms < settings.idle_s * 1000 && f64::from(candidate.age_ms) < f64::from(settings.lifetime_s) * 250.0 {
                prop_assert_eq!(verdict, Verdict::Keep);
            }
        }
    }

    #[test]
    fn under_pressure_nothing_leaves_for_its_age(settings in settings(), signals in signals(), idle in vec(candidate(), 1..64)) {
        let signals = match signals.size % 3 {
            0 => Signals { waiters: signals.waiters.max(1), ..signals },
            1 => Signals { create_failures: signals.create_failures.max(1), ..signals },
            _ => Signals { breaker: signals.breaker.max(1), ..signals },
        };
        let review = review(&settings, &signals, &idle);
        prop_assert_eq!(count(&review.verdicts, Verdict::Replace), 0);
        prop_assert_eq!(count(&review.verdicts, Verdict::Close) as usize, idle.iter().filter(|one| must_go(one)).count());
        prop_assert_eq!(review.yield_cost, 1000);
    }

    #[test]
    fn a_pool_filled_at_once_is_renewed_in_time_and_a_few_at_a_time(jitters in vec(0..=1000_u32, 100)) {
        let leaving = ends(&jitters);
        prop_assert_eq!(leaving.iter().sum::<usize>(), 100, "none outlives its lifetime");
        prop_assert!(leaving.iter().all(|leaving| *leaving <= 3));
    }
}

#[test]
fn what_began_together_does_not_end_together() {
    let jitters: Vec<_> = (0..100).map(|number| number * 10).collect();
    let leaving = ends(&jitters);
    let first = leaving.iter().position(|leaving| *leaving > 0).expect("some leave");
    let last = leaving.iter().rposition(|leaving| *leaving > 0).expect("some leave");
    assert!(last - first >= 160, "all within {} s", last - first);
    assert!(leaving.iter().all(|leaving| *leaving <= 1), "evenly spread numbers spread evenly");
}

/// How many of a busy pool's connections leave in each second of their lifetime, when all were made in the first.
fn ends(jitters: &[u32]) -> Vec<usize> {
    let signals = Signals { size: 100, in_use_mean: 50.0, ..Signals::EMPTY };
    let mut living: Vec<_> = jitters
        .iter()
        .map(|jitter_permille| Candidate { jitter_permille: *jitter_permille, ..Candidate::FRESH })
        .collect();
    let mut leaving = Vec::new();
    // Nothing leaves before 90 % of 95 % of half an hour.
    for second in 1500..1800 {
        for candidate in &mut living {
            candidate.age_ms = second * 1000;
        }
        let mut verdicts = review(&Settings::DEFAULT, &signals, &living).verdicts.into_iter();
        let before = living.len();
        living.retain(|_| verdicts.next() == Some(Verdict::Keep));
        leaving.push(before - living.len());
    }
    leaving
}
