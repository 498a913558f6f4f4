//! The blocking side: runs a request's statements on a connection, on a thread that may block.
//!
//! Whatever happens, a run ends outside of any transaction, or says that the connection is broken. What a caller asked to
//! undo by leaving (its flag is up, or nobody takes the rows) is undone, unless its commit is already under way.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, ToSql,
    types::{ToSqlOutput, Value as SqlValue, ValueRef},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    chunk::{Chunk, Item, TooLarge},
    failure::{self, database_error, refused},
    session::Session,
    text::{self, Fault},
    writer::Writer,
};
use crate::backend::{
    BackendError, Batch, Column, Columns, DatabaseError, Limits, Origin, Param, Shape, Statement, Work,
};

/// A request on its way to a blocking thread.
pub(super) struct Task {
    /// What to do.
    pub(super) work: Arc<Work>,
    /// Where full chunks go; waits while two are not taken.
    pub(super) chunks: mpsc::Sender<Chunk>,
    /// The connection's guard and cancel flag.
    pub(super) session: Session,
    /// The permit to write, held while the run lasts.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Where to get it.
    pub(super) writer: Writer,
    /// Longest wait for a lock that another process holds: the pool's setting, less where the deadline comes first.
    pub(super) patience: Duration,
    /// The request's deadline.
    pub(super) deadline: Instant,
    /// Longest row.
    pub(super) limits: Limits,
}

/// How a run ended.
pub(super) enum End {
    /// Nothing was done yet: it writes, and another writer is at work.
    Waits(Box<Task>),
    /// It is over.
    Over {
        /// Results that did not fill a chunk.
        tail: Chunk,
        /// Whether all was done and is committed.
        outcome: Result<(), Stop>,
        /// Whether the connection must not be used again.
        broken: bool,
    },
}

/// Why a run stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The caller left or its deadline passed; all is undone.
    Cancelled,
    /// Another writer is at work.
    Writer,
    /// SQLite or the gateway refused.
    Error(BackendError),
    /// SQLite refused, and a reason may be known.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<DatabaseError> for Stop {
    fn from(error: DatabaseError) -> Self {
        Self::Error(BackendError::Database(Box::new(error)))
    }
}

/// Does what `task` asks for.
pub(super) fn run(conn: &Connection, mut task: Box<Task>) -> End {
    let mut run = Run { conn, chunk: Chunk::default(), task: &mut task, statement: None };
    let outcome = match run.work() {
        Err(Stop::Sqlite(error)) => Err(run.told(error)),
        outcome => outcome,
    };
    let broken = !run.clean_up();
    let (tail, broken) = (run.chunk, broken || matches!(outcome, Err(Stop::Sqlite(_))));
    match outcome {
        Err(Stop::Writer) if !broken => End::Waits(task),
        Err(Stop::Sqlite(error)) => {
            let outcome = Err(Stop::from(database_error(&error, None)));
            End::Over { tail, outcome, broken }
        }
        outcome => End::Over { tail, outcome, broken },
    }
}

struct Run<'a> {
    conn: &'a Connection,
    chunk: Chunk,
    task: &'a mut Task,
    /// Which statement of a batch runs.
    statement: Option<usize>,
}

impl<'a> Run<'a> {
    fn work(&mut self) -> Result<(), Stop> {
        self.go_on()?;
        let left = self.task.deadline.saturating_duration_since(Instant::now());
        self.conn.busy_timeout(self.task.patience.min(left))?;
        match &*Arc::clone(&self.task.work) {
            Work::Single(statement) => self.single(statement),
            Work::Read(statement) => self.read(statement),
            Work::Batch(batch) => self.batch(batch),
        }
    }

    fn single(&mut self, statement: &Statement) -> Result<(), Stop> {
        let Some(mut prepared) = self.prepare(statement)? else {
            let complete = self.empty();
            self.tell(complete);
            return Ok(());
        };
        if !writes(&prepared) {
            let complete = self.execute(&mut prepared, statement)?;
            self.tell(complete);
            return Ok(());
        }
        self.take_permit()?;
        // SQLite commits a statement that returns rows when it is reset, also before its last row is read. Ours is done
        // when it is done.
        let returns = prepared.column_count() > 0;
        if returns {
            self.begin("BEGIN IMMEDIATE")?;
        }
        let complete = self.execute(&mut prepared, statement)?;
        drop(prepared);
        if returns {
            self.commit()?;
        }
        self.tell(complete);
        Ok(())
    }

