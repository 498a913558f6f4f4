//! PostgreSQL, spoken in its extended protocol with text in and text out.
//!
//! **How a connection is made.** [`crate::net`] dials; `sslmode` is negotiated here; `deadpool-postgres` and
//! `tokio-postgres` do start-up and authentication over that stream (`startup.rs`). Then they are dropped, and the wire
//! is ours: `tokio-postgres` takes results in binary only, and text is what keeps every type exact.
//!
//! **How a request runs.** It is written as one pipeline with one Sync (`plan.rs`), so that a cold statement, a cached
//! one and a whole transaction each cost one round trip; replies are read as they are asked for (`running.rs`), out of
//! the buffer that they came in (`inbox.rs`). The socket is read only when the consumer wants more, so that a slow
//! consumer slows the server down and nothing piles up here. A text that is seen twice on a connection is prepared
//! under a name (`cache.rs`).
//!
//! **When things go wrong.** A request whose first byte was not sent says so
//! ([`BackendError::Lost`](super::BackendError::Lost) with `sent: false`) and may be sent elsewhere; any other is never
//! repeated, except for a prepared statement that the server refused to run because a table changed. When a connection
//! is lost between the last byte of a request and the server's word that it is done, the outcome is unknown, and the
//! error says that too. An execution that is dropped leaves its connection
//! [`Hygiene::Busy`](crate::pool::Hygiene::Busy): `care.rs` cancels the statement, reads to the end, and makes sure
//! that the cancel request cannot hit whoever comes next.
//!
//! **Session state.** Statements, command tags and the server's own reports are watched for what they leave behind
//! (`statement.rs`); what functions do inside is not seen, and a pool that serves several consumers is told to reset
//! always.
//!
//! **Sessions.** Whoever speaks the protocol himself is lent a connection raw ([`Session`]): messages pass as they are, and only so
//! much is noted of them that the connection is fit for its next user (`session.rs`).
//!
//! **Left out**: Kerberos, client certificates, replication; outside of sessions COPY to and from the caller, LISTEN for the caller,
//! and cursors that outlive a request. Behind PgBouncer statements are unnamed, and what would need a session is refused.

mod cache;
mod care;
mod connection;
mod dial;
mod failure;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzzed;
mod grants;
mod inbox;
mod lookup;
mod messages;
mod params;
mod plan;
mod running;
mod session;
mod settings;
mod startup;
mod statement;
mod types;

#[cfg(test)]
pub(super) mod testkit;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::{Instant, timeout_at};

use self::{
    dial::{Place, places, share},
    grants::Grants,
    settings::Settings,
    types::TypeNames,
};
use super::watch::Notebook;
use crate::{
    config::model::{Pool, Reset},
    pool::backend::{Backend, Manager, Metrics, Probe, RecycleError, RecycleResult},
};

pub use connection::PostgresConnection;
pub use failure::{PostgresFailure, PostgresSettingsError, Violation};
pub(crate) use running::{Running, Step};
pub(in crate::backend) use session::begin as begin_session;
pub(crate) use session::{Cut, Cutter, HEADER, Session, Term};
pub(super) use statement::traits as effects;

/// Makes and mends connections to one database as one role.
pub struct Postgres {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
}

/// What all connections of a pool have in common.
pub(crate) struct Shared {
    types: TypeNames,
    always_reset: AtomicBool,
    grants: Grants,
    notebook: Notebook,
}

impl Shared {
    fn new(always_reset: bool, statements: usize) -> Self {
        Self {
            types: TypeNames::default(),
            always_reset: AtomicBool::new(always_reset),
            grants: Grants::default(),
            notebook: Notebook::new(statements),
        }
    }

    /// The same settings, of which nothing is known yet.
    fn anew(&self) -> Self {
        Self::new(self.always_reset.load(Ordering::Relaxed), self.notebook.capacity())
    }
}

impl Postgres {
    /// For the database that `pool` names. Reads secrets and the TLS authorities from where they are; connects to
    /// nothing.
    ///
    /// # Errors
    /// The URL, a secret or the TLS settings cannot be used.
    pub fn new(pool: &Pool) -> Result<Self, PostgresSettingsError> {
        let shared = Shared::new(pool.reset == Reset::Always, pool.statements);
        Ok(Self { settings: Arc::new(Settings::read(pool)?), shared: Arc::new(shared) })
    }

    /// Takes the place of `old` in a pool. Connections that `old` made keep their settings, but when they are reset is
    /// from now on for this one to say; what is known of the database's types stays known.
    #[must_use]
    pub fn replacing(self, old: &Self) -> Self {
        old.shared.always_reset.store(self.always_resets(), Ordering::Relaxed);
        old.shared.notebook.resize(self.shared.notebook.capacity());
        Self { settings: self.settings, shared: old.shared.clone() }
    }

