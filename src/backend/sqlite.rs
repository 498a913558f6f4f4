//! SQLite: a database in a file, served by the same pool as a database server.
//!
//! Connections are made by deadpool-sqlite's [`Manager`](deadpool_sqlite::Manager) and used through its `SyncWrapper`, so that
//! no worker ever blocks: a request runs on a blocking thread (`run`), which packs rows into chunks of 64 KiB; two may lie
//! in a channel until the client takes them ([`Execution`]). Readers work side by side on the write-ahead log. Writers take
//! turns in the order of asking, with a permit for each file (`writer`), so that within the gateway nobody meets
//! `SQLITE_BUSY`; a lock held by another process is waited for as long as the pool's `busy_timeout` and the request's
//! deadline allow.
//!
//! **What a caller may do** is bounded by SQLite's authorizer (`guard`) and limits (`session`): one database file, no
//! extensions, no temporary objects, no settings. A batch is one transaction, `BEGIN IMMEDIATE` if any of its statements
//! writes. SQLite has one isolation level, serializable; a request for a weaker one is thereby granted.
//!
//! **When things go wrong.** A run ends outside of any transaction, whatever its caller did: a lone `BEGIN` is rolled back. An
//! execution that is dropped, or whose deadline passes, raises a flag that SQLite's progress handler sees, and interrupts; the
//! connection is [`Hygiene::Busy`] until the blocking thread has stopped, and what was not committed is undone. A write that
//! returns rows is wrapped in a transaction: SQLite would commit it as soon as it is abandoned. A damaged or replaced
//! file, an I/O error, a panic: the connection is closed.
//!
//! A client that reads a long answer slowly holds its snapshot, and a writing one the permit, until the request's deadline:
//! more than some 500 KiB are never kept in memory for it.
//!
//! **Left out**: several databases (`ATTACH`), databases in memory (each connection would have its own), named parameters,
//! parameters that are blobs (`unhex(?1)` makes them).

mod address;
mod chunk;
mod execution;
mod failure;
mod guard;
mod run;
mod session;
mod text;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use deadpool_sqlite::{InteractError, Runtime};
use futures_util::future::BoxFuture;
use rusqlite::{Connection as Handle, InterruptHandle};
use tokio::{sync::mpsc, time::Instant};

use self::{
    address::{Address, Mode},
    chunk::Chunk,
    run::{End, Task},
    session::{Identity, Session},
    writer::Writer,
};
use super::{Limits, Work, watch::Notebook};
use crate::{
    config::model::SqliteTuning,
    observe,
    pool::{Backend, Connection, Hygiene, Manager, Metrics, Peek, Probe, RecycleError, RecycleResult},
};

pub use execution::Execution;
pub use failure::SqliteFailure;

/// deadpool's `SyncWrapper`, which it does not name: lends its connection to closures on blocking threads.
type Wrapper = <deadpool_sqlite::Manager as Manager>::Type;

/// Makes and keeps connections to one database file.
pub struct Sqlite {
    address: Address,
    tuning: SqliteTuning,
    files: deadpool_sqlite::Manager,
    hasher: RandomState,
    notebook: Arc<Notebook>,
}

/// A connection to a database file.
pub struct SqliteConn {
    /// None only while it is dropped.
    inner: Option<Arc<Wrapper>>,
    session: Session,
    interrupt: InterruptHandle,
    /// What runs on a blocking thread, once it was polled.
    job: Option<BoxFuture<'static, Result<End, InteractError>>>,
    writer: Writer,
    patience: Duration,
    path: PathBuf,
    opened: Identity,
    /// Hashes of the statements prepared so far, as many as SQLite's side keeps.
    texts: HashSet<u64>,
    hasher: RandomState,
    broken: bool,
    runtime: tokio::runtime::Handle,
}

impl Sqlite {
    /// For the file that `url` names: `sqlite:path`, with `?mode=ro` to read only, `?mode=rw` to make no new file. Nothing is
    /// opened or made yet.
    ///
    /// # Errors
    /// [`SqliteFailure::Address`], with what is wrong and how to write it.
    pub fn new(url: &str, tuning: &SqliteTuning) -> Result<Self, SqliteFailure> {
        Ok(Self::at(Address::parse(url)?, tuning))
    }

