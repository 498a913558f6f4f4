//! What holds whatever the window is: what is done within it and outside, when the idle connections go, how long a ping may take.

use crate::{Action, Signals};

/// What the host's count of broken connections covers, in milliseconds. A connection made within it was made in the midst of the
/// trouble and says nothing of those before.
const RECENT_MS: u32 = 10_000;

impl Signals {
    /// What to do with a connection that is trusted for `window_ms` after it showed that it lives.
    #[inline]
    pub fn action(&self, window_ms: u32) -> Action {
        if self.peek == 2 || self.epochs_behind > 0 {
            return Action::Discard;
        }
        match (self.trigger, self.transaction) {
            (0, _) if self.is_fresh(window_ms) => Action::Pass,
            (1, 0) | (3, _) => Action::Pass,
            (1, 1 | 2) => Action::RollBack,
            (1, _) => Action::ResetFully,
            (2, _) if matches!(self.last_error, 1 | 3 | 4 | 5) => Action::Discard,
            _ => Action::Ping,
        }
    }

    /// Whether it showed within the window that it lives, and nothing speaks against it since.
    fn is_fresh(&self, window_ms: u32) -> bool {
        let quiet = self.peek == 0 && self.last_error == 0 && self.failed_probes == 0;
        quiet && self.idle_ms.min(self.since_validated_ms) < window_ms
    }

    /// Whether most connections were found broken lately, `suspicion` of them at least, and this one says that the pool still holds
    /// some from before. Those made since are spared: purging them again and again would keep the pool empty.
    #[inline]
    pub fn is_purge_due(&self, suspicion: u32) -> bool {
        self.recent_bad >= suspicion
            && self.recent_bad > self.recent_good
            && self.age_ms >= RECENT_MS
            && self.trigger != 3
    }

    /// How long a ping may take where `longest_ms` is configured, 0 for the pool's own setting. At checkout at most half of what the
    /// caller has left, so that there is time for another connection.
    #[inline]
    pub fn timeout_ms(&self, longest_ms: u32) -> u16 {
        let half = (self.deadline_left_ms / 2).max(1);
        let longest = match (self.trigger, longest_ms) {
            (0, 0) | (1.., _) => longest_ms,
            (0, longest) => longest.min(half),
        };
        u16::try_from(longest).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Action, Signals};

    const CHECKOUT: Signals =
        Signals { age_ms: 60_000, idle_ms: 100, since_validated_ms: 5000, deadline_left_ms: 5000, ..Signals::EMPTY };

    fn action(signals: &Signals) -> Action {
        signals.action(500)
    }

    #[test]
    fn within_the_window_it_passes() {
        assert_eq!(action(&Signals { idle_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(action(&Signals { idle_ms: 500, ..CHECKOUT }), Action::Ping);
        assert_eq!(action(&Signals { idle_ms: 9000, since_validated_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(Signals { idle_ms: 0, ..CHECKOUT }.action(0), Action::Ping, "without a window nothing does");
    }

    #[test]
    fn what_speaks_against_it_makes_it_ping() {
        for doubtful in [
            Signals { peek: 1, ..CHECKOUT },
            Signals { last_error: 2, ..CHECKOUT },
            Signals { failed_probes: 1, ..CHECKOUT },
        ] {
            assert_eq!(action(&doubtful), Action::Ping);
        }
    }

    #[test]
    fn what_cannot_live_is_discarded() {
        for trigger in 0..6 {
            assert_eq!(action(&Signals { trigger, peek: 2, ..CHECKOUT }), Action::Discard);
            assert_eq!(action(&Signals { trigger, epochs_behind: 1, ..CHECKOUT }), Action::Discard);
        }
        for (last_error, expected) in [
            (0, Action::Ping),
            (1, Action::Discard),
            (2, Action::Ping),
            (3, Action::Discard),
            (4, Action::Discard),
            (5, Action::Discard),
            (6, Action::Ping),
            (7, Action::Ping),
        ] {
            assert_eq!(action(&Signals { trigger: 2, last_error, ..CHECKOUT }), expected, "{last_error}");
        }
    }

    #[test]
    fn a_return_passes_once_it_is_clean() {
        for (transaction, expected) in
            [(0, Action::Pass), (1, Action::RollBack), (2, Action::RollBack), (3, Action::ResetFully)]
        {
            assert_eq!(action(&Signals { trigger: 1, transaction, ..CHECKOUT }), expected);
        }
    }

    #[test]
    fn creation_passes_and_keep_alive_pings() {
        assert_eq!(action(&Signals { trigger: 3, ..CHECKOUT }), Action::Pass);
        assert_eq!(action(&Signals { trigger: 4, ..CHECKOUT }), Action::Ping);
        assert_eq!(action(&Signals { trigger: 5, ..CHECKOUT }), Action::Ping, "what is not known is asked");
    }

    #[test]
    fn when_most_are_broken_those_from_before_are_purged() {
        let broken = Signals { recent_bad: 3, recent_good: 2, ..CHECKOUT };
        assert!(broken.is_purge_due(3));
        assert!(!broken.is_purge_due(4), "too few to tell");
        assert!(!Signals { recent_good: 3, ..broken }.is_purge_due(3), "as many are good");
        assert!(!Signals { age_ms: 9999, ..broken }.is_purge_due(3), "made since");
        assert!(!Signals { trigger: 3, ..broken }.is_purge_due(3), "just made");
    }

    #[test]
    fn a_ping_leaves_the_caller_half_its_time() {
        let timeout = |deadline_left_ms| Signals { deadline_left_ms, ..CHECKOUT }.timeout_ms(1000);
        assert_eq!([10_000, 1000, 1, 0].map(timeout), [1000, 500, 1, 1]);
        assert_eq!(Signals { trigger: 4, deadline_left_ms: 0, ..CHECKOUT }.timeout_ms(1000), 1000);
        assert_eq!(CHECKOUT.timeout_ms(0), 0, "the pool's own");
        assert_eq!(Signals { trigger: 4, ..CHECKOUT }.timeout_ms(u32::MAX), u16::MAX);
    }
}
