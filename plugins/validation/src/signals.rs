//! What a policy looks at.

/// What validation policies look at, out of all that the host tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Signals {
    /// The checkout of a connection that was made just now, by a caller without time.
    pub const EMPTY: Self = Self {
        trigger: 0,
        age_ms: 0,
        idle_ms: 0,
        uses: 0,
        errors: 0,
        since_validated_ms: 0,
        last_valid_for_ms: 0,
        recent_bad: 0,
        recent_good: 0,
        transaction: 0,
        peek: 0,
        last_error: 0,
        deadline_left_ms: 0,
        failed_probes: 0,
        epochs_behind: 0,
    };
}
