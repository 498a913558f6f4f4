//! The gateway as its users meet it: the binary, real servers, real clients, faults.
//!
//! One binary, a module a subject. A scenario's name is a sentence.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::type_complexity,
    clippy::missing_docs_in_private_items,
    missing_docs,
    reason = "helpers of tests are tests: what they cannot go on without ends them"
)]

mod access;
mod bench;
mod clients;
mod crowd;
mod drivers;
mod edge;
mod faults;
mod guide;
mod hostile;
mod metrics;
mod named;
mod neon;
mod operate;
mod outages;
mod overload;
mod pgbouncer;
mod pools;
mod proxying;
mod queries;
mod replicas;
mod roles;
mod rooms;
mod sisters;
mod statements;
mod streaming;
mod support;
mod swaps;
mod templates;
mod tunnel;
