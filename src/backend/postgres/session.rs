//! A connection that is spoken to raw: its holder's messages go to the server as they are, and the server's come back.
//!
//! Nothing is understood here but where a message begins, of what type it is, and what the server owes ([`Conversation`]); long
//! messages pass in pieces, and no more than a chunk is held in either direction. So it is known at every moment how the connection
//! stands, and when the session is dropped the connection knows it too: at rest, it is made clean as after any caller; with replies
//! due, it is recovered; where that cannot be told (a message half sent, a Sync that is missing) what runs is cancelled and the
//! connection closed.
//!
//! A session that was lent for good is reset fully (`DISCARD ALL`) before its next user, whatever was seen; one that was lent for a
//! transaction is reset by what its texts and command tags tell, as for any caller.

mod conversation;
mod cut;

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use postgres_protocol::{IsNull, message::frontend};
use tokio::time::Instant;

use self::conversation::{Conversation, Show};
use super::{
    Postgres, care::Canceller, connection::PostgresConnection, failure::PostgresFailure, inbox::Next, messages,
    statement,
};
use crate::{
    backend::{
        beginning::{self, Beginning},
        error::{BackendError, DatabaseError},
        lex::mentions,
    },
    pool::{Holder, Lease, Pool},
};

pub(crate) use cut::{BadLength, Cut, Cutter, HEADER};

/// Bytes that wait to be written to the server, beyond which no more are taken.
const BACKLOG: usize = 64 << 10;

/// Of a reply so much is looked at: an error's severity and code stand at its beginning.
const LOOK: usize = 256;

/// What the server refuses of it, and what it reports: names and values.
type Dressed = (Option<Box<DatabaseError>>, Vec<(String, String)>);

/// Settings of a session, in order: names and values.
pub(crate) type Wishes = [(String, String)];

/// For how long a session is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// For as long as its holder likes. It begins as new, and is reset fully.
    Lasting,
    /// Up to the end of a transaction.
    Transaction,
}

/// A text sets what outlasts its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outlasting;

/// A leased connection and the conversation on it.
pub(crate) struct Session {
    lease: Lease<Postgres>,
    talk: Conversation,
    down: Cutter,
    /// How the reply is shown of which more is to come.
    show: Show,
    /// Bytes of the message that is being sent, still to come.
    up: usize,
    /// A cancel request is under way that may hit whatever runs.
    cancelling: bool,
    /// What the server reports otherwise than a new connection would: names and values.
    reported: Vec<(String, String)>,
    /// The server has said that something failed.
    failed: bool,
    /// The server has ended the session.
    over: bool,
}

// === beginning ===

/// Takes a connection and makes the session as `wishes` say.
///
/// # Errors
/// No connection was to be had; the server refuses a setting ([`BackendError::Database`]); it was lost.
pub(in crate::backend) async fn begin(
    pool: &Arc<Pool<Postgres>>,
    wishes: &Wishes,
    term: Term,
    deadline: Instant,
    holder: Holder,
) -> Result<Session, BackendError> {
    let (lease, reported) = beginning::begin(pool, &Dressing { wishes, term }, deadline, holder).await?;
    Ok(Session::new(lease, reported))
}

/// A session that is to be made as somebody wishes. Nothing of its holder's is sent meanwhile.
struct Dressing<'a> {
    wishes: &'a Wishes,
    term: Term,
}

impl Beginning for Dressing<'_> {
    /// What the server reports otherwise than a new connection would: names and values.
    type Begun = Vec<(String, String)>;

    async fn on(&self, conn: &mut PostgresConnection) -> Result<Self::Begun, BackendError> {
        if conn.settings.behind_pgbouncer {
            let text = "there is no tunnel by way of PgBouncer: its sessions are others' too";
            return Err(BackendError::Unsupported(text.to_owned()));
        }
        match conn.dress(self.wishes, self.term).await {
            Ok((None, reported)) => Ok(reported),
            Ok((Some(refused), _)) => Err(BackendError::Database(refused)),
            Err(failure) => {
                Err(BackendError::Lost { sent: false, outcome_unknown: false, reason: failure.to_string() })
            }
        }
    }
}

