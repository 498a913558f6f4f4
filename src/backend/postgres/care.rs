//! Keeping a connection fit: probes, resets, cancelling what nobody waits for, the goodbye.

use std::{sync::Arc, time::Duration};

use postgres_protocol::message::frontend;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{CancelToken, config::TargetSessionAttrs};

use super::{
    connection::PostgresConnection,
    dial::{self, Place},
    failure::{PostgresFailure, Violation},
    inbox::Next,
    messages,
    settings::Settings,
    startup, statement,
};
use crate::{backend::error::DatabaseError, net::Stream, pool::backend::Probe};

/// How long replies that nobody wants may take to end by themselves: most are complete already, and a cancel request
/// costs a connection.
const GRACE: Duration = Duration::from_millis(5);

/// Undoes what a session may have set, but for prepared statements: ours stay. The last statement finds one that was prepared by SQL,
/// if there is any: a function or a block of code may have put it in the place of one of ours, to be run for the next caller.
const RESET: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; \
                     SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql LIMIT 1";

const COPY_REFUSED: &str = "COPY is not supported";

/// What it takes to cancel whatever runs on a connection.
pub(super) struct Canceller {
    settings: Arc<Settings>,
    place: Place,
    token: CancelToken,
}

impl Canceller {
    pub(super) fn of(conn: &PostgresConnection) -> Self {
        Self { settings: conn.settings.clone(), place: conn.place.clone(), token: conn.cancel.clone() }
    }

    /// Sends the request, and waits until the server has signalled.
    pub(super) async fn send(&self) -> Result<(), PostgresFailure> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let cancelling = async {
            let stream = dial::open(&self.settings, &self.place, deadline).await?;
            if let Some(mut stream) = startup::cancel(&self.token, stream).await? {
                end_of_file(&mut stream).await;
            }
            Ok(())
        };
        timeout_at(deadline, cancelling).await.map_err(|_| PostgresFailure::Timeout)?
    }
}

impl PostgresConnection {
    // --- probes ---

    pub(super) async fn probe(&mut self, action: Probe) -> Result<(), PostgresFailure> {
        match action {
            Probe::Ping => self.ping().await,
            Probe::Query => self.run("SELECT 1").await,
            Probe::Rollback => self.run("ROLLBACK").await,
            Probe::ResetSession => self.reset(false).await,
            Probe::ResetFully => self.reset(true).await,
        }
    }

    /// A bare Sync: one round trip, and the server does nothing. An error that comes with it is a cancel request that
    /// was late.
    async fn ping(&mut self) -> Result<(), PostgresFailure> {
        frontend::sync(&mut self.outbox);
        self.pending += 1;
        self.drain().await.map(drop)
    }

    async fn reset(&mut self, fully: bool) -> Result<(), PostgresFailure> {
        if self.status != b'I' {
            self.run("ROLLBACK").await?;
        }
        if self.settings.behind_pgbouncer {
            // The session is the pooler's, and another one with the next statement.
            return self.ping().await;
        }
        self.resetting = true;
        // `DISCARD ALL` drops prepared statements, which is what it takes to be rid of a caller's own.
        if fully || self.dirty & statement::PREPARED != 0 || self.reset_all_but_statements().await? {
            self.statements.clear();
            self.run("DISCARD ALL").await?;
        }
        self.resetting = false;
        self.dirty = 0;
        self.used = false;
        Ok(())
    }

    /// True: a caller has prepared statements of its own.
    async fn reset_all_but_statements(&mut self) -> Result<bool, PostgresFailure> {
        self.query(RESET)?;
        let mut last = None;
        loop {
            match self.message(usize::MAX)? {
                Next::Message(b'C') => last = messages::tag(self.inbox.body()).1,
                Next::Message(b'E') => return Err(self.refusal()),
                Next::Message(b'Z') => {
                    self.raw = false;
                    return Ok(last != Some(0));
                }
                Next::Incomplete => self.exchange().await?,
                _ => {}
            }
        }
    }

    /// Whether the server is of the kind that `target_session_attrs` asks for. Servers from 14 on report it by
    /// themselves.
    pub(super) async fn suits(&mut self) -> Result<(), PostgresFailure> {
        let wanted = match self.settings.session {
            TargetSessionAttrs::ReadWrite => false,
            TargetSessionAttrs::ReadOnly => true,
            _ => return Ok(()),
        };
        let on = |value: Option<&str>| value.map(|value| value == "on");
        let reported = (on(self.parameter("in_hot_standby")), on(self.parameter("default_transaction_read_only")));
        let read_only = match reported {
            (Some(standby), Some(default)) => standby || default,
            _ => self.show_read_only().await?,
        };
        match (read_only, wanted) {
            (true, false) => Err(PostgresFailure::WrongServer("read-only")),
            (false, true) => Err(PostgresFailure::WrongServer("writable")),
            _ => Ok(()),
        }
    }

