//! What sizing policies share, so that each of them is its decision and nothing else.
//!
//! A policy is a type that implements [`Policy`]: its settings, its pure function from [`Signals`] and `carry` to a
//! [`Decision`], and its self-check ([`prove`]). `component!` writes the WebAssembly component's face for it. Beside that there is
//! only what more than one of them needs: bounds and walls ([`Signals::within_bounds`], [`Signals::failing`]), a first-order lag
//! ([`approach`]), round trips gathered until they say something ([`Window`]), and a limit that moves in fractions
//! ([`Limit`]).
//!
//! It promises that any input is answered: numbers that are not finite, negative or out of proportion are taken for unknown,
//! in what the host tells as in what `carry` remembers. It decides nothing itself, reads no configuration (that is
//! `policy-settings`) and brings no library of numbers along: where `std` would, the function is here.

#[cfg(target_arch = "wasm32")]
pub mod component;
mod limit;
mod numbers;
mod policy;
mod signals;
mod window;

pub use limit::Limit;
pub use numbers::{approach, recall, round_up};
pub use policy::{Decision, Known, Policy, prove};
pub use signals::Signals;
pub use window::{Reading, Window};