// === impl Session ===

impl Session {
    fn new(lease: Lease<Postgres>, reported: Vec<(String, String)>) -> Self {
        let talk = Conversation::new(lease.status);
        Self {
            lease,
            talk,
            down: Cutter::default(),
            show: Show::Pass,
            up: 0,
            cancelling: false,
            reported,
            failed: false,
            over: false,
        }
    }

    /// Parameters that the server reports, as the session has them: names and values.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.reported.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let is_own = |name: &str| self.reported.iter().any(|(own, _)| own == name);
        self.lease.parameters().filter(move |(name, _)| !is_own(name)).chain(own)
    }

    // --- to the server ---

    /// Whether more may be sent now. While what has ended by itself is being cancelled, nothing is: the signal could hit that.
    pub(crate) fn takes(&self) -> bool {
        let missed = self.cancelling && !self.is_busy();
        self.lease.outbox.len() < BACKLOG && !self.talk.is_full() && !self.over && !missed
    }

    /// Bytes that wait to be written.
    pub(crate) fn backlog(&self) -> usize {
        self.lease.outbox.len()
    }

    /// Sends the first `start` bytes of a message of `total` bytes.
    pub(crate) fn send(&mut self, tag: u8, total: usize, start: &[u8]) {
        self.talk.sent(tag, Show::Pass);
        self.up = total.saturating_sub(start.len());
        self.lease.outbox.extend_from_slice(start);
    }

    /// Sends more of the message that has begun.
    pub(crate) fn send_rest(&mut self, bytes: &[u8]) {
        self.up = self.up.saturating_sub(bytes.len());
        self.lease.outbox.extend_from_slice(bytes);
    }

    /// Takes note of what a text may leave behind.
    ///
    /// # Errors
    /// It is there to outlast its transaction, by its first words.
    pub(crate) fn note_text(&mut self, sql: &str) -> Result<(), Outlasting> {
        let traits = statement::traits(sql);
        let within = statement::CURSORS | statement::TEMPORARY;
        if traits.session && traits.dirty & !within != 0 {
            return Err(Outlasting);
        }
        self.lease.dirty |= traits.dirty;
        Ok(())
    }

    /// Whether a text may begin a transaction. It may also be none that does: a text is not understood here.
    pub(crate) fn may_begin(sql: &str) -> bool {
        mentions(sql, "begin") || mentions(sql, "start")
    }

    /// Takes note that something passes of which not all is seen: it may leave anything behind.
    pub(crate) fn note_unseen(&mut self) {
        self.lease.dirty |= statement::ANYTHING;
    }

    /// Sends whole messages of ours before the client's; the client sees no reply to them. `leaves`: they, or the next one, leave a
    /// statement at the server.
    pub(crate) fn send_hidden(&mut self, messages: &[u8], leaves: bool) {
        if leaves {
            self.lease.dirty |= statement::PREPARED;
        }
        let mut rest = messages;
        while let Ok(Cut::Message { tag, total }) = Cutter::default().look(rest, rest.len()) {
            self.talk.sent(tag, Show::Hide);
            rest = rest.get(total..).unwrap_or_default();
        }
        self.lease.outbox.extend_from_slice(messages);
    }

    /// Writes what is to be written. Ready when all is.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PostgresFailure>> {
        // A server that says goodbye stops reading first: its last words are read, then the failure is met there.
        self.lease.poll_send(cx).map(|sent| if self.over { Ok(()) } else { sent.map_err(PostgresFailure::from) })
    }

    // --- from the server ---

    /// Moves what the server says to `out`, at most `most` bytes; waits for it if there is nothing. Cancel safe.
    ///
    /// # Errors
    /// The connection is lost. What the server said before has been handed out.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        most: usize,
    ) -> Poll<Result<usize, PostgresFailure>> {
        loop {
            let passed = self.pass(out, most);
            match passed.inspect_err(|_| self.lease.broken = true)? {
                0 if self.over => return Poll::Ready(Err(PostgresFailure::Closed)),
                0 => {}
                moved => return Poll::Ready(Ok(moved)),
            }
            let PostgresConnection { inbox, stream, broken, .. } = &mut *self.lease;
            let read = ready!(inbox.poll_fill(stream, cx));
            match read {
                Ok(1..) => {}
                Ok(_) => {
                    *broken = true;
                    return Poll::Ready(Err(PostgresFailure::Closed));
                }
                Err(error) => {
                    *broken = true;
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    fn pass(&mut self, out: &mut BytesMut, most: usize) -> Result<usize, PostgresFailure> {
        let before = out.len();
        while out.len() - before < most {
            let room = most - (out.len() - before);
            let buffer = self.lease.inbox.raw();
            let (show, taken) = match self.down.look(buffer, LOOK)? {
                Cut::More => break,
                Cut::Rest(here) => {
                    let here = here.min(room);
                    self.down.go_on(here);
                    (self.show, here)
                }
                Cut::Message { tag, total } => {
                    // A message is begun whole up to here, or there would be half a header in the stream.
                    let here = total.min(buffer.len()).min(room.max(LOOK));
                    let reply = note(&mut self.talk, tag, &buffer[HEADER..here])?;
                    self.failed |= tag == b'E';
                    self.over |= reply.fatal;
                    self.lease.dirty |= reply.dirty;
                    self.down.begin(total, here);
                    self.show = reply.show;
                    (reply.show, here)
                }
            };
            let buffer = self.lease.inbox.raw();
            match show {
                Show::Pass => out.extend_from_slice(&buffer[..taken]),
                Show::Hide => {}
            }
            buffer.advance(taken);
        }
        if self.talk.is_at_rest() {
            self.lease.inbox.relax();
        }
        Ok(out.len() - before)
    }

    // --- its state ---

    /// The transaction's state when the server was last ready: `I`, `T` or `E`.
    pub(crate) fn status(&self) -> u8 {
        self.talk.status()
    }

    /// No message is under way in either direction, and nothing is owed.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.talk.is_at_rest()
            && self.up == 0
            && self.down.left() == 0
            && self.lease.outbox.is_empty()
            && !self.cancelling
    }

    /// The server still has something to say to what was sent, and will.
    pub(crate) fn is_answering(&self) -> bool {
        !self.lease.outbox.is_empty() || self.talk.owed() > 0 || self.down.left() > 0
    }

    /// Whether something has failed since this was asked last: what was sent behind it may never have been done.
    pub(crate) fn has_failed(&mut self) -> bool {
        std::mem::take(&mut self.failed)
    }

    /// Something is under way that could be cancelled.
    pub(crate) fn is_busy(&self) -> bool {
        !self.talk.is_at_rest()
    }

    /// What was handed out last is the beginning of a message.
    pub(crate) fn is_in_a_message(&self) -> bool {
        self.down.left() > 0
    }

    /// The server has said that it ends the session.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// When the pool wants its connection back, whatever goes on; none: never.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.lease.ends()
    }

    /// It was held for too long.
    pub(crate) fn overheld(&mut self) {
        self.lease.overheld();
        self.lease.torn = true;
    }

    /// A request to cancel what runs; false: nobody knows whether the server has it. Until [`Session::cancelled`] is told of its
    /// end, the connection is nobody else's.
    pub(crate) fn cancel(&mut self) -> impl Future<Output = bool> + Send + 'static {
        self.cancelling = true;
        let canceller = self.lease.canceller();
        async move {
            let sent = canceller.send().await;
            sent.inspect_err(|error| tracing::debug!(%error, "a statement may not have been cancelled")).is_ok()
        }
    }

    /// A cancel request has ended. One of which nobody knows could still hit whoever comes next: the connection is closed.
    pub(crate) fn cancelled(&mut self, known: bool) {
        self.cancelling = false;
        self.lease.cancelled = true;
        self.lease.torn |= !known;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Self { talk, down, up, cancelling, over, .. } = self;
        let (talk, left) = (&*talk, down.left());
        let conn = &mut *self.lease;
        // What we said ourselves may still be unanswered, where it was dropped before its holder had it.
        (conn.status, conn.pending) = (talk.status(), conn.pending + talk.owed());
        conn.torn |= *up > 0 || talk.is_open() || *cancelling;
        conn.raw |= conn.pending > 0;
        conn.broken |= *over;
        conn.inbox.pass_over(left);
    }
}