    /// A write fails at its first step, without having waited for its turn.
    fn read(&mut self, statement: &Statement) -> Result<(), Stop> {
        if text::controls_transaction(&statement.sql) {
            let message = "transaction control cannot be asked to be read only";
            return Err(Stop::Error(BackendError::Unsupported(message.to_owned())));
        }
        self.query_only(true)?;
        let complete = match self.prepare(statement)? {
            Some(mut prepared) => self.execute(&mut prepared, statement)?,
            None => self.empty(),
        };
        self.tell(complete);
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), Stop> {
        if !batch.settings.is_empty() {
            let message = "SQLite has no roles and no settings of a transaction";
            return Err(Stop::Error(BackendError::Unsupported(message.to_owned())));
        }
        if let Some(index) = batch.statements.iter().position(|statement| text::controls_transaction(&statement.sql)) {
            let number = index + 1;
            let message = format!("statement {number} of the batch is transaction control, which a batch cannot hold");
            return Err(Stop::Error(BackendError::Unsupported(message)));
        }
        let writes = !batch.read_only && self.any_writes(batch);
        if writes {
            self.take_permit()?;
        }
        if batch.read_only {
            self.query_only(true)?;
        }
        self.begin(if writes { "BEGIN IMMEDIATE" } else { "BEGIN DEFERRED" })?;
        let mut last = None;
        for (index, statement) in batch.statements.iter().enumerate() {
            if let Some(complete) = last.take() {
                self.tell(complete);
            }
            self.statement = Some(index);
            last = Some(match self.prepare(statement)? {
                Some(mut prepared) => self.execute(&mut prepared, statement)?,
                None => self.empty(),
            });
            if self.conn.is_autocommit() {
                return Err(refused("25P01", "the statement ended the transaction of its batch").into());
            }
        }
        self.statement = None;
        self.commit()?;
        if let Some(complete) = last {
            self.tell(complete);
        }
        Ok(())
    }

    /// Whether a statement of the batch writes, as far as this can be told before the others have run: one that cannot be
    /// prepared yet needs a table that another one makes.
    fn any_writes(&self, batch: &Batch) -> bool {
        let sqls = batch.statements.iter().map(|statement| statement.sql.as_str());
        sqls.filter(|sql| text::single(sql).is_ok() && !text::is_empty(sql))
            .any(|sql| self.conn.prepare_cached(sql).is_ok_and(|prepared| writes(&prepared)))
    }

