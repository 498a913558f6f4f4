//! What a policy is, and what it answers.

use std::fmt::Debug;

use crate::Signals;

/// A sizing policy.
pub trait Policy {
    /// What an operator may set.
    type Settings: Copy + Debug + PartialEq + 'static;
    /// Why a target is what it is; a number for the host.
    type Reason: Copy + Debug + PartialEq + Into<u32>;

    /// What holds when nothing is set.
    const DEFAULT: Self::Settings;
    /// The configuration as JSON Schema.
    const SCHEMA: &'static str;
    /// Counts up when what `carry` means changes.
    const CARRY_VERSION: u32;

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    fn parse(json: &str) -> Result<Self::Settings, String>;

    /// Decides. The same input gives the same answer; any input gives one within the bounds.
    fn decide(settings: &Self::Settings, signals: &Signals, carry: &[f64]) -> Decision<Self::Reason>;

    /// A few decisions whose answers are known: a component that was damaged on its way is not installed.
    ///
    /// # Errors
    ///
    /// Names the decision that came out wrong.
    fn self_check() -> Result<(), String>;
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<R> {
    /// Connections to aim at.
    pub target: u32,
    /// Idle connections to keep ready.
    pub min_idle: u32,
    /// Connections above the target for waiters that have grown old.
    pub reserve: u32,
    /// Milliseconds to the next tick; 0: the pool's own setting.
    pub next_tick_ms: u32,
    /// Why.
    pub reason: R,
    /// What to remember: at most 16 finite numbers.
    pub carry: Vec<f64>,
}

impl<R> Decision<R> {
    /// A target, with `min_idle` within it, no reserve, and the next tick when it comes.
    pub fn new(target: u32, min_idle: u32, reason: R, carry: Vec<f64>) -> Self {
        Self { target, min_idle: min_idle.min(target), reserve: 0, next_tick_ms: 0, reason, carry }
    }
}
