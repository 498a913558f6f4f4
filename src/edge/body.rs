//! Answers' bodies.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: empty, whole, another body streamed through, or fed by a [`BodySender`].
///
/// An error in it cuts the answer short, so that the client can tell: HTTP/1 closes the connection without the end of the
/// body, HTTP/2 resets the stream.
pub struct Body {
    kind: Kind,
    observer: Option<Observer>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>),
    Channel(mpsc::Receiver<Bytes>, Arc<Ending>),
    Done,
}

/// Feeds a [`Body::channel`]. Dropping it without [`BodySender::finish`] cuts the answer short.
#[derive(Debug)]
pub struct BodySender {
    queue: mpsc::Sender<Bytes>,
    ending: Arc<Ending>,
}

/// The reader of the body is gone: the client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client left")]
pub struct Gone;

/// How a channel ended, once its sender is gone. Written before the queue closes, read after.
type Ending = Mutex<End>;

#[derive(Debug)]
enum End {
    Cut,
    Well,
    Failed(BoxError),
}

struct Observer {
    bytes: u64,
    on_end: Option<Box<dyn FnOnce(u64, bool) + Send>>,
}

// === impl Body ===

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// All bytes at once.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// Another body, trailers included.
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static) -> Self {
        Self::of(Kind::Stream(Box::pin(body)))
    }

    /// A body that the sender feeds, at most `capacity` pieces ahead of the client (at least one).
    pub fn channel(capacity: usize) -> (BodySender, Self) {
        let (queue, receiver) = mpsc::channel(capacity.max(1));
        let ending = Arc::new(Mutex::new(End::Cut));
        let body = Self::of(Kind::Channel(receiver, ending.clone()));
        (BodySender { queue, ending }, body)
    }

    /// Calls `on_end` once, when the last byte was handed to HTTP or the body was dropped before: with the bytes handed over,
    /// and whether that was all of them. An answer without a body counts as complete. What HTTP has taken is not yet what
    /// the client has: up to a send buffer may still be on its way.
    ///
    /// An observer that is there already is replaced and not called.
    #[must_use]
    pub fn observed(mut self, on_end: impl FnOnce(u64, bool) + Send + 'static) -> Self {
        self.observer = Some(Observer { bytes: 0, on_end: Some(Box::new(on_end)) });
        self
    }

    /// The same answer without its bytes, as for HEAD: counts as complete.
    #[must_use]
    pub(super) fn without_bytes(mut self) -> Self {
        self.kind = Kind::Empty;
        self
    }

    /// The number of bytes, where it is known.
    pub fn len(&self) -> Option<u64> {
        http_body::Body::size_hint(self).exact()
    }

    /// Whether it is known to have no bytes left.
    pub fn is_empty(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }

    fn of(kind: Kind) -> Self {
        Self { kind, observer: None }
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let end = match &mut self.kind {
            Kind::Empty | Kind::Done => return Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Kind::Stream(body) => return body.as_mut().poll_frame(cx),
            Kind::Channel(queue, ending) => match ready!(queue.poll_recv(cx)) {
                Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => std::mem::replace(&mut *ending.lock(), End::Cut),
            },
        };
        match end {
            End::Well => {
                self.kind = Kind::Empty;
                Poll::Ready(None)
            }
            End::Cut => self.fail("the answer was cut short".into()),
            End::Failed(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.kind = Kind::Done;
        Poll::Ready(Some(Err(error)))
    }

    fn end(&mut self, complete: bool) {
        if let Some(Observer { bytes, on_end: Some(on_end) }) = self.observer.take() {
            on_end(bytes, complete);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(self.poll_kind(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let (Some(observer), Some(data)) = (&mut self.observer, frame.data_ref()) {
                    observer.bytes += data.len() as u64;
                }
                // Trailers come last, and nobody asks for more.
                if frame.is_trailers() {
                    self.end(true);
                }
            }
            Some(Err(_)) => self.end(false),
            None => self.end(true),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Channel(..) | Kind::Done => false,
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Channel(..) | Kind::Done => SizeHint::default(),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.observer.is_some() {
            self.end(http_body::Body::is_end_stream(self));
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Stream(_) => "stream",
            Kind::Channel(..) => "channel",
            Kind::Done => "done",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

// === impl BodySender ===

impl BodySender {
    /// Sends a piece, when there is room for it. Empty pieces are passed over. Cancel safe: a piece is sent or not.
    ///
    /// # Errors
    /// The client left; stop.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.queue.send(bytes).await.map_err(|_| Gone)
    }

    /// Ends the body well.
    pub fn finish(self) {
        *self.ending.lock() = End::Well;
    }

    /// Cuts the answer short for a reason, which is logged.
    pub fn abort(self, error: BoxError) {
        *self.ending.lock() = End::Failed(error);
    }

    /// Whether the client left.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Waits until the client leaves. Cancel safe.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    type Seen = Arc<Mutex<Vec<(u64, bool)>>>;

    fn observe(body: Body) -> (Body, Seen) {
        let seen = Seen::default();
        let sink = seen.clone();
        (body.observed(move |bytes, complete| sink.lock().push((bytes, complete))), seen)
    }

    #[tokio::test]
    async fn a_finished_channel_is_a_whole_body() {
        let (mut sender, body) = Body::channel(1);
        let (body, seen) = observe(body);
        let feed = async move {
            sender.send("one ".into()).await.unwrap();
            sender.send(Bytes::new()).await.unwrap();
            sender.send("two".into()).await.unwrap();
            sender.finish();
        };
        let (collected, ()) = tokio::join!(body.collect(), feed);
        assert_eq!(collected.unwrap().to_bytes(), "one two");
        assert_eq!(*seen.lock(), [(7, true)]);
    }

    #[tokio::test]
    async fn a_dropped_or_aborted_sender_is_an_error_after_what_was_sent() {
        for abort in [false, true] {
            let (mut sender, body) = Body::channel(2);
            let (mut body, seen) = observe(body);
            sender.send("part".into()).await.unwrap();
            if abort {
                sender.abort("why".into());
            } else {
                drop(sender);
            }
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
            assert_eq!(
                body.frame().await.unwrap().unwrap_err().to_string(),
                if abort { "why" } else { "the answer was cut short" }
            );
            drop(body);
            assert_eq!(*seen.lock(), [(4, false)]);
        }
    }

    #[tokio::test]
    async fn the_sender_learns_that_the_client_left() {
        let (mut sender, body) = Body::channel(1);
        assert!(sender.closed().now_or_never().is_none());
        drop(body);
        assert!(sender.is_closed());
        sender.closed().await;
        assert_eq!(sender.send("x".into()).await, Err(Gone));
    }

    #[tokio::test]
    async fn an_observer_is_called_once_whatever_happens() {
        let (body, seen) = observe(Body::full("hello"));
        body.collect().await.unwrap();
        assert_eq!(*seen.lock(), [(5, true)]);

        // HTTP asks a body whose last piece it has only whether it has ended.
        let (mut body, seen) = observe(Body::full("hello"));
        body.frame().await.unwrap().unwrap();
        assert!(body.is_empty());
        drop(body);
        assert_eq!(*seen.lock(), [(5, true)]);

        let (body, seen) = observe(Body::full("hello"));
        drop(body);
        assert_eq!(*seen.lock(), [(0, false)]);

        let (body, seen) = observe(Body::empty());
        drop(body);
        assert_eq!(*seen.lock(), [(0, true)]);

        let (body, seen) = observe(Body::full("hello"));
        drop(body.without_bytes());
        assert_eq!(*seen.lock(), [(0, true)]);
    }
}
