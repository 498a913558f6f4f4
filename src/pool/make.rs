//! Making and closing connections, detached from whoever asked.
//!
//! A caller who leaves does not waste the connect it began: the result goes to the oldest waiter. A permit comes back when a
//! failed attempt left nothing at the server, when a close is confirmed, or after `linger`. Each task carries a ticket that
//! settles the account even when the task is dropped midway, as when its worker stops. A close that was not begun then, or that
//! was still stopping a statement, is done in the background.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::{
    backend::{Backend, Connection, Failure, FailureClass, Hygiene, Probe},
    breaker::Reason,
    core::Newborn,
    record::{Held, Home},
    shell::Pool,
    tally::{Cause, Clamp},
    vet,
};
use crate::policy::{SizingInput, ValidationInput};

/// The right to make one connection, and the duty to say what came of it.
pub(super) struct CreateTicket<B: Backend> {
    pool: Arc<Pool<B>>,
    began: Option<Instant>,
    settled: bool,
}

/// The duty to close one connection and to say so.
pub(super) struct CloseTicket<B: Backend> {
    pool: Arc<Pool<B>>,
    /// Until it is said goodbye to.
    held: Option<Box<Held<B::Conn>>>,
    cause: Cause,
    /// The worker that was to do it has stopped.
    handed_on: bool,
    settled: bool,
}

/// Why an attempt failed, for the log, the breaker and the permit.
struct Failed {
    reason: Reason,
    text: String,
    /// Whether the server may believe that there is a connection.
    lingers: bool,
}

impl Failed {
    fn of(failure: &impl Failure) -> Self {
        let reason = Reason {
            class: failure.class(),
            sqlstate: failure.sqlstate().map(Into::into),
            public: failure.public(),
            at: Instant::now(),
        };
        // An error is the server's answer, or that it cannot be reached: the backend has let go of the socket. A timeout is none.
        let lingers = reason.class == FailureClass::Timeout;
        Self { reason, text: failure.to_string(), lingers }
    }

    fn too_slow(limit: Duration) -> Self {
        let public = "connecting took too long".to_owned();
        let text = format!("not connected within {} ms", limit.as_millis());
        let reason = Reason { class: FailureClass::Timeout, sqlstate: None, public, at: Instant::now() };
        Self { reason, text, lingers: true }
    }
}

/// Makes a connection.
pub(super) async fn create<B: Backend>(mut ticket: CreateTicket<B>) {
    let begun = Instant::now();
    ticket.began = Some(begun);
    let pool = Arc::clone(&ticket.pool);
    // The epoch before the backend: see `reconfigure`.
    let epoch = pool.state.lock().core.epoch();
    let backend = pool.backend.load_full();
    let limit = pool.settings.load().connect_timeout;
    match timeout(limit, backend.create()).await {
        Err(_) => ticket.fail(Failed::too_slow(limit)),
        Ok(Err(failure)) => ticket.fail(Failed::of(&failure)),
        Ok(Ok(mut conn)) => match prove(&pool, &backend, &mut conn).await {
            Ok(valid_for) => {
                if let (Some((server, _)), Some(connections)) = (pool.budget.server(), backend.grants()) {
                    server.granted(connections);
                }
                ticket.succeed(conn, epoch, valid_for, begun.elapsed());
            }
            Err(failed) => {
                let linger = pool.settings.load().linger;
                let unconfirmed = timeout(linger, backend.close(conn)).await.is_err();
                pool.state.lock().counters.closes_unconfirmed += u64::from(unconfirmed);
                ticket.fail(failed);
            }
        },
    }
}

/// Asks the validation policy about a new connection, and does what it says. It may not discard what nobody has tried.
async fn prove<B: Backend>(pool: &Pool<B>, backend: &B, conn: &mut B::Conn) -> Result<Duration, Failed> {
    let mut input = ValidationInput { trigger: ValidationInput::CREATED, ..ValidationInput::default() };
    vet::describe(&mut input, conn);
    let verdict = pool.ask_validation(&mut input);
    let wanted = vet::probe_for(verdict.action).unwrap_or_else(|_discard| {
        pool.state.lock().counters.clamped.count(Clamp::Discarding);
        Some(Probe::Ping)
    });
    if let Some(probe) = wanted {
        let limit = pool.probe_limit(verdict.timeout_ms);
        match timeout(limit, backend.probe(conn, probe)).await {
            Err(_) => return Err(Failed { lingers: false, ..Failed::too_slow(limit) }),
            Ok(Err(failure)) => return Err(Failed { lingers: false, ..Failed::of(&failure) }),
            Ok(Ok(())) => pool.state.lock().counters.probes += 1,
        }
    }
    Ok(Duration::from_millis(verdict.valid_for_ms.into()))
}

