//! The component's face: what the host asks becomes [`Signals`], what [`decide`] answers becomes what the host expects.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;

use crate::{SCHEMA, Settings, Signals, decide, self_check};

use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::exports::sluicegate::policy::sizing::{Guest as Sizing, SizingInput, SizingOutput};

mod bindings {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({ path: "../../wit", world: "sizing-policy" });
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

impl Sizing for Component {
    fn decide(input: SizingInput) -> SizingOutput {
        let decision = decide(&settings(), &signals(&input), &input.carry);
        SizingOutput {
            target: decision.target,
            min_idle: decision.min_idle,
            reserve: 0,
            parallel_creates: 0,
            next_tick_ms: 0,
            reason: decision.reason as u32,
            carry: decision.carry.to_vec(),
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
        timeouts: pool.flows.timeouts,
        refused: pool.flows.refused,
        create_failures: pool.flows.create_failures,
        server_full: pool.flows.server_full,
        breaker: pool.breaker,
    }
}
