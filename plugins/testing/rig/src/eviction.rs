//! What eviction policies are tried on.

use policy_eviction::{Candidate, Signals, Verdict};
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// Mostly nothing.
fn seldom() -> impl Strategy<Value = u32> {
    prop_oneof![8 => Just(0), 1 => 0..4_u32, 1 => any::<u32>()]
}

/// Numbers of connections, and any at all.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..300_u32, 1 => any::<u32>()]
}

/// Numbers of connections, any at all, and none.
pub fn real() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0..300.0_f64, 1 => any::<f64>(), 1 => Just(f64::NAN)]
}

/// What a policy may be told of the pool, and what it never should be.
pub fn signals() -> impl Strategy<Value = Signals> {
    let counts = (number(), seldom(), number(), 0..20_u32, number());
    let troubles = (seldom(), seldom(), seldom(), seldom(), seldom());
    let latencies = (number(), any::<u32>(), seldom());
    (any::<u32>(), real(), number(), counts, troubles, latencies).prop_map(
        |(interval_ms, in_use_mean, in_use_peak, counts, troubles, latencies)| Signals {
            interval_ms,
            in_use_mean,
            in_use_peak,
            min_size: counts.0 / 2,
            server_cap: if counts.1 > 0 { counts.1.max(counts.2) } else { 0 },
            size: counts.2,
            creating: counts.3,
            checkouts: counts.4,
            waited: counts.4 / 3,
            waiters: troubles.0,
            timeouts: troubles.1,
            refused: troubles.2,
            create_failures: troubles.3,
            server_full: troubles.3 / 2,
            breaker: troubles.4,
            samples: latencies.0,
            hold_p99_us: latencies.1,
            create_mean_us: latencies.2,
        },
    )
}

/// An idle connection of any age.
pub fn candidate() -> impl Strategy<Value = Candidate> {
    let time = || prop_oneof![4 => 0..40_000_000_u32, 1 => any::<u32>()];
    (time(), time(), seldom(), seldom(), any::<u32>(), seldom(), seldom()).prop_map(
        |(age_ms, idle_ms, errors, failed_probes, jitter_permille, epochs_behind, statements)| Candidate {
            age_ms,
            idle_ms,
            errors,
            failed_probes,
            jitter_permille,
            epochs_behind,
            statements,
        },
    )
}

/// How many were `wanted`.
pub fn count(verdicts: &[Verdict], wanted: Verdict) -> u32 {
    verdicts.iter().filter(|verdict| **verdict == wanted).count() as u32
}