    /// Prepares a statement; none for a text without one.
    fn prepare(&self, statement: &Statement) -> Result<Option<CachedStatement<'a>>, Stop> {
        let sql = &statement.sql;
        match text::single(sql) {
            Ok(()) => {}
            Err(Fault::Second(at)) => {
                let mut error = refused("42601", failure::MULTIPLE);
                error.position = Some(text::position(sql, at));
                error.hint = Some("send them as a batch".to_owned());
                return Err(self.told_by_us(error));
            }
            Err(Fault::Nul) => {
                return Err(Stop::Error(BackendError::Unsupported("the statement holds a NUL character".to_owned())));
            }
        }
        if text::is_empty(sql) {
            return Ok(None);
        }
        self.task.session.guard.refusal(); // an earlier statement's
        let prepared = self.conn.prepare_cached(sql).map_err(|error| failure::in_full_text(error, sql))?;
        let (given, wanted) = (statement.params.len(), prepared.parameter_count());
        if given != wanted {
            let message = match given {
                1 => format!("1 parameter was given, but the statement requires {wanted}"),
                _ => format!("{given} parameters were given, but the statement requires {wanted}"),
            };
            return Err(self.told_by_us(refused("08P01", message)));
        }
        Ok(Some(prepared))
    }

    /// Runs a statement and sends its rows; what remains to tell is that it is complete.
    fn execute(&mut self, prepared: &mut CachedStatement<'_>, statement: &Statement) -> Result<Complete, Stop> {
        for (index, value) in statement.params.iter().enumerate() {
            prepared.raw_bind_parameter(index + 1, value)?;
        }
        let (mut described, mut returned) = (false, 0_u64);
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next()? {
            // Only now, because a changed schema shows when the statement takes its first step.
            if !described {
                described = true;
                self.chunk.push(Item::Columns(describe(row.as_ref())));
            }
            let values = (0..row.as_ref().column_count()).map(|index| row.get_ref(index).unwrap_or(ValueRef::Null));
            let limit = self.task.limits.row;
            self.chunk.row(values, limit).map_err(|TooLarge| Stop::Error(BackendError::TooLarge { limit }))?;
            returned += 1;
            if self.chunk.is_full() {
                self.hand_over()?;
            }
        }
        drop(rows);
        if !described {
            self.chunk.push(Item::Columns(describe(prepared)));
        }
        let command = text::command(&statement.sql);
        let row_count = match command.as_str() {
            "INSERT" | "UPDATE" | "DELETE" => Some(self.conn.changes()),
            "SELECT" => Some(returned),
            _ => None,
        };
        Ok(Complete { command, row_count })
    }

    // === the transaction ===

    fn begin(&self, how: &str) -> Result<(), Stop> {
        self.plain(how)
    }

    fn commit(&self) -> Result<(), Stop> {
        self.go_on()?;
        self.plain("COMMIT")
    }

    fn plain(&self, sql: &str) -> Result<(), Stop> {
        Ok(self.conn.prepare_cached(sql)?.raw_execute().map(|_| ())?)
    }

    fn query_only(&self, on: bool) -> rusqlite::Result<()> {
        let guard = &self.task.session.guard;
        guard.trusted(|| self.conn.execute_batch(if on { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" }))
    }

    fn take_permit(&mut self) -> Result<(), Stop> {
        if self.task.permit.is_none() {
            let permit = self.task.writer.clone().try_acquire_owned().map_err(|_| Stop::Writer)?;
            self.task.permit = Some(permit);
        }
        Ok(())
    }

    /// Leaves no transaction behind, and the connection writable. False: it did not work.
    fn clean_up(&self) -> bool {
        // Twice: an interrupt meant for the statement may hit the rollback.
        for _ in 0..2 {
            if !self.conn.is_autocommit() {
                let _ = self.conn.execute_batch("ROLLBACK");
            }
        }
        let writable =
            !self.task.work.is_read_only() || self.query_only(false).is_ok() || self.query_only(false).is_ok();
        writable && self.conn.is_autocommit()
    }

    // === results ===

    /// What a text without a statement gives.
    fn empty(&mut self) -> Complete {
        self.chunk.push(Item::Columns(Columns::default()));
        Complete { command: String::new(), row_count: None }
    }

    fn tell(&mut self, complete: Complete) {
        self.chunk.push(Item::Complete { command: complete.command, row_count: complete.row_count });
    }

    fn hand_over(&mut self) -> Result<(), Stop> {
        self.go_on()?;
        let chunk = std::mem::take(&mut self.chunk);
        self.task.chunks.blocking_send(chunk).map_err(|_| Stop::Cancelled)
    }

    fn go_on(&self) -> Result<(), Stop> {
        if self.task.session.cancelled.load(Ordering::Relaxed) { Err(Stop::Cancelled) } else { Ok(()) }
    }

    // === errors ===

    fn told_by_us(&self, mut error: DatabaseError) -> Stop {
        error.statement = self.statement;
        error.into()
    }

    /// An error of SQLite with all that is known about it. Stays [`Stop::Sqlite`] where the connection is not to be trusted.
    fn told(&self, error: rusqlite::Error) -> Stop {
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) && self.go_on().is_err() {
            return Stop::Cancelled;
        }
        if failure::is_fatal(&error) {
            return Stop::Sqlite(error);
        }
        let mut told = database_error(&error, self.task.session.guard.refusal());
        told.statement = self.statement;
        told.into()
    }
}

/// A result that is complete but for the word.
struct Complete {
    command: String,
    row_count: Option<u64>,
}

/// Whether running it may change the file. `EXPLAIN INSERT` may not, though SQLite calls it as writing as the INSERT.
fn writes(prepared: &CachedStatement<'_>) -> bool {
    !prepared.readonly() && prepared.is_explain() == 0
}

fn describe(statement: &rusqlite::Statement<'_>) -> Columns {
    let column = |column: &rusqlite::Column<'_>| Column {
        name: column.name().to_owned(),
        type_name: column.decl_type().map(|name| name.to_owned().into()),
        shape: Shape::Text,
        origin: Origin::default(),
    };
    statement.columns().iter().map(column).collect()
}

/// A parameter as SQLite's: a whole number beyond 64 bits becomes a float, as the same literal in SQL would; arrays and
/// objects are their JSON text.
impl ToSql for Param {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(SqlValue::Null),
            Self::Bool(truth) => ToSqlOutput::Owned(SqlValue::Integer(i64::from(*truth))),
            Self::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => ToSqlOutput::Owned(SqlValue::Integer(number)),
                (None, number) => ToSqlOutput::Owned(number.map_or(SqlValue::Null, SqlValue::Real)),
            },
            Self::Text(text) | Self::Array(text) | Self::Object(text) => {
                ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
            }
        })
    }
}
