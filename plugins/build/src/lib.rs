//! Turns policy crates into WebAssembly components.
//!
//! `cargo` compiles a crate to a core module; [`component`] wraps it, and refuses what the gateway would refuse for its shape:
//! a component that imports functions, or exports no policy. [`workspace`] does that for all policies of this repository,
//! [`testing`] for those that the gateway's tests need, [`scaffold`] starts a new one anywhere.
//!
//! What it promises: the same sources give the same bytes; a file in `dist/` is either the old one or the new one, never half
//! of one, and is not touched when nothing changed, so that a gateway watching it swaps only for cause. It does not run
//! anything it built: whether a policy behaves is for the gateway to find out when it loads it.

pub mod cargo;
pub mod component;
pub mod output;
pub mod scaffold;
pub mod testing;
pub mod wit;
pub mod workspace;
