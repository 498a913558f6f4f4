//! One connection after start-up: bytes in both directions, and what is known of the session at the other end.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio_postgres::{CancelToken, config::TargetSessionAttrs};

use super::{
    Shared,
    cache::Statements,
    dial::Place,
    failure::{PostgresFailure, Violation},
    inbox::{Inbox, Next},
    messages,
    settings::Settings,
    startup::Started,
    statement,
};
use crate::{
    backend::watch::Notebook,
    net,
    pool::backend::{Connection, Hygiene, Peek},
};

/// Requests beyond this do not leave their buffer behind.
const LARGE: usize = 64 << 10;

/// A connection to a PostgreSQL server, and the session at its other end.
pub struct PostgresConnection {
    pub(super) stream: net::Stream,
    pub(super) inbox: Inbox,
    /// Written as the socket takes it, while replies are read: a long request and long replies must not wait for each
    /// other.
    pub(super) outbox: BytesMut,
    /// Under TLS bytes may be written and not yet flushed.
    unflushed: bool,
    /// Stands behind each statement of the current request.
    pub(super) comment: Option<String>,
    /// Bytes of the current request that went out.
    pub(super) sent: usize,
    /// `ReadyForQuery` messages that are still to come.
    pub(super) pending: u32,
    /// The transaction's state: `I`, `T` or `E`.
    pub(super) status: u8,
    pub(super) broken: bool,
    /// A holder who spoke to it raw left it so that nobody can tell what is to come.
    pub(super) torn: bool,
    /// Replies are due to messages that a holder sent by himself.
    pub(super) raw: bool,
    /// A cancel request has ended whose signal may not have come yet.
    pub(super) cancelled: bool,
    pub(super) dirty: u32,
    /// A statement ran since the session was last reset.
    pub(super) used: bool,
    /// The session is being reset: what the server reports now is how it should be.
    pub(super) resetting: bool,
    parameters: HashMap<String, String>,
    pub(super) statements: Statements,
    pub(super) cancel: CancelToken,
    pub(super) place: Place,
    pub(super) process: i32,
    pub(super) settings: Arc<Settings>,
    pub(super) shared: Arc<Shared>,
}

// === impl PostgresConnection ===

impl PostgresConnection {
    pub(super) fn new(started: Started, place: Place, settings: Arc<Settings>, shared: Arc<Shared>) -> Self {
        Self {
            stream: started.stream,
            inbox: started.inbox,
            outbox: BytesMut::new(),
            unflushed: false,
            comment: None,
            sent: 0,
            pending: 0,
            status: b'I',
            broken: false,
            torn: false,
            raw: false,
            cancelled: false,
            dirty: 0,
            used: false,
            resetting: false,
            parameters: started.parameters,
            statements: Statements::new(settings.statement_cache),
            cancel: started.cancel,
            place,
            process: started.process,
            settings,
            shared,
        }
    }

    /// A parameter that the server reports, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// All parameters that the server reports.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The process id of the session at the server, as in `pg_stat_activity`.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// What is known of its pool's statements.
    pub(in crate::backend) fn notebook(&self) -> &Notebook {
        &self.shared.notebook
    }

    /// Whether its pool wants servers that take no writes.
    pub(crate) fn is_for_reading(&self) -> bool {
        self.settings.session == TargetSessionAttrs::ReadOnly
    }

    /// Makes every later write fail, while the server and a look at the socket notice nothing yet.
    #[cfg(test)]
    pub(crate) async fn go_mute(&mut self) {
        tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await.unwrap();
    }

    // --- bytes ---

    /// Waits until something was read; meanwhile writes what is to be written. Cancel safe.
    pub(super) async fn exchange(&mut self) -> Result<(), PostgresFailure> {
        poll_fn(|cx| self.poll_exchange(cx)).await
    }

