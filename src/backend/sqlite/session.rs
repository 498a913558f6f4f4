//! A connection's settings: what makes it safe to hand to callers, and what the operator tuned.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, config::DbConfig, limits::Limit};

use super::{
    SqliteFailure,
    address::{Address, Mode},
    guard::Guard,
};
use crate::config::model::{SqliteTuning, Synchronous};

/// Prepared statements kept on a connection.
pub(super) const STATEMENTS: u32 = 64;

/// Virtual-machine steps between two looks at the cancel flag: some tens of microseconds.
const STEPS: i32 = 4_000;

/// Least wait for a lock while opening: the connection that was the last one may just be closing the file.
const OPENING: Duration = Duration::from_secs(1);

/// The WAL file is cut back to this after a checkpoint.
const WAL_KEPT: i64 = 64 << 20;

/// Bounds for callers' SQL. SQLite's own are meant for trusted code (<https://www.sqlite.org/security.html>).
const LIMITS: [(Limit, i32); 6] = [
    (Limit::SQLITE_LIMIT_LENGTH, 64 << 20), // one value; an answer's default bound is as large
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 4 << 20),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    // A pattern is matched in one step of the virtual machine, which nothing can interrupt: time is length times pattern.
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
];

/// What a connection needs to know about itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    /// What callers may do.
    pub(super) guard: Guard,
    /// Set to stop the running statement at its next step.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// Which file is open, so that a replaced one is noticed.
pub(super) type Identity = Option<(u64, u64)>;

/// Makes a new connection safe and fast. Answers whether it still has to be switched to the write-ahead log, which takes
/// the database's write lock.
pub(super) fn prepare(
    conn: &Connection,
    session: &Session,
    address: &Address,
    tuning: &SqliteTuning,
) -> Result<bool, SqliteFailure> {
    conn.busy_timeout(tuning.busy_timeout.0.max(OPENING))?;
    for (limit, bound) in LIMITS {
        conn.set_limit(limit, bound)?;
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS as usize);
    let synchronous = match tuning.synchronous {
        Synchronous::Off => "OFF",
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "cache_size", -i64::try_from(tuning.cache.0 >> 10).unwrap_or(i64::MAX))?;
    conn.pragma_update(None, "mmap_size", i64::try_from(tuning.mmap.0).unwrap_or(i64::MAX))?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
    let journal: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    let cancelled = Arc::clone(&session.cancelled);
    conn.progress_handler(STEPS, Some(move || cancelled.load(Ordering::Relaxed)))?;
    session.guard.install(conn)?;
    Ok(address.mode != Mode::Read && journal != "wal")
}

/// Switches the file to the write-ahead log, once in its life: readers and the writer no longer wait for each other.
pub(super) fn use_write_ahead_log(conn: &Connection, session: &Session) -> Result<(), SqliteFailure> {
    let journal: String =
        session.guard.trusted(|| conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)))?;
    if journal == "wal" { Ok(()) } else { Err(SqliteFailure::NoWriteAheadLog(journal)) }
}

/// The file's identity, if it can be told.
pub(super) fn identity(path: &Path) -> Identity {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// One read of the file, and a look whether it is still the one that its path names: a connection to a file that was
/// moved away or replaced would read and write a ghost.
pub(super) fn ping(conn: &Connection, session: &Session, path: &Path, opened: Identity) -> Result<(), SqliteFailure> {
    session.guard.trusted(|| conn.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)))?;
    if identity(path) == opened { Ok(()) } else { Err(SqliteFailure::Replaced) }
}

/// Rolls back what is open. `full` also forgets prepared statements and gives memory back.
pub(super) fn reset(conn: &Connection, session: &Session, full: bool) -> Result<(), SqliteFailure> {
    session.guard.trusted(|| {
        if !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK")?;
        }
        conn.execute_batch("PRAGMA query_only = 0")?;
        if full {
            conn.flush_prepared_statement_cache();
            conn.release_memory()?;
        }
        Ok(())
    })
}

/// Makes the directory of a file that may be new.
pub(super) fn make_directory(address: &Address) -> io::Result<()> {
    match address.directory() {
        Some(directory) if address.mode == Mode::Create => fs::create_dir_all(directory),
        _ => Ok(()),
    }
}
