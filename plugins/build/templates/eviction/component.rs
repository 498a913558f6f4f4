//! The component's face; nothing is decided here.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;

use crate::{Candidate, SCHEMA, Settings, Signals, self_check, verdicts};

use bindings::exports::sluicegate::policy::eviction::{EvictionInput, EvictionOutput, Guest as Eviction};
use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};

mod bindings {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({ path: "wit", world: "eviction-policy" });
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
        let pool = &input.pool;
        let signals = Signals { size: pool.gauges.size, min_size: pool.bounds.min_size, waiters: pool.gauges.waiters };
        let idle: Vec<_> =
            input.idle.iter().map(|one| Candidate { idle_ms: one.idle_ms, epochs_behind: one.epochs_behind }).collect();
        EvictionOutput {
            verdicts: verdicts(&settings(), &signals, &idle).into_iter().map(|verdict| verdict as u32).collect(),
            yield_cost: 500,
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

fn settings() -> Settings {
    SETTINGS.try_with(Cell::get).unwrap_or(Settings::DEFAULT)
}
