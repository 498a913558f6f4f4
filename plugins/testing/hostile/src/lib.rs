//! For tests: a policy with all hooks that misbehaves as its configuration says: `{"mode": "HOOK.FAULT"}`, or `{"mode": "FAULT"}`
//! for every hook that knows the fault. Without a mode it behaves.
//!
//! | hook | faults |
//! |---|---|
//! | sizing | `loop`, `trap`, `memory` (grows until it may not), `max` (`u32::MAX` everywhere), `zero`, `nan` (NaN and far too many in `carry`), `oscillate` (5, 10, 5, …), `random` (other numbers each time, now and then `u32::MAX`) |
//! | eviction | `loop`, `trap`, `memory`, `nan` (as above, verdicts that do not exist, and far too many), `close-all` |
//! | validation | `loop`, `trap`, `memory`, `nan`, `discard` (and purge) |
//! | lifecycle | `refuse` (the self-check fails) |
//!
//! A hostile policy must get past the door to do harm, so it knows the host's trial by its round numbers, and behaves while it is
//! being tried: the trial keeps out what is broken, not what is malicious. Without a mode it behaves always. (There
//! is nothing else it could go by: instances for sizing and eviction are made anew for each call.)

#[cfg(target_arch = "wasm32")]
mod component;
mod fault;

pub use fault::{Fault, Hook, MODES, Plan, whim};
