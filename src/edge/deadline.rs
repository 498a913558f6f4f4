//! When a connection has had its time: a pure decision over what was observed.
//!
//! The shell ([`super::connection`]) keeps one timer a connection. It asks [`due`] after each poll of the protocol, moves
//! the timer forward when something is due earlier than it is set, and asks again when it fires. So a busy connection touches
//! its timer about once a progress time, not once a request.
//!
//! All times are milliseconds since the connection was accepted; [`NEVER`] is no time.

/// No time.
pub(super) const NEVER: u64 = u64::MAX;

/// Bytes that a closing connection must send in one progress time to be left alone. PING and SETTINGS answers are counted
/// as well, so a single byte would let a client keep up to `send_buffer` x `max_streams` of answers in memory for ever
/// by pinging; 16 KiB in 30 s are a thousand pings.
pub(super) const CLOSING_PROGRESS: u64 = 16 * 1024;

/// How long a connection that has not asked for anything yet is kept once a drain has started. Its first request may be
/// on its way: it was sent when we still said that we accept.
pub(super) const FRESH_GRACE: u64 = 1_000;

/// What may become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// No request came.
    FirstRequest,
    /// A head began and did not end.
    Header,
    /// No request for too long.
    Idle,
    /// It is old.
    Age,
    /// The client's socket takes nothing.
    Write,
    /// Every answer waits for the client's window.
    Window,
    /// It was asked to end, has nothing left to do, and has not ended.
    Closing,
    /// A drain waited long enough for its first request.
    Drained,
    /// Nothing; look again.
    Look,
}

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// When the first request must have come; a point in time.
    pub(super) first: u64,
    /// From the first byte of a head to its end.
    pub(super) header: u64,
    pub(super) idle: u64,
    pub(super) progress: u64,
    /// A point in time, not a duration.
    pub(super) age: u64,
}

/// What was observed. Points in time, unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Requests being answered (a count).
    pub(super) open: u32,
    /// Of those, how many have an answer that waits for the client to take it (a count).
    pub(super) waiting: u32,
    /// When the last of them began to wait.
    pub(super) waiting_since: u64,
    /// When the last request was done.
    pub(super) idle_since: u64,
    /// Whether there was any request.
    pub(super) served: bool,
    /// When the head that is being read began.
    pub(super) head_since: u64,
    /// Since when the socket takes no bytes.
    pub(super) blocked_since: u64,
}

/// How the end has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not yet.
    No,
    /// A drain has started, but the connection has had no request yet.
    Waiting {
        /// When the drain was noticed.
        since: u64,
    },
    /// It was asked to end.
    Asked {
        /// When it was last seen to make progress.
        since: u64,
    },
}

/// What is due next, and when.
pub(super) fn due(view: &View, limits: &Deadlines, ending: Ending) -> (u64, Cause) {
    let stuck = (view.blocked_since.saturating_add(limits.progress), Cause::Write);
    let rest = match ending {
        Ending::Asked { since } if view.open == 0 => (since.saturating_add(limits.progress), Cause::Closing),
        _ if view.open > 0 => (window(view, limits), Cause::Window),
        _ if view.head_since != NEVER => (view.head_since.saturating_add(limits.header), Cause::Header),
        Ending::Waiting { since } if !view.served => (since.saturating_add(FRESH_GRACE), Cause::Drained),
        _ if !view.served => (limits.first, Cause::FirstRequest),
        _ => (view.idle_since.saturating_add(limits.idle), Cause::Idle),
    };
    let old = match ending {
        Ending::Asked { .. } => NEVER,
        _ => limits.age,
    };
    [stuck, rest, (old, Cause::Age)].into_iter().min_by_key(|(at, _)| *at).unwrap_or((NEVER, Cause::Look))
}

fn window(view: &View, limits: &Deadlines) -> u64 {
    if view.waiting == view.open { view.waiting_since.saturating_add(limits.progress) } else { NEVER }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Deadlines = Deadlines { first: 10, header: 10, idle: 60, progress: 30, age: 3_600 };

    fn fresh() -> View {
        View {
            open: 0,
            waiting: 0,
            waiting_since: 0,
            idle_since: 0,
            served: false,
            head_since: NEVER,
            blocked_since: NEVER,
        }
    }

    fn served() -> View {
        View { served: true, idle_since: 100, ..fresh() }
    }

    #[test]
    fn the_first_request_has_its_own_time() {
        assert_eq!(due(&fresh(), &LIMITS, Ending::No), (10, Cause::FirstRequest));
        assert_eq!(due(&View { head_since: 7, ..fresh() }, &LIMITS, Ending::No), (17, Cause::Header));
    }

    #[test]
    fn between_requests_it_is_idle_until_a_head_begins() {
        assert_eq!(due(&served(), &LIMITS, Ending::No), (160, Cause::Idle));
        assert_eq!(due(&View { head_since: 120, ..served() }, &LIMITS, Ending::No), (130, Cause::Header));
    }

    #[test]
    fn a_request_takes_as_long_as_it_takes_unless_the_client_does_not_listen() {
        let busy = View { open: 2, waiting: 1, waiting_since: 150, ..served() };
        assert_eq!(due(&busy, &LIMITS, Ending::No), (3_600, Cause::Age));
        assert_eq!(due(&View { waiting: 2, ..busy }, &LIMITS, Ending::No), (180, Cause::Window));
        assert_eq!(due(&View { blocked_since: 140, ..busy }, &LIMITS, Ending::No), (170, Cause::Write));
    }

    #[test]
    fn age_comes_once() {
        let busy = View { open: 1, ..served() };
        assert_eq!(due(&busy, &LIMITS, Ending::Asked { since: 3_600 }).0, NEVER);
        assert_eq!(due(&View { idle_since: 3_590, ..served() }, &LIMITS, Ending::No), (3_600, Cause::Age));
    }

    #[test]
    fn what_was_asked_to_end_and_does_not_is_cut() {
        assert_eq!(due(&served(), &LIMITS, Ending::Asked { since: 160 }), (190, Cause::Closing));
        let stalled = View { open: 1, waiting: 1, waiting_since: 170, ..served() };
        assert_eq!(due(&stalled, &LIMITS, Ending::Asked { since: 160 }), (200, Cause::Window));
    }

    #[test]
    fn a_drain_gives_a_fresh_connection_a_moment() {
        let long = Deadlines { first: 100_000, age: NEVER, ..LIMITS };
        assert_eq!(due(&fresh(), &long, Ending::Waiting { since: 5 }), (1_005, Cause::Drained));
        let begun = View { head_since: 4, ..fresh() };
        assert_eq!(due(&begun, &LIMITS, Ending::Waiting { since: 5 }), (14, Cause::Header));
    }
}
