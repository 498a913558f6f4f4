//! What the gateway tells of itself: logs, the access log, figures, and whose thread it is.
//!
//! Logs are `tracing` events, in lower case with fields, on standard error: pretty on a terminal, JSON otherwise. The access
//! log is apart, one JSON object a request on standard output or in a file, because it is data: it is formatted by hand into a
//! buffer of the worker's own. Each of the two is written by one thread of its own, so that a slow disk, or a pipe that nobody
//! reads, never slows a request. When that thread cannot keep up, lines are dropped and counted; nothing else waits.
//!
//! Figures are counted where they arise, in atomics, and rendered ([`exposition`]) when somebody asks: [`figures`] holds those of HTTP, each
//! other room its own.
//!
//! How full the process's allowance of memory and processor time is, [`pressure`] reads from the kernel's files.
//!
//! What it leaves out: exporting traces. A `traceparent` is passed on and logged (see [`trace`]).

pub mod access_log;
pub mod exposition;
pub mod figures;
mod logs;
pub mod pressure;
pub mod trace;

use std::cell::Cell;

use tokio::runtime::Handle;

pub use logs::{LastWords, LogError, dropped_log_lines, init};

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
    static LEAVING: Cell<bool> = const { Cell::new(false) };
}

/// The index of the current worker thread; `usize::MAX` on any other thread.
pub fn worker() -> usize {
    WORKER.get()
}

/// Names the current thread a worker.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

/// The current worker's runtime is about to end: what its requests leave behind has to be finished elsewhere.
pub fn leave_worker() {
    LEAVING.set(true);
}

/// The current runtime, unless there is none, or it is a worker's that is about to end: what it is given then never runs.
pub fn lasting_runtime() -> Option<Handle> {
    Handle::try_current().ok().filter(|_| !LEAVING.get())
}
