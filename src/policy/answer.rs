//! What an answer must be before it is believed. A policy that lies costs one call answered without it.

use super::{Action, EvictionOutput, SizingOutput, Verdict};

/// Numbers that a policy may carry from call to call.
pub(super) const CARRY_MAX: usize = 16;

/// The first number that no longer packs a verdict: 2^52, beyond `valid-for-ms`'s 32 bits above 2^20.
const PACKED_END: f64 = 4_503_599_627_370_496.0;

/// Takes apart what `validation.check` answers.
///
/// # Errors
/// The number is no packed verdict: not whole, negative, beyond 52 bits, or not a number.
pub(super) fn verdict(packed: f64) -> Result<Verdict, String> {
    if !(0.0..PACKED_END).contains(&packed) || packed.fract() != 0.0 {
        return Err(format!("{packed} is not a packed verdict"));
    }
    // Whole and in 0..2^52, see above.
    let bits = packed as u64;
    let action = match bits & 7 {
        0 => Action::Pass,
        2 => Action::Query,
        3 => Action::Rollback,
        4 => Action::ResetSession,
        5 => Action::ResetFully,
        6 => Action::Discard,
        _ => Action::Ping,
    };
    Ok(Verdict { action, purge: bits & 8 != 0, timeout_ms: low(bits >> 4, 16), valid_for_ms: low(bits >> 20, 32) })
}

fn low(bits: u64, width: u32) -> u32 {
    u32::try_from(bits & ((1 << width) - 1)).unwrap_or(u32::MAX)
}

/// Checks what `sizing.decide` answers. Targets are any number: the pool keeps them within its bounds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn sizing(answer: SizingOutput) -> Result<SizingOutput, String> {
    carry(&answer.carry)?;
    Ok(answer)
}

/// Checks what `eviction.review` answers about `asked` connections, and makes its verdicts one a connection, each known.
///
/// # Errors
/// What is wrong with it.
pub(super) fn eviction(mut answer: EvictionOutput, asked: usize) -> Result<EvictionOutput, String> {
    carry(&answer.carry)?;
    if answer.verdicts.len() > asked {
        return Err(format!("{} verdicts about {asked} connections", answer.verdicts.len()));
    }
    if answer.yield_cost > EvictionOutput::YIELD_COST_MAX {
        return Err(format!("yield-cost {} is above {}", answer.yield_cost, EvictionOutput::YIELD_COST_MAX));
    }
    for verdict in &mut answer.verdicts {
        if *verdict > EvictionOutput::REPLACE {
            *verdict = EvictionOutput::KEEP;
        }
    }
    answer.verdicts.resize(asked, EvictionOutput::KEEP);
    Ok(answer)
}

fn carry(carry: &[f64]) -> Result<(), String> {
    if carry.len() > CARRY_MAX {
        return Err(format!("carry has {} numbers, more than {CARRY_MAX}", carry.len()));
    }
    match carry.iter().position(|number| !number.is_finite()) {
        Some(at) => Err(format!("carry[{at}] is {}", carry[at])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(action: u32, purge: bool, timeout: u32, valid: u32) -> f64 {
        f64::from(action)
            + 8.0 * f64::from(u8::from(purge))
            + 16.0 * f64::from(timeout)
            + 1_048_576.0 * f64::from(valid)
    }

    proptest! {
        #[test]
        fn a_packed_verdict_comes_apart_as_it_was_put_together(
            action in 0..8_u32, purge: bool, timeout in 0..=65_535_u32, valid: u32,
        ) {
            let verdict = verdict(pack(action, purge, timeout, valid)).unwrap();
            let expected = [Action::Pass, Action::Ping, Action::Query, Action::Rollback, Action::ResetSession,
                Action::ResetFully, Action::Discard, Action::Ping];
            prop_assert_eq!(verdict, Verdict {
                action: expected[action as usize], purge, timeout_ms: timeout, valid_for_ms: valid,
            });
        }

        #[test]
        fn no_number_at_all_upsets_the_unpacking(bits: u64) {
            let number = f64::from_bits(bits);
            let whole = (0.0..4_503_599_627_370_496.0).contains(&number) && !number.to_string().contains('.');
            prop_assert_eq!(verdict(number).is_ok(), whole);
        }

        #[test]
        fn an_accepted_review_has_one_known_verdict_a_connection(
            verdicts in prop::collection::vec(any::<u32>(), 0..300), asked in 0..257_usize,
        ) {
            let given = verdicts.clone();
            match eviction(EvictionOutput { verdicts, yield_cost: 0, carry: vec![] }, asked) {
                Ok(answer) => {
                    prop_assert_eq!(answer.verdicts.len(), asked);
                    prop_assert!(answer.verdicts.iter().all(|verdict| *verdict <= 3));
                    for (at, verdict) in answer.verdicts.iter().enumerate() {
                        let told = given.get(at).copied().filter(|told| *told <= 3).unwrap_or(0);
                        prop_assert_eq!(*verdict, told);
                    }
                }
                Err(_) => prop_assert!(given.len() > asked),
            }
        }
    }

    #[test]
    fn numbers_that_are_no_verdict_are_refused() {
        for packed in [f64::NAN, f64::INFINITY, -1.0, 0.5, 4_503_599_627_370_496.0, 1e300] {
            assert!(verdict(packed).is_err(), "{packed}");
        }
        assert_eq!(verdict(-0.0).unwrap().action, Action::Pass);
    }

    #[test]
    fn carry_is_short_and_finite() {
        let answer = |carry: Vec<f64>| sizing(SizingOutput { carry, ..SizingOutput::default() });
        assert!(answer(vec![0.0; 16]).is_ok());
        assert!(answer(vec![0.0; 17]).unwrap_err().contains("17 numbers"));
        assert!(answer(vec![0.0, f64::NAN]).unwrap_err().contains("carry[1] is NaN"));
        assert!(answer(vec![f64::NEG_INFINITY]).is_err());
        assert!(eviction(EvictionOutput { carry: vec![f64::NAN], ..Default::default() }, 0).is_err());
    }

    #[test]
    fn a_yield_cost_beyond_its_range_is_refused() {
        let answer = |yield_cost| eviction(EvictionOutput { yield_cost, ..Default::default() }, 0);
        assert!(answer(1000).is_ok());
        assert!(answer(u32::MAX).unwrap_err().contains("yield-cost"));
    }
}
