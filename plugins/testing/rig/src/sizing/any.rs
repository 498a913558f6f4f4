//! Inputs of any kind, sensible and not.

use policy_sizing::Signals;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

/// Small numbers, and any at all.
pub fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..64_u32, 1 => any::<u32>()]
}

/// Small numbers, any at all, and none.
pub fn real() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0..64.0_f64, 1 => any::<f64>(), 1 => Just(f64::NAN)]
}

/// What a policy may be told, and what it never should be.
pub fn signals() -> impl Strategy<Value = Signals> {
    let bounds = (number(), number(), prop_oneof![Just(0), number()]);
    let gauges = (number(), number(), number(), number(), real(), number(), number(), number());
    let flows =
        (prop_oneof![2 => Just(0), 1 => number()], prop_oneof![3 => Just(0), 1 => number()], number(), number());
    let latencies =
        (number(), prop_oneof![number(), 1000..100_000_u32], number(), prop_oneof![number(), 1000..100_000_u32]);
    let rest = (0..8_u32, prop_oneof![Just(1000), any::<u32>(), Just(0)], prop_oneof![4 => Just(0), 1 => 0..9_u32]);
    (rest, bounds, gauges, flows, latencies).prop_map(
        |((trigger, interval_ms, breaker), (min_size, max_size, server_cap), gauges, flows, latencies)| Signals {
            trigger,
            interval_ms,
            min_size,
            max_size,
            server_cap,
            target: gauges.0,
            size: gauges.1,
            creating: gauges.2,
            in_use: gauges.3,
            in_use_mean: gauges.4,
            in_use_peak: gauges.5,
            waiters: gauges.6,
            oldest_wait_ms: gauges.7,
            checkouts: flows.3,
            timeouts: flows.0,
            refused: flows.0 / 2,
            create_failures: flows.1,
            server_full: if flows.1 > 0 { flows.2 } else { 0 },
            samples: latencies.0,
            hold_mean_us: latencies.1,
            rtt_samples: latencies.2,
            rtt_mean_us: latencies.3,
            breaker,
        },
    )
}

/// A few decisions in a row.
pub fn day() -> impl Strategy<Value = Vec<Signals>> {
    proptest::collection::vec(signals(), 1..12)
}

/// What `carry` may hold, its own or another's.
pub fn carry() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(real(), 0..20)
}
