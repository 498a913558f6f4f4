//! Databases, behind one door: a dialect hands in [`Work`] and pulls [`Event`]s out, whatever the database is.
//!
//! [`Database::start`] takes a connection from the pool and sends the work; [`Execution::next`] reads one step at a
//! time. Nothing is read ahead of the consumer but one buffer, so that a slow client slows its database down and memory
//! stays bounded. The deadline covers the wait for a connection, the statement and the reading.
//!
//! Work that is read only may go to replicas of the database ([`Replicas`]). What statements cost is kept by fingerprint
//! (`figures.rs`), and what was slow is logged (`watch.rs`); neither holds what callers put into a statement.
//!
//! **When things go wrong.** Work is sent at most once, with two exceptions: if a connection turns out to be dead before
//! a byte went out, the work goes to another one, a few times (`beginning.rs`; so does a session that has yet to begin); and
//! what a replica lost before it gave anything out was only read. An [`Execution`] that is dropped before its end, for
//! whatever reason, stops its statement; the connection is mended or closed by the pool, never given out as it is. Errors say
//! whether the work may have been done ([`BackendError::Lost`]).
//!
//! [`Database::session`] lends a connection to a holder who speaks PostgreSQL's own protocol on it, for a transaction or for as long
//! as he likes (`postgres/session.rs`): there what runs is his affair, and how the connection stands when he leaves is ours.
//!
//! **Left out** of work: cursors, transactions over several requests, notifications. A session has them.

mod beginning;
mod comment;
mod error;
mod figures;
mod fingerprint;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzzed;
mod inspect;
mod lex;
mod param;
mod replicas;
mod throttle;
mod watch;
mod work;

pub mod postgres;
pub mod sqlite;

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use tokio::time::{Instant, timeout_at};

use self::{
    beginning::Beginning,
    postgres::{Postgres, PostgresConnection, Running, Step},
    replicas::Read,
    sqlite::Sqlite,
    watch::{Tally, Watch},
};
use crate::pool::{Asked, Backend, Holder, Lease, Operation, OperationError, Pool, PoolStatus, Standing};

pub use error::{BackendError, DatabaseError};
pub use figures::{StatementStatus, StatementsStatus, TotalsStatus};
pub use fingerprint::fingerprint;
pub use inspect::{Inspection, Piece, inspect, pieces};
pub use param::Param;
pub(crate) use postgres::{Cut, Cutter, HEADER, Session, Term};
pub use replicas::{ReplicaStatus, Replicas, ReplicasStatus};
pub use watch::Slow;
pub use work::{
    Batch, Cell, Column, Columns, Event, Isolation, Limits, Origin, Rendering, Row, Shape, Statement, Work,
};

/// A pool of connections to a database of some kind, and what a dialect needs to use it.
#[derive(Clone)]
pub struct Database {
    kind: Kind,
    /// Where reads go.
    replicas: Option<Arc<Replicas>>,
    slow: Slow,
    /// A caller named it: that it does not exist is the caller's mistake.
    named: bool,
}

/// The kinds of database.
#[derive(Clone)]
pub enum Kind {
    /// PostgreSQL.
    Postgres(Arc<Pool<Postgres>>),
    /// SQLite.
    Sqlite(Arc<Pool<Sqlite>>),
}

/// Work that runs. Dropped before its end, it is stopped.
pub struct Execution {
    running: Kin,
    /// Where else it may run, if it is a read.
    read: Option<Box<Read>>,
    /// The caller's, which `until` may come before.
    deadline: Instant,
    until: Until,
    watch: Watch,
}

/// When work must be over.
#[derive(Clone, Copy)]
struct Until {
    at: Instant,
    /// Not the caller's deadline: nobody may hold a connection for longer.
    held: bool,
}

enum Kin {
    Postgres { lease: Lease<Postgres>, running: Box<Running> },
    Sqlite(Box<sqlite::Execution<Lease<Sqlite>>>),
}

// === impl Kind ===

impl Kind {
    /// The pool as it is now.
    pub fn status(&self) -> PoolStatus {
        match self {
            Self::Postgres(pool) => pool.status(),
            Self::Sqlite(pool) => pool.status(),
        }
    }

    /// What its statements cost.
    pub fn statements(&self) -> StatementsStatus {
        match self {
            Self::Postgres(pool) => pool.backend().notebook().status(),
            Self::Sqlite(pool) => pool.backend().notebook().status(),
        }
    }

    /// The least of that, at the least cost.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Postgres(pool) => pool.standing(),
            Self::Sqlite(pool) => pool.standing(),
        }
    }

    /// Does what an operator says to the pool.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn operate(&self, operation: Operation) -> Result<(), OperationError> {
        match self {
            Self::Postgres(pool) => pool.operate(operation),
            Self::Sqlite(pool) => pool.operate(operation),
        }
    }
}

// === impl Database ===

impl Database {
    /// `slow` says which work is logged, and how.
    pub fn new(kind: Kind, slow: impl Into<Slow>) -> Self {
        Self { kind, replicas: None, slow: slow.into(), named: false }
    }