    /// The same for another database: `name` stands where the database of the URL has a `*`.
    #[must_use]
    pub fn of_database(&self, name: &str) -> Self {
        let shared = self.shared.anew();
        Self { settings: Arc::new(self.settings.of_database(name)), shared: Arc::new(shared) }
    }

    /// The same as another role; none if it is none of those that the pool may connect as.
    #[must_use]
    pub fn of_role(&self, name: &str) -> Option<Self> {
        let shared = self.shared.anew();
        Some(Self { settings: Arc::new(self.settings.of_role(name)?), shared: Arc::new(shared) })
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.settings.startup.get_dbname().unwrap_or_default()
    }

    /// Bytes of the database's name beside the `*`.
    pub fn around_name(&self) -> usize {
        self.settings.startup.get_dbname().map_or(0, |name| name.len().saturating_sub(1))
    }

    /// Every session is reset before its next caller, whatever the settings say.
    pub fn reset_always(&self) {
        self.shared.always_reset.store(true, Ordering::Relaxed);
    }

    /// What is known of its statements.
    pub(super) fn notebook(&self) -> &Notebook {
        &self.shared.notebook
    }

    /// Whether every session is reset before its next caller.
    pub fn always_resets(&self) -> bool {
        self.shared.always_reset.load(Ordering::Relaxed)
    }

    /// Hosts, database and role, without the password: what makes two pools the same one.
    pub fn identity(&self) -> String {
        self.settings.identity()
    }

    /// Its hosts, as one text: what makes two databases those of one server.
    pub fn hosts(&self) -> String {
        self.settings.hosts()
    }

    /// Asks whether any of the hosts answers at all, without a session: none is counted, here or there.
    ///
    /// # Errors
    /// Why the last one did not.
    pub(crate) async fn knock(&self, deadline: Instant) -> Result<(), PostgresFailure> {
        let endpoints = self.settings.order();
        let mut failed = PostgresFailure::Timeout;
        for (tried, endpoint) in endpoints.iter().enumerate() {
            match dial::knock(&self.settings, endpoint, share(deadline, endpoints.len() - tried)).await {
                Ok(()) => return Ok(()),
                Err(failure) => failed = failure,
            }
        }
        Err(failed)
    }

    async fn connect(&self, deadline: Instant) -> Result<PostgresConnection, PostgresFailure> {
        let settings = &self.settings;
        let mut failures = Vec::new();
        let endpoints = settings.order();
        for (tried, endpoint) in endpoints.iter().enumerate() {
            let until = share(deadline, endpoints.len() - tried);
            let places = match places(settings, endpoint, until).await {
                Ok(places) => places,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            for (tried, place) in places.iter().enumerate() {
                match self.connect_to(place, share(until, places.len() - tried)).await {
                    Err(failure) if failure.try_next_host() => failures.push(failure),
                    settled => return settled,
                }
            }
        }
        Err(match failures.len() {
            1 => failures.remove(0),
            _ => PostgresFailure::All(failures),
        })
    }

    async fn connect_to(&self, place: &Place, deadline: Instant) -> Result<PostgresConnection, PostgresFailure> {
        let connecting = async {
            let stream = dial::open(&self.settings, place, deadline).await?;
            let started = startup::start(&self.settings.startup, stream).await?;
            let mut conn = PostgresConnection::new(started, place.clone(), self.settings.clone(), self.shared.clone());
            match conn.suits().await {
                Ok(()) => {
                    self.ask_grants(&mut conn).await?;
                    Ok(conn)
                }
                Err(failure) => {
                    conn.goodbye().await;
                    Err(failure)
                }
            }
        };
        timeout_at(deadline, connecting).await.map_err(|_| PostgresFailure::Timeout)?
    }
    /// Asks how many connections the server grants, now and then.
    async fn ask_grants(&self, conn: &mut PostgresConnection) -> Result<(), PostgresFailure> {
        if self.settings.asks_grants && self.shared.grants.are_old() {
            self.shared.grants.note(conn.show_grants().await?);
        }
        Ok(())
    }
}

impl Manager for Postgres {
    type Type = PostgresConnection;
    type Error = PostgresFailure;

    async fn create(&self) -> Result<PostgresConnection, PostgresFailure> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        self.connect(deadline).await
    }

    async fn recycle(&self, conn: &mut PostgresConnection, _: &Metrics) -> RecycleResult<PostgresFailure> {
        conn.probe(Probe::Ping).await.map_err(RecycleError::Backend)
    }
}

impl Backend for Postgres {
    type Conn = PostgresConnection;
    type Failure = PostgresFailure;

    async fn probe(&self, conn: &mut PostgresConnection, action: Probe) -> Result<(), PostgresFailure> {
        conn.probe(action).await
    }

    async fn recover(&self, conn: &mut PostgresConnection) -> Result<(), PostgresFailure> {
        conn.recover().await
    }

    async fn close(&self, conn: PostgresConnection) {
        conn.goodbye().await;
    }

    fn grants(&self) -> Option<u32> {
        self.shared.grants.known()
    }
}
