//! For tests: a sizing policy that always aims at the same number, fixed when it is built by `STEADY_TARGET` (else 5).
//!
//! Two builds are two versions of one plugin, told apart by what they decide and by their version, `steady-N`. `carry` counts
//! the decisions, and `reason` shows the count: so a test sees whether state survived a swap from one to the other.

#[cfg(target_arch = "wasm32")]
mod component;

/// What it aims at, as text.
const DIGITS: &str = match option_env!("STEADY_TARGET") {
    Some(digits) => digits,
    None => "5",
};

/// What it aims at.
pub const TARGET: u32 = number(DIGITS);

/// Its version: `steady-` and the target.
pub fn version() -> String {
    let mut version = String::from("steady-");
    version.push_str(DIGITS);
    version
}

/// The count of decisions, this one included.
pub fn count(carry: &[f64]) -> u32 {
    carry.first().map_or(0, |before| *before as u32).saturating_add(1)
}

/// Fails the build when the target is not a number.
const fn number(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => panic!("STEADY_TARGET must be a whole number"),
    }
}

#[cfg(test)]
mod tests {
    use super::{TARGET, count, number, version};

    #[test]
    fn its_version_names_its_target() {
        assert_eq!(version(), format!("steady-{TARGET}"));
        assert_eq!(number("70"), 70);
    }

    #[test]
    fn it_counts() {
        assert_eq!((count(&[]), count(&[1.0]), count(&[f64::NAN])), (1, 2, 1));
    }
}
