//! What holds for every policy, whatever it is told.

use policy_sizing::{Decision, Policy, Signals};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

/// Numbers that the host takes in `carry`.
const MOST_CARRIED: usize = 16;

/// Decides a day, beginning with `carry` and handing on what was remembered. With `follows` the pool does as it is told; else its
/// target is what the day says.
///
/// # Errors
///
/// Names the law that was broken.
pub fn hold<P: Policy>(
    settings: &P::Settings,
    day: &[Signals],
    mut carry: Vec<f64>,
    follows: bool,
) -> Result<(), TestCaseError> {
    let mut target = None;
    for signals in day {
        let signals = Signals { target: target.unwrap_or(signals.target), ..*signals };
        let decision = P::decide(settings, &signals, &carry);
        prop_assert_eq!(&decision, &P::decide(settings, &signals, &carry), "the same input, another answer");
        check(&decision, &signals)?;
        target = follows.then_some(decision.target);
        carry = decision.carry;
    }
    Ok(())
}

fn check<R: std::fmt::Debug>(decision: &Decision<R>, signals: &Signals) -> Result<(), TestCaseError> {
    let Decision { target, min_idle, reserve, next_tick_ms, carry, .. } = decision;
    let most = if signals.server_cap == 0 { signals.max_size } else { signals.max_size.min(signals.server_cap) };
    let least = signals.min_size.max(1).min(most);
    prop_assert!((least..=most).contains(target), "{target} is out of {least}..={most}");
    prop_assert!(min_idle <= target, "more idle than there are");
    prop_assert!(
        target.checked_add(*reserve).is_some_and(|all| all <= signals.max_size),
        "a reserve beyond the bounds"
    );
    prop_assert!(*next_tick_ms == 0 || (100..=60_000).contains(next_tick_ms), "{next_tick_ms} ms to the next tick");
    prop_assert!(carry.len() <= MOST_CARRIED && carry.iter().all(|number| number.is_finite()), "{carry:?}");
    let wall = signals.breaker != 0 || signals.create_failures > 0 || signals.server_full > 0 || signals.trigger == 3;
    if wall {
        let present = signals.target.clamp(least, most);
        prop_assert!(*target <= present, "it grows from {present} to {target} against a wall");
        prop_assert_eq!(*reserve, 0, "a reserve against a wall");
    }
    Ok(())
}
