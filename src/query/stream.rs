//! From a database's steps to an answer.
//!
//! The first 256 KiB are held back, so that almost every error still finds its status free; then the body is made as it is
//! read. It owns the execution: a client who leaves drops the body, and that stops the statement. A client who merely stops
//! reading does not poll the body any more; so a timer stands beside it, and drops the execution at the deadline.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use http::{HeaderValue, header};
use http_body::Frame;
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};

use super::{
    problem::{Problem, Trouble},
    writer::{Form, Writer, error_line},
};
use crate::{
    backend::{BackendError, Event, Execution},
    edge::{Body, BoxError, Response},
};

/// Held back before the head is sent.
const HEAD: usize = 256 << 10;

/// A frame of a body that is sent as it is made.
const FRAME: usize = 64 << 10;

/// How much later than the deadline the timer rings: an execution that is being waited for ends by itself, and can say more.
const LATE: Duration = Duration::from_millis(250);

/// Where an answer's steps come from.
pub(super) trait Steps: Send + 'static {
    /// The next step.
    fn next(&mut self) -> impl Future<Output = Result<Option<Event<'_>>, BackendError>> + Send;

    /// When they end by themselves for what they hold, should that be before the deadline.
    fn ends(&self) -> Option<Instant> {
        None
    }
}

impl Steps for Execution {
    fn next(&mut self) -> impl Future<Output = Result<Option<Event<'_>>, BackendError>> + Send {
        Self::next(self)
    }

    fn ends(&self) -> Option<Instant> {
        Self::ends(self)
    }
}

/// What an answer may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) deadline: Instant,
}

/// Answers with the steps of an execution.
///
/// # Errors
/// What goes wrong before the head is sent. After that, a JSON body breaks off, and lines end with one that says why.
pub(super) async fn respond(steps: impl Steps, form: Form, bounds: Bounds) -> Result<Response, Problem> {
    let mut answer = Answer { steps, writer: Writer::new(form), bounds };
    let body = if answer.fill(HEAD).await? {
        Body::full(answer.writer.take(0))
    } else {
        let ends = answer.steps.ends();
        Body::stream(Timed::new(answer.into_frames(form).boxed(), form, ends, bounds.deadline))
    };
    let mut response = Response::new(body);
    let kind = if form == Form::Lines { "application/x-ndjson" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

struct Answer<S> {
    steps: S,
    writer: Writer,
    bounds: Bounds,
}

impl<S: Steps> Answer<S> {
    /// Takes steps until so many bytes wait. True: that was all.
    async fn fill(&mut self, enough: usize) -> Result<bool, Trouble> {
        while self.writer.waiting() < enough {
            let before = self.writer.waiting();
            match self.steps.next().await? {
                Some(Event::Columns(columns)) => self.writer.columns(columns),
                Some(Event::Row(_)) if self.writer.rows() == self.bounds.rows => {
                    return Err(Trouble::Rows(self.bounds.rows));
                }
                Some(Event::Row(row)) => self.writer.row(row),
                Some(Event::Complete { command, row_count }) => self.writer.complete(command, row_count),
                None => {
                    self.writer.end();
                    return Ok(true);
                }
            }
            if self.writer.bytes() > self.bounds.bytes {
                self.writer.back_to(before);
                return Err(Trouble::Bytes(self.bounds.bytes));
            }
        }
        Ok(false)
    }

    /// The rest, beginning with what was held back.
    fn into_frames(self, form: Form) -> impl Stream<Item = Result<Bytes, CutShort>> + Send {
        stream::unfold(Some(self), move |answer| async move {
            let mut answer = answer?;
            match answer.fill(FRAME).await {
                Ok(true) => Some((Ok(answer.writer.take(0)), None)),
                Ok(false) => Some((Ok(answer.writer.take(FRAME + FRAME / 8)), Some(answer))),
                // Complete lines, which the client shall have before the one that says why there are no more.
                Err(trouble) if form == Form::Lines => {
                    answer.writer.error_line(cut_short(trouble).into_object());
                    Some((Ok(answer.writer.take(0)), None))
                }
                Err(trouble) => {
                    cut_short(trouble);
                    Some((Err(CutShort), None))
                }
            }
        })
    }
}

/// The body of an answer broke off: what came is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short")]
struct CutShort;

fn cut_short(trouble: Trouble) -> Problem {
    tracing::info!(error = %trouble, "answer cut short");
    trouble.into()
}

/// A body that is made as it is sent, until its deadline, polled or not.
struct Timed {
    shared: Arc<Mutex<State>>,
    form: Form,
    /// It was not the deadline that ended it.
    held: bool,
    timer: AbortHandle,
}

enum State {
    Running { frames: BoxStream<'static, Result<Bytes, CutShort>>, waker: Option<Waker> },
    Expired,
    Over,
}

impl Timed {
    fn new(
        frames: BoxStream<'static, Result<Bytes, CutShort>>,
        form: Form,
        ends: Option<Instant>,
        deadline: Instant,
    ) -> Self {
        let until = ends.unwrap_or(deadline);
        let shared = Arc::new(Mutex::new(State::Running { frames, waker: None }));
        let timed = Arc::downgrade(&shared);
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(until + LATE).await;
            let Some(shared) = timed.upgrade() else { return };
            let expired = std::mem::replace(&mut *shared.lock(), State::Expired);
            if let State::Running { waker: Some(waker), .. } = &expired {
                waker.wake_by_ref();
            }
        });
        Self { shared, form, held: ends.is_some(), timer: timer.abort_handle() }
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.shared.lock();
        let polled = match &mut *state {
            State::Running { frames, waker } => match frames.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(over) => over,
                Poll::Pending => {
                    *waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            },
            State::Expired => {
                let problem = cut_short(if self.held { BackendError::Held.into() } else { Trouble::Slow });
                Some(if self.form == Form::Lines { Ok(error_line(problem.into_object())) } else { Err(CutShort) })
            }
            State::Over => None,
        };
        *state = State::Over;
        Poll::Ready(polled.map(|last| last.map(Frame::data).map_err(BoxError::from)))
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.timer.abort();
    }
}
