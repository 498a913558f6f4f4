//! The rules of a tunnel that has a connection for a transaction: what may pass, what is refused, and how it goes on without one.

use std::borrow::Cow;

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    pipe::{Event, Pipe},
    socket::MOST,
    statements::{self, Statements},
    wire::{self, Severity},
};
use crate::backend::{Cut, HEADER, Session};

/// The client's messages are refused, for want of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusing {
    /// The message that is passing, which means nothing here.
    Message,
    /// The simple query that is passing.
    Query,
    /// All up to the next Sync.
    ToSync,
}

// === impl Pipe ===

impl<S: AsyncRead + AsyncWrite + Unpin> Pipe<S> {
    /// A connection is had for the next transaction.
    pub(super) fn lend(&mut self, session: Session) {
        self.statements.elsewhere();
        self.session = Some(session);
        self.last = Instant::now();
    }

    /// Sends the beginning of the client's next message, or what goes in its place.
    pub(super) fn send_in_transaction(&mut self, tag: u8, total: usize) -> Result<(), Event> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let start = &self.socket.said[..total.min(self.socket.said.len())];
        let instead = match tag {
            b'Q' | b'P' => outlasting(session, tag, total, start),
            b'F' => {
                // Which function it calls is not looked at.
                session.note_unseen();
                None
            }
            _ => None,
        };
        let Some(instead) = instead else {
            return send_named(session, &mut self.statements, tag, total, start);
        };
        // What is left of it goes nowhere.
        self.refusing = (total > start.len()).then_some(Refusing::Message);
        send_named(session, &mut self.statements, tag, instead.len(), &instead)
    }

    // --- no connection ---

    /// Between transactions, what needs no database is answered without.
    pub(super) fn without_a_session(&mut self, tag: u8, total: usize) -> Result<bool, Event> {
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

    /// The message that is refused has passed, if it has.
    pub(super) fn refused_whole(&mut self) {
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

    /// Passes over a message of a client who is refused.
    ///
    /// # Errors
    /// It may have been to begin a transaction, as for [`Self::refuse`].
    pub(super) fn pass_over(&mut self, tag: u8, total: usize) -> Result<bool, Event> {
        let here = total.min(self.socket.said.len());
        let start = self.socket.said.split_to(here);
        if self.refusing == Some(Refusing::ToSync) && may_begin(&self.statements, tag, total, &start) {
            return Err(unbegun());
        }
        self.up.begin(total, here);
        if tag == b'S' {
            self.answer_ready();
        }
        Ok(true)
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
