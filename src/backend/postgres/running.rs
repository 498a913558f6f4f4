//! An execution: replies become events, one at a time and when asked.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    connection::PostgresConnection,
    failure::{PostgresFailure, Violation},
    inbox::Next,
    lookup, messages,
    plan::{self, Naming, Part, Role, Source},
    statement,
    types::TypeId,
};
use crate::backend::{
    comment,
    error::{BackendError, DatabaseError},
    work::{Column, Columns, Event, Limits, Shape, Work},
};

/// Length of a Sync, which every request ends with.
const SYNC: usize = 5;

/// A request that was sent and whose replies are being read. Dropping it leaves the connection busy, for the pool to
/// recover.
#[derive(Debug)]
pub(crate) struct Running {
    work: Arc<Work>,
    parts: Vec<Part>,
    /// The part whose replies come.
    at: usize,
    limits: Limits,
    columns: Arc<Columns>,
    /// The current part's columns are handed out.
    announced: bool,
    /// Anything is handed out.
    delivered: bool,
    command: String,
    row_count: Option<u64>,
    /// The last statement is complete; it is told when its work is committed.
    held: bool,
    done: bool,
    /// What the request fails with, once its replies are read.
    failure: Option<BackendError>,
    retried: bool,
    /// Take types that are unknown in the current description as they are: they were asked for.
    guess: bool,
    sent: Instant,
    answered: Option<Instant>,
    /// How long the server was waited for, and since when it is.
    waited: Duration,
    waiting: Option<Instant>,
    /// What [`Running::at_hand`] found, and left to [`Running::next`].
    ahead: Option<Progress>,
}

/// What [`Running::next`] found; [`Running::event`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Columns,
    Row,
    Complete,
    /// All is read, and committed.
    Done,
}

#[derive(Debug)]
enum Progress {
    Step(Step),
    /// More must be read.
    Read,
    /// These types must be known before anything is handed out.
    Types(Vec<TypeId>),
    /// Send the request once more.
    Again,
}

// === impl Running ===

impl Running {
    /// Sends `work`. [`BackendError::Lost`] with `sent: false` means that the server has seen nothing of it.
    pub(crate) async fn begin(
        conn: &mut PostgresConnection,
        work: Arc<Work>,
        limits: Limits,
    ) -> Result<Self, BackendError> {
        conn.sent = 0;
        conn.comment = limits.trace.as_ref().map(comment::comment);
        let parts = plan::write(conn, &work)?;
        conn.used = true;
        conn.push().await.map_err(|failure| lost(conn, &work, &failure))?;
        Ok(Self {
            work,
            parts,
            at: 0,
            limits,
            columns: Arc::default(),
            announced: false,
            delivered: false,
            command: String::new(),
            row_count: None,
            held: false,
            done: false,
            failure: None,
            retried: false,
            guess: false,
            sent: Instant::now(),
            answered: None,
            waited: Duration::ZERO,
            waiting: None,
            ahead: None,
        })
    }

    /// The next step. Cancel safe, but for the moments when types are looked up: then the connection is broken.
    pub(crate) async fn next(&mut self, conn: &mut PostgresConnection) -> Result<Step, BackendError> {
        loop {
            let progress = self.ahead.take().map_or_else(|| self.advance(conn), Ok)?;
            match progress {
                Progress::Step(step) => {
                    self.delivered |= step != Step::Done;
                    return Ok(step);
                }
                Progress::Read => self.read(conn).await?,
                Progress::Types(ids) => self.know_types(conn, &ids).await?,
                Progress::Again => self.again(conn)?,
            }
        }
    }

