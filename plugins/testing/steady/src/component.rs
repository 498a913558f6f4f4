//! The component's face.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use crate::{TARGET, count, version};

use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::exports::sluicegate::policy::sizing::{Guest as Sizing, SizingInput, SizingOutput};

mod bindings {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({ path: "../../../wit", world: "sizing-policy" });
}

bindings::export!(Component with_types_in bindings);

/// Small, and an instance has one thread.
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

struct Component;

impl Sizing for Component {
    fn decide(input: SizingInput) -> SizingOutput {
        let count = count(&input.carry);
        SizingOutput {
            target: TARGET,
            min_idle: TARGET,
            reserve: 0,
            parallel_creates: 0,
            next_tick_ms: 0,
            reason: count,
            carry: vec![f64::from(count)],
        }
    }
}

impl Lifecycle for Component {
    fn describe() -> Description {
        Description { name: "steady".into(), version: version(), config_schema: String::new(), carry_version: 1 }
    }

    fn configure(config: String) -> Result<(), String> {
        match config.as_str() {
            "null" | "" | "{}" => Ok(()),
            _ => Err("steady takes no configuration".into()),
        }
    }

    fn self_check() -> Result<(), String> {
        Ok(())
    }
}
