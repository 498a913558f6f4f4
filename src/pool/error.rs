//! Why a checkout failed, for the caller and for the log.

use std::{fmt, sync::Arc, time::Duration};

use super::{backend::FailureClass, status::HolderStatus};

/// No connection was to be had. Nothing was sent to the database: trying again is always safe.
pub struct CheckoutError(Box<Inner>);

struct Inner {
    pool: Arc<str>,
    kind: CheckoutErrorKind,
    waited: Duration,
    load: Load,
}

/// How busy the pool was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) in_use: u32,
    /// Connections it may have.
    pub(crate) limit: u32,
    pub(crate) waiters: u32,
}

/// Why no connection was to be had.
#[derive(Clone, Debug)]
pub enum CheckoutErrorKind {
    /// Connections came back during the wait, but others had waited longer.
    Saturated,
    /// So many wait already that this caller may not.
    QueueFull,
    /// So many hold a connection or wait for one already that this caller may not.
    TooManyClients,
    /// There are too few connections because no more can be made.
    Creating {
        /// How the last attempt failed.
        class: FailureClass,
        /// SQLSTATE, where the server gave one.
        sqlstate: Option<String>,
        /// Text that a caller may read.
        public: String,
    },
    /// The database has failed so often that it is only probed in the background.
    BreakerOpen {
        /// How the last attempt failed.
        reason: FailureClass,
        /// SQLSTATE, where the server gave one.
        sqlstate: Option<String>,
        /// Text that a caller may read.
        public: String,
        /// Until the next probe.
        retry_after: Duration,
    },
    /// Most connections are held for longer than is usual: callers that do not give back.
    Leaked {
        /// Who holds them, the longest first.
        holders: Vec<HolderStatus>,
    },
    /// No connection came back during the wait: what runs on them takes too long, or connecting does.
    Slow,
    /// An operator has paused the pool, and has not resumed it in time.
    Paused,
    /// The pool serves no more.
    Retired,
}

impl CheckoutErrorKind {
    /// The name in logs and figures.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::QueueFull => "queue-full",
            Self::TooManyClients => "too-many-clients",
            Self::Creating { .. } => "creating",
            Self::BreakerOpen { .. } => "breaker-open",
            Self::Leaked { .. } => "leaked",
            Self::Slow => "slow",
            Self::Paused => "paused",
            Self::Retired => "retired",
        }
    }
}

impl CheckoutError {
    /// SQLSTATE of the failure that keeps connections from being made, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match &self.0.kind {
            CheckoutErrorKind::Creating { sqlstate, .. } | CheckoutErrorKind::BreakerOpen { sqlstate, .. } => {
                sqlstate.as_deref()
            }
            _ => None,
        }
    }

    pub(crate) fn new(pool: Arc<str>, kind: CheckoutErrorKind, waited: Duration, load: Load) -> Self {
        Self(Box::new(Inner { pool, kind, waited, load }))
    }

    /// Why.
    pub fn kind(&self) -> &CheckoutErrorKind {
        &self.0.kind
    }

    /// The pool's name.
    pub fn pool(&self) -> &str {
        &self.0.pool
    }

    /// How long the caller waited.
    pub fn waited(&self) -> Duration {
        self.0.waited
    }

    /// Whether the database is the cause, not the load.
    pub fn is_upstream(&self) -> bool {
        matches!(self.0.kind, CheckoutErrorKind::Creating { .. } | CheckoutErrorKind::BreakerOpen { .. })
    }

    /// Whether the server says that there is no such database.
    pub fn is_missing(&self) -> bool {
        match &self.0.kind {
            CheckoutErrorKind::Creating { class, .. } | CheckoutErrorKind::BreakerOpen { reason: class, .. } => {
                *class == FailureClass::Missing
            }
            _ => false,
        }
    }

    /// When the caller may try again; at least a second, in whole seconds, as `Retry-After` has it.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = match &self.0.kind {
            CheckoutErrorKind::BreakerOpen { retry_after, .. } => retry_after.as_millis().div_ceil(1000).max(1),
            _ => 1,
        };
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)))
    }

    /// Text that a caller may read: no name, no address, no number that tells of others.
    pub fn public(&self) -> String {
        match &self.0.kind {
            CheckoutErrorKind::Saturated => "no database connection came free in time".into(),
            CheckoutErrorKind::QueueFull => "too many requests are waiting for a database connection".into(),
            CheckoutErrorKind::TooManyClients => "too many requests use this database".into(),
            CheckoutErrorKind::Creating { public, .. } => format!("no database connection could be made: {public}"),
            CheckoutErrorKind::BreakerOpen { public, .. } => format!("the database is not available: {public}"),
            CheckoutErrorKind::Leaked { .. } => "all database connections are held by other requests for long".into(),
            CheckoutErrorKind::Slow => "all database connections are busy with slow work".into(),
            CheckoutErrorKind::Paused => "the database pool is paused by its operator".into(),
            CheckoutErrorKind::Retired => "the database pool is closing".into(),
        }
    }
}

impl fmt::Display for CheckoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { pool, kind, waited, load } = &*self.0;
        write!(f, "no connection from pool {pool} ({}): ", kind.as_str())?;
        match kind {
            CheckoutErrorKind::Creating { class, sqlstate, public }
            | CheckoutErrorKind::BreakerOpen { reason: class, sqlstate, public, .. } => {
                write!(f, "{class} {}: {public}; ", sqlstate.as_deref().unwrap_or("-"))?;
            }
            CheckoutErrorKind::Leaked { holders } => {
                for holder in holders {
                    write!(f, "held by {} (request {}) for {} ms; ", holder.route, holder.request, holder.held_ms)?;
                }
            }
            _ => {}
        }
        let Load { in_use, limit, waiters } = load;
        write!(f, "{in_use} of {limit} in use, {waiters} waiting, gave up after {} ms", waited.as_millis())
    }
}

impl fmt::Debug for CheckoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckoutError({self})")
    }
}

impl std::error::Error for CheckoutError {}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    fn error(kind: CheckoutErrorKind) -> CheckoutError {
        let load = Load { in_use: 5, limit: 5, waiters: 3 };
        CheckoutError::new("main".into(), kind, Duration::from_secs(5), load)
    }

    #[test]
    fn the_log_hears_more_than_the_caller() {
        let holder = HolderStatus { connection: 1, route: "/report".into(), request: 9, held_ms: 60_000 };
        let leaked = error(CheckoutErrorKind::Leaked { holders: vec![holder] });
        assert_eq!(
            leaked.to_string(),
            "no connection from pool main (leaked): held by /report (request 9) for 60000 ms; \
             5 of 5 in use, 3 waiting, gave up after 5000 ms"
        );
        assert!(!leaked.public().contains("report"));
        let creating = error(CheckoutErrorKind::Creating {
            class: FailureClass::ServerFull,
            sqlstate: Some("53300".into()),
            public: "too many connections".into(),
        });
        assert!(creating.to_string().contains("server-full 53300: too many connections"), "{creating}");
        assert!(creating.is_upstream() && !leaked.is_upstream());
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_none() {
        let open = |ms| CheckoutErrorKind::BreakerOpen {
            reason: FailureClass::Unreachable,
            sqlstate: None,
            public: String::new(),
            retry_after: Duration::from_millis(ms),
        };
        let seconds = |kind| error(kind).retry_after().unwrap().as_secs();
        assert_eq!((seconds(open(0)), seconds(open(1)), seconds(open(2001))), (1, 1, 3));
        assert_eq!(seconds(CheckoutErrorKind::QueueFull), 1);
    }
}
