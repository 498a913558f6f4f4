//! What validation policies share, so that each of them is its window of trust and nothing else.
//!
//! A policy is a type that implements [`Policy`]: its settings, its pure function from [`Signals`] to a [`Verdict`], and its
//! self-check. `component!` writes the WebAssembly component's face for it. What is done outside the window is the same for all
//! of them: [`Signals::action`], [`Signals::is_purge_due`], [`Signals::timeout_ms`].
//!
//! It is asked on a request's way: all of it works on scalars, without allocation, and remembers nothing. How long a connection is
//! trusted is for the policy to say; it reads no configuration (that is `policy-settings`).

#[cfg(target_arch = "wasm32")]
pub mod component;
mod policy;
mod rule;
mod signals;
mod verdict;

pub use policy::{Policy, prove};
pub use signals::Signals;
pub use verdict::{Action, Verdict};
