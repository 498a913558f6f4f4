//! Additive increase, multiplicative decrease: one more while they are used, a share less when the database has had enough.
//!
//! The database has had enough when it refuses connections because it is full, when creates fail, or when round trips take
//! longer than `rtt_above_ms` in the mean. Then `backoff` of the target is left: of the connections there are, when the server
//! is full, for that is what it bears. Otherwise, while more than `used_above` of the target is in use at the peak, the target
//! grows by `increase` a second.
//!
//! Choose it when several gateways share a database that says clearly when it is full, or a bound on its round trips is known:
//! they come to share it evenly (Chiu and Jain, 1989). It never shrinks for lack of use: idle connections are the eviction
//! policy's. Where the database slows down without saying so and no bound is known, `gradient2` or `vegas` find it.
//!
//! How it keeps still: after a step back it stays for `cooldown_ms`, then returns half of the way at its usual pace, but the rest
//! only after `retry_ms`: a bare saw-tooth would close and open connections every few seconds for ever.
//!
//! At its edges:
//! - without round trips (`rtt_samples` 0), or with fewer than `min_samples` in a second, they are gathered for up to five minutes;
//!   until then only refusals count;
//! - while creates fail, the server is full or the breaker is not closed, it does not grow; the breaker alone does not shrink it:
//!   a database that cannot be reached is not one with too many connections;
//! - the answer is given in whole connections, fractions are remembered; where the host does otherwise than was answered, it goes
//!   on from there.
//!
//! The decision is a pure function, [`decide`]; it remembers the limit, what was too much and when, and a window of round trips.
//!
//! [`decide`]: policy_sizing::Policy::decide

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod sizing;

pub use configuration::Settings;
pub use sizing::Reason;

/// Additive increase, multiplicative decrease.
#[derive(Debug)]
pub struct Aimd;
