//! The decision.

use crate::{Settings, window_ms};

/// What the host's count of broken connections covers, in milliseconds. A connection made within it was made in the midst of the
/// trouble and says nothing of those before.
const RECENT_MS: u32 = 10_000;

/// What the policy looks at, out of all that the host tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// 0 checkout, 1 return, 2 after an error, 3 after creation, 4 keep-alive.
    pub trigger: u32,
    /// Milliseconds since the connection was made.
    pub age_ms: u32,
    /// Milliseconds since it was returned.
    pub idle_ms: u32,
    /// Checkouts so far.
    pub uses: u32,
    /// Errors so far.
    pub errors: u32,
    /// Milliseconds since it was validated.
    pub since_validated_ms: u32,
    /// The window that the last verdict gave; 0 before the first.
    pub last_valid_for_ms: u32,
    /// Connections of the pool found broken in the last ten seconds.
    pub recent_bad: u32,
    /// And found good.
    pub recent_good: u32,
    /// 0 idle, 1 in a transaction, 2 in a failed one, else unknown.
    pub transaction: u32,
    /// What the socket said: 0 clean, 1 data waiting, 2 closed.
    pub peek: u32,
    /// 0 none, 1 i/o, 2 timeout, 3 connection, 4 authentication, 5 read-only, 6 other.
    pub last_error: u32,
    /// What the caller has left.
    pub deadline_left_ms: u32,
    /// Probes that failed in a row.
    pub failed_probes: u32,
    /// Changes of credentials, address or settings since it was opened.
    pub epochs_behind: u32,
}

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
    /// As one whole number, exact in an `f64`.
    pub fn pack(&self) -> f64 {
        let low = self.action as u32 + 8 * u32::from(self.purge) + 16 * u32::from(self.timeout_ms);
        f64::from(low) + 1_048_576.0 * f64::from(self.valid_for_ms)
    }
}

/// Decides. The same input gives the same answer.
pub fn check(settings: &Settings, signals: &Signals) -> Verdict {
    let purge = is_purge_due(settings, signals);
    let action = match action(signals, window_ms(settings, signals, false)) {
        // The purge is carried out when this one proves broken as well.
        Action::Pass if purge => Action::Ping,
        action => action,
    };
    let pinged = action == Action::Ping;
    Verdict {
        action,
        purge,
        timeout_ms: if pinged { timeout_ms(settings, signals) } else { 0 },
        valid_for_ms: if action == Action::Discard { 0 } else { window_ms(settings, signals, pinged) },
    }
}

fn action(signals: &Signals, window: u32) -> Action {
    if signals.peek == 2 || signals.epochs_behind > 0 {
        return Action::Discard;
    }
    match (signals.trigger, signals.transaction) {
        (0, _) if is_fresh(signals, window) => Action::Pass,
        (1, 0) | (3, _) => Action::Pass,
        (1, 1 | 2) => Action::RollBack,
        (1, _) => Action::ResetFully,
        (2, _) if matches!(signals.last_error, 1 | 3 | 4 | 5) => Action::Discard,
        _ => Action::Ping,
    }
}

/// Whether it showed within the window that it lives, and nothing speaks against it since.
fn is_fresh(signals: &Signals, window: u32) -> bool {
    let quiet = signals.peek == 0 && signals.last_error == 0 && signals.failed_probes == 0;
    quiet && signals.idle_ms.min(signals.since_validated_ms) < window
}

/// Whether most connections were found broken lately, and this one says that the pool still holds some from before. Those made
/// since are spared: purging them again and again would keep the pool empty.
fn is_purge_due(settings: &Settings, signals: &Signals) -> bool {
    signals.recent_bad >= settings.suspicion
        && signals.recent_bad > signals.recent_good
        && signals.age_ms >= RECENT_MS
        && signals.trigger != 3
}

/// At most half of what the caller has left, so that there is time for another connection.
fn timeout_ms(settings: &Settings, signals: &Signals) -> u16 {
    let half = (signals.deadline_left_ms / 2).max(1);
    let longest = match (signals.trigger, settings.timeout_ms) {
        (0, 0) | (1.., _) => settings.timeout_ms,
        (0, timeout) => timeout.min(half),
    };
    u16::try_from(longest).unwrap_or(u16::MAX)
}

