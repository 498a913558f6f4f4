//! The two bodies: the request's on its way up, the answer's on its way down.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Duration, Instant};

use super::{fields, lease::Lease};
use crate::edge::{BodyError, RequestBody};

/// A request's body, as hyper reads it.
pub(super) struct SendBody {
    /// A piece that came before there was a connection. Boxed, because every request is moved with its body, and few have one.
    first: Option<Box<Frame<Bytes>>>,
    body: RequestBody,
    /// None for a request without a body.
    progress: Option<Arc<Progress>>,
}

/// Where sending a request stands, for whoever waits for its answer.
pub(super) struct Progress {
    start: Instant,
    /// Milliseconds after `start`, times four, and a [`Stage`].
    word: AtomicU64,
}

/// What sending waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The client: it has deadlines of its own, which the edge keeps.
    Client,
    /// The upstream, to take what it was given.
    Upstream,
    /// Nothing; all is sent.
    Done,
}

/// An answer's body, as the client reads it. It holds the connection, and gives it back at its end.
pub(super) struct AnswerBody {
    /// A piece that came with the head.
    first: Option<Frame<Bytes>>,
    body: Incoming,
    lease: Option<Lease>,
    patience: Duration,
    waiting_since: Option<Instant>,
}

/// The answer's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The upstream fell silent.
    #[error("the upstream sent nothing for {0:?}")]
    Silent(Duration),
    /// The upstream closed or reset the connection, or broke the framing.
    #[error("the upstream's answer broke off: {0}")]
    Broken(#[source] hyper::Error),
}

type BoxError = Box<dyn Error + Send + Sync>;

// === impl SendBody ===

impl SendBody {
    pub(super) fn new(body: RequestBody, now: Instant) -> Self {
        let progress = (!body.is_end_stream())
            .then(|| Arc::new(Progress { start: now, word: AtomicU64::new(Stage::Upstream as u64) }));
        Self { first: None, body, progress }
    }

    /// Ready when the first piece is there, or the body has ended without one: then it is empty.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while self.progress.is_some() && self.first.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(Ok(frame)) => {
                    self.first = Some(Box::new(frame));
                    self.note(Stage::Upstream);
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.progress = None,
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_none()
    }

    pub(super) fn empty() -> Self {
        Self { first: None, body: RequestBody::empty(), progress: None }
    }

    fn note(&self, stage: Stage) {
        if let Some(progress) = &self.progress {
            progress.note(stage);
        }
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut polled = match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(*first))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            strip_trailers(frame);
        }
        match &polled {
            Poll::Pending => self.note(Stage::Client),
            Poll::Ready(Some(Ok(_))) if !self.body.is_end_stream() => self.note(Stage::Upstream),
            Poll::Ready(_) => self.note(Stage::Done),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        with_first(self.first.as_deref(), &self.body.size_hint())
    }
}

fn strip_trailers(frame: &mut Frame<Bytes>) {
    if let Some(trailers) = frame.trailers_mut() {
        fields::strip_trailers(trailers);
    }
}

/// The size of a body of which one piece was taken out before.
fn with_first(first: Option<&Frame<Bytes>>, rest: &SizeHint) -> SizeHint {
    let first = first.and_then(Frame::data_ref).map_or(0, |bytes| bytes.len() as u64);
    rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(first + rest))
}

// === impl Progress ===

impl Progress {
    fn note(&self, stage: Stage) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        self.word.store(millis << 2 | stage as u64, Ordering::Relaxed);
    }

    /// What sending waits for, and since when.
    pub(super) fn stage(&self) -> (Stage, Instant) {
        let word = self.word.load(Ordering::Relaxed);
        let stage = match word & 3 {
            0 => Stage::Client,
            1 => Stage::Upstream,
            _ => Stage::Done,
        };
        (stage, self.start + Duration::from_millis(word >> 2))
    }
}

// === impl AnswerBody ===

impl AnswerBody {
    pub(super) fn new(body: Incoming, lease: Lease, first: Option<Frame<Bytes>>, patience: Duration) -> Self {
        Self { first, body, lease: Some(lease), patience, waiting_since: None }
    }

    /// Ends the wait with an error when the upstream has been silent for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<AnswerError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        lease.connection.poll_alarm(cx, since + self.patience).map(|()| AnswerError::Silent(self.patience))
    }

    /// Gives the connection back if the body is over.
    fn settle(&mut self) {
        if self.body.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(mut first) = self.first.take() {
            strip_trailers(&mut first);
            self.settle();
            return Poll::Ready(Some(Ok(first)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                strip_trailers(&mut frame);
                self.waiting_since = None;
                self.settle();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            // The lease goes, and cuts the connection.
            Poll::Ready(Some(Err(error))) => {
                self.lease = None;
                Poll::Ready(Some(Err(AnswerError::Broken(error).into())))
            }
            Poll::Pending => {
                let error = ready!(self.poll_patience(cx));
                self.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        with_first(self.first.as_ref(), &self.body.size_hint())
    }
}
