//! The configuration: typed, loaded from layers, checked as a whole, with the place of every mistake.
//!
//! [`load()`] is the one way in, for `serve`, `check` and reload alike. Layers, lowest first: defaults (in [`model`]),
//! the file that was named or else a built-in one, the profile (a file beside it), the environment ([`Environment`]).
//! Tables merge key by key, a later list replaces an earlier one whole, `false` in place of a table takes it out.
//!
//! When something is wrong, everything that is wrong comes back in one [`Report`], each [`Problem`] with source,
//! line, column, key, and the nearest known name where a name is unknown; no configuration comes back with it, so
//! that none is ever applied in part. Other rooms find more (a certificate that does not parse, routes that collide);
//! [`Loaded::problem`] gives theirs the same form and a place.
//!
//! Secrets ([`value::Secret`]) are read to be checked, kept as digests to see them change, and shown nowhere: not in
//! `Debug`, not serialised, not in a message, not in a [`Change`].
//!
//! Left out: no I/O but reading the files of configuration and secrets, no watching (reload does, over
//! [`Loaded::files`]), no includes, no templates, no remote sources.

mod authorities;
mod check;
mod decode;
mod diff;
mod env;
mod key;
mod layer;
mod load;
mod machine;
mod merge;
pub mod model;
mod problem;
mod secrets;
#[cfg(test)]
mod tests;
pub mod value;
mod words;

pub(crate) use machine::{ControlGroup, control_groups, kibibytes};

pub use check::{check, listener::collide};
pub use diff::{Change, Class, class_of, diff};
pub use env::Environment;
pub use load::{Loaded, Source, load, load_and};
pub(crate) use words::nearest;

pub use problem::{Finding, Position, Problem, Report};
pub use secrets::PoolIdentity;
