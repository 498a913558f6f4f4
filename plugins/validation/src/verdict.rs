//! The answer.

/// What to do before the connection is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Nothing.
    Pass = 0,
    /// One empty round trip.
    Ping = 1,
    /// End the transaction.
    RollBack = 3,
    /// Reset the session as far as the backend can.
    ResetFully = 5,
    /// Throw it away.
    Discard = 6,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do first.
    pub action: Action,
    /// Close the idle connections as well.
    pub purge: bool,
    /// Longest probe, in milliseconds; 0: the pool's own setting.
    pub timeout_ms: u16,
    /// Trust the connection for so long without asking.
    pub valid_for_ms: u32,
}

impl Verdict {
    /// `timeout_ms` holds for a ping alone, and what is discarded is not trusted for any time.
    #[inline]
    pub fn new(action: Action, purge: bool, timeout_ms: u16, valid_for_ms: u32) -> Self {
        Self {
            action,
            purge,
            timeout_ms: if action == Action::Ping { timeout_ms } else { 0 },
            valid_for_ms: if action == Action::Discard { 0 } else { valid_for_ms },
        }
    }

    /// As one whole number, exact in an `f64`.
    #[inline]
    pub fn pack(&self) -> f64 {
        let low = self.action as u32 + 8 * u32::from(self.purge) + 16 * u32::from(self.timeout_ms);
        f64::from(low) + 1_048_576.0 * f64::from(self.valid_for_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Verdict};

    #[test]
    fn a_timeout_is_for_pings_and_a_window_for_what_stays() {
        let verdict = |action| {
            let Verdict { timeout_ms, valid_for_ms, .. } = Verdict::new(action, false, 250, 500);
            (timeout_ms, valid_for_ms)
        };
        assert_eq!(verdict(Action::Ping), (250, 500));
        assert_eq!([Action::Pass, Action::RollBack, Action::ResetFully].map(verdict), [(0, 500); 3]);
        assert_eq!(verdict(Action::Discard), (0, 0));
    }

    #[test]
    fn the_largest_verdict_is_exact() {
        let most = Verdict { action: Action::Discard, purge: true, timeout_ms: u16::MAX, valid_for_ms: u32::MAX };
        let whole: u64 = 6 + 8 + 16 * 65_535 + 1_048_576 * 4_294_967_295;
        assert_eq!(most.pack() as u64, whole);
        assert!(whole < 1 << 53);
    }
}
