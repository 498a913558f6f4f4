//! What holds for every call.

use bypass_window::{BypassWindow, Settings};
use policy_rig::validation::{Settled, laws_hold, signals};
use policy_validation::{Action, Policy as _, Signals};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    (0..=600_000_u32, 0..=65_535_u32, 1..=1000_u32).prop_map(|(window_ms, timeout_ms, suspicion)| Settings {
        window_ms,
        timeout_ms,
        suspicion,
    })
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), signals in signals()) {
        let settled = Settled { suspicion: settings.suspicion, timeout_ms: settings.timeout_ms };
        laws_hold::<BypassWindow>(&settings, settled, &signals)?;
    }

    #[test]
    fn the_window_is_no_longer_than_configured(settings in settings(), signals in signals()) {
        prop_assert!(BypassWindow::check(&settings, &signals).valid_for_ms <= settings.window_ms);
    }

    #[test]
    fn a_checkout_passes_only_within_the_window(settings in settings(), signals in signals()) {
        let signals = Signals { trigger: 0, ..signals };
        let passes = BypassWindow::check(&settings, &signals).action == Action::Pass;
        let window = u64::from(settings.window_ms) * u64::from(settings.suspicion.saturating_sub(signals.recent_bad))
            / u64::from(settings.suspicion);
        let fresh = u64::from(signals.idle_ms.min(signals.since_validated_ms)) < window;
        let clean = (signals.peek, signals.last_error, signals.failed_probes, signals.epochs_behind) == (0, 0, 0, 0);
        prop_assert_eq!(passes, fresh && clean);
    }

    #[test]
    fn suspicion_never_lengthens_the_window(settings in settings(), signals in signals()) {
        let worse = Signals { recent_bad: signals.recent_bad.saturating_add(1), ..signals };
        prop_assert!(BypassWindow::check(&settings, &worse).valid_for_ms <= BypassWindow::check(&settings, &signals).valid_for_ms);
    }
}
