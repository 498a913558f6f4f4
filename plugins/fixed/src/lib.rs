//! Sizing by the operator: a constant target, and connections in reserve for those who have waited long.
//!
//! Choose it when the load is known, or the database's administrator has said how many connections this gateway may have; and
//! to move from another pooler without changing how it behaves. Where nobody knows the number, `utilisation` or `little` find
//! it. Native `fixed` is the same with `target` at the pool's maximum and no reserve.
//!
//! | there | here |
//! |---|---|
//! | `PgBouncer`: `default_pool_size`, `min_pool_size` | `target`; the pool's `size.min` |
//! | `PgBouncer`: `reserve_pool_size`, `reserve_pool_timeout` | `reserve`, `reserve_after_ms` |
//! | `HikariCP`: `maximumPoolSize`, `minimumIdle` | `target`, `min_idle`; both the same: a pool of constant size |
//!
//! At its edges:
//! - the reserve is opened when the first in the queue has waited for `reserve_after_ms`, and closed when nobody waits any more, so
//!   that a connection made for one is not closed under the next; it never leads beyond the pool's maximum;
//! - while creates fail, the server is full or the breaker is not closed, the target does not rise and there is no reserve;
//! - no latency is looked at, so it makes no difference whether there were samples.
//!
//! The decision is a pure function, [`decide`]; what it remembers is whether the reserve is open.
//!
//! [`decide`]: policy_sizing::Policy::decide

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod sizing;

pub use configuration::Settings;
pub use sizing::Reason;

/// A constant target.
#[derive(Debug)]
pub struct Fixed;
