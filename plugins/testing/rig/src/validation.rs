//! What validation policies are tried on.

use policy_validation::{Action, Policy, Signals, Verdict};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 4 => 0..9_u32, 1 => any::<u32>()]
}

fn time() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..20_000_u32, 1 => any::<u32>()]
}

/// What a policy may be told, and what it never should be.
pub fn signals() -> impl Strategy<Value = Signals> {
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

/// What the laws must know of a policy's settings.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Broken connections in ten seconds that make a purge due.
    pub suspicion: u32,
    /// Longest ping; 0: the pool's own setting.
    pub timeout_ms: u32,
}

/// What holds for every policy, whatever it is told.
///
/// # Errors
///
/// Names the law that was broken.
pub fn laws_hold<P: Policy>(settings: &P::Settings, settled: Settled, signals: &Signals) -> Result<(), TestCaseError> {
    let check = |signals: Signals| P::check(settings, &signals);
    let verdict = check(*signals);
    let Verdict { action, purge, timeout_ms, valid_for_ms } = verdict;
    prop_assert_eq!(verdict, check(*signals), "the same input, another answer");
    let unpacked = unpack(verdict.pack());
    prop_assert_eq!(unpacked, Some((action as u64, purge, u64::from(timeout_ms), u64::from(valid_for_ms))));
    prop_assert!(u32::from(timeout_ms) <= settled.timeout_ms, "a ping longer than configured");

    let gone = check(Signals { peek: 2, ..*signals });
    prop_assert_eq!((gone.action, gone.valid_for_ms), (Action::Discard, 0), "a closed one is kept");
    let outdated = check(Signals { epochs_behind: signals.epochs_behind.max(1), ..*signals });
    prop_assert_eq!(outdated.action, Action::Discard, "an outdated one is kept");
    let returned = check(Signals { trigger: 1, transaction: signals.transaction.max(1), ..*signals });
    prop_assert!(returned.action != Action::Pass, "an open transaction passes a return");

    let most = signals.recent_bad >= settled.suspicion && signals.recent_bad > signals.recent_good;
    let before = signals.age_ms >= 10_000 && signals.trigger != 3;
    prop_assert_eq!(purge, most && before, "a purge needs most to be broken, and one from before");

    let deadline_left_ms = signals.deadline_left_ms.max(2);
    let checkout = check(Signals { trigger: 0, deadline_left_ms, ..*signals });
    prop_assert!(u32::from(checkout.timeout_ms) <= deadline_left_ms / 2, "a ping leaves no time for another");
    if checkout.action == Action::Pass {
        let doubts = (signals.peek, signals.last_error, signals.failed_probes, signals.epochs_behind);
        prop_assert_eq!(doubts, (0, 0, 0, 0), "a doubtful one passes");
    }
    Ok(())
}

/// What the host makes of a number: the interface's formula, backwards.
fn unpack(packed: f64) -> Option<(u64, bool, u64, u64)> {
    let whole = packed as u64;
    let exact = packed >= 0.0 && packed < 2_f64.powi(53) && whole as f64 == packed;
    exact.then_some((whole & 7, whole & 8 != 0, (whole >> 4) & 0xffff, whole >> 20))
}
