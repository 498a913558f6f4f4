//! The component's face; nothing is decided here.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;

use crate::{SCHEMA, Settings, Signals, check, self_check};

use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::exports::sluicegate::policy::validation::Guest as Validation;

mod bindings {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({ path: "wit", world: "validation-policy" });
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

impl Validation for Component {
    fn check(
        trigger: u32,
        _age_ms: u32,
        idle_ms: u32,
        _uses: u32,
        _errors: u32,
        _since_validated_ms: u32,
        _last_valid_for_ms: u32,
        _recent_bad: u32,
        _recent_good: u32,
        _transaction: u32,
        _dirty: u32,
        peek: u32,
        last_error: u32,
        _deadline_left_ms: u32,
        _failed_probes: u32,
        _epochs_behind: u32,
    ) -> f64 {
        check(&settings(), &Signals { trigger, idle_ms, peek, last_error }).pack()
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
