//! Why a query failed, and what a caller may know of it.

use std::time::Duration;

use crate::pool::CheckoutError;

/// A query's failure.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The database refused the statement.
    #[error("database error {}: {}", .0.sqlstate.as_deref().unwrap_or("-"), .0.message)]
    Database(Box<DatabaseError>),
    /// The database takes no writes, although none but reads were not all that was asked for: a replica, or the server was
    /// made one while we were connected (SQLSTATE 25006).
    #[error("database takes no writes: {}", .0.message)]
    ReadOnly(Box<DatabaseError>),
    /// No connection was to be had.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The caller named a database that there is not.
    #[error("there is no such database")]
    NoSuchDatabase,
    /// The caller has no role in the database.
    #[error("the caller has no role in this database")]
    NoRole,
    /// The caller named a place of databases that there is not.
    #[error("there is no such endpoint")]
    NoSuchEndpoint,
    /// The caller may not use the database.
    #[error("this consumer may not use the database")]
    Forbidden,
    /// No pool is to be had for the database just now; nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// No replica can serve, and reads do not go to the primary.
    #[error("no replica of pool {0} can serve, and it takes no reads itself")]
    NoReplica(std::sync::Arc<str>),
    /// The deadline passed.
    #[error("deadline passed while the statement ran")]
    Timeout,
    /// It held a connection for longer than its pool lets anyone (`held_limit`).
    #[error("the connection was held for too long")]
    Held,
    /// The connection was lost.
    #[error("connection lost {}: {reason}", if *sent { "after the statement was sent" } else { "before the statement was sent" })]
    Lost {
        /// Whether the database may have seen the statement.
        sent: bool,
        /// Whether a commit was sent, so that nobody can know whether it happened.
        outcome_unknown: bool,
        /// For the log.
        reason: String,
    },
    /// The request cannot be put to this database; it was not sent, or was undone.
    #[error("{0}")]
    Unsupported(String),
    /// A row is longer than [`super::Limits::row`].
    #[error("a row is longer than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// What the database said: PostgreSQL's error fields, or SQLite's code and message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseError {
    /// Five characters, `22012`.
    pub sqlstate: Option<String>,
    /// `ERROR`, `FATAL`.
    pub severity: Option<String>,
    /// The primary message.
    pub message: String,
    /// More about the problem.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
    /// Where in `internal_query`, in characters from 1.
    pub internal_position: Option<u32>,
    /// The statement that the database made itself (in a function, say) and that failed.
    pub internal_query: Option<String>,
    /// The context: a stack of functions, most recent first.
    pub context: Option<String>,
    /// Schema concerned.
    pub schema: Option<String>,
    /// Table concerned.
    pub table: Option<String>,
    /// Column concerned.
    pub column: Option<String>,
    /// Data type concerned.
    pub data_type: Option<String>,
    /// Constraint concerned.
    pub constraint: Option<String>,
    /// Source file of the server that reported it.
    pub file: Option<String>,
    /// Line of that file.
    pub line: Option<String>,
    /// Routine in that file.
    pub routine: Option<String>,
    /// Which statement of a batch, from 0.
    pub statement: Option<usize>,
}

impl BackendError {
    /// When the caller may try again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Checkout(error) => error.retry_after(),
            _ => None,
        }
    }
}
