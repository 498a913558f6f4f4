//! For tests: what sizing policies are tried on.
//!
//! - [`laws`]: what holds for every policy and any input; [`any`]: such inputs;
//! - [`replay`]: recorded days, and the targets that followed;
//! - [`schema`]: whether a schema says what the configuration's reader does;
//! - [`simulation`]: a pool and a database behind it, callers, and time. Closed: what the policy answers changes what it is told
//!   next. Deterministic, so that a figure in a test is a figure.

pub mod any;
pub mod laws;
pub mod replay;
pub mod schema;
pub mod simulation;
