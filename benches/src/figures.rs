//! Times in a few numbers, and whether a bound is met.

/// `0.87 (must be at most 1.00: met)`.
pub fn verdict(ratio: f64, must: f64) -> String {
    format!("{ratio:.2} (must be at most {must:.2}: {})", if ratio <= must { "met" } else { "NOT met" })
}

/// `0.87 (must be at least 0.70: met)`.
pub fn at_least(ratio: f64, must: f64) -> String {
    format!("{ratio:.2} (must be at least {must:.2}: {})", if ratio >= must { "met" } else { "NOT met" })
}

/// The same for a count.
pub fn at_most(count: u64, most: u64) -> String {
    format!("{count} (at most {most}: {})", if count <= most { "met" } else { "NOT met" })
}

/// The value that a share of `times` does not exceed; 0 of none.
pub fn quantile(times: &[f64], at: f64) -> f64 {
    if times.is_empty() {
        return 0.0;
    }
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}

/// Half are shorter.
pub fn median(times: &[f64]) -> f64 {
    quantile(times, 0.5)
}

/// 0 of none.
pub fn mean(times: &[f64]) -> f64 {
    if times.is_empty() { 0.0 } else { times.iter().sum::<f64>() / times.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_measured() {
        assert_eq!((quantile(&[], 0.5), mean(&[])), (0.0, 0.0));
        let times: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!((median(&times), quantile(&times, 0.99), quantile(&times, 1.0)), (50.0, 99.0, 100.0));
    }

    #[test]
    fn a_bound_is_met_up_to_itself() {
        assert_eq!(verdict(1.0, 1.0), "1.00 (must be at most 1.00: met)");
        assert!(verdict(1.3, 1.25).contains("NOT met"));
        assert!(at_least(0.7, 0.7).contains(": met") && at_least(0.69, 0.7).contains("NOT met"));
        assert!(at_most(5, 4).contains("NOT met") && !at_most(4, 4).contains("NOT"));
    }
}