    /// The same for another file: `name` stands where the path has a `*`. It must be there already.
    #[must_use]
    pub fn of_database(&self, name: &str) -> Self {
        let path = self.address.path.to_string_lossy().replace('*', name).into();
        let mode = if self.address.mode == Mode::Create { Mode::Write } else { self.address.mode };
        Self::at(Address { path, mode, ..self.address.clone() }, &self.tuning).noting(self.notebook.capacity())
    }

    fn at(address: Address, tuning: &SqliteTuning) -> Self {
        let files =
            deadpool_sqlite::Manager::from_config(&deadpool_sqlite::Config::new(address.uri()), Runtime::Tokio1);
        let notebook = Arc::new(Notebook::new(0));
        Self { address, tuning: tuning.clone(), files, hasher: RandomState::new(), notebook }
    }

    /// The same, which tells so many statements apart.
    #[must_use]
    pub fn noting(self, statements: usize) -> Self {
        Self { notebook: Arc::new(Notebook::new(statements)), ..self }
    }

    /// Takes the place of `old` in a pool: what is known of its statements stays known.
    #[must_use]
    pub fn replacing(self, old: &Self) -> Self {
        old.notebook.resize(self.notebook.capacity());
        Self { notebook: old.notebook.clone(), ..self }
    }

    /// What is known of its statements.
    pub(super) fn notebook(&self) -> &Notebook {
        &self.notebook
    }
}

impl Manager for Sqlite {
    type Type = SqliteConn;
    type Error = SqliteFailure;

    async fn create(&self) -> Result<SqliteConn, SqliteFailure> {
        let (address, tuning) = (self.address.clone(), self.tuning.clone());
        let patience = tuning.busy_timeout.0;
        let made = tokio::task::spawn_blocking(move || {
            session::make_directory(&address).map_err(SqliteFailure::Directory)?;
            if address.mode != Mode::Create && !address.path.exists() {
                return Err(SqliteFailure::NoFile);
            }
            Ok::<_, SqliteFailure>((writer::writer(&address.path), address))
        });
        let (writer, address) = made.await.map_err(|_| SqliteFailure::Broken)??;
        let inner = Arc::new(self.files.create().await?);
        let session = Session::default();
        let path = address.path.clone();
        let prepared = interact(&inner, {
            let session = session.clone();
            move |conn| {
                let switch = session::prepare(conn, &session, &address, &tuning)?;
                Ok::<_, SqliteFailure>((switch, conn.get_interrupt_handle(), session::identity(&address.path)))
            }
        });
        let (switch, interrupt, opened) = prepared.await??;
        let mut conn = SqliteConn {
            inner: Some(inner),
            session,
            interrupt,
            job: None,
            writer,
            patience,
            path,
            opened,
            texts: HashSet::new(),
            hasher: self.hasher.clone(),
            broken: false,
            runtime: tokio::runtime::Handle::current(),
        };
        if switch {
            let _permit = conn.writer.clone().acquire_owned().await;
            conn.on_thread(|handle, session| session::use_write_ahead_log(handle, session)).await?;
        }
        Ok(conn)
    }

    async fn recycle(&self, conn: &mut SqliteConn, _: &Metrics) -> RecycleResult<SqliteFailure> {
        self.probe(conn, Probe::Ping).await.map_err(RecycleError::Backend)
    }
}

impl Backend for Sqlite {
    type Conn = SqliteConn;
    type Failure = SqliteFailure;

    async fn probe(&self, conn: &mut SqliteConn, action: Probe) -> Result<(), SqliteFailure> {
        match action {
            Probe::Ping | Probe::Query => {
                let (path, opened) = (conn.path.clone(), conn.opened);
                conn.on_thread(move |handle, session| session::ping(handle, session, &path, opened)).await
            }
            Probe::Rollback | Probe::ResetSession => {
                conn.on_thread(|handle, session| session::reset(handle, session, false)).await
            }
            Probe::ResetFully => {
                conn.texts.clear();
                conn.on_thread(|handle, session| session::reset(handle, session, true)).await
            }
        }
    }

    async fn recover(&self, conn: &mut SqliteConn) -> Result<(), SqliteFailure> {
        if conn.job.is_some() {
            conn.stop();
            conn.finish().await;
        }
        if conn.broken { Err(SqliteFailure::Broken) } else { Ok(()) }
    }

