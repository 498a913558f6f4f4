//! SQLite's errors, in the words that the pool and the dialects use.

use rusqlite::{Error, ErrorCode, ffi};

use super::text;
use crate::{
    backend::DatabaseError,
    pool::{Failure, FailureClass},
};

/// Why a connection could not be made, checked or mended.
#[derive(Debug, thiserror::Error)]
pub enum SqliteFailure {
    /// The URL of the pool cannot be used.
    #[error("{0}")]
    Address(String),
    /// The file's directory cannot be made.
    #[error("cannot make the database's directory: {0}")]
    Directory(std::io::Error),
    /// There is no such file, and none may be made.
    #[error("there is no such file")]
    NoFile,
    /// SQLite refused.
    #[error("{0}")]
    Sqlite(#[from] Error),
    /// The file cannot be switched to a write-ahead log, without which readers and the writer would block each other.
    #[error("the file system allows no write-ahead log (journal mode stays `{0}`)")]
    NoWriteAheadLog(String),
    /// The path names another file than the one that is open.
    #[error("the database file was moved or replaced")]
    Replaced,
    /// The connection is of no more use: a panic or a failed rollback.
    #[error("the connection is broken")]
    Broken,
}

impl Failure for SqliteFailure {
    fn class(&self) -> FailureClass {
        let code = match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Directory(_) => return FailureClass::Unreachable,
            Self::NoFile => return FailureClass::Missing,
            Self::Replaced | Self::Broken => return FailureClass::Broken,
            Self::Address(_) | Self::NoWriteAheadLog(_) => return FailureClass::Other,
        };
        match code {
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => FailureClass::Unreachable,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => FailureClass::Unavailable,
            Some(ErrorCode::SystemIoFailure) => FailureClass::Broken,
            _ => FailureClass::Other,
        }
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Sqlite(error) => error.sqlite_error().and_then(|code| sqlstate(*code, "")),
            _ => None,
        }
    }

    fn public(&self) -> String {
        match self {
            Self::Address(_) | Self::Directory(_) => "the database file cannot be opened".into(),
            Self::Sqlite(error) => match error.sqlite_error() {
                Some(code) => format!("the database file cannot be used ({})", name(code.extended_code)),
                None => "the database file cannot be used".into(),
            },
            other => other.to_string(),
        }
    }
}

/// What PostgreSQL says to two statements in one.
pub(super) const MULTIPLE: &str = "cannot insert multiple commands into a prepared statement";

/// rusqlite trims what it prepares: puts an error's offset back into the text as it came.
pub(super) fn in_full_text(error: Error, text: &str) -> Error {
    let leading = i32::try_from(text.len() - text.trim_start().len()).unwrap_or(0);
    match error {
        Error::SqlInputError { error, msg, offset, .. } => {
            Error::SqlInputError { error, msg, sql: text.to_owned(), offset: offset + leading }
        }
        other => other,
    }
}

/// An error of a statement as the dialects tell it. `refusal`: why our own authorizer said no.
pub(super) fn database_error(error: &Error, refusal: Option<&'static str>) -> DatabaseError {
    let (code, message, position) = match error {
        Error::SqlInputError { error, msg, sql, offset } => {
            let byte = usize::try_from(*offset).ok();
            (Some(error), msg.clone(), byte.map(|byte| text::position(sql, byte)))
        }
        Error::SqliteFailure(error, message) => {
            (Some(error), message.clone().unwrap_or_else(|| error.to_string()), None)
        }
        Error::MultipleStatement => return refused("42601", MULTIPLE),
        other => (None, other.to_string(), None),
    };
    let Some(code) = code else { return DatabaseError { message, ..DatabaseError::default() } };
    let mut told = DatabaseError {
        sqlstate: refusal.map_or_else(|| sqlstate(*code, &message), |_| Some("42501")).map(str::to_owned),
        severity: Some("ERROR".into()),
        detail: Some(name(code.extended_code).into()),
        position,
        hint: refusal.map(str::to_owned),
        ..DatabaseError::default()
    };
    concerned(code.extended_code, &message, &mut told);
    told.message = message;
    told
}

