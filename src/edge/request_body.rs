//! Requests' bodies.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    counters::EdgeCounters,
    pace::{Pace, TooSlow},
    watch::Flight,
};

/// The body of a request. It fails when it comes too slowly or grows beyond its limit; read on, it then ends.
///
/// HTTP/1 clients that asked for `100 Continue` get it when the body is first read.
pub struct RequestBody {
    kind: Kind,
    left: u64,
    limit: u64,
}

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Box<Live>),
}

struct Live {
    body: Incoming,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    flight: Flight,
    ended: bool,
}

/// Why a request body cannot be read to its end. The client's side; nothing to retry.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It came too slowly.
    #[error("the request body came too slowly")]
    TooSlow,
    /// It is larger than the limit.
    #[error("the request body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// It is malformed, or the client left.
    #[error("the request body was cut short: {0}")]
    Cut(#[source] io::Error),
}

// === impl RequestBody ===

impl RequestBody {
    /// No bytes.
    pub fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// All bytes at once.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    pub(super) fn incoming(body: Incoming, pace: Pace, flight: impl FnOnce() -> Flight) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self::of(Kind::Incoming(Box::new(Live { body, pace, timer: None, flight: flight(), ended: false })))
    }

    /// Fails when more than `bytes` come in all, before reading when the client has announced as much.
    pub fn limit(&mut self, bytes: u64) {
        let read = self.limit.saturating_sub(self.left);
        self.left = bytes.saturating_sub(read);
        self.limit = bytes;
    }

    fn of(kind: Kind) -> Self {
        Self { kind, left: u64::MAX, limit: u64::MAX }
    }

    /// Gives up on what is still to come.
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.kind = Kind::Empty;
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.size_hint().lower() > self.left {
            let limit = self.limit;
            return self.fail(BodyError::TooLarge { limit });
        }
        let polled = match &mut self.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Incoming(live) => ready!(live.poll(cx)),
        };
        let size = match &polled {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => 0,
            None => {
                self.kind = Kind::Empty;
                return Poll::Ready(None);
            }
        };
        match polled {
            Some(Err(error)) => self.fail(error),
            _ if size > self.left => {
                let limit = self.limit;
                self.fail(BodyError::TooLarge { limit })
            }
            frame => {
                self.left -= size;
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Incoming(live) => live.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(live) => live.body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("size", &self.size_hint()).finish()
    }
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::empty()
    }
}

// === impl Live ===

impl Live {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pace.came(frame.data_ref().map_or(0, Bytes::len), Instant::now);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Cut(io::Error::other(error))))),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_pace(cx).map(|TooSlow| {
                EdgeCounters::bump(&self.flight.watch().counters.timeout_request_body);
                Some(Err(BodyError::TooSlow))
            }),
        }
    }

    /// Ready when the client has been too slow. The timer may fire early; it is set forward only then.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        loop {
            let Ok(look) = self.pace.wait(Instant::now()) else { return Poll::Ready(TooSlow) };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(look)));
            if timer.is_elapsed() {
                timer.as_mut().reset(look);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.flight.watch().left_unread();
        }
    }
}

// === impl BodyError ===

impl BodyError {
    /// The answer that fits: 408, 413 or 400.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Cut(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// What may be told to the client.
    pub fn public(&self) -> String {
        match self {
            Self::Cut(_) => "the request body was cut short".to_owned(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_limit_counts_what_was_read_before_it() {
        let mut body = RequestBody::full("hello");
        body.limit(4);
        assert!(matches!(body.frame().await, Some(Err(BodyError::TooLarge { limit: 4 }))));
        assert!(body.frame().await.is_none(), "after an error it ends");

        let mut body = RequestBody::full("hello");
        body.limit(5);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    }

    #[test]
    fn errors_have_answers() {
        assert_eq!(BodyError::TooSlow.status(), 408);
        assert_eq!(BodyError::TooLarge { limit: 1 }.status(), 413);
        let cut = BodyError::Cut(io::Error::other("secret"));
        assert_eq!(cut.status(), 400);
        assert!(!cut.public().contains("secret"));
    }
}
