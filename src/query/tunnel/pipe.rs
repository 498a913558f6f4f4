//! A client and a session, joined: what each says goes to the other, no faster than that one listens.

use std::task::{Context, Poll};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    frames::Close,
    socket::{Gone, Socket},
    wire::{self, Severity},
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
    /// The database has gone.
    Lost(String),
}

/// Both ends.
pub(super) struct Pipe<S> {
    pub(super) socket: Socket<S>,
    pub(super) session: Option<Session>,
    /// Of the client's messages.
    up: Cutter,
    /// A connection is for a transaction.
    by_transaction: bool,
    refusing: Option<Refusing>,
    /// Nothing goes to the database any more: its last words are still to be read.
    deaf: Option<String>,
    /// Something was done that may let more be done.
    progress: bool,
    /// When a byte last moved.
    pub(super) last: Instant,
}

/// The client's messages are refused, for want of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusing {
    /// The message that is passing, which means nothing here.
    Message,
    /// The simple query that is passing.
    Query,
    /// All up to the next Sync.
    ToSync,
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
            deaf: None,
            progress: false,
            last: Instant::now(),
        }
    }

    /// Moves what can be moved, until something else is to be done. Cancel safe.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let before = self.socket.moved;
        for _ in 0..ROUNDS {
            self.progress = false;
            if let Err(event) = self.down(cx).and_then(|()| self.up(cx)) {
                return Poll::Ready(event);
            }
            if self.by_transaction && self.session.as_ref().is_some_and(|it| it.is_at_rest() && it.status() == b'I') {
                return Poll::Ready(Event::Settled);
            }
            if self.socket.moved != before {
                self.last = Instant::now();
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
                Poll::Ready(Ok(_)) => self.progress = true,
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
        // With as much in hand as may be, it is the session's turn, or a connection's.
        if !self.socket.is_full()
            && let Poll::Ready(heard) = self.socket.poll_hear(cx)
        {
            heard.map_err(Event::Gone)?;
            self.progress = true;
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let before = session.backlog();
        if let Poll::Ready(Err(failure)) = session.poll_send(cx) {
            self.deaf = Some(failure.to_string());
        }
        self.progress |= session.backlog() != before || self.deaf.is_some();
        Ok(())
    }

    /// Takes a piece of what the client said. False: there is none, or nobody takes it now.
    fn take(&mut self) -> Result<bool, Event> {
        let said = &mut self.socket.said;
        match self.up.look(said, LOOK).map_err(|_| Event::Breach("invalid message length"))? {
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
            b'X' => return Err(Event::Goodbye),
            b'Q' | b'P' | b'B' | b'F' | b'd' => usize::MAX,
            b'D' | b'E' | b'C' | b'S' | b'H' | b'c' | b'f' => SMALL,
            _ => return Err(Event::Breach("invalid frontend message type")),
        };
        if total > longest {
            return Err(Event::Breach("invalid message length"));
        }
        let said = &mut self.socket.said;
        let here = total.min(said.len());
        if self.refusing.is_some() {
            self.up.begin(total, here);
            let _ = said.split_to(here);
            if tag == b'S' {
                self.answer_ready();
            }
            return Ok(true);
        }
        let Some(session) = &mut self.session else {
            return self.without_a_session(tag, total);
        };
        if !session.takes() {
            return Ok(false);
        }
        if self.by_transaction && matches!(tag, b'Q' | b'P') {
            session.note_text(&text(tag, &said[..here]));
        }
        session.send(tag, total, &said[..here]);
        let _ = said.split_to(here);
        self.up.begin(total, here);
        Ok(true)
    }

    /// Between transactions, what needs no database is answered without.
    fn without_a_session(&mut self, tag: u8, total: usize) -> Result<bool, Event> {
        if !matches!(tag, b'S' | b'H' | b'c' | b'f' | b'd') {
            return Err(Event::Wanted);
        }
        let here = total.min(self.socket.said.len());
        let _ = self.socket.said.split_to(here);
        self.up.begin(total, here);
        if tag == b'S' {
            wire::ready(self.socket.tell());
        } else if self.up.left() > 0 {
            self.refusing = Some(Refusing::Message);
        }
        Ok(true)
    }

    // --- no connection ---

    /// Refuses what the client says next, which no connection was to be had for, in the order of the protocol.
    pub(super) fn refuse(&mut self, code: &str, message: &str) {
        wire::error(Severity::Error, code, message, self.socket.tell());
        let simple = matches!(self.socket.said.first(), Some(b'Q' | b'F'));
        self.refusing = Some(if simple { Refusing::Query } else { Refusing::ToSync });
        if let (true, Ok(Cut::Message { total, .. })) = (simple, self.up.look(&self.socket.said, LOOK)) {
            let here = total.min(self.socket.said.len());
            let _ = self.socket.said.split_to(here);
            self.up.begin(total, here);
            self.refused_whole();
        }
    }

    fn refused_whole(&mut self) {
        match self.refusing {
            Some(Refusing::Query) if self.up.left() == 0 => self.answer_ready(),
            Some(Refusing::Message) if self.up.left() == 0 => self.refusing = None,
            _ => {}
        }
    }

    fn answer_ready(&mut self) {
        self.refusing = None;
        wire::ready(self.socket.tell());
    }
}

/// The beginning of the text in a Query, or in a Parse behind the statement's name.
fn text(tag: u8, message: &[u8]) -> String {
    let body = message.get(crate::backend::HEADER..).unwrap_or_default();
    let mut parts = body.split(|byte| *byte == 0);
    let text = if tag == b'P' { parts.nth(1) } else { parts.next() };
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

/// How a breach of the client ends a tunnel.
pub(super) fn close_for(gone: &Gone) -> Option<Close> {
    match gone {
        Gone::Breach(close) => Some(*close),
        Gone::Left => Some(Close::Normal),
        Gone::Broken(_) => None,
    }
}