    /// The same of one database of many, which a caller has named.
    pub fn one_of_many(kind: Kind, slow: impl Into<Slow>) -> Self {
        Self { kind, replicas: None, slow: slow.into(), named: true }
    }

    /// The same, whose reads go to `replicas`.
    #[must_use]
    pub fn reading_from(self, replicas: Arc<Replicas>) -> Self {
        Self { replicas: Some(replicas), ..self }
    }

    /// Where its reads go, if not to its pool.
    pub fn replicas(&self) -> Option<&Arc<Replicas>> {
        self.replicas.as_ref()
    }

    /// The pool.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Postgres(pool) => pool.name(),
            Kind::Sqlite(pool) => pool.name(),
        }
    }

    /// Takes a connection that its holder speaks to in PostgreSQL's own protocol, in a session that is as `wishes` say: settings by
    /// name. `deadline` covers the wait and the settings. Dropping the future leaves nothing behind, and dropping the session
    /// gives the connection back in whatever state it is: its pool mends or closes it.
    ///
    /// # Errors
    /// No connection was to be had, the database is none that speaks this protocol, it refuses a setting, or it was lost.
    pub(crate) async fn session(
        &self,
        wishes: &[(String, String)],
        term: Term,
        deadline: Instant,
        holder: Holder,
    ) -> Result<Session, BackendError> {
        let Kind::Postgres(pool) = &self.kind else {
            return Err(BackendError::Unsupported("this database has no sessions to be tunnelled to".to_owned()));
        };
        postgres::begin_session(pool, wishes, term, deadline, holder).await.map_err(|error| self.refine(error))
    }

    /// That a database is missing which a caller has named is the caller's mistake.
    fn refine(&self, error: BackendError) -> BackendError {
        match error {
            BackendError::Checkout(error) if self.named && error.is_missing() => BackendError::NoSuchDatabase,
            other => other,
        }
    }

    /// Takes a connection and sends `work`. `deadline` covers this and everything up to the last step. Dropping the
    /// future leaves nothing behind.
    ///
    /// # Errors
    /// No connection was to be had, the work cannot be put to this database, or the connection was lost. What the
    /// database itself says of the work comes out of [`Execution::next`].
    pub async fn start(
        &self,
        work: Work,
        deadline: Instant,
        holder: Holder,
        limits: Limits,
    ) -> Result<Execution, BackendError> {
        let work = Arc::new(work);
        let holder = Holder { statement: Some(Asked(work.clone())), ..holder };
        let (route, consumer) = (holder.route.clone(), holder.consumer.clone());
        let mut read = match &self.replicas {
            Some(replicas) if replicas::suits(&work) => Some(Box::new(Read::new(replicas, holder.clone(), limits))),
            _ => None,
        };
        let running = match (&self.kind, &mut read) {
            (Kind::Postgres(_), Some(read)) => Box::pin(read.start(&work, deadline)).await,
            (Kind::Postgres(pool), None) => start_postgres(pool, &work, deadline, holder, limits).await,
            (Kind::Sqlite(pool), _) => pool.checkout(deadline, holder).await.map_err(BackendError::from).map(|lease| {
                let until = Until::of(&lease, deadline);
                Kin::Sqlite(Box::new(sqlite::Execution::start(lease, work.clone(), until.at, limits)))
            }),
        };
        let mut running = running.map_err(|error| self.refine(error))?;
        let watch = Watch {
            pool: running.pool().unwrap_or_else(|| self.name().into()),
            route,
            consumer,
            work,
            slow: self.slow,
            begun: Clock::now(),
            end: None,
            blame: None,
            tally: Tally::default(),
        };
        let until = running.until(deadline);
        Ok(Execution { running, read, deadline, until, watch })
    }
}

/// Work that is to be sent.
struct Sending<'a> {
    work: &'a Arc<Work>,
    limits: Limits,
}

impl Beginning for Sending<'_> {
    type Begun = Running;

    async fn on(&self, conn: &mut PostgresConnection) -> Result<Running, BackendError> {
        Running::begin(conn, self.work.clone(), self.limits).await
    }
}

async fn start_postgres(
    pool: &Arc<Pool<Postgres>>,
    work: &Arc<Work>,
    deadline: Instant,
    holder: Holder,
    limits: Limits,
) -> Result<Kin, BackendError> {
    let (lease, running) = beginning::begin(pool, &Sending { work, limits }, deadline, holder).await?;
    Ok(Kin::Postgres { lease, running: Box::new(running) })
}

// === impl Until ===

impl Until {
    /// The caller's deadline, or the end of what its pool allows.
    fn of<B: Backend>(lease: &Lease<B>, deadline: Instant) -> Self {
        match lease.ends().filter(|ends| *ends < deadline) {
            Some(at) => Self { at, held: true },
            None => Self { at: deadline, held: false },
        }
    }

    /// The error of whoever is not over by then.
    fn passed(self) -> BackendError {
        if self.held { BackendError::Held } else { BackendError::Timeout }
    }
}

// === impl Execution ===

