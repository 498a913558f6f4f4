//! A client and a session, joined: what each says goes to the other, no faster than that one listens.

use std::{
    borrow::Cow,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    frames::Close,
    socket::{Gone, MOST, Socket},
    statements::{self, Statements},
    wire::{self, Severity},
};
use crate::backend::{Cut, Cutter, HEADER, Session};

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
    up: Cutter,
    /// A connection is for a transaction.
    by_transaction: bool,
    refusing: Option<Refusing>,
    statements: Statements,
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
        let said = &mut self.socket.said;
        let here = total.min(said.len());
        if let Some(Refusing::ToSync) = self.refusing
            && may_begin(&self.statements, tag, total, &said[..here])
        {
            return Err(unbegun());
        }
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
        if self.by_transaction {
            if tag == b'F' {
                // Which function it calls is not looked at.
                session.note_unseen();
            }
            let instead =
                if matches!(tag, b'Q' | b'P') { outlasting(session, tag, total, &said[..here]) } else { None };
            if instead.is_some() {
                // What is left of it goes nowhere.
                self.refusing = (total > here).then_some(Refusing::Message);
            }
            let (total, start) =
                instead.as_ref().map_or((total, &said[..here]), |instead| (instead.len(), &instead[..]));
            send_named(session, &mut self.statements, tag, total, start)?;
        } else {
            session.send(tag, total, &said[..here]);
        }
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

    /// A connection is had for the next transaction.
    pub(super) fn lend(&mut self, session: Session) {
        self.statements.elsewhere();
        self.session = Some(session);
        self.last = Instant::now();
    }

    // --- no connection ---

    /// Refuses what the client says next, which no connection was to be had for, in the order of the protocol.
    ///
    /// # Errors
    /// A transaction may have been to begin, and the client may have sent its statements already: done one by one they would be
    /// committed one by one.
    pub(super) fn refuse(&mut self, code: Cow<'static, str>, message: String) -> Result<(), Event> {
        if let Ok(Cut::Message { tag, total }) = self.up.look(&self.socket.said, MOST) {
            let start = &self.socket.said[..total.min(self.socket.said.len())];
            if may_begin(&self.statements, tag, total, start) {
                return Err(Event::Refused(code, message));
            }
        }
        wire::error(Severity::Error, &code, &message, self.socket.tell());
        let simple = matches!(self.socket.said.first(), Some(b'Q' | b'F'));
        self.refusing = Some(if simple { Refusing::Query } else { Refusing::ToSync });
        if let (true, Ok(Cut::Message { total, .. })) = (simple, self.up.look(&self.socket.said, MOST)) {
            let here = total.min(self.socket.said.len());
            let _ = self.socket.said.split_to(here);
            self.up.begin(total, here);
            self.refused_whole();
        }
        Ok(())
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

/// Sends the beginning of a message; a statement that it names is called what the server calls it, and is there.
fn send_named(
    session: &mut Session,
    statements: &mut Statements,
    tag: u8,
    total: usize,
    start: &[u8],
) -> Result<(), Event> {
    let Some(renamed) = statements.rename(tag, total, start) else {
        if matches!(tag, b'P' | b'B') && total > start.len() {
            return Err(Event::Breach("a statement's name that has no end"));
        }
        session.send(tag, total, start);
        return Ok(());
    };
    if let Some(text) = &renamed.anew {
        // It was let pass when it came.
        let _ = session.note_text(text);
    }
    session.send_hidden(&renamed.hidden, renamed.leaves);
    session.send(tag, total - renamed.replaced + renamed.head.len(), &renamed.head);
    session.send_rest(&start[renamed.replaced..]);
    Ok(())
}

/// Whether a message may begin a transaction, as far as can be told.
fn may_begin(statements: &Statements, tag: u8, total: usize, start: &[u8]) -> bool {
    match tag {
        b'Q' | b'P' => total > start.len() || Session::may_begin(&text(tag, start)),
        // What is not remembered is not there on a connection that comes.
        b'B' => statements.bound(start).is_some_and(|text| Session::may_begin(&text)),
        _ => false,
    }
}

fn unbegun() -> Event {
    Event::Refused("53300".into(), "a transaction could not begin for want of a connection".to_owned())
}

/// What goes in the place of a Query or a Parse whose effects would outlast its transaction: the server refuses it, in its turn.
fn outlasting(session: &mut Session, tag: u8, total: usize, start: &[u8]) -> Option<BytesMut> {
    if total > start.len() {
        session.note_unseen();
    }
    session.note_text(&text(tag, start)).err()?;
    let mut message = BytesMut::new();
    let refusal = statements::REFUSAL.as_bytes();
    if tag == b'Q' {
        statements::message(b'Q', &[refusal, &[0]], &mut message);
    } else {
        let name = start.get(HEADER..)?.split(|byte| *byte == 0).next()?;
        statements::message(b'P', &[name, &[0], refusal, &[0, 0, 0]], &mut message);
    }
    Some(message)
}

/// The beginning of the text in a Query, or in a Parse behind the statement's name.
fn text(tag: u8, message: &[u8]) -> String {
    let body = message.get(HEADER..).unwrap_or_default();
    let name = if tag == b'P' { body.iter().position(|byte| *byte == 0).map_or(body.len(), |end| end + 1) } else { 0 };
    statements::text(&body[name..])
}

/// How a breach of the client ends a tunnel.
pub(super) fn close_for(gone: &Gone) -> Option<Close> {
    match gone {
        Gone::Breach(close) => Some(*close),
        Gone::Left => Some(Close::Normal),
        Gone::Broken(_) => None,
    }
}
