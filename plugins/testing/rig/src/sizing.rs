//! What sizing policies are tried on.
//!
//! - [`laws`]: what holds for every policy and any input; [`any`]: such inputs;
//! - [`replay`]: recorded days, and the targets that followed;
//! - [`simulation`]: a pool and a database behind it, callers, and time. Closed: what the policy answers changes what it is told
//!   next. Deterministic, so that a figure in a test is a figure;
//! - [`scenarios`]: what more than one policy is tried on, each with figures of its own.

pub mod any;
pub mod laws;
pub mod replay;
pub mod scenarios;
pub mod simulation;
