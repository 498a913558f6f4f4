//! From a database's steps to an answer.
//!
//! The first 256 KiB are held back, so that almost every error still finds its status free; then the body is made as it is
//! read. It owns the execution: a client who leaves drops the body, and that stops the statement. A client who merely stops
//! reading does not poll the body any more; so a timer stands beside it, and drops the execution at the deadline.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use http::header;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};

use super::{problem::Trouble, writer::Writer};
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

/// Answers with the steps of an execution, in the shape that `writer` gives them.
///
/// # Errors
/// What goes wrong before the head is sent. After that the writer says it, or the body breaks off.
pub(super) async fn respond<W: Writer>(steps: impl Steps, writer: W, bounds: Bounds) -> Result<Response, Trouble> {
    let kind = writer.content_type();
    let mut answer = Answer { steps, writer, bounds };
    let body = if answer.fill(HEAD).await? {
        Body::full(answer.writer.sheet().take(0))
    } else {
        Body::stream(Timed::new(answer))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

struct Answer<S, W> {
    steps: S,
    writer: W,
    bounds: Bounds,
}

impl<S: Steps, W: Writer> Answer<S, W> {
    /// Takes steps until so many bytes wait. True: that was all. Cancel safe, as far as the steps are.
    async fn fill(&mut self, enough: usize) -> Result<bool, Trouble> {
        while self.writer.sheet().waiting() < enough {
            let before = self.writer.sheet().waiting();
            match self.steps.next().await? {
                Some(Event::Columns(columns)) => self.writer.columns(columns),
                Some(Event::Row(_)) if self.writer.sheet().rows == self.bounds.rows => {
                    return Err(Trouble::Rows(self.bounds.rows));
                }
                Some(Event::Row(row)) => {
                    self.writer.sheet().rows += 1;
                    self.writer.row(row);
                }
                Some(Event::Complete { command, row_count }) => self.writer.complete(command, row_count),
                None => {
                    self.writer.end();
                    return Ok(true);
                }
            }
            let sheet = self.writer.sheet();
            if sheet.bytes() > self.bounds.bytes {
                sheet.back_to(before);
                return Err(Trouble::Bytes(self.bounds.bytes));
            }
        }
        Ok(false)
    }

    /// The rest, beginning with what was held back. Ends when `late` is set, and looks at that before anything else.
    fn into_frames(self, late: Arc<AtomicBool>) -> impl Stream<Item = Piece> + Send {
        stream::unfold(Some((self, late)), move |state| async move {
            let (mut answer, late) = state?;
            let filled = tokio::select! {
                biased;
                () = set(&late) => Err(answer.too_late()),
                filled = answer.fill(FRAME) => filled,
            };
            match filled {
                Ok(true) => Some((Ok(answer.writer.sheet().take(0)), None)),
                Ok(false) => {
                    let frame = answer.writer.sheet().take(FRAME + FRAME / 8);
                    Some((Ok(frame), Some((answer, late))))
                }
                Err(trouble) => {
                    tracing::info!(error = %trouble, "answer cut short");
                    let told = answer.writer.failed(trouble.into());
                    let last = if told { Ok(answer.writer.sheet().take(0)) } else { Err(CutShort) };
                    Some((last, None))
                }
            }
        })
    }

    fn too_late(&self) -> Trouble {
        if self.steps.ends().is_some() { BackendError::Held.into() } else { Trouble::Slow }
    }
}

/// Ready when `flag` is set. Wakes nobody: whoever sets it polls.
fn set(flag: &AtomicBool) -> impl Future<Output = ()> {
    poll_fn(|_| if flag.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending })
}

/// The body of an answer broke off: what came is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short")]
struct CutShort;

/// A body that is made as it is sent, until its deadline, polled or not.
struct Timed {
    shared: Arc<Mutex<State>>,
    timer: AbortHandle,
}

enum State {
    Running {
        frames: BoxStream<'static, Piece>,
        waker: Option<Waker>,
    },
    /// The deadline has passed; this is still to be sent.
    Expired(Piece),
    Over,
}

type Piece = Result<Bytes, CutShort>;

impl Timed {
    fn new<S: Steps, W: Writer>(answer: Answer<S, W>) -> Self {
        let until = answer.steps.ends().unwrap_or(answer.bounds.deadline);
        let late = Arc::new(AtomicBool::new(false));
        let frames = answer.into_frames(late.clone()).boxed();
        let shared = Arc::new(Mutex::new(State::Running { frames, waker: None }));
        let timed = Arc::downgrade(&shared);
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(until + LATE).await;
            late.store(true, Ordering::Release);
            if let Some(shared) = timed.upgrade() {
                expire(&mut shared.lock());
            }
        });
        Self { shared, timer: timer.abort_handle() }
    }
}

/// Ends a body that is under way: its steps are dropped, and its last words kept.
fn expire(state: &mut State) {
    let State::Running { frames, waker } = state else { return };
    let waker = waker.take();
    *state = match frames.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(last)) => State::Expired(last),
        Poll::Ready(None) => State::Over,
        Poll::Pending => State::Expired(Err(CutShort)),
    };
    if let Some(waker) = waker {
        waker.wake();
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
            State::Expired(_) | State::Over => match std::mem::replace(&mut *state, State::Over) {
                State::Expired(last) => Some(last),
                _ => None,
            },
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
