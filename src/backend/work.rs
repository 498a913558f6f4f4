//! What a dialect hands to a database, and what comes back.

use std::{borrow::Cow, fmt, ops::Deref, sync::OnceLock};

use super::{Param, fingerprint};
use crate::observe::trace::Trace;

/// One statement with its parameters, in the database's own placeholder syntax.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// Its parameters.
    pub params: Vec<Param>,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// One statement, committed by itself.
    Single(Statement),
    /// One statement, of which writes are refused.
    Read(Statement),
    /// Statements in one transaction; the first error rolls all back.
    Batch(Batch),
}

/// As the log may show it: the first statement's fingerprint.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.statements().first().map_or(Ok(()), |first| f.write_str(&fingerprint(&first.sql)))
    }
}

impl Work {
    /// Whether it asked that writes be refused.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Single(_) => false,
            Self::Read(_) => true,
            Self::Batch(batch) => batch.read_only,
        }
    }

    /// The same, of which writes are refused.
    #[must_use]
    pub fn read_only(self) -> Self {
        match self {
            Self::Single(statement) | Self::Read(statement) => Self::Read(statement),
            Self::Batch(batch) => Self::Batch(Batch { read_only: true, ..batch }),
        }
    }

    /// Whether its caller knows of one statement only.
    pub fn is_single(&self) -> bool {
        match self {
            Self::Single(_) | Self::Read(_) => true,
            Self::Batch(batch) => batch.single,
        }
    }

    /// In order.
    pub fn statements(&self) -> &[Statement] {
        match self {
            Self::Single(statement) | Self::Read(statement) => std::slice::from_ref(statement),
            Self::Batch(batch) => &batch.statements,
        }
    }
}

/// Statements in one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// In order.
    pub statements: Vec<Statement>,
    /// Isolation; the database's default if none.
    pub isolation: Option<Isolation>,
    /// Refuse writes.
    pub read_only: bool,
    /// Wait for a snapshot that cannot conflict (`DEFERRABLE`). It means something only with `serializable` and `read_only`.
    pub deferrable: bool,
    /// Settings and their values, for this transaction only, made before each statement and in the same round trip
    /// (PostgreSQL). They are no boundary for a statement whose text a caller chose: that can set them anew.
    pub settings: Vec<(Cow<'static, str>, String)>,
    /// It is one statement, with settings, and to its caller nothing else: it is answered, and fails, as a single one.
    pub single: bool,
}

/// Isolation of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// `READ UNCOMMITTED`.
    ReadUncommitted,
    /// `READ COMMITTED`.
    ReadCommitted,
    /// `REPEATABLE READ`.
    RepeatableRead,
    /// `SERIALIZABLE`.
    Serializable,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name, as the database gives it.
    pub name: String,
    /// `format_type`'s name; SQLite: the declared type or none.
    pub type_name: Option<Cow<'static, str>>,
    /// How a cell that is text becomes JSON.
    pub shape: Shape,
    /// Where it comes from, as PostgreSQL tells it.
    pub origin: Origin,
}

/// Where a column comes from: the numbers of PostgreSQL's `RowDescription`. All are 0 for a database that has none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// OID of its type.
    pub type_id: u32,
    /// OID of its table; 0: it is no table's column.
    pub table_id: u32,
    /// Its number in that table, from 1; below 0: a system column; 0: it is no table's column.
    pub column_id: i16,
    /// Its type's size in bytes (`pg_type.typlen`); below 0: it varies.
    pub size: i16,
    /// Its type's modifier (`pg_attribute.atttypmod`); -1: none.
    pub modifier: i32,
}

/// The columns of a result, and what a dialect made of them. A statement that is run again shares its columns with the run
/// before, so that what describes them is written once.
#[derive(Debug, Default)]
pub struct Columns {
    columns: Box<[Column]>,
    rendered: [OnceLock<Box<[u8]>>; Rendering::COUNT],
}

/// A description of columns that is kept with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// Of the `json` dialect.
    Json,
    /// Of the `neon` dialect.
    Neon,
}

impl Rendering {
    const COUNT: usize = 2;
}

impl Columns {
    /// What `render` writes, now or when it was first asked for. It must write the same each time.
    pub fn rendered(&self, rendering: Rendering, render: impl FnOnce(&[Column], &mut Vec<u8>)) -> &[u8] {
        self.rendered[rendering as usize].get_or_init(|| {
            let mut out = Vec::new();
            render(&self.columns, &mut out);
            out.into()
        })
    }
}

impl Deref for Columns {
    type Target = [Column];

    fn deref(&self) -> &[Column] {
        &self.columns
    }
}

impl FromIterator<Column> for Columns {
    fn from_iter<I: IntoIterator<Item = Column>>(columns: I) -> Self {
        Self { columns: columns.into_iter().collect(), rendered: Default::default() }
    }
}

/// How a text cell becomes JSON (cells that are not text know it by themselves).
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A JSON number as it stands: int2, int4, oid.
    Number,
    /// A JSON number, but NaN and infinities are strings: float4, float8.
    Float,
    /// `t` or `f`.
    Bool,
    /// JSON already: json, jsonb.
    Json,
    /// A JSON string.
    Text,
    /// A PostgreSQL array literal: its elements' shape, and its delimiter.
    Array(Box<Shape>, u8),
}

/// A value in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// Text, in UTF-8 unless the database lies; its column's shape says what it is.
    Text(&'a [u8]),
    /// An integer (SQLite).
    Integer(i64),
    /// A float (SQLite).
    Real(f64),
    /// Bytes (SQLite).
    Blob(&'a [u8]),
}

/// A row: as many cells as the result has columns.
pub trait Row {
    /// Calls `each` with every cell in order.
    fn cells(&self, each: &mut dyn FnMut(Cell<'_>));
}

/// A step of an execution. Every statement gives [`Event::Columns`] once, then its rows, then [`Event::Complete`]. The
/// last statement's [`Event::Complete`] comes only when its work is committed: until then an error may still follow its
/// rows.
pub enum Event<'a> {
    /// A result begins; without columns where the statement returns none.
    Columns(&'a Columns),
    /// A row of it.
    Row(&'a dyn Row),
    /// It is complete.
    Complete {
        /// First words of the command tag: `SELECT`, `CREATE TABLE`.
        command: &'a str,
        /// Rows returned or touched, where the command counts them.
        row_count: Option<u64>,
    },
}

/// What a backend must know of a request beside its work: what an answer may cost, as far as the dialect does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest row, in bytes as the database sends it. A longer one is [`super::BackendError::TooLarge`], and is not
    /// held in memory.
    pub row: usize,
    /// Told to the server in a comment behind each statement, which then has no name there. PostgreSQL alone hears it.
    pub trace: Option<Trace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_rendered_once_each_way() {
        let column = Column { name: "a".into(), type_name: None, shape: Shape::Text, origin: Origin::default() };
        let columns: Columns = [column].into_iter().collect();
        let render = |rendering, mark: u8| {
            let rendered = columns.rendered(rendering, |columns, out| {
                out.push(mark);
                out.extend_from_slice(columns[0].name.as_bytes());
            });
            rendered.to_vec()
        };
        assert_eq!(render(Rendering::Neon, b'1'), b"1a");
        assert_eq!(render(Rendering::Neon, b'2'), b"1a");
        assert_eq!(render(Rendering::Json, b'3'), b"3a");
        assert_eq!(render(Rendering::Neon, b'4'), b"1a");
    }
}
