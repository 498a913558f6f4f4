//! Validation by a window of trust that learns: short while connections are found broken, long where they never are.
//!
//! Choose it where nobody knows how reliable the way to the database is, or where that changes: a firewall that forgets, a proxy
//! that fails over, a laptop. A fixed window is either too long on a bad day or too short on all the others. Where the database is
//! next door and a ping costs nothing, `bypass-window` is simpler; where a stale connection is worse than a slow query,
//! the native `always`.
//!
//! - A connection starts with a window of `least_ms`. Each ping that it answers lengthens it by `growth`, up to `most_ms`: by default
//!   three of them about double it.
//! - Failures cap the window at once, for all connections: by the share of those proved in the last ten seconds that were broken,
//!   each counted `caution` times. One in fifty halves it, one in five is down to a tenth.
//! - Errors on a connection cap its own in the same way; one that just happened halves it, a timeout ends it.
//! - When `suspicion` or more were broken in ten seconds, and more than were good, the idle ones from before are closed.
//! - A closed socket and an outdated connection are discarded, one with data waiting is pinged.
//!
//! It remembers nothing but what the host hands back: the connection's last window, and the counts. So a long window that was given
//! out on a good day holds until it is over, whatever happens meanwhile: `most_ms` is what a sudden end of all connections
//! may cost, one caller for each that was used within it. Its default, ten seconds, is as far as the host's counts look back:
//! what is trusted for longer is trusted on no evidence.
//!
//! The decision is a pure function, [`check`], on scalars, without allocation.
//!
//! [`check`]: policy_validation::Policy::check

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod validation;
mod window;

pub use configuration::Settings;
pub use window::window_ms;

/// A window of trust for each connection, that learns.
#[derive(Debug)]
pub struct Adaptive;
