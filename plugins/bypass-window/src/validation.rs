//! The decision.

use policy_validation::{Policy, Signals, Verdict, prove};

use crate::{BypassWindow, Settings};

impl Policy for BypassWindow {
    type Settings = Settings;

    fn check(settings: &Settings, signals: &Signals) -> Verdict {
        let window = window_ms(settings, signals.recent_bad);
        Verdict::new(
            signals.action(window),
            signals.is_purge_due(settings.suspicion),
            signals.timeout_ms(settings.timeout_ms),
            window,
        )
    }

    fn self_check() -> Result<(), String> {
        let fresh = Signals { age_ms: 60_000, idle_ms: 499, since_validated_ms: 5000, ..Signals::EMPTY };
        prove::<Self>(&[
            ("fresh", fresh, 524_288_000.0),
            ("old", Signals { idle_ms: 500, ..fresh }, 524_288_001.0),
            ("closed", Signals { peek: 2, ..fresh }, 6.0),
            ("suspect", Signals { recent_bad: 3, ..fresh }, 9.0),
        ])
    }
}

/// The window, shorter by as much as there is reason for suspicion.
fn window_ms(settings: &Settings, recent_bad: u32) -> u32 {
    let trust = settings.suspicion.saturating_sub(recent_bad);
    // At most 600,000 times 1000 by configuration; wider types cost nothing.
    (u64::from(settings.window_ms) * u64::from(trust) / u64::from(settings.suspicion.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use policy_validation::{Action, Policy as _, Signals, Verdict};

    use crate::{BypassWindow, Settings};

    const CHECKOUT: Signals =
        Signals { age_ms: 60_000, idle_ms: 100, since_validated_ms: 5000, deadline_left_ms: 5000, ..Signals::EMPTY };

    fn verdict(signals: &Signals) -> Verdict {
        BypassWindow::check(&Settings::DEFAULT, signals)
    }

    fn action(signals: &Signals) -> Action {
        verdict(signals).action
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(BypassWindow::self_check(), Ok(()));
    }

    #[test]
    fn within_the_window_it_passes() {
        assert_eq!(action(&Signals { idle_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(action(&Signals { idle_ms: 500, ..CHECKOUT }), Action::Ping);
        assert_eq!(action(&Signals { idle_ms: 9000, since_validated_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(verdict(&CHECKOUT).valid_for_ms, 500);
    }

    #[test]
    fn suspicion_shortens_the_window() {
        let window = |recent_bad| verdict(&Signals { recent_bad, ..CHECKOUT }).valid_for_ms;
        assert_eq!([0, 1, 2, 3, 4].map(window), [500, 333, 166, 0, 0]);
        assert_eq!(action(&Signals { recent_bad: 3, idle_ms: 0, ..CHECKOUT }), Action::Ping);
    }

    #[test]
    fn when_most_are_broken_those_from_before_are_purged() {
        let broken = Signals { recent_bad: 3, recent_good: 2, ..CHECKOUT };
        assert!(verdict(&broken).purge);
        assert!(!verdict(&Signals { recent_bad: 2, recent_good: 0, ..CHECKOUT }).purge, "fewer than `suspicion`");
    }
}
