//! For tests: what the policies are tried on.
//!
//! - [`sizing`]: inputs of any kind, laws, recorded days, and a pool with a database behind it;
//! - [`validation`]: inputs of any kind, and laws;
//! - [`eviction`]: inputs of any kind;
//! - [`schema`]: whether a schema says what the configuration's reader does;
//! - [`traces`]: recorded days and hours, whoever decides them.

pub mod eviction;
pub mod schema;
pub mod sizing;
pub mod traces;
pub mod validation;
