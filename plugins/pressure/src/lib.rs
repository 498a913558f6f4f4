//! Eviction for pools that share a server: what is surplus goes back when the server is nearly full, and every sweep says what a
//! slot is worth here.
//!
//! Choose it where several pools, or several gateways, live off one server's `max_connections`, and a connection that nobody
//! needs here is one that somebody else waits for. Where a server has one pool, `lifetime` does: without a neighbour,
//! closing a connection early buys nothing.
//!
//! How it gives, and how it does not:
//! - only near the cap: while the server has refused this pool lately and the pool has `near` of what it was granted. Else
//!   connections stay until the pool's own `idle_timeout`;
//! - only surplus: unused for `surplus_s`, and beyond the peak of the last minutes, which it remembers; never below the minimum;
//! - the most worn first: by the share of its lifetime that is over, then by errors and cached statements, for those are what makes
//!   a server process large. At most a tenth at a time, as the host allows, so that its order is the one that counts;
//! - near the end of its lifetime a connection is replaced ahead, three at a time. A replacement takes one slot more for a moment:
//!   near the cap it is one at a time, and at the cap none. A surplus one is closed instead;
//! - nothing at all while anybody waits; nothing for age or surplus while connections cannot be made.
//!
//! Connections opened under older credentials, addresses or settings, and those that failed two probes, go first; at the
//! minimum they are replaced.
//!
//! What a slot is worth is in `cost.rs`. The decision is a pure function, [`review`]; what it remembers travels in
//! `carry`.
//!
//! [`review`]: policy_eviction::Policy::review

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod cost;
mod eviction;
mod memory;

pub use configuration::Settings;
pub use cost::{MOST, yield_cost};
pub use memory::Memory;

/// Eviction for pools that share a server.
#[derive(Debug)]
pub struct Pressure;