impl Execution {
    /// How long the checkout took of the connection that it runs on.
    pub fn waited(&mut self) -> Duration {
        match &mut self.running {
            Kin::Postgres { lease, .. } => lease.waited(),
            Kin::Sqlite(execution) => execution.lease().waited(),
        }
    }

    /// When it is ended for holding its connection too long, should that be before its deadline.
    pub fn ends(&self) -> Option<Instant> {
        self.until.held.then_some(self.until.at)
    }

    /// The next step; none when everything is read and committed. After an error there is nothing more to come. Cancel
    /// safe, except that a cancelled look-up of a type costs the connection.
    ///
    /// # Errors
    /// The database refused a statement or the commit, the deadline passed, a row was too long, or the connection was
    /// lost.
    pub async fn next(&mut self) -> Result<Option<Event<'_>>, BackendError> {
        let step = match &self.running {
            Kin::Postgres { .. } => Some(self.step().await?),
            Kin::Sqlite(_) => None,
        };
        let event = match (&mut self.running, step) {
            (Kin::Sqlite(execution), _) => {
                let event = execution.next().await.map_err(|error| match error {
                    BackendError::Timeout => self.until.passed(),
                    other => other,
                });
                self.watch.note(event)?
            }
            (Kin::Postgres { lease, running }, Some(step)) => running.event(lease, step),
            (Kin::Postgres { .. }, None) => None,
        };
        match &event {
            Some(event) => self.watch.tally.event(event, self.watch.work.statements().len()),
            None => self.watch.end = Some("done"),
        }
        Ok(event)
    }

    /// PostgreSQL's next step; of a read that was lost before its first, the one that is tried next.
    async fn step(&mut self) -> Result<Step, BackendError> {
        loop {
            let Kin::Postgres { lease, running } = &mut self.running else { return Ok(Step::Done) };
            // A row that is there already is worth no timer.
            let at_hand = if running.delivered() { running.at_hand(lease) } else { None };
            let step = if let Some(step) = at_hand {
                step
            } else {
                let timed = running.round_trip().is_some();
                let read = self.read.as_deref().filter(|_| !running.delivered());
                let next = async {
                    tokio::select! {
                        biased;
                        step = running.next(lease) => step,
                        gone = replicas::gone(read) => Err(gone),
                    }
                };
                let step = timeout_at(self.until.at, next).await.unwrap_or(Err(self.until.passed()));
                if let (false, Some(round_trip)) = (timed, running.round_trip()) {
                    lease.rtt(round_trip);
                }
                step
            };
            let watch = &mut self.watch;
            let step = watch.note(step.map_err(|error| unwritable(error, &watch.work, lease)));
            let (Err(error), Some(read), false) = (&step, &mut self.read, running.delivered()) else { return step };
            let Some(again) = Box::pin(read.again(&watch.work, self.deadline, error)).await else { return step };
            if let Some(blame) = watch.blame.take() {
                lease.failed_with(blame);
            }
            watch.tally = Tally::default();
            self.running = watch.note(again)?;
            self.until = self.running.until(self.deadline);
            watch.pool = self.running.pool().unwrap_or_default();
        }
    }
}

impl Kin {
    /// When work on it must be over.
    fn until(&mut self, deadline: Instant) -> Until {
        match self {
            Self::Postgres { lease, .. } => Until::of(lease, deadline),
            Self::Sqlite(execution) => Until::of(execution.lease(), deadline),
        }
    }

    /// The name of the pool that it runs on, where that is not the only one it could be.
    fn pool(&self) -> Option<Arc<str>> {
        match self {
            Self::Postgres { lease, .. } => Some(lease.pool().name().clone()),
            Self::Sqlite(_) => None,
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Kin::Sqlite(execution) = &mut self.running
            && let Some(round_trip) = execution.round_trip()
        {
            execution.lease().rtt(round_trip);
        }
        if self.until.held && Instant::now() >= self.until.at && matches!(self.watch.end, None | Some("held")) {
            match &mut self.running {
                Kin::Postgres { lease, .. } => lease.overheld(),
                Kin::Sqlite(execution) => execution.lease().overheld(),
            }
        }
        match &mut self.running {
            Kin::Postgres { lease, running } => {
                self.watch.close(lease.notebook(), running.waited(), lease.waited());
                if let Some(error) = self.watch.blame {
                    lease.failed_with(error);
                }
            }
            Kin::Sqlite(execution) => {
                let ran = execution.waited();
                let lease = execution.lease();
                self.watch.close(lease.pool().backend().notebook(), ran, lease.waited());
                if let Some(error) = self.watch.blame {
                    lease.failed_with(error);
                }
            }
        }
    }
}

/// A server that refuses to write, where neither the caller nor the pool asked for one that does, is not the one that is
/// wanted: a failover has left us on a replica.
fn unwritable(error: BackendError, work: &Work, conn: &PostgresConnection) -> BackendError {
    match error {
        BackendError::Database(said)
            if said.sqlstate.as_deref() == Some("25006") && !work.is_read_only() && !conn.is_for_reading() =>
        {
            BackendError::ReadOnly(said)
        }
        other => other,
    }
}
