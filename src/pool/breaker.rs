//! What failing attempts to connect lead to: pauses, then an open breaker.
//!
//! Every failed attempt brings a pause, doubled each time, so that nothing is tried hot. After `failures` in a row the
//! breaker opens (refused credentials open it at once, lest the account be locked, and so does a database that there is not):
//! callers for whom no connection is left fail at once with the reason, and one background probe, at the pauses' cadence, finds
//! out whether the database is back. Its longest pause is the longest wait of those who come next, never the least. Callers who
//! waited in vain for a busy pool are no failure of the database and do not count.

use std::time::Duration;

use tokio::time::Instant;

use super::{backend::FailureClass, core::Creation};

/// Pauses between attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backoff {
    pub(crate) initial: Duration,
    pub(crate) max: Duration,
    /// Random part, up and down; 0.1 is a tenth.
    pub(crate) jitter: f64,
}

/// The breaker's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    /// Failures in a row that open it.
    pub(crate) failures: u32,
    /// Successful probes that close it.
    pub(crate) successes: u32,
    /// Longest it stays open without a probe.
    pub(crate) max_open: Duration,
    pub(crate) backoff: Backoff,
}

/// Why the last attempt failed.
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    pub(crate) class: FailureClass,
    pub(crate) sqlstate: Option<String>,
    /// For callers.
    pub(crate) public: String,
    pub(crate) at: Instant,
}

/// The breaker's state, as others see it; the numbers are those of `types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

#[derive(Debug)]
enum State {
    /// `failures` in a row so far; nothing is tried before `retry_at`.
    Closed { failures: u32, retry_at: Option<Instant> },
    /// `rounds` of probing have failed, or `successes` in a row have not.
    Open { rounds: u32, successes: u32, probe: Probing },
}

#[derive(Debug, PartialEq, Eq)]
enum Probing {
    Due(Instant),
    Running,
}

/// What no pause heals is tried again as if this many attempts had failed before.
const HEAD_START: u32 = 3;

pub(crate) struct Breaker {
    thresholds: Thresholds,
    state: State,
    last: Option<Reason>,
}

impl Backoff {
    /// The pause after `step` earlier ones. `roll`: -1 to 1, at random.
    pub(crate) fn pause(&self, step: u32, roll: f64) -> Duration {
        let plain = self.initial.saturating_mul(1 << step.min(20)).min(self.max);
        plain.mul_f64((1.0 + self.jitter * roll).clamp(0.0, 2.0))
    }
}

impl Thresholds {
    /// The next probe, after `rounds` that have failed.
    fn probe_after(&self, now: Instant, rounds: u32, roll: f64) -> Probing {
        Probing::Due(now + self.backoff.pause(rounds, roll).min(self.max_open))
    }
}

