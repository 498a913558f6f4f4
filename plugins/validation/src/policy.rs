//! What a policy is, and how it proves itself.

use policy_settings::Configuration;

use crate::{Signals, Verdict};

/// A validation policy.
pub trait Policy {
    /// What an operator may set.
    type Settings: Configuration;

    /// Decides. The same input gives the same answer.
    fn check(settings: &Self::Settings, signals: &Signals) -> Verdict;

    /// A few verdicts that are known: a component that was damaged on its way is not installed.
    ///
    /// # Errors
    ///
    /// Names the verdict that came out wrong.
    fn self_check() -> Result<(), String>;
}

/// Holds a policy with its defaults to verdicts that are known, each as the number that goes to the host.
///
/// # Errors
///
/// The name of the first that came out otherwise.
pub fn prove<P: Policy>(cases: &[(&str, Signals, f64)]) -> Result<(), String> {
    let settings = P::Settings::DEFAULT;
    for (name, signals, packed) in cases {
        if P::check(&settings, signals).pack().to_bits() != packed.to_bits() {
            return Err(String::from(*name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Policy, prove};
    use crate::{Action, Signals, Verdict};

    policy_settings::settings! {
        /// A window.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        struct Settings {
            /// Its length.
            window_ms: whole from 0 to 1000, default 500, "its length";
        }
    }

    /// Trusts the young.
    struct Young;

    impl Policy for Young {
        type Settings = Settings;

        fn check(settings: &Settings, signals: &Signals) -> Verdict {
            let action = if signals.age_ms < settings.window_ms { Action::Pass } else { Action::Ping };
            Verdict::new(action, false, 0, 0)
        }

        fn self_check() -> Result<(), String> {
            prove::<Self>(&[])
        }
    }

    #[test]
    fn a_wrong_verdict_is_named() {
        let old = Signals { age_ms: 500, ..Signals::EMPTY };
        assert_eq!(prove::<Young>(&[("young", Signals::EMPTY, 0.0), ("old", old, 1.0)]), Ok(()));
        let damaged = [("young", Signals::EMPTY, 0.0), ("old", old, 0.0), ("older", old, 0.0)];
        assert_eq!(prove::<Young>(&damaged), Err("old".to_owned()));
        assert_eq!(Young::self_check(), Ok(()), "nothing to hold it to");
    }
}
