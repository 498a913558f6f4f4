//! The component's face: what the host asks becomes [`Signals`] and [`Candidate`]s, what the policy answers goes back.
//!
//! [`component!`](crate::component!) writes into a policy's crate what can only be written there: the place for its settings
//! and the entry points. Everything else is here, once.
#![allow(unsafe_code, reason = "generated: the entry points of the component ABI")]

use std::cell::Cell;
use std::thread::LocalKey;

use bindings::exports::sluicegate::policy::eviction::IdleConnection;
use bindings::sluicegate::policy::types::PoolView;
use policy_settings::current;

use crate::{Candidate, Policy, Signals};

pub use bindings::exports::sluicegate::policy::eviction::{EvictionInput, EvictionOutput, Guest as Eviction};
pub use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
#[doc(hidden)]
pub use policy_settings::lifecycle;

#[doc(hidden)]
pub mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({
        path: "../../wit",
        world: "eviction-policy",
        pub_export_macro: true,
        export_macro_name: "export_eviction_policy",
        default_bindings_module: "policy_eviction::component::bindings",
    });
}

/// Makes a component of a [`Policy`]. Its name and version are the crate's.
#[macro_export]
macro_rules! component {
    ($policy:ty) => {
        use $crate::component as face;

        $crate::component::lifecycle!(<$policy as $crate::Policy>, face, <$policy as $crate::Policy>::CARRY_VERSION);

        impl face::Eviction for Component {
            fn review(input: face::EvictionInput) -> face::EvictionOutput {
                face::review::<$policy>(&SETTINGS, &input)
            }
        }

        $crate::component::bindings::export_eviction_policy!(Component with_types_in $crate::component::bindings);
    };
}

#[doc(hidden)]
pub fn review<P: Policy>(settings: &'static LocalKey<Cell<P::Settings>>, input: &EvictionInput) -> EvictionOutput {
    let idle: Vec<_> = input.idle.iter().map(candidate).collect();
    let review = P::review(&current(settings), &signals(&input.pool), &idle, &input.carry);
    EvictionOutput {
        verdicts: review.verdicts.into_iter().map(|verdict| verdict as u32).collect(),
        yield_cost: review.yield_cost,
        carry: review.carry,
    }
}

fn signals(pool: &PoolView) -> Signals {
    let PoolView { bounds, gauges, flows, latencies, .. } = pool;
    Signals {
        interval_ms: pool.interval_ms,
        min_size: bounds.min_size,
        server_cap: bounds.server_cap,
        size: gauges.size,
        creating: gauges.creating,
        in_use_mean: gauges.in_use_mean,
        in_use_peak: gauges.in_use_peak,
        waiters: gauges.waiters,
        checkouts: flows.checkouts,
        waited: flows.waited,
        timeouts: flows.timeouts,
        refused: flows.refused,
        create_failures: flows.create_failures,
        server_full: flows.server_full,
        samples: latencies.samples,
        hold_p99_us: latencies.hold_p99_us,
        create_mean_us: latencies.create_mean_us,
        breaker: pool.breaker,
    }
}

fn candidate(connection: &IdleConnection) -> Candidate {
    Candidate {
        age_ms: connection.age_ms,
        idle_ms: connection.idle_ms,
        errors: connection.errors,
        failed_probes: connection.failed_probes,
        jitter_permille: connection.jitter_permille,
        epochs_behind: connection.epochs_behind,
        statements: connection.statements,
    }
}
