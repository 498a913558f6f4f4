//! The component's face; nothing is decided here.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;

{{uses}}

mod bindings {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({ path: "wit", world: "{{hook}}-policy" });
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

{{guest}}

impl Lifecycle for Component {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            config_schema: SCHEMA.into(),
            carry_version: {{carry_version}},
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
