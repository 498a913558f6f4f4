//! The component's face: what the host asks becomes [`Signals`], what the policy answers becomes what the host expects.
//!
//! [`component!`](crate::component!) writes into a policy's crate what can only be written there: the place for its settings
//! and the entry points. Everything else is here, once.
#![allow(unsafe_code, reason = "generated: the entry points of the component ABI")]

use std::cell::Cell;
use std::thread::LocalKey;

use crate::{Policy, Signals};

pub use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
pub use bindings::exports::sluicegate::policy::sizing::{Guest as Sizing, SizingInput, SizingOutput};

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

/// Small, and an instance has one thread.
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

/// Makes a component of a [`Policy`]. Its name and version are the crate's.
#[macro_export]
macro_rules! component {
    ($policy:ty) => {
        thread_local! {
            /// What `configure` read. It runs once in each instance, before anything else.
            static SETTINGS: std::cell::Cell<<$policy as $crate::Policy>::Settings> =
                const { std::cell::Cell::new(<$policy as $crate::Policy>::DEFAULT) };
        }

        struct Component;

        impl $crate::component::Sizing for Component {
            fn decide(input: $crate::component::SizingInput) -> $crate::component::SizingOutput {
                $crate::component::decide::<$policy>(&SETTINGS, &input)
            }
        }

        impl $crate::component::Lifecycle for Component {
            fn describe() -> $crate::component::Description {
                $crate::component::describe::<$policy>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            }

            fn configure(config: String) -> Result<(), String> {
                $crate::component::configure::<$policy>(&SETTINGS, &config)
            }

            fn self_check() -> Result<(), String> {
                <$policy as $crate::Policy>::self_check()
            }
        }

        $crate::component::bindings::export_sizing_policy!(Component with_types_in $crate::component::bindings);
    };
}

#[doc(hidden)]
pub fn decide<P: Policy>(settings: &'static LocalKey<Cell<P::Settings>>, input: &SizingInput) -> SizingOutput {
    // Without `Cell::get`, whose panic would bring the printing of panics along.
    let settings = settings.try_with(Cell::get).unwrap_or(P::DEFAULT);
    let decision = P::decide(&settings, &signals(input), &input.carry);
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

#[doc(hidden)]
pub fn describe<P: Policy>(name: &str, version: &str) -> Description {
    Description {
        name: name.into(),
        version: version.into(),
        config_schema: P::SCHEMA.into(),
        carry_version: P::CARRY_VERSION,
    }
}

#[doc(hidden)]
pub fn configure<P: Policy>(place: &'static LocalKey<Cell<P::Settings>>, config: &str) -> Result<(), String> {
    let settings = P::parse(config)?;
    place.try_with(|cell| cell.set(settings)).map_err(|_| String::from("no place for the settings"))
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
