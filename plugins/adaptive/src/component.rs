//! The component's face: what the host asks becomes [`Signals`], what [`check`] answers goes back packed.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;

use crate::{SCHEMA, Settings, Signals, check, self_check};

use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::exports::sluicegate::policy::validation::Guest as Validation;

mod bindings {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({ path: "../../wit", world: "validation-policy" });
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
        age_ms: u32,
        idle_ms: u32,
        uses: u32,
        errors: u32,
        since_validated_ms: u32,
        last_valid_for_ms: u32,
        recent_bad: u32,
        recent_good: u32,
        transaction: u32,
        _dirty: u32,
        peek: u32,
        last_error: u32,
        deadline_left_ms: u32,
        failed_probes: u32,
        epochs_behind: u32,
    ) -> f64 {
        let signals = Signals {
            trigger,
            age_ms,
            idle_ms,
            uses,
            errors,
            since_validated_ms,
            last_valid_for_ms,
            recent_bad,
            recent_good,
            transaction,
            peek,
            last_error,
            deadline_left_ms,
            failed_probes,
            epochs_behind,
        };
        check(&settings(), &signals).pack()
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
