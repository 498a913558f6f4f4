//! What eviction policies share, so that each of them is its decision and nothing else.
//!
//! A policy is a type that implements [`Policy`]: its settings, its pure function from [`Signals`], [`Candidate`]s and `carry` to
//! a [`Review`], and its self-check. `component!` writes the WebAssembly component's face for it. Beside that there is only what more
//! than one of them needs: what stands above the minimum ([`Signals::spare`]), and what a connection's ages and probes say
//! ([`Candidate::is_unfit`], [`Candidate::is_unused_for`], [`Candidate::life_ms`]).
//!
//! It decides nothing itself, and reads no configuration (that is `policy-settings`).

mod candidate;
#[cfg(target_arch = "wasm32")]
pub mod component;
mod policy;
mod signals;

pub use candidate::Candidate;
pub use policy::{Policy, Review, Verdict};
pub use signals::Signals;
