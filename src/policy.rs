//! Policies: how many connections a pool has, which of them leave, and when one is trusted. Native ones, and WebAssembly
//! components behind the interfaces of `wit/`, swapped while traffic flows.
//!
//! **What it promises.** A pool asks [`Sizing`], [`Eviction`] or [`Validation`] and always gets a valid answer in bounded
//! time. A component that traps, loops, grows, or answers nonsense costs one call: its instance is thrown away, the
//! [`FaultKind`] counted, and the native fallback answers (for sizing the last good answer). Three faults in a row,
//! or more than one in five for a while, and the fallback answers alone, until a later call, tried as a probe, succeeds. A
//! call has its deadline on the CPU, so that a worker that was not scheduled is not blamed, and a harder one on the clock.
//! Answers are in range and finite; keeping a target within its bounds is the pool's part.
//!
//! **A component gets nothing.** It imports only types, so the linker is empty: no clock, no file, no socket, no way to
//! remember but `carry`, which the host keeps. Sizing and eviction get a new instance for each call, so that the same
//! question has the same answer; validation has a warm one for each worker.
//!
//! **Before it serves** it is read (size, pin, kind of file), compiled in another process with limits ([`compile`]), kept
//! compiled on disk, linked, configured, and tried ([`Plugins::prepare`]). Each refusal says what and why
//! ([`PluginError`]). What served goes on serving. A configuration is prepared as a whole, then committed; a changed
//! file is swapped in by itself ([`Plugins::check_files`]). A swap is one pointer: no call waits for it, none is cut off, and
//! the old version goes with its last call ([`Plugins::census`]).
//!
//! **What it leaves out.** Deciding what is done with an answer (`pool`); other components than policies; shadowing one
//! version against another.
//!
//! From the bottom up: `interface` (the words), `engine`, `sandbox`, `instance`, `warm` (running a component), `version`,
//! `health`, `figures`, `slot` (one plugin and its guards), `content`, `artifact`, `cache`, `temporary`, `compile`, `trial`, `loader`,
//! `watch` (from file to version), `plugins` (all of them), `native`, `decide` (what pools hold).

mod answer;
mod artifact;
mod cache;
pub mod compile;
mod content;
mod decide;
mod engine;
mod error;
mod fault;
mod figures;
mod health;
mod instance;
mod interface;
mod loader;
mod native;
mod plugins;
mod sandbox;
mod slot;
mod temporary;
#[cfg(test)]
mod tests;
mod trial;
mod version;
mod warm;
mod watch;

pub use compile::Compiler;
pub use content::Digest;
pub use decide::{DecidedBy, Decision, Eviction, PluginEviction, PluginSizing, PluginValidation, Sizing, Validation};
pub use engine::Census;
pub use error::{PluginError, PolicyError};
pub use fault::FaultKind;
pub use figures::HookFigures;
pub use interface::{
    Action, Bounds, EvictionInput, EvictionOutput, Flows, Gauges, Hook, IdleConnection, Latencies, PoolView,
    SizingInput, SizingOutput, ValidationInput, Verdict,
};
pub use loader::{Inspection, Report};
pub use native::{NativeEviction, NativeSizing, NativeValidation};
pub use plugins::{Plugins, Prepared};
pub use slot::{HookStatus, PluginStatus};
pub use temporary::TemporaryState;
pub use version::Description;