    /// The next step, if what has come holds it: nothing is waited for, and no deadline looked at.
    pub(crate) fn at_hand(&mut self, conn: &mut PostgresConnection) -> Option<Result<Step, BackendError>> {
        if self.ahead.is_some() {
            return None;
        }
        match self.advance(conn) {
            Ok(Progress::Step(step)) => {
                self.delivered |= step != Step::Done;
                Some(Ok(step))
            }
            Ok(progress) => {
                self.ahead = Some(progress);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// What `step`, the last that [`Running::next`] gave, is about.
    pub(crate) fn event<'a>(&'a self, conn: &'a PostgresConnection, step: Step) -> Option<Event<'a>> {
        Some(match step {
            Step::Columns => Event::Columns(&self.columns),
            Step::Row => Event::Row(&conn.inbox),
            Step::Complete => Event::Complete { command: &self.command, row_count: self.row_count },
            Step::Done => return None,
        })
    }

    /// Whether anything was handed out.
    pub(crate) fn delivered(&self) -> bool {
        self.delivered
    }

    /// From sending to the first reply.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        Some(self.answered?.duration_since(self.sent))
    }

    /// How long the server was waited for so far: the time of the work without the time that its answer was not read.
    pub(crate) fn waited(&self) -> Duration {
        self.waited + self.waiting.map_or(Duration::ZERO, |since| since.elapsed())
    }

    // --- reading ---

    async fn read(&mut self, conn: &mut PostgresConnection) -> Result<(), BackendError> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        conn.exchange().await.map_err(|failure| self.lost(conn, &failure))?;
        let now = Instant::now();
        self.waiting = None;
        self.waited += now.duration_since(since);
        self.answered.get_or_insert(now);
        Ok(())
    }

    fn advance(&mut self, conn: &mut PostgresConnection) -> Result<Progress, BackendError> {
        while !self.done {
            let tag = match conn.message(self.limits.row).map_err(|failure| self.lost(conn, &failure))? {
                Next::Message(tag) => tag,
                Next::Incomplete => return Ok(Progress::Read),
                Next::LongRow if self.failure.is_some() => continue,
                Next::LongRow => return Err(BackendError::TooLarge { limit: self.limits.row }),
            };
            let progress = match tag {
                b'1' => self.parsed(conn),
                b'2' => self.bound(conn)?,
                b'T' | b'n' => self.described(conn, tag == b'T')?,
                b'D' => self.row(conn)?,
                b'C' | b'I' => self.complete(conn)?,
                b'E' => self.refused(conn)?,
                b'G' | b'H' => self.copy(conn, tag == b'G')?,
                b'Z' => self.ready(conn)?,
                b'3' | b'd' | b'c' => None,
                _ => return Err(self.violation(conn, "a message that does not belong here")),
            };
            if let Some(progress) = progress {
                return Ok(progress);
            }
        }
        Ok(Progress::Step(Step::Done))
    }

    // --- one message each ---

    fn parsed(&mut self, conn: &mut PostgresConnection) -> Option<Progress> {
        if let Some((sql, Naming::Preparing)) = self.named() {
            conn.statements.confirm(sql);
        }
        None
    }

    fn bound(&mut self, conn: &mut PostgresConnection) -> Result<Option<Progress>, BackendError> {
        let columns = match self.parts.get(self.at).map(|part| &part.columns) {
            Some(Source::Described) => return Ok(None),
            Some(Source::Known(columns)) => Some(columns),
            Some(Source::Like(earlier)) => match &self.parts[*earlier].columns {
                Source::Known(columns) => Some(columns),
                _ => None,
            },
            None => None,
        };
        let Some(columns) = columns.cloned() else {
            return Err(self.violation(conn, "a statement that nobody described"));
        };
        self.columns = columns;
        Ok(None)
    }

    fn described(
        &mut self,
        conn: &mut PostgresConnection,
        has_columns: bool,
    ) -> Result<Option<Progress>, BackendError> {
        let fields = if has_columns { messages::fields(conn.inbox.body()) } else { Ok(Vec::new()) };
        let fields = fields.map_err(|violation| self.violation(conn, violation.0))?;
        let known: Vec<_> = fields.iter().map(|field| conn.shared.types.get(field.type_id())).collect();
        let unknown = fields.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(field, _)| field.type_id());
        let unknown: Vec<TypeId> = unknown.collect();
        let guess = std::mem::take(&mut self.guess);
        if !unknown.is_empty() && !guess {
            return Ok(Some(Progress::Types(unknown)));
        }
        let columns = fields.into_iter().zip(known).map(|(field, known)| match known {
            Some(info) => {
                Column { name: field.name, type_name: Some(info.name), shape: info.shape, origin: field.origin }
            }
            None => Column { name: field.name, type_name: None, shape: Shape::Text, origin: field.origin },
        });
        self.columns = Arc::new(columns.collect());
        if let (true, Some((sql, _))) = (unknown.is_empty(), self.named()) {
            conn.statements.describe(sql, &self.columns);
        }
        if let Some(part) = self.parts.get_mut(self.at) {
            part.columns = Source::Known(self.columns.clone());
        }
        Ok(None)
    }

