//! Sluicegate: an edge gateway.

pub mod config;
pub mod observe;
