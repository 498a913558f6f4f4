//! Sizing by utilisation: more connections when the pool is busy, fewer when it has long been calm.
//!
//! Choose it when the load moves over minutes and nobody wants to guess a pool's size. It holds between `grow_above` and
//! `shrink_below` of the target in use, steps up at once when callers wait, and steps down only after `calm_ticks` quiet ticks.
//! Where the load is steady and known, the native `fixed` is simpler; where the database itself is the bottleneck, more
//! connections make it slower, and a policy that looks at round trips fits better.
//!
//! How it keeps still:
//! - demand is smoothed over `smoothing_ms`, and both the smoothed and the present demand must agree before the target moves;
//! - growing resets the count of calm ticks, and so does every tick that is not calm;
//! - shrinking stops where utilisation would pass the middle of the band, at the last peak, and at what is in use or waited for:
//!   so at constant load no growth follows a shrink;
//! - while connections it asked for are still being made, waiters do not make it ask for more;
//! - while creates fail, the server is full or the breaker is not closed, it does not grow.
//!
//! The decision is a pure function, [`decide`]; what it remembers is two numbers in `carry`.
//!
//! [`decide`]: policy_sizing::Policy::decide

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod sizing;

pub use configuration::Settings;
pub use sizing::Reason;

/// Sizing by utilisation.
#[derive(Debug)]
pub struct Utilisation;
