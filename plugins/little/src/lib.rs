//! Sizing by Little's law: in use are, in the mean, as many connections as come in the time that one is held.
//!
//! L = λW: λ counts those who ask, served or not, and those still in the queue, for a full pool would else hide the load that
//! it cannot serve; W is the mean from checkout to return. Around the mean the number in use spreads by its square root where
//! callers come independently, so the target is L + margin·√L (Halfin and Whitt, 1981): with the default 1.5 about one caller in
//! eleven finds no idle connection, and hardly any waits longer than a statement takes.
//!
//! Choose it when the pool should be as small as its load allows, follow it within seconds, and the database is not what limits
//! it. Where it is, statements take longer the more of them run: W grows with the target and the target with W, up to the
//! maximum. There `gradient2` or `vegas` fit, or a maximum below the knee.
//!
//! How it keeps still: it grows at once when callers wait longer than a connection is held, else the load is smoothed over
//! `smoothing_ms`; it shrinks to the most that was needed in a span of `calm_ms`, and not for less than a tenth.
//!
//! At its edges:
//! - without a return (`samples` 0: long statements, or nothing happens) W is unknown, and L is what is in use and what waits; what
//!   is in use in the mean is always the least that L can be, for a statement that never ends has no return;
//! - the backlog counts as callers who come within a second, and never for more than a connection each;
//! - while creates fail, the server is full or the breaker is not closed, the target and what is remembered stay as they are.
//!
//! The decision is a pure function, [`decide`]; it remembers the load, how long less was needed, and the most of that time.
//!
//! [`decide`]: policy_sizing::Policy::decide

#[cfg(target_arch = "wasm32")]
mod component;
mod configuration;
mod sizing;

pub use configuration::Settings;
pub use sizing::Reason;

/// Sizing by Little's law.
#[derive(Debug)]
pub struct Little;