/// Four verdicts that are known: a component that was damaged on its way is not installed.
///
/// # Errors
///
/// Names the verdict that came out wrong.
pub fn self_check() -> Result<(), String> {
    let settings = Settings::DEFAULT;
    let fresh = Signals { age_ms: 60_000, idle_ms: 249, since_validated_ms: 5000, ..Signals::default() };
    let known = Signals { idle_ms: 2000, last_valid_for_ms: 2000, ..fresh };
    let closed = Signals { peek: 2, ..fresh };
    let suspect = Signals { recent_bad: 3, ..known };
    let cases = [
        ("fresh", fresh, 262_144_000.0),
        ("known", known, 2_622_488_577.0),
        ("closed", closed, 6.0),
        ("suspect", suspect, 262_144_009.0),
    ];
    for (name, signals, packed) in cases {
        if check(&settings, &signals).pack().to_bits() != f64::to_bits(packed) {
            return Err(String::from(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Action, Signals, Verdict, check, self_check};
    use crate::Settings;

    const CHECKOUT: Signals = Signals {
        trigger: 0,
        age_ms: 60_000,
        idle_ms: 100,
        uses: 1000,
        errors: 0,
        since_validated_ms: 5000,
        last_valid_for_ms: 500,
        recent_bad: 0,
        recent_good: 0,
        transaction: 0,
        peek: 0,
        last_error: 0,
        deadline_left_ms: 5000,
        failed_probes: 0,
        epochs_behind: 0,
    };

    fn verdict(signals: &Signals) -> Verdict {
        check(&Settings::DEFAULT, signals)
    }

    fn action(signals: &Signals) -> Action {
        verdict(signals).action
    }

    #[test]
    fn it_proves_itself() {
        assert_eq!(self_check(), Ok(()));
    }

    #[test]
    fn within_its_window_it_passes_and_outside_it_is_pinged_and_trusted_for_longer() {
        assert_eq!(action(&Signals { idle_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(action(&Signals { idle_ms: 500, ..CHECKOUT }), Action::Ping);
        assert_eq!(action(&Signals { idle_ms: 9000, since_validated_ms: 499, ..CHECKOUT }), Action::Pass);
        assert_eq!(action(&Signals { idle_ms: 9000, last_valid_for_ms: 9001, ..CHECKOUT }), Action::Pass);
        assert_eq!(verdict(&CHECKOUT).valid_for_ms, 500);
        assert_eq!(verdict(&Signals { idle_ms: 500, ..CHECKOUT }).valid_for_ms, 626);
    }

    #[test]
    fn a_window_that_failures_have_shortened_counts_at_once() {
        let long = Signals { idle_ms: 3000, last_valid_for_ms: 9000, ..CHECKOUT };
        assert_eq!(action(&long), Action::Pass);
        assert_eq!(action(&Signals { recent_bad: 3, recent_good: 50, ..long }), Action::Ping);
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
        assert!(verdict(&broken).purge);
        assert_eq!(action(&broken), Action::Ping, "however fresh it is");
        assert!(!verdict(&Signals { recent_bad: 2, recent_good: 0, ..CHECKOUT }).purge);
        assert!(!verdict(&Signals { recent_good: 3, ..broken }).purge, "as many are good");
        assert!(!verdict(&Signals { age_ms: 9999, ..broken }).purge, "made since");
    }

    #[test]
    fn a_ping_leaves_the_caller_half_its_time() {
        let settings = Settings { timeout_ms: 1000, ..Settings::DEFAULT };
        let timeout = |deadline_left_ms| {
            let old = Signals { idle_ms: 1000, deadline_left_ms, ..CHECKOUT };
            check(&settings, &old).timeout_ms
        };
        assert_eq!([10_000, 1000, 1, 0].map(timeout), [1000, 500, 1, 1]);
        assert_eq!(check(&settings, &Signals { trigger: 4, deadline_left_ms: 0, ..CHECKOUT }).timeout_ms, 1000);
        assert_eq!(verdict(&Signals { idle_ms: 1000, ..CHECKOUT }).timeout_ms, 0, "the pool's own");
    }

    #[test]
    fn the_largest_verdict_is_exact() {
        let most = Verdict { action: Action::Discard, purge: true, timeout_ms: u16::MAX, valid_for_ms: u32::MAX };
        let whole: u64 = 6 + 8 + 16 * 65_535 + 1_048_576 * 4_294_967_295;
        assert_eq!(most.pack() as u64, whole);
        assert!(whole < 1 << 53);
    }
}
