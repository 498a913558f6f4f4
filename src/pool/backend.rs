//! What the pool asks of a database: deadpool's [`Manager`] for making connections, and the rest of a connection's life.

use std::{fmt, io, sync::Arc};

pub use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};

/// A database kind, as the pool sees it. [`Manager::create`] makes connections (the pool bounds it with `connect_timeout`);
/// [`Manager::recycle`] is not called: validation is the policies' business, through [`Backend::probe`].
pub trait Backend: Manager<Type = Self::Conn, Error = Self::Failure> + Send + Sync + 'static {
    /// A connection.
    type Conn: Connection;
    /// Why making, probing or mending a connection failed.
    type Failure: Failure;

    /// Does `action` on a connection. An error means that the connection is broken. Not cancel safe: a caller that gives
    /// up must close the connection.
    fn probe(
        &self,
        conn: &mut Self::Conn,
        action: Probe,
    ) -> impl Future<Output = Result<(), <Self as Backend>::Failure>> + Send;

    /// Stops what runs on a connection whose last caller left early, and reads its replies to the end, so that
    /// [`Connection::hygiene`] is no longer [`Hygiene::Busy`]. An error means that it must be closed. Not cancel safe.
    fn recover(&self, conn: &mut Self::Conn) -> impl Future<Output = Result<(), <Self as Backend>::Failure>> + Send;

    /// Says goodbye and waits for the server's end of file. The pool bounds it with `linger` and holds the permit until then.
    fn close(&self, conn: Self::Conn) -> impl Future<Output = ()> + Send;

    /// Connections that the server grants to all its clients together, as far as it has said.
    fn grants(&self) -> Option<u32> {
        None
    }
}

/// A connection, as the pool sees it.
pub trait Connection: Send + 'static {
    /// Moves its socket to the current thread's runtime. Called before use on another worker than it was last used on.
    ///
    /// # Errors
    /// The socket cannot be registered; the connection is closed.
    fn rehome(&mut self) -> io::Result<()>;

    /// Looks at the socket without waiting: what the server sent unasked is read and parsed (notices, parameter changes).
    fn peek(&mut self) -> Peek;

    /// The state in which a caller left it.
    fn hygiene(&self) -> Hygiene;

    /// 0 idle, 1 in a transaction, 2 in a failed one, 3 unknown.
    fn transaction(&self) -> u32;

    /// Session state that differs from a new connection's; bits as in `validation.wit`.
    fn dirty(&self) -> u32;

    /// Prepared statements cached on it.
    fn statements(&self) -> u32;
}

/// What a look at an idle connection's socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Nothing to read.
    Clean,
    /// Something was or is there to read; the connection lives.
    Pending,
    /// End of file, an error, or the server's goodbye.
    Closed,
}

/// The state of a connection as its caller leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hygiene {
    /// As good as new.
    Clean,
    /// A transaction is open or has failed: roll back.
    Transaction,
    /// Session state is set that the next caller must not meet: reset.
    Session,
    /// A statement runs or its replies are unread: [`Backend::recover`].
    Busy,
    /// Of no more use.
    Broken,
}

/// What to do to a connection to find out whether it lives, or to make it clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A round trip.
    Ping,
    /// The configured query.
    Query,
    /// Roll back.
    Rollback,
    /// Undo what the session is known to have set.
    ResetSession,
    /// Undo everything, prepared statements too.
    ResetFully,
}

/// An error of a backend, as the pool sees it.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// What kind of failure it is.
    fn class(&self) -> FailureClass;

    /// SQLSTATE, where the server gave one.
    fn sqlstate(&self) -> Option<&str>;

    /// Text that a caller may read: no address, no user name, no secret.
    fn public(&self) -> String;
}

/// Kinds of failure that the pool treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Not reached: refused, unroutable, name unknown.
    Unreachable,
    /// Took too long.
    Timeout,
    /// The server grants no more connections (SQLSTATE 53300).
    ServerFull,
    /// It grants no more of them to this role, or in this database (SQLSTATE 53300 as well).
    AccountFull,
    /// Credentials refused (SQLSTATE class 28).
    Authentication,
    /// There is no such database (SQLSTATE 3D000).
    Missing,
    /// The server starts up, shuts down or recovers (SQLSTATE 57P01, 57P02, 57P03).
    Unavailable,
    /// The connection broke.
    Broken,
    /// Anything else.
    Other,
}

impl FailureClass {
    /// The name in logs and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::ServerFull => "server-full",
            Self::AccountFull => "account-full",
            Self::Authentication => "authentication",
            Self::Missing => "no-such-database",
            Self::Unavailable => "unavailable",
            Self::Broken => "broken",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who holds a connection, for the log and `/status`.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    /// The route's name.
    pub route: Arc<str>,
    /// The request's id.
    pub request: u64,
    /// The consumer's name.
    pub consumer: Option<Arc<str>>,
    /// What it asks, as the log may show it; none before that is known.
    pub statement: Option<Asked>,
}

/// What a holder asks of the database, in a form that the log may show: its `Display`. Rendered only when it is wanted.
#[derive(Clone)]
pub struct Asked(pub Arc<dyn fmt::Display + Send + Sync>);

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
