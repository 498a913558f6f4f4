//! A request as one pipeline: everything is written at once and closed with one Sync, and the parts say which replies
//! to expect.

use std::{collections::HashMap, fmt::Write, sync::Arc};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::{
    cache::Sight,
    connection::PostgresConnection,
    params,
    statement::{self, Traits},
};
use crate::backend::{
    comment,
    error::BackendError,
    param::Param,
    work::{Batch, Columns, Isolation, Statement, Work},
};

/// Something that the server executes, in the order of the pipeline.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) naming: Naming,
    pub(super) columns: Source,
    pub(super) traits: Traits,
}

/// Who asked for a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The caller: this statement of the request.
    Caller(usize),
    /// We, around a batch.
    Frame,
    /// We: what makes the batch's work last.
    Commit,
}

/// How the server knows a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    Unnamed,
    /// It is given a name with this part.
    Preparing,
    /// It had a name before, or gets it earlier in the pipeline.
    Known,
}

/// Where a part's columns come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The server describes them.
    Described,
    /// They are known.
    Known(Arc<Columns>),
    /// From an earlier part of the pipeline with the same text.
    Like(usize),
}

/// Written after `BEGIN READ ONLY`: once a transaction has a snapshot, it can no longer be made writable.
const PIN: &str = "SELECT WHERE FALSE";

/// Writes `work` to the connection's outbox. An error leaves the connection as it was, and nothing is sent.
pub(super) fn write(conn: &mut PostgresConnection, work: &Work) -> Result<Vec<Part>, BackendError> {
    let evicted = conn.statements.take_evicted();
    let parts = encode(conn, work, &evicted);
    if let Ok(parts) = &parts {
        conn.pending += 1;
        conn.dirty |= parts.iter().fold(0, |dirty, part| dirty | part.traits.dirty);
    } else {
        conn.outbox.clear();
        conn.statements.settle();
        conn.statements.put_evicted(evicted);
    }
    parts
}

fn encode(conn: &mut PostgresConnection, work: &Work, evicted: &[Arc<str>]) -> Result<Vec<Part>, BackendError> {
    for name in evicted {
        wire(frontend::close(b'S', name, &mut conn.outbox))?;
    }
    let parts = match work {
        Work::Single(statement) => {
            let mut parts = Vec::with_capacity(1);
            caller(conn, statement, 0, &mut Earlier::default(), &mut parts)?;
            parts
        }
        Work::Read(statement) => encode_read(conn, statement)?,
        Work::Batch(batch) => encode_batch(conn, batch)?,
    };
    frontend::sync(&mut conn.outbox);
    Ok(parts)
}

/// A transaction of its own, which nothing that the statement does can make writable: by then it has a snapshot, and inside
/// a transaction neither a procedure nor a block of code may end it. What it finds in the connection's way is rolled back: an
/// attempt of its own that failed.
fn encode_read(conn: &mut PostgresConnection, statement: &Statement) -> Result<Vec<Part>, BackendError> {
    let mut parts = Vec::with_capacity(4);
    if conn.status == b'E' {
        frame("ROLLBACK", Role::Frame, &mut conn.outbox, &mut parts)?;
    }
    frame("BEGIN READ ONLY", Role::Frame, &mut conn.outbox, &mut parts)?;
    caller(conn, statement, 0, &mut Earlier::default(), &mut parts)?;
    let traits = parts.last().map(|part| part.traits).unwrap_or_default();
    if traits.control || traits.copy {
        let what = if traits.copy { "COPY" } else { "transaction control" };
        return Err(BackendError::Unsupported(format!("{what} cannot be asked to be read only")));
    }
    frame("COMMIT", Role::Commit, &mut conn.outbox, &mut parts)?;
    Ok(parts)
}

/// What a single statement's earlier attempt left in the way is rolled back, as for [`encode_read`].
fn encode_batch(conn: &mut PostgresConnection, batch: &Batch) -> Result<Vec<Part>, BackendError> {
    let mut parts = Vec::with_capacity(batch.statements.len() + 4);
    if batch.single && conn.status == b'E' {
        frame("ROLLBACK", Role::Frame, &mut conn.outbox, &mut parts)?;
    }
    frame(&begin(batch), Role::Frame, &mut conn.outbox, &mut parts)?;
    if batch.read_only {
        frame(PIN, Role::Frame, &mut conn.outbox, &mut parts)?;
    }
    let mut earlier = Earlier::default();
    for (index, statement) in batch.statements.iter().enumerate() {
        prelude(batch, &mut conn.outbox, &mut parts)?;
        caller(conn, statement, index, &mut earlier, &mut parts)?;
        let traits = parts.last().map(|part| part.traits).unwrap_or_default();
        if traits.control || traits.copy {
            let what = if traits.copy { "COPY" } else { "transaction control" };
            let text = if batch.single {
                format!("a statement with settings cannot be {what}")
            } else {
                format!("statement {} of the batch is {what}, which a batch cannot hold", index + 1)
            };
            return Err(BackendError::Unsupported(text));
        }
    }
    frame("COMMIT", Role::Commit, &mut conn.outbox, &mut parts)?;
    Ok(parts)
}

