//! Eviction by idle time and lifetime, without herds.
//!
//! Choose it unless you have a reason not to: connections that nobody needs leave after a while, old ones are renewed before
//! something between here and the database drops them, and never many at a time. For databases behind a proxy that closes idle
//! connections, set `idle_s` below its limit; for one that is moved by DNS, set `lifetime_s` to how long you can wait for
//! the move. The native `lifetime` keeps the same two bounds, less gently: it does not replace ahead of expiry.
//!
//! How it is gentle:
//! - lifetimes are spread over `spread` by the number that the host gave each connection when it was made, so that connections
//!   made together do not end together;
//! - from `replace_at` of its lifetime on, a connection is replaced, then closed: a few at each sweep, so that the rest of its
//!   lifetime is the time in which its turn must come;
//! - idle connections leave longest unused first, never below the pool's minimum;
//! - under pressure (callers wait, creates fail, the server is full, the breaker is not closed) nothing leaves for age or
//!   idleness: what works is worth keeping.
//!
//! Connections opened under older credentials, addresses or settings, and those that failed two probes, go regardless.
//!
//! The decision is a pure function, [`review`], that remembers nothing.
//!
//! [`review`]: policy_eviction::Policy::review

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod eviction;

pub use configuration::Settings;

/// Eviction by idle time and lifetime.
#[derive(Debug)]
pub struct Lifetime;