/// What a reply says of the connection.
struct Reply {
    show: Show,
    fatal: bool,
    dirty: u32,
}

fn note(talk: &mut Conversation, tag: u8, body: &[u8]) -> Result<Reply, PostgresFailure> {
    let fatal = tag == b'E' && messages::is_fatal(&messages::error(body));
    let dirty = match tag {
        b'C' => statement::traces(messages::tag(body).0),
        b'A' => statement::LISTENING,
        // A change of a setting, whoever made it: the server is asked to undo it.
        b'S' => statement::SETTINGS,
        _ => 0,
    };
    let show = if fatal { Show::Pass } else { talk.received(tag, body)? };
    Ok(Reply { show, fatal, dirty })
}

/// One statement in the extended protocol, whose parameters are text.
fn command(sql: &str, params: &[&str], out: &mut BytesMut) -> Result<(), PostgresFailure> {
    frontend::parse("", sql, [], out)?;
    let text = |value: &&str, out: &mut BytesMut| {
        out.extend_from_slice(value.as_bytes());
        Ok(IsNull::No)
    };
    frontend::bind("", "", [], params, text, [], out).map_err(|error| match error {
        frontend::BindError::Conversion(error) => PostgresFailure::Startup(error.to_string()),
        frontend::BindError::Serialization(error) => error.into(),
    })?;
    Ok(frontend::execute("", 0, out)?)
}

