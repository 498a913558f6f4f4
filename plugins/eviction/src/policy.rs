//! What a policy is, and what it answers.

use policy_settings::Configuration;

use crate::{Candidate, Signals};

/// An eviction policy.
pub trait Policy {
    /// What an operator may set.
    type Settings: Configuration;

    /// Counts up when what `carry` means changes.
    const CARRY_VERSION: u32;

    /// Decides on each connection of `idle`, which has the most recently used first. The same input gives the same answer.
    fn review(settings: &Self::Settings, signals: &Signals, idle: &[Candidate], carry: &[f64]) -> Review;

    /// A sweep whose answer is known: a component that was damaged on its way is not installed.
    ///
    /// # Errors
    ///
    /// Names what came out wrong.
    fn self_check() -> Result<(), String>;
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// It stays.
    Keep = 0,
    /// It goes.
    Close = 1,
    /// It is asked whether it lives.
    Probe = 2,
    /// It goes once another one is there.
    Replace = 3,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// One for each connection, in order.
    pub verdicts: Vec<Verdict>,
    /// What giving up a slot would hurt, 0 to 1000.
    pub yield_cost: u32,
    /// What to remember: at most 16 finite numbers.
    pub carry: Vec<f64>,
}

impl Review {
    /// Whether it is the one that is known, for self-checks. What is remembered does not count.
    ///
    /// # Errors
    ///
    /// Names what came out otherwise.
    pub fn proves(&self, verdicts: &[Verdict], yield_cost: u32) -> Result<(), String> {
        let wrong = if self.verdicts != verdicts {
            "verdicts"
        } else if self.yield_cost != yield_cost {
            "yield cost"
        } else {
            return Ok(());
        };
        Err(String::from(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::{Review, Verdict};

    #[test]
    fn what_came_out_otherwise_is_named() {
        let review = Review { verdicts: vec![Verdict::Keep, Verdict::Close], yield_cost: 250, carry: vec![1.0] };
        assert_eq!(review.proves(&[Verdict::Keep, Verdict::Close], 250), Ok(()));
        assert_eq!(review.proves(&[Verdict::Keep, Verdict::Probe], 250), Err("verdicts".to_owned()));
        assert_eq!(review.proves(&[Verdict::Keep], 250), Err("verdicts".to_owned()), "one is missing");
        assert_eq!(review.proves(&[Verdict::Keep, Verdict::Close], 251), Err("yield cost".to_owned()));
    }
}
