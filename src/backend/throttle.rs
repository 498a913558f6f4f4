//! Lines in the log, as many as somebody may want to read.

use std::time::{Duration, Instant};

/// Let through at once after a quiet time.
const BURST: u32 = 10;
/// Let through in the long run: one in so long.
const EVERY: Duration = Duration::from_secs(1);

/// Lets the first ones through, then one a second, and counts those it holds back. (The generic cell rate algorithm.)
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// When it would have let all through that it has.
    due: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// How many were held back since the last that was let through, if this one is.
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        let due = self.due.filter(|due| *due > now).unwrap_or(now);
        if due.duration_since(now) > EVERY * (BURST - 1) {
            self.held_back += 1;
            return None;
        }
        self.due = Some(due + EVERY);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_a_second_and_none_is_forgotten() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        let at = |throttle: &mut Throttle, ms| throttle.pass(start + Duration::from_millis(ms));
        for _ in 0..10 {
            assert_eq!(at(&mut throttle, 0), Some(0));
        }
        assert_eq!([at(&mut throttle, 0), at(&mut throttle, 1), at(&mut throttle, 999)], [None; 3]);
        assert_eq!(at(&mut throttle, 1000), Some(3));
        assert_eq!(at(&mut throttle, 1001), None);
        let passed = (0..100_000).filter(|ms| at(&mut throttle, 1002 + ms).is_some()).count();
        assert_eq!(passed, 100);
        for _ in 0..10 {
            assert!(at(&mut throttle, 1_000_000).is_some(), "after a quiet time there is room again");
        }
        assert_eq!(at(&mut throttle, 1_000_000), None);
    }
}
