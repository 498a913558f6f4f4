//! A policy's configuration: what an operator may set, the schema that says so, its reader, and the part of a component that
//! takes it.
//!
//! - [`settings!`] writes all of that from one table: a key, its kind, its bounds, its default and its meaning stand once.
//! - [`read`] reads JSON text into [`Field`]s, in a few kilobytes of component. It stands alone: a scaffold takes a copy along.
//! - [`lifecycle!`] writes the interface of the same name, which is the same whatever a policy decides on.

mod component;
mod configuration;
mod reader;

pub use component::{configure, current};
pub use configuration::Configuration;
pub use reader::{Field, Slot, read};

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use talc;