    async fn show_read_only(&mut self) -> Result<bool, PostgresFailure> {
        self.query("SHOW transaction_read_only")?;
        let mut on = false;
        loop {
            match self.message(usize::MAX)? {
                Next::Message(b'D') => on = self.inbox.body().ends_with(b"on"),
                Next::Message(b'E') => return Err(self.refusal()),
                Next::Message(b'Z') => return Ok(on),
                Next::Incomplete => self.exchange().await?,
                _ => {}
            }
        }
    }

    // --- simple queries ---

    /// Runs `sql`, whose result does not matter. An error of the server is a failure.
    async fn run(&mut self, sql: &str) -> Result<(), PostgresFailure> {
        self.query(sql)?;
        match self.drain().await? {
            None => Ok(()),
            Some(error) => {
                self.broken = true;
                Err(PostgresFailure::Server(error))
            }
        }
    }

    pub(super) fn query(&mut self, sql: &str) -> Result<(), PostgresFailure> {
        frontend::query(sql, &mut self.outbox)?;
        self.pending += 1;
        Ok(())
    }

    /// Reads all replies that are due and lets them go; the first error among them is told. Cancel safe.
    pub(super) async fn drain(&mut self) -> Result<Option<Box<DatabaseError>>, PostgresFailure> {
        let mut first = None;
        while self.pending > 0 {
            match self.message(0)? {
                Next::Message(b'E') => {
                    let error = messages::error(self.inbox.body());
                    if messages::is_fatal(&error) {
                        return Err(self.refusal());
                    }
                    first.get_or_insert_with(|| Box::new(error));
                }
                // Whether a Sync behind it was swallowed is not known.
                Next::Message(b'G') if self.raw => return Err(self.violation("a copy that nobody will feed")),
                Next::Message(b'G') => self.refuse_copy()?,
                Next::Message(b'C') => self.dirty |= statement::traces(messages::tag(self.inbox.body()).0),
                Next::Incomplete => self.exchange().await?,
                _ => {}
            }
        }
        self.raw = false;
        Ok(first)
    }

    fn violation(&mut self, what: &'static str) -> PostgresFailure {
        self.broken = true;
        Violation(what).into()
    }

    fn refusal(&mut self) -> PostgresFailure {
        self.broken = true;
        PostgresFailure::Server(Box::new(messages::error(self.inbox.body())))
    }

    /// Answers a `CopyInResponse`. The server has swallowed the Sync that followed, as the protocol says, so that
    /// another one takes its place.
    pub(super) fn refuse_copy(&mut self) -> Result<(), PostgresFailure> {
        frontend::copy_fail(COPY_REFUSED, &mut self.outbox)?;
        frontend::sync(&mut self.outbox);
        Ok(())
    }

    // --- recovery ---

    /// Stops what runs and reads its replies to the end. When this returns, no cancel request is under way that could
    /// hit whoever comes next: the server closes the cancel request's connection after it has signalled, and a round
    /// trip after that has seen the signal come and go.
    pub(super) async fn recover(&mut self) -> Result<(), PostgresFailure> {
        self.statements.abandon();
        if !self.outbox.is_empty() || self.torn {
            // The rest of the request must not go out: a COMMIT may be at its end.
            self.broken = true;
            self.send_cancel().await?;
            return Err(PostgresFailure::HalfSent);
        }
        match timeout(GRACE, self.drain()).await {
            Err(_) => {}
            // The line is cut, and the server may not know that yet.
            Ok(Err(cut @ PostgresFailure::Io(_))) => {
                self.send_cancel().await?;
                return Err(cut);
            }
            Ok(Ok(_)) if self.cancelled => return self.settle_cancel().await,
            Ok(drained) => return drained.map(drop),
        }
        self.send_cancel().await.inspect_err(|_| self.broken = true)?;
        self.drain().await?;
        self.settle_cancel().await
    }

    /// A round trip behind a cancel request has seen its signal come and go.
    async fn settle_cancel(&mut self) -> Result<(), PostgresFailure> {
        self.ping().await?;
        self.cancelled = false;
        Ok(())
    }

    async fn send_cancel(&self) -> Result<(), PostgresFailure> {
        tracing::debug!(process = self.process, "cancelling a statement that nobody waits for");
        Canceller::of(self).send().await
    }

    // --- the end ---

    /// Says goodbye and waits for the server's end of file.
    pub(super) async fn goodbye(mut self) {
        if self.outbox.is_empty() && !self.broken {
            frontend::terminate(&mut self.outbox);
            // A failure means that the server has gone, which is what is wanted.
            let _ = self.stream.write_all(&self.outbox).await;
            let _ = self.stream.flush().await;
        }
        let _ = self.stream.shutdown().await;
        end_of_file(&mut self.stream).await;
    }
}

async fn end_of_file(stream: &mut Stream) {
    let mut scrap = [0_u8; 4096];
    while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
}
