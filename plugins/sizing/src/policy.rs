//! What a policy is, and what it answers.

use std::fmt::Debug;

use policy_settings::Configuration;

use crate::Signals;

/// A sizing policy.
pub trait Policy {
    /// What an operator may set.
    type Settings: Configuration;
    /// Why a target is what it is; a number for the host.
    type Reason: Copy + Debug + PartialEq + Into<u32>;

    /// Counts up when what `carry` means changes.
    const CARRY_VERSION: u32;

    /// Decides. The same input gives the same answer; any input gives one within the bounds.
    fn decide(settings: &Self::Settings, signals: &Signals, carry: &[f64]) -> Decision<Self::Reason>;

    /// A few decisions whose answers are known: a component that was damaged on its way is not installed.
    ///
    /// # Errors
    ///
    /// Names the decision that came out wrong.
    fn self_check() -> Result<(), String>;
}

/// A decision that is known: its name, what the policy is told and remembers, and its target and reason.
pub type Known<'a, R> = (&'a str, Signals, &'a [f64], u32, R);

/// Holds a policy to decisions that are known.
///
/// # Errors
///
/// The name of the first that came out otherwise.
pub fn prove<P: Policy>(settings: &P::Settings, cases: &[Known<'_, P::Reason>]) -> Result<(), String> {
    for (name, signals, carry, target, reason) in cases {
        let decision = P::decide(settings, signals, carry);
        if decision.target != *target || decision.reason != *reason {
            return Err(String::from(*name));
        }
    }
    Ok(())
}

/// Lets the reasons of a policy stand for their numbers.
#[macro_export]
macro_rules! numbered {
    ($reason:ty) => {
        impl From<$reason> for u32 {
            fn from(reason: $reason) -> Self {
                reason as Self
            }
        }
    };
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

#[cfg(test)]
mod tests {
    use super::{Decision, Policy, prove};
    use crate::Signals;

    policy_settings::settings! {
        /// What it adds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        struct Settings {
            /// Connections beyond those in use.
            spare: whole from 0 to 100, default 2, "connections beyond those in use";
        }
    }

    /// Why there is a number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u32)]
    enum Reason {
        Used = 0,
        Remembered = 3,
    }

    crate::numbered!(Reason);

    /// What is in use or remembered, and a few more.
    struct Spare;

    impl Policy for Spare {
        type Settings = Settings;
        type Reason = Reason;

        const CARRY_VERSION: u32 = 1;

        fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision<Reason> {
            let before = carry.first().map_or(0, |before| *before as u32);
            let reason = if before > signals.in_use { Reason::Remembered } else { Reason::Used };
            Decision::new(before.max(signals.in_use) + settings.spare, 0, reason, Vec::new())
        }

        fn self_check() -> Result<(), String> {
            prove::<Self>(&Settings::DEFAULT, &[])
        }
    }

    #[test]
    fn a_decision_that_came_out_otherwise_is_named() {
        let used = Signals { in_use: 5, ..Signals::EMPTY };
        let proved = |target, reason| {
            let known = [("used", used, &[][..], 7, Reason::Used), ("remembered", used, &[9.0][..], target, reason)];
            prove::<Spare>(&Settings::DEFAULT, &known)
        };
        assert_eq!(proved(11, Reason::Remembered), Ok(()));
        assert_eq!(proved(10, Reason::Remembered), Err("remembered".to_owned()), "another target");
        assert_eq!(proved(11, Reason::Used), Err("remembered".to_owned()), "another reason");
        assert_eq!(Spare::self_check(), Ok(()), "nothing to hold it to");
    }

    #[test]
    fn a_reason_stands_for_its_number() {
        assert_eq!([Reason::Used, Reason::Remembered].map(u32::from), [0, 3]);
    }
}
