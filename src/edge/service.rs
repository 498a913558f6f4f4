//! One request through the handler, and its answer back.

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH},
    request::Parts,
};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    Body, BoxError, Handler, Refusal, Request, RequestBody, Response,
    admit::Admission,
    answer::{Rejection, Shape},
    counters::EdgeCounters,
    pace::Pace,
    watch::Flight,
};

/// What serves the requests of one connection.
pub(super) struct Desk<H> {
    pub(super) handler: H,
    pub(super) admission: Admission,
    pub(super) pace: Pace,
    pub(super) http2: bool,
}

/// An answer's body on its way to HTTP. Tells the watch who is to act: us, or the client.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Body,
    flight: Flight,
    http2: bool,
}

impl<H: Handler> Desk<H> {
    /// Answers a request. `flight` has begun when it came, not when this is first polled.
    pub(super) fn serve(
        self: Rc<Self>,
        request: http::Request<Incoming>,
        flight: Flight,
    ) -> impl Future<Output = Result<http::Response<Outgoing>, Infallible>> {
        let (mut head, body) = request.into_parts();
        let without_body = head.method == Method::HEAD;
        let admitted = match self.admission.admit(&mut head) {
            Ok(()) => Ok(Request::from_parts(head, self.body(body, &flight))),
            Err(rejection) => {
                drop(self.body(body, &flight));
                Err(self.refuse(&head, rejection, &flight))
            }
        };
        async move {
            let response = match admitted {
                Ok(request) => self.handler.handle(request).await,
                Err(response) => response,
            };
            Ok(self.finish(response, without_body, flight))
        }
    }

    fn refuse(&self, head: &Parts, rejection: Rejection, flight: &Flight) -> Response {
        EdgeCounters::bump(&flight.watch().counters.rejected);
        tracing::debug!(?rejection, "request refused");
        let response = rejection.answer(Shape::of(&head.headers));
        let (peer, reason) = (self.admission.peer(), rejection.reason());
        self.handler.refused(&Refusal { head, peer, reason, response: &response });
        response
    }

    fn body(&self, body: Incoming, flight: &Flight) -> RequestBody {
        RequestBody::incoming(body, self.http2, self.pace, || Flight::body(flight.watch()))
    }

    /// Makes the answer fit what was asked and over what.
    fn finish(&self, response: Response, without_body: bool, flight: Flight) -> http::Response<Outgoing> {
        let (mut head, mut body) = response.into_parts();
        if without_body && !head.headers.contains_key(CONTENT_LENGTH) {
            // What GET would have got. An empty body is mostly an upstream's answer to HEAD, which says nothing.
            if let Some(length) = body.len().filter(|length| *length > 0) {
                head.headers.insert(CONTENT_LENGTH, length.into());
            }
        }
        if head.status.is_informational() || head.status == StatusCode::NO_CONTENT {
            // RFC 9110, section 8.6. HTTP/2 clients take it for a promise of bytes.
            head.headers.remove(CONTENT_LENGTH);
        }
        if without_body || is_bodiless(head.status) {
            body = body.without_bytes();
        }
        if self.http2 {
            head.headers.remove(CONNECTION);
        } else if self.admission.peer().drain.is_started() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        http::Response::from_parts(head, Outgoing { body, flight, http2: self.http2 })
    }
}

/// Statuses whose answers end with their head (RFC 9110, section 6.4.1).
fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

// === impl Outgoing ===

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.flight.asked();
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &polled {
            // HTTP/1 drops a body with its last piece; HTTP/2 keeps it until the client's window lets the piece go.
            Some(Ok(frame)) if frame.is_trailers() => self.flight.done(),
            Some(Ok(_)) if self.http2 || !self.body.is_end_stream() => self.flight.offered(),
            Some(Err(error)) => {
                tracing::debug!(%error, "answer cut short");
                self.flight.done();
            }
            None => self.flight.done(),
            _ => {}
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.flight.done();
        }
    }
}