    fn row(&mut self, conn: &mut PostgresConnection) -> Result<Option<Progress>, BackendError> {
        if self.failure.is_some() || !matches!(self.role(), Some(Role::Caller(_))) {
            return Ok(None);
        }
        if let Some(columns) = self.announce(conn) {
            return Ok(Some(columns));
        }
        if !conn.inbox.is_row_of(self.columns.len()) {
            return Err(self.violation(conn, "a row that does not fit its description"));
        }
        Ok(Some(Progress::Step(Step::Row)))
    }

    fn complete(&mut self, conn: &mut PostgresConnection) -> Result<Option<Progress>, BackendError> {
        let Some(part) = self.parts.get(self.at) else {
            return Err(self.violation(conn, "more statements complete than were sent"));
        };
        let (command, row_count) = messages::tag(conn.inbox.body());
        if !part.traits.passing {
            conn.dirty |= statement::traces(command);
        }
        match part.role {
            _ if self.failure.is_some() => {}
            Role::Frame => {}
            Role::Commit if command == "COMMIT" => {}
            Role::Commit => self.failure = Some(not_committed(command)),
            Role::Caller(index) => {
                if !self.announced {
                    return Ok(self.announce(conn));
                }
                self.command.clear();
                self.command.push_str(command);
                self.row_count = row_count;
                self.held = index + 1 == self.work.statements().len();
            }
        }
        let told = matches!(part.role, Role::Caller(_)) && !self.held && self.failure.is_none();
        self.at += 1;
        self.announced = false;
        Ok(told.then_some(Progress::Step(Step::Complete)))
    }

    fn refused(&mut self, conn: &mut PostgresConnection) -> Result<Option<Progress>, BackendError> {
        let mut error = messages::error(conn.inbox.body());
        if let (Some(Role::Caller(index)), false) = (self.role(), self.work.is_single()) {
            error.statement = Some(index);
        }
        if messages::is_fatal(&error) {
            conn.broken = true;
            return Err(self.ended(conn, error));
        }
        if let (true, Some((sql, Naming::Known))) = (stale(&error), self.named()) {
            conn.statements.forget(sql);
        }
        messages::unname(&mut error);
        self.failure.get_or_insert_with(|| BackendError::Database(Box::new(error)));
        Ok(None)
    }

    /// Nothing is copied to or from a caller. The server ends a copy out by itself; a copy in is ended by us.
    fn copy(&mut self, conn: &mut PostgresConnection, from_caller: bool) -> Result<Option<Progress>, BackendError> {
        let text = "COPY FROM STDIN and COPY TO STDOUT are not supported";
        self.failure.get_or_insert_with(|| BackendError::Unsupported(text.to_owned()));
        if from_caller {
            conn.refuse_copy().map_err(|failure| self.lost(conn, &failure))?;
        }
        Ok(None)
    }

    fn ready(&mut self, conn: &mut PostgresConnection) -> Result<Option<Progress>, BackendError> {
        if let Some(failure) = self.failure.take() {
            if self.may_retry(conn, &failure) {
                return Ok(Some(Progress::Again));
            }
            self.done = true;
            return Err(failure);
        }
        if self.at != self.parts.len() {
            return Err(self.violation(conn, "ready before all statements were complete"));
        }
        self.done = true;
        Ok(Some(Progress::Step(if self.held { Step::Complete } else { Step::Done })))
    }

    // --- retrying ---

    /// A statement whose plan was stale did not run, so that it may be sent again: by itself, and before anything was
    /// handed out.
    fn may_retry(&self, conn: &PostgresConnection, failure: &BackendError) -> bool {
        matches!(failure, BackendError::Database(error) if stale(error))
            && self.work.is_single()
            && self.parts.iter().any(|part| part.naming == Naming::Known)
            && (conn.status == b'I' || !matches!(*self.work, Work::Single(_)))
            && !self.retried
            && !self.delivered
    }

