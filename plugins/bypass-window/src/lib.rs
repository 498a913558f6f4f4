//! Validation by a window of trust: a connection that answered a moment ago is not asked again.
//!
//! Choose it for databases that are near and mostly there, which is nearly all: a ping before every query doubles the latency
//! of a small one, and this spares almost all of them. The native `bypass-window` has the same window; this one also grows
//! suspicious: the more connections of a pool were found broken in the last ten seconds, the shorter the window, down to
//! none, and when most were, the idle ones made before that are closed. Where a stale connection is worse than a slow
//! query, choose the native `always`.
//!
//! - Checkout: pass within the window, else ping. A socket that has data waiting is asked; one that is closed is discarded.
//! - Return and creation: pass, and trust for the window; roll back what is open, reset what is unknown.
//! - After an error: discard what cannot live (broken, refused, read-only), ping the rest.
//! - Keep-alive: ping.
//!
//! The decision is a pure function, [`check`], on scalars, and remembers nothing.
//!
//! [`check`]: policy_validation::Policy::check

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod validation;

pub use configuration::Settings;

/// A window of trust, the shorter the more connections were found broken.
#[derive(Debug)]
pub struct BypassWindow;
