//! Why a connection could not be made, kept or mended.

use std::io;

use crate::{
    backend::error::DatabaseError,
    net::{DialError, TlsError},
    pool::backend::{Failure, FailureClass},
};

/// The server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol violation: {0}")]
pub struct Violation(pub(super) &'static str);

/// A failure of a PostgreSQL connection. Its text is for the log: it may name hosts and users, never a password.
#[derive(Debug, thiserror::Error)]
pub enum PostgresFailure {
    /// Not reached, or the TLS handshake failed.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server refuses TLS, and `sslmode` demands it.
    #[error("the server offers no TLS, which sslmode demands")]
    NoTls,
    /// The session is not of the kind that `target_session_attrs` asks for.
    #[error("the server is {0}, which target_session_attrs does not want")]
    WrongServer(&'static str),
    /// The server said no.
    #[error("{} {}: {}", .0.severity.as_deref().unwrap_or("ERROR"), .0.sqlstate.as_deref().unwrap_or("-"), .0.message)]
    Server(Box<DatabaseError>),
    /// Start-up failed on our side: no password, an authentication method or channel binding that cannot be had.
    #[error("start-up: {0}")]
    Startup(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// It took too long.
    #[error("took too long")]
    Timeout,
    /// The last caller left in the middle of a request that is not yet sent whole.
    #[error("left in the middle of a request")]
    HalfSent,
    /// Every host failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<PostgresFailure>),
}

/// Why a pool's settings cannot be used. The text names no secret.
#[derive(Debug, thiserror::Error)]
pub enum PostgresSettingsError {
    /// The URL or the password cannot be read from where it is.
    #[error("{0}")]
    Secret(String),
    /// The URL is wrong.
    #[error("url: {0}")]
    Url(String),
    /// The TLS settings are wrong.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
}

impl PostgresFailure {
    /// Whether the next host is worth a try, as libpq sees it: this one was not reached, says nothing, is starting up or
    /// stopping, or is of the wrong kind. A server that refuses the credentials is not passed over.
    pub(super) fn try_next_host(&self) -> bool {
        matches!(self, Self::WrongServer(_) | Self::Dial(_) | Self::Io(_) | Self::Closed | Self::Timeout)
            || self.class() == FailureClass::Unavailable
    }
}

impl Failure for PostgresFailure {
    fn class(&self) -> FailureClass {
        match self {
            Self::Dial(error) if error.is_timeout() => FailureClass::Timeout,
            Self::Dial(error) if error.is_tls() => FailureClass::Other,
            Self::Dial(_) => FailureClass::Unreachable,
            Self::Timeout => FailureClass::Timeout,
            Self::WrongServer(_) => FailureClass::Unavailable,
            Self::Server(error) => class_of(error),
            Self::Startup(_) => FailureClass::Authentication,
            Self::Io(_) | Self::Closed | Self::Violation(_) | Self::HalfSent => FailureClass::Broken,
            Self::NoTls => FailureClass::Other,
            // A host that gave no answer may believe that there is a connection, whatever the others said.
            Self::All(failures) if failures.iter().any(|one| one.class() == FailureClass::Timeout) => {
                FailureClass::Timeout
            }
            Self::All(failures) => failures.last().map_or(FailureClass::Other, Self::class),
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => error.sqlstate.as_deref(),
            Self::All(failures) => failures.last().and_then(Self::sqlstate),
            _ => None,
        }
    }

    fn public(&self) -> String {
        let text = match self.class() {
            FailureClass::Unreachable => "the database cannot be reached",
            FailureClass::Timeout => "connecting to the database took too long",
            FailureClass::ServerFull | FailureClass::AccountFull => "the database accepts no more connections",
            FailureClass::Authentication => "the database refused the gateway's credentials",
            FailureClass::Missing => "there is no such database",
            FailureClass::Unavailable => "the database is starting, stopping or not the one that is wanted",
            FailureClass::Broken => "the connection to the database broke",
            FailureClass::Other => "the database refused the connection",
        };
        text.to_owned()
    }
}

/// The same SQLSTATE says that the server, the role and the database are full. The server's function that says it tells them
/// apart; its words are translated.
const ACCOUNT_LIMITS: [&str; 2] = ["InitializeSessionUserId", "CheckMyDatabase"];

fn class_of(said: &DatabaseError) -> FailureClass {
    let sqlstate = said.sqlstate.as_deref().unwrap_or_default();
    match sqlstate {
        "53300" if said.routine.as_deref().is_some_and(|routine| ACCOUNT_LIMITS.contains(&routine)) => {
            FailureClass::AccountFull
        }
        "53300" => FailureClass::ServerFull,
        "3D000" => FailureClass::Missing,
        "57P01" | "57P02" | "57P03" => FailureClass::Unavailable,
        _ if sqlstate.starts_with("28") => FailureClass::Authentication,
        _ => FailureClass::Other,
    }
}
