//! Sizing by the queue in the database: as many connections as keep a few statements waiting there, and no more.
//!
//! TCP Vegas (Brakmo and Peterson, 1995) as in Netflix's concurrency-limits: of `limit` statements, limit·(1 − unloaded/rtt) are
//! in a queue. Fewer than `alpha`: one connection more; more than `beta`: one less; both grow with the limit's decimal logarithm. At
//! the beginning it grows by `beta` a second while nothing queues, until something does.
//!
//! Choose it when the database is what limits and should be kept just busy, with the shortest round trips: it stays nearer to the
//! knee than `gradient2`, for the same kind of load: statements of one kind, fifty a second and more. Below that, noise looks like a queue.
//!
//! The round trip of an unloaded database is an average of those while less than half of the limit is in use, and follows faster
//! ones. Under load without end it is measured every `probe_s` by a dip to half of the limit until four times `min_samples` came
//! back, up to five seconds: without it a database that became slower for good would never be believed, and one that was crowded from the
//! beginning never found out. When the dip does not take hold (the host shrinks no pool while callers wait), the measure moves an
//! eighth of the way to the present round trip. The first probe comes after ten seconds; each can halve what is too much.
//!
//! At its edges:
//! - without round trips (`rtt_samples` 0), or with fewer than `min_samples` in a second, they are gathered for up to five minutes,
//!   and the target stays;
//! - while less than half of the limit is in use, it stays; it does not shrink for lack of use, idle connections are the eviction
//!   policy's;
//! - when the server is full it takes a step down; while creates fail or the breaker is not closed it does not grow, and a dip is
//!   ended;
//! - it begins at `start`, not at the pool's maximum; the target follows its limit upwards by whole connections, downwards by an
//!   eighth; where the host does otherwise than was answered, the limit goes on from there.
//!
//! The decision is a pure function, [`decide`]; it remembers the limit, the unloaded round trip, when it was measured, a dip, and a
//! window of round trips.
//!
//! [`decide`]: policy_sizing::Policy::decide

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod sizing;

pub use configuration::Settings;
pub use sizing::Reason;

/// Sizing by the queue in the database.
#[derive(Debug)]
pub struct Vegas;