    /// Waits until the first bytes of a request are out. Cancel safe.
    pub(super) async fn push(&mut self) -> Result<(), PostgresFailure> {
        let pushed = poll_fn(|cx| match self.poll_send(cx) {
            Poll::Pending if self.sent > 0 => Poll::Ready(Ok(())),
            poll => poll,
        });
        pushed.await.map_err(|error| {
            self.broken = true;
            error.into()
        })
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PostgresFailure>> {
        let sent = self.poll_send(cx);
        let read = self.inbox.poll_fill(&mut self.stream, cx);
        let failure = match (read, sent) {
            (Poll::Ready(Ok(1..)), _) => return Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Pending | Poll::Ready(Ok(()))) => return Poll::Pending,
            // A server that says goodbye stops reading first: its last words come before our failure to write.
            (_, Poll::Ready(Err(error))) | (Poll::Ready(Err(error)), _) => error.into(),
            (Poll::Ready(Ok(_)), _) => PostgresFailure::Closed,
        };
        self.broken = true;
        Poll::Ready(Err(failure))
    }

    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(written);
            self.sent += written;
            self.unflushed = true;
        }
        if self.unflushed {
            std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    // --- messages ---

    /// The next message, after what the server may say at any time has been taken note of. `ReadyForQuery` has already
    /// had its effect on [`Self::status`] and [`Self::pending`] when it is handed out.
    pub(super) fn message(&mut self, longest_row: usize) -> Result<Next, PostgresFailure> {
        loop {
            let next = self.inbox.next(longest_row).inspect_err(|_| self.broken = true)?;
            match next {
                Next::Message(b'S') => self.note_parameter(),
                Next::Message(b'N') => {
                    let notice = messages::error(self.inbox.body());
                    tracing::debug!(severity = notice.severity, sqlstate = notice.sqlstate, "notice from the database");
                }
                Next::Message(b'A') => self.dirty |= statement::LISTENING,
                Next::Message(b'Z') => {
                    self.note_ready()?;
                    return Ok(next);
                }
                _ => return Ok(next),
            }
        }
    }

    pub(super) fn note_ready(&mut self) -> Result<(), Violation> {
        let (Some(pending), Some(status @ (b'I' | b'T' | b'E'))) =
            (self.pending.checked_sub(1), self.inbox.body().first().copied())
        else {
            self.broken = true;
            return Err(Violation("ready for a query that nobody sent"));
        };
        (self.pending, self.status) = (pending, status);
        // A look-up of types ends while a request's replies are held back.
        if pending == 0 {
            self.statements.settle();
            self.relax();
        }
        Ok(())
    }

    /// Gives memory back that a large request or answer took: the connection may now lie idle for long.
    fn relax(&mut self) {
        self.inbox.relax();
        if self.sent > LARGE {
            self.outbox = BytesMut::new();
        }
    }

    /// A change while a statement runs counts as the statement's, though it may be the server's own: it tells of a
    /// reload no earlier. One reset then sets it right.
    fn note_parameter(&mut self) {
        let Some((name, value)) = messages::parameter(self.inbox.body()) else { return };
        let known = self.parameters.get(name);
        if known.is_some_and(|known| known == value) {
            return;
        }
        if self.pending == 0 || self.resetting || name == "in_hot_standby" {
            self.parameters.insert(name.to_owned(), value.to_owned());
        } else {
            self.dirty |= match name {
                "session_authorization" | "is_superuser" => statement::SETTINGS | statement::ROLE,
                _ => statement::SETTINGS,
            };
        }
    }

    // --- unasked messages ---

    /// Reads what waits, without waiting. False: the server has gone, or does not stop talking.
    fn absorb(&mut self) -> bool {
        let Self { inbox, stream, .. } = self;
        if inbox.absorb(|chunk| stream.read_now(chunk)).is_err() {
            return false;
        }
        loop {
            match self.message(0) {
                Ok(Next::Incomplete) => return true,
                Ok(Next::Message(b'E')) if !messages::is_fatal(&messages::error(self.inbox.body())) => {}
                _ => return false,
            }
        }
    }

    fn always_reset(&self) -> bool {
        self.shared.always_reset.load(Ordering::Relaxed)
    }
}

impl Connection for PostgresConnection {
    fn rehome(&mut self) -> io::Result<()> {
        self.stream.rehome().inspect_err(|_| self.broken = true)
    }

    fn peek(&mut self) -> Peek {
        let seen = self.stream.peek_state();
        if seen == net::Peek::Clean && self.inbox.is_settled() {
            return Peek::Clean;
        }
        if self.broken || seen == net::Peek::Closed || !self.absorb() {
            self.broken = true;
            return Peek::Closed;
        }
        Peek::Pending
    }

    fn hygiene(&self) -> Hygiene {
        if self.broken {
            Hygiene::Broken
        } else if self.pending > 0 || !self.outbox.is_empty() || self.torn || self.cancelled {
            Hygiene::Busy
        } else if self.status != b'I' {
            Hygiene::Transaction
        } else if self.settings.behind_pgbouncer {
            Hygiene::Clean
        } else if self.dirty != 0 || (self.used && self.always_reset()) {
            Hygiene::Session
        } else {
            Hygiene::Clean
        }
    }

    fn transaction(&self) -> u32 {
        match self.status {
            _ if self.pending > 0 => 3,
            b'I' => 0,
            b'T' => 1,
            _ => 2,
        }
    }

    fn dirty(&self) -> u32 {
        self.dirty
    }

    fn statements(&self) -> u32 {
        u32::try_from(self.statements.len()).unwrap_or(u32::MAX)
    }
}
