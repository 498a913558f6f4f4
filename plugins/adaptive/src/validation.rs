//! The decision.

use policy_validation::{Action, Policy, Signals, Verdict, prove};

use crate::{Adaptive, Settings, window_ms};

impl Policy for Adaptive {
    type Settings = Settings;

    fn check(settings: &Settings, signals: &Signals) -> Verdict {
        let purge = signals.is_purge_due(settings.suspicion);
        let action = match signals.action(window_ms(settings, signals, false)) {
            // The purge is carried out when this one proves broken as well.
            Action::Pass if purge => Action::Ping,
            action => action,
        };
        let window = window_ms(settings, signals, action == Action::Ping);
        Verdict::new(action, purge, signals.timeout_ms(settings.timeout_ms), window)
    }

    fn self_check() -> Result<(), String> {
        let fresh = Signals { age_ms: 60_000, idle_ms: 249, since_validated_ms: 5000, ..Signals::EMPTY };
        let known = Signals { idle_ms: 2000, last_valid_for_ms: 2000, ..fresh };
        prove::<Self>(&[
            ("fresh", fresh, 262_144_000.0),
            ("known", known, 2_622_488_577.0),
            ("closed", Signals { peek: 2, ..fresh }, 6.0),
            ("suspect", Signals { recent_bad: 3, ..known }, 262_144_009.0),
        ])
    }
}

#[cfg(test)]
mod tests {
    use policy_validation::{Action, Policy as _, Signals, Verdict};

    use crate::{Adaptive, Settings};

    const CHECKOUT: Signals = Signals {
        age_ms: 60_000,
        idle_ms: 100,
        uses: 1000,
        since_validated_ms: 5000,
        last_valid_for_ms: 500,
        deadline_left_ms: 5000,
        ..Signals::EMPTY
    };

    fn verdict(signals: &Signals) -> Verdict {
        Adaptive::check(&Settings::DEFAULT, signals)
    }

    fn action(signals: &Signals) -> Action {
        verdict(signals).action
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(Adaptive::self_check(), Ok(()));
    }

    #[test]
    fn within_its_window_it_passes_and_outside_it_is_pinged_and_trusted_for_longer() {
        assert_eq!(action(&Signals { idle_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(action(&Signals { idle_ms: 500, ..CHECKOUT }), Action::Ping);
        assert_eq!(action(&Signals { idle_ms: 9000, since_validated_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(action(&Signals { idle_ms: 9000, last_valid_for_ms: 9001, ..CHECKOUT }), Action::Pass);
        assert_eq!(verdict(&CHECKOUT).valid_for_ms, 500);
        assert_eq!(verdict(&Signals { idle_ms: 500, ..CHECKOUT }).valid_for_ms, 626);
    }

    #[test]
    fn a_window_that_failures_have_shortened_counts_at_once() {
        let long = Signals { idle_ms: 3000, last_valid_for_ms: 9000, ..CHECKOUT };
        assert_eq!(action(&long), Action::Pass);
        assert_eq!(action(&Signals { recent_bad: 3, recent_good: 50, ..long }), Action::Ping);
    }

    #[test]
    fn when_most_are_broken_those_from_before_are_purged() {
        let broken = Signals { recent_bad: 3, recent_good: 2, ..CHECKOUT };
        assert!(verdict(&broken).purge);
        assert_eq!(action(&broken), Action::Ping, "however fresh it is");
        assert!(!verdict(&Signals { recent_bad: 2, recent_good: 0, ..CHECKOUT }).purge, "fewer than `suspicion`");
    }
}
