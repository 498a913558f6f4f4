//! What holds for every call.

use bypass_window::{Action, Settings, Signals, Verdict, check};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

fn settings() -> impl Strategy<Value = Settings> {
    (0..=600_000_u32, 0..=65_535_u32, 1..=1000_u32).prop_map(|(window_ms, timeout_ms, suspicion)| Settings {
        window_ms,
        timeout_ms,
        suspicion,
    })
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
    (times, counts, states).prop_map(|(times, counts, states)| Signals {
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
        prop_assert!(valid_for_ms <= settings.window_ms);
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
    fn a_checkout_passes_only_within_the_window(settings in settings(), signals in signals()) {
        let signals = Signals { trigger: 0, ..signals };
        let passes = check(&settings, &signals).action == Action::Pass;
        let window = u64::from(settings.window_ms) * u64::from(settings.suspicion.saturating_sub(signals.recent_bad))
            / u64::from(settings.suspicion);
        let fresh = u64::from(signals.idle_ms.min(signals.since_validated_ms)) < window;
        let clean = (signals.peek, signals.last_error, signals.failed_probes, signals.epochs_behind) == (0, 0, 0, 0);
        prop_assert_eq!(passes, fresh && clean);
    }

    #[test]
    fn suspicion_never_lengthens_the_window(settings in settings(), signals in signals()) {
        let worse = Signals { recent_bad: signals.recent_bad.saturating_add(1), ..signals };
        prop_assert!(check(&settings, &worse).valid_for_ms <= check(&settings, &signals).valid_for_ms);
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
