//! The waiting side: puts a request to a blocking thread and hands out what it sends back.

use std::{ops::DerefMut, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    SqliteConn,
    chunk::{Chunk, Reader, Step},
    run::{End, Stop, Task},
};
use crate::backend::{BackendError, Columns, Event, Limits, Work};

/// Chunks that may lie between the two sides.
pub(super) const DEPTH: usize = 2;

/// How long a run that was stopped may take to say how it ended. It is milliseconds, unless the disk hangs.
const GRACE: Duration = Duration::from_secs(1);

/// A request that runs on a connection. `L` is what holds the connection: the pool's lease, or a reference.
///
/// Dropped before its end, it stops the run, which is then undone. The connection is [`crate::pool::Hygiene::Busy`] until
/// [`crate::pool::Backend::recover`] has seen the run end.
pub struct Execution<L: DerefMut<Target = SqliteConn>> {
    pub(super) chunks: mpsc::Receiver<Chunk>,
    /// A run that was put off until the writer is free.
    waiting: Option<Box<Task>>,
    /// What came with the end of the run.
    tail: Option<Chunk>,
    /// How the run ended; taken when it was told.
    outcome: Option<Result<(), Stop>>,
    pub(super) reader: Reader,
    columns: Columns,
    command: String,
    row_count: Option<u64>,
    pub(super) deadline: Instant,
    begun: Instant,
    round_trip: Option<Duration>,
    /// How long the run was waited for, and since when it is.
    waited: Duration,
    waiting_since: Option<Instant>,
    /// Set when the deadline passed: until when the run may take to stop.
    stopping: Option<Instant>,
    // Last, so that the channel is closed before the connection goes back.
    lease: L,
}

/// Where an execution stands.
enum Stand {
    Columns,
    Row,
    Complete,
    End,
}

impl<L: DerefMut<Target = SqliteConn>> Execution<L> {
    /// Puts `work` to the connection. It runs from the first poll of [`Execution::next`].
    pub fn start(mut lease: L, work: impl Into<Arc<Work>>, deadline: Instant, limits: Limits) -> Self {
        let (sender, chunks) = mpsc::channel(DEPTH);
        lease.put(work.into(), sender, deadline, limits);
        Self {
            chunks,
            waiting: None,
            tail: None,
            outcome: None,
            reader: Reader::default(),
            columns: Columns::default(),
            command: String::new(),
            row_count: None,
            deadline,
            begun: Instant::now(),
            round_trip: None,
            waited: Duration::ZERO,
            waiting_since: None,
            stopping: None,
            lease,
        }
    }

    /// The next step; none when all is done and committed. Cancel safe.
    ///
    /// # Errors
    /// The database's, the deadline, or the loss of the connection. Nothing was done, unless the error says that the outcome
    /// is unknown.
    pub async fn next(&mut self) -> Result<Option<Event<'_>>, BackendError> {
        Ok(match self.advance().await? {
            Stand::Columns => Some(Event::Columns(&self.columns)),
            Stand::Row => Some(Event::Row(&self.reader)),
            Stand::Complete => Some(Event::Complete { command: &self.command, row_count: self.row_count }),
            Stand::End => None,
        })
    }

    /// How long the database took to the first results, once they are there; the wait for another writer does not count.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How long the run was waited for so far: the time of the work without the time that its answer was not read.
    pub fn waited(&self) -> Duration {
        self.waited + self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What holds the connection.
    pub fn lease(&mut self) -> &mut L {
        &mut self.lease
    }

    async fn advance(&mut self) -> Result<Stand, BackendError> {
        loop {
            match self.reader.advance() {
                Some(Step::Row) => return Ok(Stand::Row),
                Some(Step::Columns(columns)) => {
                    self.columns = columns;
                    return Ok(Stand::Columns);
                }
                Some(Step::Complete(command, row_count)) => {
                    (self.command, self.row_count) = (command, row_count);
                    return Ok(Stand::Complete);
                }
                None => match self.timed_chunk().await? {
                    Some(chunk) => self.reader.open(chunk),
                    None => return Ok(Stand::End),
                },
            }
        }
    }

    async fn timed_chunk(&mut self) -> Result<Option<Chunk>, BackendError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let chunk = self.chunk().await;
        self.waiting_since = None;
        self.waited += since.elapsed();
        chunk
    }

    /// The next chunk, or none at the end; the deadline holds.
    async fn chunk(&mut self) -> Result<Option<Chunk>, BackendError> {
        loop {
            let until = self.stopping.unwrap_or(self.deadline);
            let expired = self.stopping.is_none() && Instant::now() >= self.deadline && self.outcome.is_none();
            if !expired && let Ok(received) = timeout_at(until, self.receive()).await {
                return received;
            }
            if self.stopping.is_some() {
                let reason = "the statement did not stop at its deadline".to_owned();
                return Err(BackendError::Lost { sent: true, outcome_unknown: true, reason });
            }
            if self.waiting.take().is_some() {
                return Err(BackendError::Timeout);
            }
            self.stopping = Some(Instant::now() + GRACE);
            self.chunks.close();
            self.lease.stop();
        }
    }

    async fn receive(&mut self) -> Result<Option<Chunk>, BackendError> {
        loop {
            if let Some(task) = &mut self.waiting {
                // Never closed, so there is always a permit to come.
                task.permit = task.writer.clone().acquire_owned().await.ok();
                if let Some(task) = self.waiting.take() {
                    self.begun = Instant::now();
                    self.lease.resume(task);
                }
            }
            if let Ok(chunk) = self.chunks.try_recv() {
                return Ok(Some(chunk));
            }
            if let Some(tail) = self.tail.take() {
                return Ok(Some(tail));
            }
            match self.outcome.take() {
                None => {
                    if let Some(chunk) = self.wait().await? {
                        return Ok(Some(chunk));
                    }
                }
                Some(outcome) => {
                    self.outcome = Some(Ok(()));
                    return match outcome {
                        Ok(()) => Ok(None),
                        Err(Stop::Error(error)) => Err(error),
                        // Only the deadline stops a run that is still listened to.
                        Err(_) => Err(BackendError::Timeout),
                    };
                }
            }
        }
    }

    /// Waits for a chunk, or for the end of the run, which it notes.
    async fn wait(&mut self) -> Result<Option<Chunk>, BackendError> {
        let end = tokio::select! {
            biased;
            Some(chunk) = self.chunks.recv() => {
                self.round_trip.get_or_insert_with(|| self.begun.elapsed());
                return Ok(Some(chunk));
            }
            end = self.lease.finish() => end,
        };
        if !matches!(end, Some(End::Waits(_))) {
            self.round_trip.get_or_insert_with(|| self.begun.elapsed());
        }
        match end {
            Some(End::Waits(task)) => self.waiting = Some(task),
            Some(End::Over { tail, outcome, .. }) => (self.tail, self.outcome) = (Some(tail), Some(outcome)),
            None => {
                self.outcome = Some(Ok(()));
                let reason = "the blocking thread panicked or was shut down".to_owned();
                return Err(BackendError::Lost { sent: true, outcome_unknown: true, reason });
            }
        }
        Ok(None)
    }
}

impl<L: DerefMut<Target = SqliteConn>> Drop for Execution<L> {
    fn drop(&mut self) {
        self.lease.stop();
    }
}