/// Parts by text, in which the text's columns are described.
type Earlier<'a> = HashMap<&'a str, usize>;

fn caller<'a>(
    conn: &mut PostgresConnection,
    statement: &'a Statement,
    index: usize,
    earlier: &mut Earlier<'a>,
    parts: &mut Vec<Part>,
) -> Result<(), BackendError> {
    let sql = statement.sql.as_str();
    if memchr::memchr(0, sql.as_bytes()).is_some() {
        return Err(BackendError::Unsupported("the statement holds a NUL character".to_owned()));
    }
    params::check(&statement.params).map_err(BackendError::Unsupported)?;
    // With a comment every text is a new one, and none is worth a name.
    let commented = conn.comment.as_deref().and_then(|comment| comment::behind(sql, comment));
    let sight = match commented {
        Some(_) => Sight::First,
        None => conn.statements.sight(sql, || statement::traits(sql)),
    };
    let (name, naming, columns, traits) = match sight {
        Sight::First => (Arc::from(""), Naming::Unnamed, Source::Described, statement::traits(sql)),
        Sight::Second(name, traits) => (name, Naming::Preparing, Source::Described, traits),
        Sight::Known(known) => {
            let columns = match (known.columns, earlier.get(sql)) {
                (Some(columns), _) => Source::Known(columns),
                (None, Some(part)) => Source::Like(*part),
                (None, None) => Source::Described,
            };
            (known.name, Naming::Known, columns, known.traits)
        }
    };
    if conn.settings.behind_pgbouncer && traits.session {
        let text = "session state cannot be kept behind PgBouncer; use SET LOCAL within a batch";
        return Err(BackendError::Unsupported(text.to_owned()));
    }
    let out = &mut conn.outbox;
    if naming != Naming::Known {
        wire(frontend::parse(&name, commented.as_deref().unwrap_or(sql), [], out))?;
    }
    params::bind(&name, &statement.params, out).map_err(|text| BackendError::Unsupported(text.to_owned()))?;
    if matches!(columns, Source::Described) {
        wire(frontend::describe(b'P', "", out))?;
        if naming != Naming::Unnamed {
            earlier.insert(sql, parts.len());
        }
    }
    wire(frontend::execute("", 0, out))?;
    parts.push(Part { role: Role::Caller(index), naming, columns, traits });
    Ok(())
}

/// Sets what holds for this transaction, in one statement: before each of the caller's, whatever a function of the last one has
/// made of it. It stands behind [`PIN`], and its values are parameters: neither can be read as anything else.
fn prelude(batch: &Batch, out: &mut BytesMut, parts: &mut Vec<Part>) -> Result<(), BackendError> {
    if batch.settings.is_empty() {
        return Ok(());
    }
    let mut sql = String::with_capacity(8 + 32 * batch.settings.len());
    let mut values = Vec::with_capacity(2 * batch.settings.len());
    for (index, (name, value)) in batch.settings.iter().enumerate() {
        sql.push_str(if index == 0 { "SELECT " } else { ", " });
        let _ = write!(sql, "pg_catalog.set_config(${}, ${}, true)", 2 * index + 1, 2 * index + 2);
        values.extend([Param::Text((**name).into()), Param::Text(value.as_str().into())]);
    }
    if batch.settings.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
        return Err(BackendError::Unsupported("a setting holds a NUL character".to_owned()));
    }
    framed(&sql, &values, Role::Frame, out, parts)
}

fn frame(sql: &str, role: Role, out: &mut BytesMut, parts: &mut Vec<Part>) -> Result<(), BackendError> {
    framed(sql, &[], role, out, parts)
}

fn framed(
    sql: &str,
    values: &[Param],
    role: Role,
    out: &mut BytesMut,
    parts: &mut Vec<Part>,
) -> Result<(), BackendError> {
    wire(frontend::parse("", sql, [], out))?;
    params::bind("", values, out).map_err(|text| BackendError::Unsupported(text.to_owned()))?;
    wire(frontend::execute("", 0, out))?;
    let columns = Source::Known(Arc::default());
    parts.push(Part { role, naming: Naming::Unnamed, columns, traits: Traits::default() });
    Ok(())
}

fn begin(batch: &Batch) -> String {
    let isolation = match batch.isolation {
        None => "",
        Some(Isolation::ReadUncommitted) => " ISOLATION LEVEL READ UNCOMMITTED",
        Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
        Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
        Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
    };
    let read_only = if batch.read_only { " READ ONLY" } else { "" };
    let deferrable = if batch.deferrable { " DEFERRABLE" } else { "" };
    format!("BEGIN{isolation}{read_only}{deferrable}")
}

/// Writing to memory fails for a text of more than 2 GiB.
fn wire(written: std::io::Result<()>) -> Result<(), BackendError> {
    written.map_err(|error| BackendError::Unsupported(format!("cannot be sent: {error}")))
}