/// An error that we found ourselves, with PostgreSQL's code for it.
pub(super) fn refused(sqlstate: &str, message: impl Into<String>) -> DatabaseError {
    DatabaseError {
        sqlstate: Some(sqlstate.to_owned()),
        severity: Some("ERROR".into()),
        message: message.into(),
        ..DatabaseError::default()
    }
}

/// Whether the file or the connection is damaged, so that nobody should use the connection again.
pub(super) fn is_fatal(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
    )
}

/// The SQLSTATE that PostgreSQL would give, where there is a plain counterpart.
fn sqlstate(code: ffi::Error, message: &str) -> Option<&'static str> {
    let extended = match code.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => "23505",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "42804",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "P0001", // RAISE()
        ffi::SQLITE_BUSY_SNAPSHOT => "40001",
        _ => return primary(code.code, message),
    };
    Some(extended)
}

fn primary(code: ErrorCode, message: &str) -> Option<&'static str> {
    Some(match code {
        ErrorCode::ConstraintViolation => "23000",
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "55P03",
        ErrorCode::ReadOnly => "25006",
        ErrorCode::DiskFull => "53100",
        ErrorCode::OutOfMemory => "53200",
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => "58030",
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => "XX001",
        ErrorCode::OperationInterrupted => "57014",
        ErrorCode::TooBig => "54000",
        ErrorCode::TypeMismatch => "42804",
        ErrorCode::AuthorizationForStatementDenied | ErrorCode::PermissionDenied => "42501",
        ErrorCode::ParameterOutOfRange => "08P01",
        _ => return by_message(message),
    })
}

/// SQLite gives all errors of compilation the same code; its messages are stable.
fn by_message(message: &str) -> Option<&'static str> {
    const BEGINNINGS: [(&str, &str); 11] = [
        ("no such table", "42P01"),
        ("no such view", "42P01"),
        ("no such column", "42703"),
        ("no such function", "42883"),
        ("no such index", "42704"),
        ("ambiguous column name", "42702"),
        ("wrong number of arguments", "42883"),
        ("unrecognized token", "42601"),
        ("incomplete input", "42601"),
        ("too many", "54000"),
        ("integer overflow", "22003"),
    ];
    let endings = [("syntax error", "42601"), ("already exists", "42P07")];
    let begins = BEGINNINGS.iter().find(|(text, _)| message.starts_with(text));
    begins.or_else(|| endings.iter().find(|(text, _)| message.ends_with(text))).map(|(_, state)| *state)
}

/// Reads table, column or constraint out of `UNIQUE constraint failed: t.a, t.b` and its like.
fn concerned(extended_code: i32, message: &str, told: &mut DatabaseError) {
    let Some((_, what)) = message.split_once(" constraint failed: ") else { return };
    match extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_NOTNULL => {
            let mut columns = what.split(", ").filter_map(|column| column.split_once('.'));
            if let Some((table, column)) = columns.next() {
                told.table = Some(table.to_owned());
                told.column = columns.next().is_none().then(|| column.to_owned());
            }
        }
        ffi::SQLITE_CONSTRAINT_CHECK => told.constraint = Some(what.to_owned()),
        _ => {}
    }
}

/// The name of a result code (<https://www.sqlite.org/rescode.html>).
fn name(extended_code: i32) -> &'static str {
    match extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE => "SQLITE_CONSTRAINT_UNIQUE",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "SQLITE_CONSTRAINT_PRIMARYKEY",
        ffi::SQLITE_CONSTRAINT_ROWID => "SQLITE_CONSTRAINT_ROWID",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "SQLITE_CONSTRAINT_FOREIGNKEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "SQLITE_CONSTRAINT_NOTNULL",
        ffi::SQLITE_CONSTRAINT_CHECK => "SQLITE_CONSTRAINT_CHECK",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "SQLITE_CONSTRAINT_DATATYPE",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "SQLITE_CONSTRAINT_TRIGGER",
        ffi::SQLITE_BUSY_SNAPSHOT => "SQLITE_BUSY_SNAPSHOT",
        ffi::SQLITE_BUSY_RECOVERY => "SQLITE_BUSY_RECOVERY",
        ffi::SQLITE_READONLY_DBMOVED => "SQLITE_READONLY_DBMOVED",
        ffi::SQLITE_IOERR_READ => "SQLITE_IOERR_READ",
        ffi::SQLITE_IOERR_SHORT_READ => "SQLITE_IOERR_SHORT_READ",
        ffi::SQLITE_IOERR_WRITE => "SQLITE_IOERR_WRITE",
        ffi::SQLITE_IOERR_FSYNC => "SQLITE_IOERR_FSYNC",
        other => primary_name(other & 0xff),
    }
}

