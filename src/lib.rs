//! Sluicegate: an edge gateway that terminates HTTPS, limits rates, and routes HTTP to services and queries to pooled
//! databases, with pool policies that are WebAssembly components swapped while traffic flows.
//!
//! The crate is a library with a thin binary so that its rooms can be tested and measured; it is not an interface to build on.
//! `ARCHITECTURE.md` says what each room is for and which way they depend on each other.

pub mod access;
pub mod admin;
pub mod backend;
pub mod cli;
pub mod config;
pub mod edge;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod gateway;
pub mod limit;
pub mod net;
pub mod observe;
pub mod policy;
pub mod pool;
pub mod proxy;
pub mod query;
pub mod route;
