//! The component's face: what the host asks becomes [`Signals`], [`Candidate`]s and [`Memory`], what [`review`] answers goes back.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;

use crate::{Candidate, Memory, SCHEMA, Settings, Signals, review, self_check};

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
        let review = review(&settings(), &signals(&input.pool), &idle, Memory::recalled(&input.carry));
        EvictionOutput {
            verdicts: review.verdicts.into_iter().map(|verdict| verdict as u32).collect(),
            yield_cost: review.yield_cost,
            carry: review.memory.carry().to_vec(),
        }
    }
}

impl Lifecycle for Component {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            config_schema: SCHEMA.into(),
            carry_version: 1,
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