impl Breaker {
    pub(crate) fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, state: State::Closed { failures: 0, retry_at: None }, last: None }
    }

    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Forgets all: the credentials or the address have changed.
    pub(crate) fn reset(&mut self) {
        self.state = State::Closed { failures: 0, retry_at: None };
        self.last = None;
    }

    /// An attempt failed. Returns whether that opened the breaker.
    pub(crate) fn failed(&mut self, now: Instant, reason: Reason, roll: f64) -> bool {
        let head_start = match reason.class {
            FailureClass::Authentication | FailureClass::Missing => HEAD_START,
            _ => 0,
        };
        self.last = Some(reason);
        let thresholds = self.thresholds;
        match &mut self.state {
            State::Closed { failures, retry_at } => {
                *failures += 1;
                if *failures < thresholds.failures && head_start == 0 {
                    *retry_at = Some(now + thresholds.backoff.pause(*failures - 1, roll));
                    return false;
                }
                let probe = thresholds.probe_after(now, head_start, roll);
                self.state = State::Open { rounds: 0, successes: 0, probe };
                true
            }
            State::Open { rounds, successes, probe } => {
                // An attempt from before it opened is old news.
                if *probe == Probing::Running {
                    *rounds = rounds.saturating_add(1);
                    *successes = 0;
                    *probe = thresholds.probe_after(now, rounds.saturating_add(head_start), roll);
                }
                false
            }
        }
    }

    /// An attempt met a full server, which serves us: that is not held against it. A probe that did is repeated, unless those
    /// before it are proof enough.
    pub(crate) fn full(&mut self, now: Instant, reason: Reason, roll: f64) {
        match &mut self.state {
            State::Open { rounds, successes: 0, probe: probe @ Probing::Running } => {
                *rounds = rounds.saturating_add(1);
                *probe = self.thresholds.probe_after(now, *rounds, roll);
            }
            State::Open { probe: Probing::Running, .. } => self.reset(),
            _ => {}
        }
        self.last = Some(reason);
    }

    /// An attempt succeeded. Returns whether that closed the breaker.
    pub(crate) fn succeeded(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Open { successes, probe, .. } if *successes + 1 < self.thresholds.successes => {
                *successes += 1;
                *probe = Probing::Due(now);
                false
            }
            State::Open { .. } => {
                self.reset();
                true
            }
            State::Closed { .. } => {
                self.reset();
                false
            }
        }
    }

    /// A probe began.
    pub(crate) fn probing(&mut self) {
        if let State::Open { probe, .. } = &mut self.state {
            *probe = Probing::Running;
        }
    }

    /// A probe could not begin, or ended without a word.
    pub(crate) fn postpone(&mut self, now: Instant) {
        let pause = self.thresholds.backoff.initial;
        if let State::Open { probe, .. } = &mut self.state {
            *probe = Probing::Due(now + pause);
        }
    }

    /// There is no room for another probe, because those before took it and serve: no more can be asked. Returns whether that
    /// closed the breaker.
    pub(crate) fn make_do(&mut self) -> bool {
        let proved = matches!(self.state, State::Open { successes: 1.., .. });
        if proved {
            self.reset();
        }
        proved
    }

    pub(crate) fn is_probe_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Open { probe: Probing::Due(at), .. } if at <= now)
    }

    /// Whether connections may be made.
    pub(crate) fn creation(&self, now: Instant) -> Creation {
        match self.state {
            State::Closed { failures: 0, .. } => Creation::Free,
            State::Closed { retry_at: Some(at), .. } if now < at => Creation::Paused,
            State::Closed { .. } => Creation::Single,
            State::Open { .. } => Creation::Barred,
        }
    }

    /// When [`Self::creation`] or [`Self::is_probe_due`] changes by itself.
    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Closed { retry_at, .. } => retry_at.filter(|at| *at > now),
            State::Open { probe: Probing::Due(at), .. } => Some(at),
            State::Open { probe: Probing::Running, .. } => None,
        }
    }

    pub(crate) fn position(&self) -> Position {
        match self.state {
            State::Closed { .. } => Position::Closed,
            State::Open { successes: 0, probe: Probing::Due(_), .. } => Position::Open,
            State::Open { .. } => Position::HalfOpen,
        }
    }

    /// Why attempts fail now; none, if the last one succeeded.
    pub(crate) fn reason(&self) -> Option<&Reason> {
        self.last.as_ref()
    }

    /// How long until the next attempt.
    pub(crate) fn retry_after(&self, now: Instant) -> Duration {
        self.next_change(now).map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn breaker() -> Breaker {
        let backoff = Backoff { initial: MS(200), max: MS(10_000), jitter: 0.1 };
        Breaker::new(Thresholds { failures: 3, successes: 2, max_open: MS(30_000), backoff })
    }

    fn reason(class: FailureClass) -> Reason {
        Reason { class, sqlstate: None, public: "down".into(), at: Instant::now() }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let backoff = Backoff { initial: MS(200), max: MS(10_000), jitter: 0.1 };
        let pauses: Vec<u128> = (0..8).map(|step| backoff.pause(step, 0.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!((backoff.pause(0, 1.0), backoff.pause(0, -1.0)), (MS(220), MS(180)));
        assert_eq!(backoff.pause(u32::MAX, 0.0), MS(10_000));
    }

    #[test]
    fn failures_in_a_row_pause_then_open_and_probes_close() {
        let mut breaker = breaker();
        let now = Instant::now();
        assert!(!breaker.failed(now, reason(FailureClass::Unreachable), 0.0));
        assert_eq!(breaker.creation(now), Creation::Paused);
        assert_eq!(breaker.creation(now + MS(200)), Creation::Single);
        assert!(!breaker.failed(now, reason(FailureClass::Timeout), 0.0));
        assert_eq!(breaker.next_change(now), Some(now + MS(400)));
        assert!(breaker.failed(now, reason(FailureClass::Unavailable), 0.0));
        assert_eq!((breaker.creation(now), breaker.position()), (Creation::Barred, Position::Open));
        assert!(!breaker.is_probe_due(now + MS(199)) && breaker.is_probe_due(now + MS(200)));
        breaker.probing();
        assert_eq!((breaker.position(), breaker.next_change(now)), (Position::HalfOpen, None));
        breaker.failed(now, reason(FailureClass::Unavailable), 0.0);
        assert_eq!(breaker.retry_after(now), MS(400), "the cadence doubles");
        breaker.probing();
        assert!(!breaker.succeeded(now));
        assert!(breaker.is_probe_due(now), "the second probe follows at once");
        assert_eq!((breaker.creation(now), breaker.position()), (Creation::Barred, Position::HalfOpen));
        assert!(breaker.succeeded(now));
        assert_eq!((breaker.creation(now), breaker.position()), (Creation::Free, Position::Closed));
        assert!(breaker.reason().is_none());
    }

    #[test]
    fn a_success_between_failures_starts_the_count_again() {
        let mut breaker = breaker();
        let now = Instant::now();
        for _ in 0..10 {
            assert!(!breaker.failed(now, reason(FailureClass::Unreachable), 0.0));
            assert!(!breaker.failed(now, reason(FailureClass::Unreachable), 0.0));
            assert!(!breaker.succeeded(now));
        }
        assert_eq!(breaker.creation(now), Creation::Free);
    }

    #[test]
    fn refused_credentials_open_at_once_and_are_tried_seldom() {
        let mut breaker = breaker();
        let now = Instant::now();
        assert!(breaker.failed(now, reason(FailureClass::Authentication), 0.0));
        assert_eq!(breaker.retry_after(now), MS(1_600));
    }

    #[test]
    fn news_from_before_it_opened_changes_nothing_and_a_lost_probe_is_repeated() {
        let mut breaker = breaker();
        let now = Instant::now();
        for _ in 0..3 {
            breaker.failed(now, reason(FailureClass::Unreachable), 0.0);
        }
        breaker.failed(now + MS(100), reason(FailureClass::Unreachable), 0.0);
        assert_eq!(breaker.next_change(now), Some(now + MS(200)));
        breaker.probing();
        breaker.postpone(now);
        assert!(breaker.is_probe_due(now + MS(200)));
    }

    #[test]
    fn a_probe_that_meets_a_full_server_is_repeated_or_was_proof_enough_before() {
        let now = Instant::now();
        let mut breaker = breaker();
        for _ in 0..3 {
            breaker.failed(now, reason(FailureClass::Unreachable), 0.0);
        }
        breaker.full(now, reason(FailureClass::ServerFull), 0.0);
        assert_eq!(breaker.next_change(now), Some(now + MS(200)), "that was no probe");
        breaker.probing();
        breaker.full(now, reason(FailureClass::ServerFull), 0.0);
        assert_eq!((breaker.position(), breaker.next_change(now)), (Position::Open, Some(now + MS(400))));
        breaker.probing();
        breaker.succeeded(now);
        breaker.probing();
        breaker.full(now, reason(FailureClass::ServerFull), 0.0);
        assert_eq!(breaker.creation(now), Creation::Free);
        assert_eq!(breaker.reason().map(|reason| reason.class), Some(FailureClass::ServerFull));
    }

    #[test]
    fn no_pause_exceeds_the_longest_open_time() {
        let backoff = Backoff { initial: MS(200), max: MS(10_000), jitter: 0.1 };
        let mut breaker = Breaker::new(Thresholds { failures: 1, successes: 1, max_open: MS(500), backoff });
        let now = Instant::now();
        breaker.failed(now, reason(FailureClass::Unreachable), 0.0);
        for _ in 0..40 {
            breaker.probing();
            breaker.failed(now, reason(FailureClass::Unreachable), 1.0);
            assert!(breaker.retry_after(now) <= MS(500));
        }
    }
}