fn primary_name(code: i32) -> &'static str {
    const NAMES: [&str; 27] = [
        "SQLITE_OK",
        "SQLITE_ERROR",
        "SQLITE_INTERNAL",
        "SQLITE_PERM",
        "SQLITE_ABORT",
        "SQLITE_BUSY",
        "SQLITE_LOCKED",
        "SQLITE_NOMEM",
        "SQLITE_READONLY",
        "SQLITE_INTERRUPT",
        "SQLITE_IOERR",
        "SQLITE_CORRUPT",
        "SQLITE_NOTFOUND",
        "SQLITE_FULL",
        "SQLITE_CANTOPEN",
        "SQLITE_PROTOCOL",
        "SQLITE_EMPTY",
        "SQLITE_SCHEMA",
        "SQLITE_TOOBIG",
        "SQLITE_CONSTRAINT",
        "SQLITE_MISMATCH",
        "SQLITE_MISUSE",
        "SQLITE_NOLFS",
        "SQLITE_AUTH",
        "SQLITE_FORMAT",
        "SQLITE_RANGE",
        "SQLITE_NOTADB",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("SQLITE_ERROR")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(setup: &str, sql: &str) -> DatabaseError {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch(setup).unwrap();
        let error = conn.prepare(sql).and_then(|mut statement| {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        });
        database_error(&error.unwrap_err(), None)
    }

    #[test]
    fn errors_have_the_codes_that_postgres_gives() {
        let setup = "create table p(id integer primary key);
            create table t(a int not null unique, b int constraint positive check (b > 0), c int references p(id));
            insert into t values (1, 1, null)";
        for (sql, state, detail) in [
            ("insert into t values (1, 1, null)", "23505", "SQLITE_CONSTRAINT_UNIQUE"),
            ("insert into t values (null, 1, null)", "23502", "SQLITE_CONSTRAINT_NOTNULL"),
            ("insert into t values (2, 0, null)", "23514", "SQLITE_CONSTRAINT_CHECK"),
            ("insert into t values (3, 1, 77)", "23503", "SQLITE_CONSTRAINT_FOREIGNKEY"),
            ("select * from nowhere", "42P01", "SQLITE_ERROR"),
            ("select x from t", "42703", "SQLITE_ERROR"),
            ("select nope(1)", "42883", "SQLITE_ERROR"),
            ("selec 1", "42601", "SQLITE_ERROR"),
            ("select (1", "42601", "SQLITE_ERROR"),
            ("select 'x", "42601", "SQLITE_ERROR"),
            ("create table t(a)", "42P07", "SQLITE_ERROR"),
            ("insert into p values ('x')", "42804", "SQLITE_MISMATCH"),
            ("select sum(9223372036854775807) from (values (1),(2))", "22003", "SQLITE_ERROR"),
            ("select zeroblob(2000000000)", "54000", "SQLITE_TOOBIG"),
        ] {
            let told = told(setup, sql);
            assert_eq!(told.sqlstate.as_deref(), Some(state), "{sql}: {told:?}");
            assert_eq!(told.detail.as_deref(), Some(detail), "{sql}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        let setup =
            "create table t(a int, b int, unique (a, b), constraint positive check (b > 0)); create table u(a unique);
            insert into t values (1, 1); insert into u values (1)";
        assert_eq!(told(setup, "select 'ä', nowhere").position, Some(13));
        let two = told(setup, "insert into t values (1, 1)");
        assert_eq!((two.table.as_deref(), two.column), (Some("t"), None));
        let one = told(setup, "insert into u values (1)");
        assert_eq!((one.table.as_deref(), one.column.as_deref()), (Some("u"), Some("a")));
        assert_eq!(told(setup, "insert into t values (1, 0)").constraint.as_deref(), Some("positive"));
    }
}
