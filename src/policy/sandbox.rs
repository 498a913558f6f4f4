//! What holds a running component within its bounds: memory, tables, and the time of each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use super::{
    engine::{Counts, Host, MEMORIES, MODULES, TABLE_ELEMENTS, TABLES},
    version::Limits,
};

/// Bytes that one answer may take: 256 verdicts and 16 numbers are 1.2 KiB; a description has a schema in it.
const ANSWER: usize = 1 << 20;
/// Handles that a component may hold; it has nothing to hold.
const HANDLES: usize = 256;
/// A call on the wall clock may take so many times its deadline, and at least [`HARD_LEAST`]: the worker may have been off
/// the CPU, but not for ever.
const HARD_FACTOR: u32 = 10;
const HARD_LEAST: Duration = Duration::from_millis(20);

/// What a store holds for the host.
pub(super) struct State {
    /// Bytes that its memories may still grow by.
    memory: usize,
    /// It asked for more than that, in this call.
    pub(super) starved: bool,
    watch: Stopwatch,
    _live: Live,
}

/// Counts a store while it lives.
pub(super) struct Live {
    all: Arc<Counts>,
    of_version: Arc<AtomicUsize>,
}

/// A call's time. It is not looked at until the first tick that finds the call still running; so an ordinary call costs
/// no reading of clocks, and one that is stopped had at least its deadline on the CPU, at most two ticks more.
#[derive(Debug, Default)]
struct Stopwatch {
    deadline: Duration,
    since: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    cpu: Duration,
    wall: Instant,
}

/// An empty store within `limits`.
pub(super) fn store(host: &Host, limits: &Limits, live: Live) -> Store<State> {
    let state = State { memory: limits.memory.as_usize(), starved: false, watch: Stopwatch::default(), _live: live };
    let mut store = Store::new(host.engine(), state);
    store.limiter(|state| state);
    store.set_hostcall_fuel(ANSWER);
    store.set_max_component_handles(HANDLES);
    store.epoch_deadline_callback(|mut context| {
        let expired = context.data_mut().watch.is_over(Reading::now());
        Ok(if expired { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
    });
    store
}

/// Gives the next call `deadline`. Without this before each call, one call would live on what another left.
pub(super) fn arm(store: &mut Store<State>, deadline: Duration) {
    let state = store.data_mut();
    state.watch = Stopwatch { deadline, since: None };
    state.starved = false;
    store.set_epoch_deadline(1);
}

impl Stopwatch {
    fn is_over(&mut self, now: Reading) -> bool {
        let Some(since) = self.since else {
            self.since = Some(now);
            return false;
        };
        let hard = (self.deadline * HARD_FACTOR).max(HARD_LEAST);
        now.cpu.saturating_sub(since.cpu) >= self.deadline || now.wall.saturating_duration_since(since.wall) >= hard
    }
}

impl Reading {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = u64::try_from(cpu.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(cpu.tv_nsec).unwrap_or(0);
        Self { cpu: Duration::new(seconds, nanos), wall: Instant::now() }
    }
}

impl Live {
    pub(super) fn new(all: &Arc<Counts>, of_version: &Arc<AtomicUsize>) -> Self {
        all.stores.fetch_add(1, Ordering::Relaxed);
        of_version.fetch_add(1, Ordering::Relaxed);
        Self { all: Arc::clone(all), of_version: Arc::clone(of_version) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.all.stores.fetch_sub(1, Ordering::Relaxed);
        self.of_version.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let left = self.memory.checked_sub(more);
        match left {
            Some(left) => self.memory = left,
            None => self.starved = true,
        }
        Ok(left.is_some())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= TABLE_ELEMENTS;
        self.starved |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        MODULES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn running(deadline: Duration) -> (Stopwatch, Reading) {
        let start = Reading { cpu: 50 * MS, wall: Instant::now() };
        let mut watch = Stopwatch { deadline, since: None };
        assert!(!watch.is_over(start), "the first tick only takes a reading");
        (watch, start)
    }

    #[test]
    fn a_call_is_stopped_when_it_had_its_deadline_on_the_cpu() {
        let (mut watch, start) = running(2 * MS);
        let at = |ms: u32| Reading { cpu: start.cpu + ms * MS, wall: start.wall + ms * MS };
        assert!(!watch.is_over(at(1)));
        assert!(watch.is_over(at(2)));
    }

    #[test]
    fn time_off_the_cpu_is_not_the_components_fault_up_to_the_hard_limit() {
        let (mut watch, start) = running(2 * MS);
        let at = |ms: u32| Reading { cpu: start.cpu, wall: start.wall + ms * MS };
        assert!(!watch.is_over(at(19)));
        assert!(watch.is_over(at(20)));
        let (mut patient, start) = running(10 * MS);
        let at = |ms: u32| Reading { cpu: start.cpu, wall: start.wall + ms * MS };
        assert!(!patient.is_over(at(99)));
        assert!(patient.is_over(at(100)));
    }
}