/// Closes a connection.
pub(super) async fn close<B: Backend>(mut ticket: CloseTicket<B>) {
    let (pool, cause) = (Arc::clone(&ticket.pool), ticket.cause);
    let Some(held) = &mut ticket.held else { return };
    debug!(pool = %pool.name, connection = held.record.id, cause = cause.as_str(), uses = held.record.uses, "closing");
    let settings = pool.settings.load_full();
    let backend = pool.backend.load_full();
    // Where that fails, the socket is of no use for a goodbye either, and closing it says so.
    let reachable = held.come_home().is_ok();
    // A server that runs a statement does not see a connection close. What could not be made clean was asked to stop before, and
    // where a probe had no answer, nothing else runs.
    let left_running = held.conn.hygiene() == Hygiene::Busy && !matches!(cause, Cause::Unclean | Cause::Broken);
    if reachable && left_running {
        let _ = timeout(settings.mend_timeout(), backend.recover(&mut held.conn)).await;
    }
    let Some(held) = ticket.held.take() else { return };
    let confirmed = timeout(settings.linger, backend.close(held.conn)).await.is_ok();
    ticket.done(confirmed);
}

impl<B: Backend> CreateTicket<B> {
    pub(super) fn new(pool: &Arc<Pool<B>>) -> Self {
        Self { pool: Arc::clone(pool), began: None, settled: false }
    }

    fn succeed(mut self, conn: B::Conn, epoch: u32, valid_for: Duration, took: Duration) {
        self.settled = true;
        let jitter_permille = rand::random_range(0..=1000);
        let newborn = Newborn { conn, epoch, valid_for, jitter_permille, home: Home::here() };
        let (id, closed) = self.pool.change(|state, now, todo| {
            let closed = state.made(now, took);
            (state.core.created(now, newborn, todo), closed)
        });
        debug!(pool = %self.pool.name, connection = id, took_ms = took.as_millis(), "connected");
        if closed {
            info!(pool = %self.pool.name, "breaker closed: connections can be made again");
        }
        // The next probe, or a tick for the policy.
        self.pool.bell.notify_one();
    }

    fn fail(mut self, failed: Failed) {
        self.settled = true;
        let pool = &self.pool;
        let settings = pool.settings.load_full();
        let Failed { reason, text, lingers } = failed;
        let class = reason.class;
        let sqlstate = reason.sqlstate.clone();
        let roll = rand::random_range(-1.0..=1.0);
        let (opened, next) = pool.change(|state, now, todo| {
            let opened = state.not_made(now, self.began, reason, &settings, roll);
            state.core.create_failed(now, lingers.then(|| now + settings.linger), todo);
            state.early = Some(if opened { SizingInput::BREAKER_MOVED } else { SizingInput::CREATE_FAILED });
            (opened, state.breaker.retry_after(now))
        });
        let next_ms = u64::try_from(next.as_millis()).unwrap_or(u64::MAX);
        // A database that there is not may be a slip of any caller's: the breaker's line below will do.
        if class == FailureClass::Missing {
            debug!(pool = %pool.name, %class, sqlstate, error = %text, next_ms, "connection failed");
        } else {
            warn!(pool = %pool.name, %class, sqlstate, error = %text, next_ms, "connection failed");
        }
        if opened {
            warn!(pool = %pool.name, %class, next_ms, "breaker opened: probing in the background");
        }
        pool.bell.notify_one();
    }
}

impl<B: Backend> Drop for CreateTicket<B> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut todo = Vec::new();
        let until = Instant::now() + self.pool.settings.load().linger;
        {
            let mut state = self.pool.state.lock();
            if self.began.is_some() {
                state.core.create_lost(until);
            } else {
                state.core.create_unbegun(&mut todo);
            }
            state.breaker.postpone(Instant::now());
        }
        self.pool.perform(todo);
        self.pool.bell.notify_one();
    }
}

impl<B: Backend> CloseTicket<B> {
    pub(super) fn new(pool: &Arc<Pool<B>>, held: Box<Held<B::Conn>>, cause: Cause) -> Self {
        Self { pool: Arc::clone(pool), held: Some(held), cause, handed_on: false, settled: false }
    }

    fn done(mut self, confirmed: bool) {
        self.settled = true;
        self.pool.change(|state, now, todo| {
            state.counters.closes_unconfirmed += u64::from(!confirmed);
            state.core.closed(now, todo);
        });
    }
}

impl<B: Backend> Drop for CloseTicket<B> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let pool = &self.pool;
        if let Some(held) = self.held.take().filter(|_| !self.handed_on) {
            let mut ticket = Self::new(pool, held, self.cause);
            ticket.handed_on = true;
            return pool.spawn_in_background(close(ticket));
        }
        let until = Instant::now() + pool.settings.load().linger;
        pool.state.lock().core.close_lost(until);
        pool.bell.notify_one();
    }
}
