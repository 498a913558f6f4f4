//! What holds for every call.

use adaptive::{Action, Settings, Signals, Verdict, check, window_ms};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

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

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 4 => 0..9_u32, 1 => any::<u32>()]
}

fn time() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..20_000_u32, 1 => any::<u32>()]
}

fn signals() -> impl Strategy<Value = Signals> {
    let times = (time(), time(), time(), time());
    let counts = (small(), small(), small(), small());
    let states = (small(), small(), small(), small());
    let own = (time(), time(), small());
    (times, counts, states, own).prop_map(|(times, counts, states, own)| Signals {
        last_valid_for_ms: own.0,
        uses: own.1,
        errors: own.2,
        age_ms: times.0,
        idle_ms: times.1,
        since_validated_ms: times.2,
        deadline_left_ms: times.3,
        recent_bad: counts.0,
        recent_good: counts.1,
        failed_probes: counts.2,
        epochs_behind: counts.3,
        trigger: states.0,
        transaction: states.1,
        peek: states.2,
        last_error: states.3,
    })
}

/// What the host makes of a number: the interface's formula, backwards.
fn unpack(packed: f64) -> Option<(u64, bool, u64, u64)> {
    let whole = packed as u64;
    let exact = packed >= 0.0 && packed < 2_f64.powi(53) && whole as f64 == packed;
    exact.then_some((whole & 7, whole & 8 != 0, (whole >> 4) & 0xffff, whole >> 20))
}

proptest! {
    #[test]
    fn every_answer_can_be_unpacked(settings in settings(), signals in signals()) {
        let Verdict { action, purge, timeout_ms, valid_for_ms } = check(&settings, &signals);
        let packed = check(&settings, &signals).pack();
        prop_assert_eq!(unpack(packed), Some((action as u64, purge, u64::from(timeout_ms), u64::from(valid_for_ms))));
        let bounds = settings.least_ms..=settings.most_ms;
        prop_assert!(bounds.contains(&valid_for_ms) || (action == Action::Discard && valid_for_ms == 0), "{valid_for_ms}");
        prop_assert!(u32::from(timeout_ms) <= settings.timeout_ms);
    }

    #[test]
    fn what_is_closed_or_outdated_is_discarded(settings in settings(), signals in signals()) {
        let gone = Signals { peek: 2, ..signals };
        prop_assert_eq!(check(&settings, &gone).action, Action::Discard);
        let outdated = Signals { epochs_behind: signals.epochs_behind.max(1), ..signals };
        prop_assert_eq!(check(&settings, &outdated).action, Action::Discard);
    }

    #[test]
    fn a_checkout_passes_only_within_the_window_that_was_given(settings in settings(), signals in signals()) {
        let signals = Signals { trigger: 0, ..signals };
        if check(&settings, &signals).action == Action::Pass {
            let given = signals.last_valid_for_ms.max(settings.least_ms);
            prop_assert!(signals.idle_ms.min(signals.since_validated_ms) < given);
            prop_assert_eq!((signals.peek, signals.last_error, signals.failed_probes, signals.epochs_behind), (0, 0, 0, 0));
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

    #[test]
    fn an_open_transaction_does_not_pass_a_return(settings in settings(), signals in signals()) {
        let returned = Signals { trigger: 1, transaction: signals.transaction.max(1), ..signals };
        prop_assert!(check(&settings, &returned).action != Action::Pass);
    }

    #[test]
    fn a_purge_needs_most_to_be_broken_and_one_from_before(settings in settings(), signals in signals()) {
        let most = signals.recent_bad >= settings.suspicion && signals.recent_bad > signals.recent_good;
        let before = signals.age_ms >= 10_000 && signals.trigger != 3;
        prop_assert_eq!(check(&settings, &signals).purge, most && before);
    }

    #[test]
    fn a_ping_at_checkout_leaves_time_for_another(settings in settings(), signals in signals()) {
        let signals = Signals { trigger: 0, deadline_left_ms: signals.deadline_left_ms.max(2), ..signals };
        prop_assert!(u32::from(check(&settings, &signals).timeout_ms) <= signals.deadline_left_ms / 2);
    }
}