    async fn close(&self, mut conn: SqliteConn) {
        if conn.job.is_some() {
            conn.stop();
            conn.finish().await;
        }
        // The wrapper gives its connection to nobody: put another one in its place to see it closed. The last one to close
        // writes the log back into the file, which may take a while.
        let closed = conn.on_thread(|handle, _| {
            // An interrupt is remembered until the next statement, and would keep the log from being written back.
            handle.execute_batch("SELECT 1")?;
            let old = std::mem::replace(handle, Handle::open_in_memory()?);
            old.close().map_err(|(_, error)| SqliteFailure::from(error))
        });
        if let Err(error) = closed.await {
            tracing::warn!(error = %error, "a connection did not close well");
        }
    }
}

impl Connection for SqliteConn {
    fn rehome(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn peek(&mut self) -> Peek {
        if self.broken { Peek::Closed } else { Peek::Clean }
    }

    fn hygiene(&self) -> Hygiene {
        match (&self.job, self.broken) {
            (_, true) => Hygiene::Broken,
            (Some(_), _) => Hygiene::Busy,
            (None, _) => Hygiene::Clean,
        }
    }

    fn transaction(&self) -> u32 {
        if self.job.is_some() { 3 } else { 0 }
    }

    fn dirty(&self) -> u32 {
        0
    }

    fn statements(&self) -> u32 {
        u32::try_from(self.texts.len()).unwrap_or(u32::MAX)
    }
}

impl SqliteConn {
    /// Makes a run of `work`, which begins when [`Self::finish`] is polled.
    fn put(&mut self, work: Arc<Work>, chunks: mpsc::Sender<Chunk>, deadline: Instant, limits: Limits) {
        debug_assert!(self.job.is_none(), "the pool gave out a connection that is busy");
        let room = (session::STATEMENTS as usize).saturating_sub(self.texts.len());
        self.texts
            .extend(work.statements().iter().take(room).map(|statement| self.hasher.hash_one(statement.sql.trim())));
        self.session.cancelled.store(false, Ordering::Relaxed);
        self.resume(Box::new(Task {
            work,
            chunks,
            session: self.session.clone(),
            permit: None,
            writer: Arc::clone(&self.writer),
            patience: self.patience,
            deadline: deadline.into_std(),
            limits,
        }));
    }

    /// Takes a run up again that was put off.
    fn resume(&mut self, task: Box<Task>) {
        if let Some(inner) = &self.inner {
            let inner = Arc::clone(inner);
            self.job = Some(Box::pin(async move { inner.interact(move |conn| run::run(conn, task)).await }));
        }
    }

    /// Waits for the run to end; none if its end is not known, and then the connection is broken. Cancel safe.
    async fn finish(&mut self) -> Option<End> {
        let end = self.job.as_mut()?.await;
        self.job = None;
        match end {
            Ok(End::Over { tail, outcome, broken }) => {
                self.broken |= broken;
                Some(End::Over { tail, outcome, broken })
            }
            Ok(waits) => Some(waits),
            Err(_) => {
                self.broken = true;
                None
            }
        }
    }

    /// Stops what runs, at its next step.
    fn stop(&self) {
        if self.job.is_some() {
            self.session.cancelled.store(true, Ordering::Relaxed);
            self.interrupt.interrupt();
        }
    }

    async fn on_thread<T, F>(&mut self, act: F) -> Result<T, SqliteFailure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Handle, &Session) -> Result<T, SqliteFailure> + Send + 'static,
    {
        let Some(inner) = &self.inner else { return Err(SqliteFailure::Broken) };
        let session = self.session.clone();
        self.session.cancelled.store(false, Ordering::Relaxed);
        let outcome = interact(inner, move |conn| act(conn, &session)).await.and_then(|outcome| outcome);
        self.broken |= outcome.is_err();
        outcome
    }
}

impl Drop for SqliteConn {
    fn drop(&mut self) {
        // The wrapper closes its connection on a blocking thread, and panics where there is no runtime to give it one.
        let _entered = observe::lasting_runtime().is_none().then(|| self.runtime.enter());
        self.stop();
        self.job = None;
        self.inner = None;
    }
}

async fn interact<T, F>(inner: &Wrapper, act: F) -> Result<T, SqliteFailure>
where
    T: Send + 'static,
    F: FnOnce(&mut Handle) -> T + Send + 'static,
{
    inner.interact(act).await.map_err(|_| SqliteFailure::Broken)
}
