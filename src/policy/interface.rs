//! The words of the policy interfaces in Rust.
//!
//! The records are generated from `wit/`, so they cannot drift from it; their documentation is the WIT's own. Validation
//! takes flat scalars there, which are gathered into [`ValidationInput`] here, and answers one packed number, which
//! [`super::answer`] takes apart into a [`Verdict`].

use serde::Serialize;

pub use bindings::{
    exports::sluicegate::policy::{
        eviction::{EvictionInput, EvictionOutput, IdleConnection},
        sizing::{SizingInput, SizingOutput},
    },
    sluicegate::policy::types::{Bounds, Flows, Gauges, Latencies, PoolView},
};

/// What `bindgen!` makes of `wit/`. The world is never implemented as a whole: each interface is looked up by itself.
#[expect(missing_docs, reason = "generated; what the WIT documents is documented")]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        inline: "
            package sluicegate:host;
            world everything {
                export sluicegate:policy/sizing@0.1.0;
                export sluicegate:policy/eviction@0.1.0;
                export sluicegate:policy/validation@0.1.0;
                export sluicegate:policy/lifecycle@0.1.0;
            }
        ",
        world: "sluicegate:host/everything",
        additional_derives: [Default, PartialEq, serde::Serialize],
    });
}

/// A decision that a policy can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// How many connections.
    Sizing,
    /// Which idle ones leave.
    Eviction,
    /// Whether one may be trusted.
    Validation,
}

/// What `validation.check` is told; see `wit/validation.wit` for units and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ValidationInput {
    /// Why the question is asked: [`Self::CHECKOUT`] and following.
    pub trigger: u32,
    /// Since the connection was made.
    pub age_ms: u32,
    /// Since it was returned.
    pub idle_ms: u32,
    /// Checkouts so far.
    pub uses: u32,
    /// Errors so far.
    pub errors: u32,
    /// Since it was last validated.
    pub since_validated_ms: u32,
    /// The window that the last verdict gave.
    pub last_valid_for_ms: u32,
    /// Connections of the pool found broken in the last 10 s.
    pub recent_bad: u32,
    /// And found good.
    pub recent_good: u32,
    /// 0 idle, 1 in a transaction, 2 in a failed one, 3 unknown.
    pub transaction: u32,
    /// Session state that is set, as bits.
    pub dirty: u32,
    /// What the socket said: 0 clean, 1 data waiting, 2 closed.
    pub peek: u32,
    /// Class of the last error, 0 for none.
    pub last_error: u32,
    /// What the caller has left.
    pub deadline_left_ms: u32,
    /// Probes that failed in a row.
    pub failed_probes: u32,
    /// Changes of credentials, address or settings since it was opened.
    pub epochs_behind: u32,
}

/// What to do with a connection before it is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Trust it as it is.
    Pass,
    /// A round trip first.
    #[default]
    Ping,
    /// The configured query first.
    Query,
    /// Roll back first.
    Rollback,
    /// Reset the session first.
    ResetSession,
    /// Reset all of it first, prepared statements too.
    ResetFully,
    /// Close it.
    Discard,
}

/// What a validation policy says of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// Also close the pool's idle connections.
    pub purge: bool,
    /// Longest probe; 0: the pool's own setting.
    pub timeout_ms: u32,
    /// Trust the connection without asking for so long.
    pub valid_for_ms: u32,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sizing, Self::Eviction, Self::Validation];

    /// The name in WIT, configuration, logs and figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sizing => "sizing",
            Self::Eviction => "eviction",
            Self::Validation => "validation",
        }
    }

    /// Its place in an array with one element a hook.
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Sizing => 0,
            Self::Eviction => 1,
            Self::Validation => 2,
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SizingInput {
    /// Trigger: the interval is over.
    pub const TICK: u32 = 0;
    /// Trigger: the first waiter in the queue grows old.
    pub const WAITER_OLD: u32 = 1;
    /// Trigger: a checkout gave up.
    pub const CHECKOUT_TIMEOUT: u32 = 2;
    /// Trigger: a connection could not be made.
    pub const CREATE_FAILED: u32 = 3;
    /// Trigger: the breaker opened, half opened or closed.
    pub const BREAKER_MOVED: u32 = 4;
    /// Trigger: the configuration changed.
    pub const CONFIGURATION: u32 = 5;
}

impl EvictionOutput {
    /// Verdict: leave it.
    pub const KEEP: u32 = 0;
    /// Verdict: close it.
    pub const CLOSE: u32 = 1;
    /// Verdict: probe it, close it if it fails.
    pub const PROBE: u32 = 2;
    /// Verdict: make another, then close it.
    pub const REPLACE: u32 = 3;
    /// The greatest [`EvictionOutput::yield_cost`].
    pub const YIELD_COST_MAX: u32 = 1000;
}

impl ValidationInput {
    /// Trigger: a caller is about to get it.
    pub const CHECKOUT: u32 = 0;
    /// Trigger: a caller gave it back.
    pub const RETURN: u32 = 1;
    /// Trigger: an error occurred on it.
    pub const ERROR: u32 = 2;
    /// Trigger: it was just made.
    pub const CREATED: u32 = 3;
    /// Trigger: it has been idle for long.
    pub const KEEP_ALIVE: u32 = 4;
    /// Peek: the server closed it.
    pub const PEEK_CLOSED: u32 = 2;
}