impl PostgresConnection {
    /// Makes the session as `wishes` say.
    async fn dress(&mut self, wishes: &Wishes, term: Term) -> Result<Dressed, PostgresFailure> {
        let fresh = term == Term::Lasting;
        if fresh {
            // Whatever the holder does unseen, `DISCARD ALL` undoes.
            self.dirty |= statement::PREPARED;
        }
        self.used = true;
        let differs = |wish: &&(String, String)| fresh || self.parameter(&wish.0) != Some(&wish.1);
        let wishes: Vec<&(String, String)> = wishes.iter().filter(differs).collect();
        if wishes.is_empty() && !fresh {
            return Ok(Dressed::default());
        }
        self.dirty |= statement::SETTINGS;
        // Else the holder would meet our names, and others' texts behind them: also those that are still to be closed.
        if fresh {
            self.statements.clear();
            command("DEALLOCATE ALL", &[], &mut self.outbox)?;
        }
        for (name, value) in wishes {
            command("SELECT pg_catalog.set_config($1, $2, false)", &[name, value], &mut self.outbox)?;
        }
        // What was prepared last without a name is nobody's business either, and `DEALLOCATE` leaves it.
        frontend::close(b'S', "", &mut self.outbox)?;
        frontend::sync(&mut self.outbox);
        self.pending += 1;
        self.dressed().await
    }

    /// Reads the replies to settings.
    async fn dressed(&mut self) -> Result<Dressed, PostgresFailure> {
        let (mut refused, mut reported) = (None, Vec::new());
        loop {
            match self.inbox.next(0).inspect_err(|_| self.broken = true)? {
                Next::Message(b'S') => {
                    let told = messages::parameter(self.inbox.body());
                    reported.extend(told.map(|(name, value)| (name.to_owned(), value.to_owned())));
                }
                Next::Message(b'E') => {
                    let error = messages::error(self.inbox.body());
                    if messages::is_fatal(&error) {
                        self.broken = true;
                        return Err(PostgresFailure::Server(Box::new(error)));
                    }
                    refused.get_or_insert_with(|| Box::new(error));
                }
                Next::Message(b'Z') => {
                    self.note_ready()?;
                    return Ok((refused, reported));
                }
                Next::Incomplete => self.exchange().await?,
                _ => {}
            }
        }
    }

    fn canceller(&self) -> Canceller {
        Canceller::of(self)
    }
}

impl From<BadLength> for PostgresFailure {
    fn from(BadLength: BadLength) -> Self {
        super::Violation("a message's length makes no sense").into()
    }
}
