//! Sizing by the gradient of round trips: down when they take longer than they long have, else up by a few.
//!
//! Netflix's Gradient2 (concurrency-limits), on round trips of the database: on hold times it would take a slow client, and on
//! waits itself, for a slow database. Each second: gradient = tolerance·long/short, within ½ and 1; limit ← limit·gradient + queue,
//! of which `smoothing` is taken over. Where n statements at once are the knee, it comes to rest near tolerance·n + queue.
//!
//! Choose it when the database is what limits, shared with others or of changing speed, and its statements are of one kind: the
//! mean must mean something. For a mix that changes with the hour, or fewer than ten statements a second, `utilisation` fits
//! better. It grows by `smoothing·queue` a second (0.8): where bursts must be followed faster, choose `little`.
//!
//! What is different here: with Netflix's rule, under load that never ends, the long average follows the short one, and the limit
//! rises without end. Here round trips that rise while the pool is in use count `loaded_weight` in it, a hundredth: a database that
//! stays slow is believed at once in a quiet hour, and else within some hours. 1 is Netflix's rule.
//!
//! At its edges:
//! - without round trips (`rtt_samples` 0), or with fewer than `min_samples` in a second, they are gathered for up to five minutes,
//!   and the target stays;
//! - while less than half of the limit is in use, it stays: a load that tests nothing proves nothing; it does not shrink for
//!   lack of use, idle connections are the eviction policy's;
//! - while creates fail, the server is full or the breaker is not closed, it may shrink, but does not grow;
//! - it begins at `start`, not at the pool's maximum: coming from above, it would take a crowded database for the usual one;
//! - the target follows its limit upwards by whole connections, downwards by a fifth; where the host does otherwise than was
//!   answered (it shrinks no pool while callers wait), the limit goes on from there.
//!
//! The decision is a pure function, [`decide`]; it remembers the limit, the long average, and a window of round trips.
//!
//! [`decide`]: policy_sizing::Policy::decide

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod sizing;

pub use configuration::Settings;
pub use sizing::Reason;

/// Sizing by the gradient of round trips.
#[derive(Debug)]
pub struct Gradient2;
