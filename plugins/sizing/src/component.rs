//! The component's face: what the host asks becomes [`Signals`], what the policy answers becomes what the host expects.
//!
//! [`component!`](crate::component!) writes into a policy's crate what can only be written there: the place for its settings
//! and the entry points. Everything else is here, once.
#![allow(unsafe_code, reason = "generated: the entry points of the component ABI")]

use std::cell::Cell;
use std::thread::LocalKey;

use policy_settings::current;

use crate::{Policy, Signals};

pub use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
pub use bindings::exports::sluicegate::policy::sizing::{Guest as Sizing, SizingInput, SizingOutput};
#[doc(hidden)]
pub use policy_settings::lifecycle;

#[doc(hidden)]
pub mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({
        path: "../../wit",
        world: "sizing-policy",
        pub_export_macro: true,
        export_macro_name: "export_sizing_policy",
        default_bindings_module: "policy_sizing::component::bindings",
    });
}

/// Makes a component of a [`Policy`]. Its name and version are the crate's.
#[macro_export]
macro_rules! component {
    ($policy:ty) => {
        use $crate::component as face;

        $crate::component::lifecycle!(<$policy as $crate::Policy>, face, <$policy as $crate::Policy>::CARRY_VERSION);

        impl face::Sizing for Component {
            fn decide(input: face::SizingInput) -> face::SizingOutput {
                face::decide::<$policy>(&SETTINGS, &input)
            }
        }

        $crate::component::bindings::export_sizing_policy!(Component with_types_in $crate::component::bindings);
    };
}

#[doc(hidden)]
pub fn decide<P: Policy>(settings: &'static LocalKey<Cell<P::Settings>>, input: &SizingInput) -> SizingOutput {
    let decision = P::decide(&current(settings), &signals(input), &input.carry);
    SizingOutput {
        target: decision.target,
        min_idle: decision.min_idle,
        reserve: decision.reserve,
        parallel_creates: 0,
        next_tick_ms: decision.next_tick_ms,
        reason: decision.reason.into(),
        carry: decision.carry,
    }
}

fn signals(input: &SizingInput) -> Signals {
    let pool = &input.pool;
    Signals {
        trigger: input.trigger,
        interval_ms: pool.interval_ms,
        min_size: pool.bounds.min_size,
        max_size: pool.bounds.max_size,
        server_cap: pool.bounds.server_cap,
        target: pool.gauges.target,
        size: pool.gauges.size,
        creating: pool.gauges.creating,
        in_use: pool.gauges.in_use,
        in_use_mean: pool.gauges.in_use_mean,
        in_use_peak: pool.gauges.in_use_peak,
        waiters: pool.gauges.waiters,
        oldest_wait_ms: pool.gauges.oldest_wait_ms,
        checkouts: pool.flows.checkouts,
        timeouts: pool.flows.timeouts,
        refused: pool.flows.refused,
        create_failures: pool.flows.create_failures,
        server_full: pool.flows.server_full,
        samples: pool.latencies.samples,
        hold_mean_us: pool.latencies.hold_mean_us,
        rtt_samples: pool.latencies.rtt_samples,
        rtt_mean_us: pool.latencies.rtt_mean_us,
        breaker: pool.breaker,
    }
}
