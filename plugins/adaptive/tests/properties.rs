//! What holds for every call.

use adaptive::{Adaptive, Settings, window_ms};
use policy_rig::validation::{Settled, laws_hold, signals};
use policy_validation::{Action, Policy as _, Signals};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    (1..=1000_u32, 1000..=600_000_u32, 0.0..=1.0_f64, 1..=10_000_u32, 1..=1000_u32, 0..=65_535_u32).prop_map(
        |(least_ms, most_ms, growth, caution, suspicion, timeout_ms)| Settings {
            least_ms,
            most_ms,
            growth,
            caution,
            suspicion,
            timeout_ms,
        },
    )
}

proptest! {
    #[test]
    fn the_laws_hold(settings in settings(), signals in signals()) {
        let settled = Settled { suspicion: settings.suspicion, timeout_ms: settings.timeout_ms };
        laws_hold::<Adaptive>(&settings, settled, &signals)?;
    }

    #[test]
    fn a_window_is_within_its_bounds(settings in settings(), signals in signals()) {
        let verdict = Adaptive::check(&settings, &signals);
        let within = (settings.least_ms..=settings.most_ms).contains(&verdict.valid_for_ms);
        prop_assert!(within || (verdict.action == Action::Discard && verdict.valid_for_ms == 0), "{verdict:?}");
    }

    #[test]
    fn a_checkout_passes_only_within_the_window_that_was_given(settings in settings(), signals in signals()) {
        let signals = Signals { trigger: 0, ..signals };
        if Adaptive::check(&settings, &signals).action == Action::Pass {
            let given = signals.last_valid_for_ms.max(settings.least_ms);
            prop_assert!(signals.idle_ms.min(signals.since_validated_ms) < given);
        }
    }

    #[test]
    fn no_bad_news_lengthens_the_window(settings in settings(), signals in signals()) {
        let window = |signals: &Signals| window_ms(&settings, signals, true);
        let before = window(&signals);
        let pool = Signals { recent_bad: signals.recent_bad.saturating_add(1), ..signals };
        let error = Signals { errors: signals.errors.saturating_add(1), ..signals };
        let probe = Signals { failed_probes: signals.failed_probes.saturating_add(1), ..signals };
        for worse in [pool, error, probe] {
            prop_assert!(window(&worse) <= before, "{worse:?}");
        }
    }

    #[test]
    fn a_window_lengthens_slowly(settings in settings(), signals in signals()) {
        let before = f64::from(signals.last_valid_for_ms.max(settings.least_ms));
        prop_assert!(f64::from(window_ms(&settings, &signals, true)) <= before * (1.0 + settings.growth) + 1.0);
        prop_assert!(f64::from(window_ms(&settings, &signals, false)) <= before);
    }

    #[test]
    fn while_all_is_well_it_reaches_the_most(settings in settings(), signals in signals()) {
        let settings = Settings { growth: settings.growth.max(0.05), ..settings };
        let mut well = Signals { trigger: 0, last_error: 0, recent_bad: 0, errors: 0, failed_probes: 0, last_valid_for_ms: 0, ..signals };
        // From 1 to 600,000 by a twentieth and one.
        for _ in 0..260 {
            well.last_valid_for_ms = window_ms(&settings, &well, true);
        }
        prop_assert_eq!(well.last_valid_for_ms, settings.most_ms);
    }
}
