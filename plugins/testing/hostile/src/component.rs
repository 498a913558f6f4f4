//! The component's face, and the faults themselves.
#![allow(unsafe_code, reason = "`export!` writes the entry points of the component ABI")]

use std::cell::Cell;
use std::hint::black_box;
use std::process::abort;

use crate::{Fault, Hook, Plan, whim};

use bindings::exports::sluicegate::policy::eviction::{EvictionInput, EvictionOutput, Guest as Eviction};
use bindings::exports::sluicegate::policy::lifecycle::{Description, Guest as Lifecycle};
use bindings::exports::sluicegate::policy::sizing::{Guest as Sizing, SizingInput, SizingOutput};
use bindings::exports::sluicegate::policy::validation::Guest as Validation;
use bindings::sluicegate::policy::types::PoolView;

mod bindings {
    #![allow(clippy::all, clippy::pedantic, reason = "generated from wit/")]

    wit_bindgen::generate!({
        inline: "package sluicegate:hostile;
            world hostile {
                export sluicegate:policy/sizing@0.1.0;
                export sluicegate:policy/eviction@0.1.0;
                export sluicegate:policy/validation@0.1.0;
                export sluicegate:policy/lifecycle@0.1.0;
            }",
        path: "../../../wit",
        generate_all,
    });
}

bindings::export!(Component with_types_in bindings);

/// Small, and an instance has one thread.
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

/// Numbers in a list that is far too long, half a megabyte of them.
const TOO_MANY: usize = 65_536;

thread_local! {
    static PLAN: Cell<Plan> = const { Cell::new(Plan::NONE) };
}

struct Component;

impl Sizing for Component {
    fn decide(input: SizingInput) -> SizingOutput {
        let pool = &input.pool;
        let well = SizingOutput {
            target: pool.gauges.target,
            min_idle: 0,
            reserve: 0,
            parallel_creates: 0,
            next_tick_ms: 0,
            reason: 0,
            carry: Vec::new(),
        };
        match fault(Hook::Sizing, pool) {
            Some(Fault::Max) => SizingOutput {
                target: u32::MAX,
                min_idle: u32::MAX,
                reserve: u32::MAX,
                parallel_creates: u32::MAX,
                next_tick_ms: u32::MAX,
                reason: u32::MAX,
                carry: vec![f64::MAX; 16],
            },
            Some(Fault::Zero) => SizingOutput { target: 0, ..well },
            Some(Fault::Nan) => SizingOutput { carry: vec![f64::NAN; TOO_MANY], ..well },
            Some(Fault::Oscillate) => {
                let target = if input.carry.first() == Some(&5.0) { 10 } else { 5 };
                SizingOutput { target, carry: vec![f64::from(target)], ..well }
            }
            Some(Fault::Random) => {
                let whim = whim(pool.now_ms.to_bits());
                let upto = |shift: u32, most: u64| ((whim >> shift) % most) as u32;
                SizingOutput {
                    target: if upto(0, 31) == 0 { u32::MAX } else { upto(8, 16) },
                    min_idle: upto(16, 8),
                    reserve: upto(24, 8),
                    parallel_creates: upto(32, 6),
                    next_tick_ms: 100,
                    ..well
                }
            }
            other => {
                misbehave(other);
                well
            }
        }
    }
}

impl Eviction for Component {
    fn review(input: EvictionInput) -> EvictionOutput {
        let count = input.idle.len();
        let well = EvictionOutput { verdicts: vec![0; count], yield_cost: 500, carry: Vec::new() };
        match fault(Hook::Eviction, &input.pool) {
            Some(Fault::CloseAll) => EvictionOutput { verdicts: vec![1; count], ..well },
            Some(Fault::Nan) => EvictionOutput {
                verdicts: vec![u32::MAX; count + 1000],
                yield_cost: u32::MAX,
                carry: vec![f64::NAN; TOO_MANY],
            },
            other => {
                misbehave(other);
                well
            }
        }
    }
}

impl Validation for Component {
    fn check(
        _trigger: u32,
        _age_ms: u32,
        _idle_ms: u32,
        _uses: u32,
        _errors: u32,
        _since_validated_ms: u32,
        _last_valid_for_ms: u32,
        _recent_bad: u32,
        _recent_good: u32,
        _transaction: u32,
        _dirty: u32,
        _peek: u32,
        _last_error: u32,
        deadline_left_ms: u32,
        _failed_probes: u32,
        _epochs_behind: u32,
    ) -> f64 {
        match plan().for_connection(deadline_left_ms) {
            // Discard, and purge.
            Some(Fault::Discard) => 14.0,
            Some(Fault::Nan) => f64::NAN,
            other => {
                misbehave(other);
                // Ping.
                1.0
            }
        }
    }
}

impl Lifecycle for Component {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            config_schema: r#"{"type":"object","properties":{"mode":{"type":"string"}}}"#.into(),
            carry_version: 1,
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let plan = Plan::parse(&config)?;
        PLAN.try_with(|cell| cell.set(plan)).map_err(|_| String::from("no place for the plan"))
    }

    fn self_check() -> Result<(), String> {
        if plan().refuses() { Err("refused as configured".into()) } else { Ok(()) }
    }
}

fn plan() -> Plan {
    PLAN.try_with(Cell::get).unwrap_or(Plan::NONE)
}

fn fault(hook: Hook, pool: &PoolView) -> Option<Fault> {
    plan().for_pool(hook, pool.now_ms)
}

/// The faults that all hooks have in common. Returns for those that the hook does not know.
fn misbehave(fault: Option<Fault>) {
    match fault {
        Some(Fault::Loop) => loop {
            black_box(0);
        },
        Some(Fault::Trap) => abort(),
        Some(Fault::Memory) => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(black_box(vec![1_u8; 65_536]));
            }
        }
        _ => {}
    }
}
