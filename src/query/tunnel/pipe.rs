//! A client and a session, joined: what each says goes to the other, no faster than that one listens.

use std::{
    borrow::Cow,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    frames::Close,
    socket::{Gone, MOST, Socket},
    statements::Statements,
    transaction::Refusing,
};
use crate::backend::{Cut, Cutter, Session};

/// Of a client's message so much is looked at.
const LOOK: usize = 4 << 10;

/// Rounds in one poll, after which others on the worker get theirs.
const ROUNDS: u32 = 32;

/// Messages that are no longer than this, as PostgreSQL has it (`PQ_SMALL_MESSAGE_LIMIT`).
const SMALL: usize = 10_000;

/// What the two cannot settle between them.
#[derive(Debug)]
pub(super) enum Event {
    /// The client wants a connection for what it says next.
    Wanted,
    /// The session's transaction is over.
    Settled,
    /// The client says goodbye.
    Goodbye,
    /// The client has gone.
    Gone(Gone),
    /// The client broke PostgreSQL's protocol.
    Breach(&'static str),
    /// There is no connection, and what the client may have sent behind that must not be done without it: SQLSTATE and text.
    Refused(Cow<'static, str>, String),
    /// The database has gone.
    Lost(String),
}

/// Both ends.
pub(super) struct Pipe<S> {
    pub(super) socket: Socket<S>,
    pub(super) session: Option<Session>,
    /// Of the client's messages.
    pub(super) up: Cutter,
    /// A connection is for a transaction.
    by_transaction: bool,
    /// What the client says is refused.
    pub(super) refusing: Option<Refusing>,
    pub(super) statements: Statements,
    /// Nothing goes to the database any more: its last words are still to be read.
    deaf: Option<String>,
    /// Something was done that may let more be done.
    progress: bool,
    /// When a byte last moved.
    pub(super) last: Instant,
}

// === impl Pipe ===

impl<S: AsyncRead + AsyncWrite + Unpin> Pipe<S> {
    pub(super) fn new(socket: Socket<S>, session: Option<Session>) -> Self {
        let by_transaction = session.is_none();
        Self {
            socket,
            session,
            up: Cutter::default(),
            by_transaction,
            refusing: None,
            statements: Statements::default(),
            deaf: None,
            progress: false,
            last: Instant::now(),
        }
    }

    /// Moves what can be moved, until something else is to be done. Cancel safe.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let before = self.socket.moved;
        let event = self.rounds(cx);
        if self.socket.moved != before {
            self.last = Instant::now();
        }
        event
    }

    fn rounds(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for _ in 0..ROUNDS {
            self.progress = false;
            if let Err(event) = self.down(cx).and_then(|()| self.up(cx)) {
                return Poll::Ready(event);
            }
            if self.by_transaction && self.session.as_ref().is_some_and(|it| it.is_at_rest() && it.status() == b'I') {
                return Poll::Ready(Event::Settled);
            }
            if !self.progress {
                self.socket.relax();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // --- from the database ---

    fn down(&mut self, cx: &mut Context<'_>) -> Result<(), Event> {
        while let Some(session) = &mut self.session
            && self.socket.room() > 0
        {
            let room = self.socket.room();
            match session.poll_receive(cx, self.socket.tell(), room) {
                Poll::Ready(Ok(_)) => {
                    self.progress = true;
                    if session.has_failed() {
                        self.statements.elsewhere();
                    }
                }
                Poll::Ready(Err(failure)) => return Err(Event::Lost(failure.to_string())),
                Poll::Pending => match self.deaf.take() {
                    Some(failure) => return Err(Event::Lost(failure)),
                    None => break,
                },
            }
        }
        let before = self.socket.room();
        if let Poll::Ready(Err(gone)) = self.socket.poll_write(cx) {
            return Err(Event::Gone(gone));
        }
        self.progress |= self.socket.room() != before;
        Ok(())
    }

    // --- from the client ---

    fn up(&mut self, cx: &mut Context<'_>) -> Result<(), Event> {
        while self.take()? {
            self.progress = true;
        }
        // Before the client is heard: it may have gone behind its last words, and half of them would be worse than all.
        if let (Some(session), None) = (&mut self.session, &self.deaf) {
            let before = session.backlog();
            if let Poll::Ready(Err(failure)) = session.poll_send(cx) {
                // It may have said why: that is told first, as soon as the client takes it.
                self.deaf = Some(failure.to_string());
                self.progress = true;
            }
            self.progress |= session.backlog() != before;
        }
        let sealed = self.socket.sealed();
        // With as much in hand as may be, it is the session's turn, or a connection's.
        if !self.socket.is_full()
            && let Poll::Ready(heard) = self.socket.poll_hear(cx)
        {
            heard.map_err(Event::Gone)?;
            self.progress = true;
        }
        // A ping is answered though nothing else is to be said.
        self.progress |= self.socket.sealed() != sealed;
        Ok(())
    }

    /// Takes a piece of what the client said. False: there is none, or nobody takes it now.
    fn take(&mut self) -> Result<bool, Event> {
        let said = &mut self.socket.said;
        let look = if self.by_transaction { MOST } else { LOOK };
        match self.up.look(said, look).map_err(|_| Event::Breach("invalid message length"))? {
            Cut::More => Ok(false),
            Cut::Rest(here) => {
                if self.refusing.is_none() {
                    let Some(session) = self.session.as_mut().filter(|session| session.takes()) else {
                        return Ok(false);
                    };
                    session.send_rest(&said[..here]);
                }
                let _ = said.split_to(here);
                self.up.go_on(here);
                self.refused_whole();
                Ok(true)
            }
            Cut::Message { tag, total } => self.message(tag, total),
        }
    }

    fn message(&mut self, tag: u8, total: usize) -> Result<bool, Event> {
        let longest = match tag {
            // What it asked before is done first, as at the server.
            b'X' if self.session.as_ref().is_some_and(Session::is_answering) => return Ok(false),
            b'X' => return Err(Event::Goodbye),
            b'Q' | b'P' | b'B' | b'F' | b'd' => usize::MAX,
            b'D' | b'E' | b'C' | b'S' | b'H' | b'c' | b'f' => SMALL,
            _ => return Err(Event::Breach("invalid frontend message type")),
        };
        if total > longest {
            return Err(Event::Breach("invalid message length"));
        }
        if self.refusing.is_some() {
            return self.pass_over(tag, total);
        }
        let Some(session) = &mut self.session else {
            return self.without_a_session(tag, total);
        };
        if !session.takes() {
            return Ok(false);
        }
        let here = total.min(self.socket.said.len());
        if self.by_transaction {
            self.send_in_transaction(tag, total)?;
        } else {
            session.send(tag, total, &self.socket.said[..here]);
        }
        let _ = self.socket.said.split_to(here);
        self.up.begin(total, here);
        Ok(true)
    }
}

/// How a breach of the client ends a tunnel.
pub(super) fn close_for(gone: &Gone) -> Option<Close> {
    match gone {
        Gone::Breach(close) => Some(*close),
        Gone::Left => Some(Close::Normal),
        Gone::Broken(_) => None,
    }
}
