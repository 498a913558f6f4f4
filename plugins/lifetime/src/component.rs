//! The component's face: what the host asks becomes [`Signals`] and [`Candidate`]s, what [`review`] answers goes back.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;

use crate::{Candidate, SCHEMA, Settings, Signals, review, self_check};

use bindings::exports::sluicegate::policy::eviction::{
    EvictionInput, EvictionOutput, Guest as Eviction, IdleConnection,
};
use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::sluicegate::policy::types::PoolView;

mod bindings {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({ path: "../../wit", world: "eviction-policy" });
}

bindings::export!(Component with_types_in bindings);

/// Small, and an instance has one thread.
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

thread_local! {
    /// What `configure` read. It runs once in each instance, before anything else.
    static SETTINGS: Cell<Settings> = const { Cell::new(Settings::DEFAULT) };
}

struct Component;

impl Eviction for Component {
    fn review(input: EvictionInput) -> EvictionOutput {
        let idle: Vec<_> = input.idle.iter().map(candidate).collect();
        let review = review(&settings(), &signals(&input.pool), &idle);
        EvictionOutput {
            verdicts: review.verdicts.into_iter().map(|verdict| verdict as u32).collect(),
            yield_cost: review.yield_cost,
            carry: Vec::new(),
        }
    }
}

impl Lifecycle for Component {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            config_schema: SCHEMA.into(),
            carry_version: 0,
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let settings = Settings::parse(&config)?;
        SETTINGS.try_with(|cell| cell.set(settings)).map_err(|_| String::from("no place for the settings"))
    }

    fn self_check() -> Result<(), String> {
        self_check()
    }
}

/// Without `Cell::get`, whose panic would bring the printing of panics along.
fn settings() -> Settings {
    SETTINGS.try_with(Cell::get).unwrap_or(Settings::DEFAULT)
}

fn signals(pool: &PoolView) -> Signals {
    Signals {
        min_size: pool.bounds.min_size,
        size: pool.gauges.size,
        creating: pool.gauges.creating,
        in_use_mean: pool.gauges.in_use_mean,
        waiters: pool.gauges.waiters,
        create_failures: pool.flows.create_failures,
        server_full: pool.flows.server_full,
        breaker: pool.breaker,
    }
}

fn candidate(connection: &IdleConnection) -> Candidate {
    Candidate {
        age_ms: connection.age_ms,
        idle_ms: connection.idle_ms,
        failed_probes: connection.failed_probes,
        jitter_permille: connection.jitter_permille,
        epochs_behind: connection.epochs_behind,
    }
}
