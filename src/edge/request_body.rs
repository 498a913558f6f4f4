//! Requests' bodies.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    counters::EdgeCounters,
    pace::{Pace, TooSlow},
    watch::Flight,
};

/// Of a body that nobody wants, what is read and forgotten: enough for one that was a little too large.
const FORGETTABLE: usize = 4 << 20;
/// How long that may take.
const FORGET_WITHIN: Duration = Duration::from_secs(1);

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
    /// There, until this is dropped.
    body: Option<Incoming>,
    http2: bool,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    /// There, until this is dropped.
    flight: Option<Flight>,
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

    pub(super) fn incoming(body: Incoming, http2: bool, pace: Pace, flight: impl FnOnce() -> Flight) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        let (body, flight) = (Some(body), Some(flight()));
        Self::of(Kind::Incoming(Box::new(Live { body, http2, pace, timer: None, flight, ended: false })))
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
            Kind::Incoming(live) => live.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(live) => live.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default(),
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
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
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
                if let Some(flight) = &self.flight {
                    EdgeCounters::bump(&flight.watch().counters.timeout_request_body);
                }
                Some(Err(BodyError::TooSlow))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
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
    /// Nobody reads on. Over HTTP/2 the rest is read and forgotten, if it is not much: else the stream would be reset behind the
    /// answer, and clients that are still sending then lose the answer (RFC 9113, section 8.1, asks them not to; curl 7.88 does).
    fn drop(&mut self) {
        let (Some(body), Some(flight)) = (self.body.take(), self.flight.take()) else { return };
        if self.ended || body.is_end_stream() {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) if self.http2 => drop(runtime.spawn(forget(body, flight))),
            _ => flight.watch().left_unread(),
        }
    }
}

async fn forget(mut body: Incoming, flight: Flight) {
    let rest = async {
        let mut left = FORGETTABLE;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.checked_sub(frame.data_ref().map_or(0, Bytes::len))?;
        }
        Some(())
    };
    if !matches!(timeout(FORGET_WITHIN, rest).await, Ok(Some(()))) {
        flight.watch().left_unread();
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
