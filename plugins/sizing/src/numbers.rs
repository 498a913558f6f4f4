//! Arithmetic that several policies need, and nothing that brings a library along.

/// To the next whole number, for numbers that are not negative; `f64::ceil` would bring its library along.
pub fn round_up(number: f64) -> u32 {
    let below = number as u32;
    below.saturating_add(u32::from(f64::from(below) < number))
}

/// One step of a first-order lag, by the backward Euler method: it needs no exponential, and is stable for any interval.
/// `lag_ms` of 0 arrives at once.
pub fn approach(before: f64, present: f64, interval_ms: u32, lag_ms: u32) -> f64 {
    let interval = f64::from(interval_ms);
    let lag = f64::from(lag_ms);
    let weight = if lag > 0.0 { interval / (interval + lag) } else { 1.0 };
    let smoothed = before + (present - before) * weight;
    // It would never quite arrive, and a thousandth of a connection too much rounds up to a whole one.
    if (smoothed - present).abs() < 0.01 { present } else { smoothed }
}

/// The number at a place in `carry`, if there is one from 0 to `most`.
pub fn recall(carry: &[f64], place: usize, most: f64) -> Option<f64> {
    carry.get(place).copied().filter(|number| (0.0..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::{approach, recall, round_up};

    #[test]
    fn rounding_up() {
        assert_eq!((round_up(0.0), round_up(0.1), round_up(3.0), round_up(3.5)), (0, 1, 3, 4));
        assert_eq!((round_up(f64::INFINITY), round_up(f64::NAN)), (u32::MAX, 0));
    }

    #[test]
    fn a_lag_covers_half_the_way_in_its_own_time() {
        assert_eq!(approach(0.0, 8.0, 2000, 2000), 4.0);
        assert_eq!(approach(0.0, 8.0, 1, 0), 8.0, "no lag");
        assert_eq!(approach(1.0, 8.0, 0, 2000), 1.0, "no time");
        assert_eq!(approach(7.991, 8.0, 1, 60_000), 8.0, "it arrives");
    }

    #[test]
    fn only_numbers_that_make_sense_are_remembered() {
        let carry = [1.0, -1.0, f64::NAN, f64::INFINITY];
        let recalled: Vec<_> = (0..5).map(|place| recall(&carry, place, 10.0)).collect();
        assert_eq!(recalled, [Some(1.0), None, None, None, None]);
        assert_eq!(recall(&carry, 0, 0.5), None);
    }

    proptest! {
        #[test]
        fn a_lag_stays_between_where_it_was_and_where_it_goes(before in 0.0..1e6_f64, present in 0.0..1e6_f64, interval: u32, lag: u32) {
            let there = approach(before, present, interval, lag);
            prop_assert!(there >= before.min(present) - 1e-6 && there <= before.max(present) + 1e-6);
        }
    }
}
