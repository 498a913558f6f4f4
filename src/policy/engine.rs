//! The engine that components run in, and the clock that interrupts them.
//!
//! Server and compiler process share every setting that shapes code; only the allocator differs. Instances come from a
//! pool of prepared slots, so that a new one costs microseconds. Where its address space cannot be had (a limit on it, a
//! small machine), they are made on demand, some microseconds slower.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;
use wasmtime::{Config, Engine, OptLevel, PoolingAllocationConfig, component::Linker};

use super::sandbox::State;

/// How often running components are interrupted to look at their clocks.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Stack of a component: policies do not recurse deeply, and the worker's own stack must hold it.
const STACK: usize = 256 << 10;
/// Address space for each memory. With this and the guard behind it no access needs a bounds check.
const RESERVATION: u64 = 4 << 30;
const GUARD: u64 = 32 << 20;
/// Instances at a time, over all plugins, versions and workers. Each reserves 4 GiB of the 128 TiB of addresses, and no memory.
const INSTANCES: u32 = 2048;
/// Most modules, memories and tables that one component may consist of, and elements of a table; what language runtimes
/// need, QuickJS and StarlingMonkey among them.
pub(super) const MODULES: usize = 64;
pub(super) const MEMORIES: usize = 4;
pub(super) const TABLES: usize = 16;
pub(super) const TABLE_ELEMENTS: usize = 65_536;
/// Memory that a slot keeps after use instead of returning it to the system: a small policy's whole memory.
const KEPT_RESIDENT: usize = 128 << 10;
/// Slots kept so.
const KEPT_SLOTS: u32 = 32;
/// Frames of a trap's backtrace: enough to find the function.
const FRAMES: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// What all plugins share.
pub(super) struct Host {
    engine: Engine,
    /// Empty: a policy gets nothing.
    pub(super) linker: Linker<State>,
    /// Warm instances of a version: one for each worker, one for other threads.
    pub(super) lanes: usize,
    pub(super) counts: Arc<Counts>,
    ticking: Mutex<bool>,
}

/// How many versions and stores are alive.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) versions: AtomicUsize,
    pub(super) stores: AtomicUsize,
}

/// What is alive in the policy host; after swaps and their last calls it is back to one version a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Loaded component versions.
    pub versions: usize,
    /// Instances, each in a store of its own.
    pub stores: usize,
}

impl Host {
    /// # Errors
    /// The engine does not support this machine.
    pub(super) fn new(workers: usize) -> Result<Self, wasmtime::Error> {
        let engine = Engine::new(settings().allocation_strategy(slots())).or_else(|error| {
            tracing::warn!(error = %error, "no address space for pooled policy instances, making them on demand");
            Engine::new(&settings())
        })?;
        let linker = Linker::new(&engine);
        Ok(Self { engine, linker, lanes: workers + 1, counts: Arc::default(), ticking: Mutex::new(false) })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn census(&self) -> Census {
        Census {
            versions: self.counts.versions.load(Ordering::Relaxed),
            stores: self.counts.stores.load(Ordering::Relaxed),
        }
    }

    /// Starts the clock, once, before the first component runs. It stops when the engine is dropped.
    ///
    /// # Errors
    /// There can be no thread for it; nothing may run, as nothing would stop it.
    pub(super) fn start_clock(&self) -> io::Result<()> {
        let mut ticking = self.ticking.lock();
        if *ticking {
            return Ok(());
        }
        let engine = self.engine.weak();
        thread::Builder::new().name("policy-clock".into()).spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        })?;
        *ticking = true;
        Ok(())
    }
}

/// An engine that compiles and runs nothing, on the calling thread alone.
///
/// # Errors
/// The engine does not support this machine.
pub(super) fn compiling() -> Result<Engine, wasmtime::Error> {
    Engine::new(&settings())
}

fn settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .wasm_memory64(false)
        .shared_memory(false)
        .memory_init_cow(true)
        .memory_reservation(RESERVATION)
        .memory_guard_size(GUARD)
        .wasm_backtrace_max_frames(Some(FRAMES))
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(false);
    config
}

fn slots() -> PoolingAllocationConfig {
    let mut slots = PoolingAllocationConfig::new();
    slots
        .total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 4)
        .total_memories(INSTANCES)
        .total_tables(INSTANCES * 2)
        .max_core_instances_per_component(MODULES as u32)
        .max_memories_per_component(MEMORIES as u32)
        .max_tables_per_component(TABLES as u32)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .max_memory_size(usize::try_from(RESERVATION).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEPT_RESIDENT)
        .table_keep_resident(16 << 10)
        .max_unused_warm_slots(KEPT_SLOTS);
    slots
}