    fn again(&mut self, conn: &mut PostgresConnection) -> Result<(), BackendError> {
        self.retried = true;
        self.parts = plan::write(conn, &self.work)?;
        self.at = 0;
        self.announced = false;
        Ok(())
    }

    // --- types ---

    async fn know_types(&mut self, conn: &mut PostgresConnection, ids: &[TypeId]) -> Result<(), BackendError> {
        let status = loop {
            match conn.inbox.foresee_ready() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if conn.inbox.len() > lookup::HOLD => break None,
                Ok(None) => self.read(conn).await?,
                Err(violation) => return Err(self.violation(conn, violation.0)),
            }
        };
        if matches!(status, Some(b'I' | b'T')) {
            lookup::look_up(conn, ids).await.map_err(|failure| self.lost(conn, &failure))?;
        }
        self.guess = true;
        conn.inbox.again();
        Ok(())
    }

    // --- helpers ---

    fn announce(&mut self, conn: &mut PostgresConnection) -> Option<Progress> {
        if self.announced {
            return None;
        }
        self.announced = true;
        conn.inbox.again();
        Some(Progress::Step(Step::Columns))
    }

    fn role(&self) -> Option<Role> {
        self.parts.get(self.at).map(|part| part.role)
    }

    /// The current part's text, if it has a name at the server.
    fn named(&self) -> Option<(&str, Naming)> {
        let part = self.parts.get(self.at).filter(|part| part.naming != Naming::Unnamed)?;
        let Role::Caller(index) = part.role else { return None };
        Some((self.work.statements().get(index)?.sql.as_str(), part.naming))
    }

    fn violation(&mut self, conn: &mut PostgresConnection, what: &'static str) -> BackendError {
        conn.broken = true;
        self.lost(conn, &Violation(what).into())
    }

    /// What the server said before it went counts more than that it went.
    fn lost(&mut self, conn: &PostgresConnection, failure: &PostgresFailure) -> BackendError {
        self.failure.take().unwrap_or_else(|| lost(conn, &self.work, failure))
    }

    /// The server ended the session. If it was told to (class 57P), the statement is not to blame. What was complete by
    /// then may have been committed, and so may what commits on its way.
    fn ended(&mut self, conn: &PostgresConnection, error: DatabaseError) -> BackendError {
        let told_to = error.sqlstate.as_deref().is_some_and(|state| state.starts_with("57P"));
        let by_itself = self.held || self.parts.get(self.at).is_some_and(|part| part.traits.commits);
        let may_be_committed = by_itself && matches!(*self.work, Work::Single(_)) || self.at == self.parts.len();
        if !told_to && !may_be_committed {
            return self.failure.take().unwrap_or_else(|| BackendError::Database(Box::new(error)));
        }
        let reason = PostgresFailure::Server(Box::new(error));
        match self.lost(conn, &reason) {
            BackendError::Lost { sent, outcome_unknown, reason } => {
                BackendError::Lost { sent, outcome_unknown: outcome_unknown && may_be_committed, reason }
            }
            other => other,
        }
    }
}

fn lost(conn: &PostgresConnection, work: &Work, failure: &PostgresFailure) -> BackendError {
    // A COMMIT takes effect when it is executed, whether the Sync behind it arrives or not.
    let executed = conn.sent > 0 && conn.outbox.len() <= SYNC;
    let outcome_unknown = executed && !work.is_read_only();
    BackendError::Lost { sent: conn.sent > 0, outcome_unknown, reason: failure.to_string() }
}

fn not_committed(command: &str) -> BackendError {
    BackendError::Database(Box::new(DatabaseError {
        sqlstate: Some("40000".to_owned()),
        severity: Some("ERROR".to_owned()),
        message: format!("the transaction was not committed: the server answered {command} to COMMIT"),
        ..DatabaseError::default()
    }))
}

/// The server's plan of a prepared statement no longer serves, or it does not know the statement. The routine's name
/// tells it whatever language the messages are in.
fn stale(error: &DatabaseError) -> bool {
    match error.sqlstate.as_deref() {
        Some("26000") => true,
        Some("0A000") => error.routine.as_deref() == Some("RevalidateCachedQuery"),
        _ => false,
    }
}
