//! A request through an upstream: connection, sending, head of the answer, and the second try.
//!
//! The way that nearly every request takes, over a kept connection, copies the request once and allocates nothing for itself;
//! what is rare (connecting, waiting in the queue, a second try) is a boxed future, so that it takes no room in the others.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::{StatusCode, header};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};
use tokio::time::{Duration, Instant};

use super::{
    Forward, Outcome, Upstream,
    body::{AnswerBody, Progress, SendBody, Stage},
    checkout::{Line, Tried},
    connection::{Connection, Link, Permit},
    failure::Failure,
    fields::Found,
    idle::Parked as _,
    lease::Lease,
    message, tunnel,
    upstream::Live,
};
use crate::{
    access,
    config::model::HostHeader,
    edge::{Body, Request, Response, Shape},
};

pub(super) type Outgoing = http::Request<SendBody>;

/// An answer whose head has come.
pub(super) type Answer = http::Response<Incoming>;

/// Forwards a request, and says what became of it. There is always an answer: the upstream's, or a problem document.
///
/// Cancel safe: dropping the future cuts the connection that is in use. The same goes for the answer's body.
pub fn forward<'a>(
    mut request: Request,
    upstream: &'a Arc<Upstream>,
    context: &'a Forward<'_>,
) -> impl Future<Output = (Response, Outcome)> + 'a {
    if let Some(identity) = &context.identity {
        access::conceal(request.headers_mut(), identity);
    }
    let found = Found::scan(request.headers());
    let shape = if found.has(Found::CONTENT_TYPE) { Shape::of(request.headers()) } else { Shape::Problem };
    let mut exchange = Exchange::new(upstream);
    let client = exchange.prepare(request, found, context);
    // The request is in the exchange: as an argument of an `async fn` it would be here a second time.
    async move {
        let result = match client {
            Some(client) => Box::pin(tunnel::open(&mut exchange, client, context)).await,
            None => exchange.forward().await,
        };
        let mut outcome = exchange.outcome;
        let response = result.unwrap_or_else(|failure| {
            let (name, endpoint, reason) = (upstream.name(), outcome.endpoint.as_deref(), failure.reason());
            tracing::debug!(upstream = %name, endpoint, reason, error = %failure, "not forwarded");
            outcome.reason = Some(reason);
            failure.answer(shape)
        });
        (response, outcome)
    }
}

/// One request on its way.
pub(super) struct Exchange<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) live: Live,
    /// The time, as of the last wait.
    pub(super) now: Instant,
    /// The request, until it is sent.
    request: Option<Outgoing>,
    tried: Tried,
    outcome: Outcome,
}

/// A connection died under a request.
struct Lost {
    failure: Failure,
    connection: Connection,
}

impl<'a> Exchange<'a> {
    fn new(upstream: &'a Arc<Upstream>) -> Self {
        Self {
            upstream,
            live: upstream.live(),
            now: Instant::now(),
            request: None,
            tried: Tried::default(),
            outcome: Outcome::default(),
        }
    }

    /// Rewrites the request. Some: it asks for a tunnel, and this is the client's end.
    fn prepare(&mut self, mut request: Request, found: Found, context: &Forward<'_>) -> Option<OnUpgrade> {
        let wants_tunnel = found.has(Found::UPGRADE) && message::may_upgrade(&request);
        let client = if wants_tunnel { request.extensions_mut().remove::<OnUpgrade>() } else { None };
        message::rewrite_request(&mut request, found, context, client.is_some());
        let now = self.now;
        self.request = Some(request.map(|body| SendBody::new(body, now)));
        client
    }

    async fn forward(&mut self) -> Result<Response, Failure> {
        if self.request.as_ref().is_some_and(|request| !request.body().is_empty()) {
            self.first_piece().await?;
        }
        let line = match self.upstream.checkout_kept(self.now, &self.tried) {
            Ok(connection) => Line::Kept(connection),
            Err(endpoint) => Box::pin(self.upstream.checkout(endpoint, self.now, &self.live)).await?,
        };
        let (mut connection, kept) = match line {
            Line::Kept(connection) => (connection, true),
            Line::Fresh(permit, endpoint) => Box::pin(self.connect(permit, endpoint, true)).await?,
        };
        self.outcome.reused = kept;
        if kept && let Some(request) = &self.request {
            connection.spare.keep(request);
        }
        match self.send(connection).await {
            Ok(response) => Ok(response),
            Err(lost) if kept => Box::pin(self.retry(lost)).await,
            Err(lost) => Err(self.give_up(lost)),
        }
    }

    /// Waits for the first piece of the request's body, within the edge's deadlines for it: a client that has sent nothing
    /// keeps no connection from others.
    async fn first_piece(&mut self) -> Result<(), Failure> {
        let Some(request) = &mut self.request else { return Ok(()) };
        poll_fn(|cx| request.body_mut().poll_first(cx)).await.map_err(Failure::Unsent)?;
        if request.body().is_empty() {
            // It ended at once: there are no chunks to come.
            request.headers_mut().remove(header::TRANSFER_ENCODING);
            request.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
        }
        self.now = Instant::now();
        Ok(())
    }

    /// Sends a request a second time, on a fresh connection, if it is known not to have been sent, or may be sent again.
    async fn retry(&mut self, lost: Lost) -> Result<Response, Failure> {
        let Lost { failure, mut connection } = lost;
        if self.request.is_none() && matches!(failure, Failure::Silent(_)) {
            self.request = connection.spare.take();
        }
        if self.request.is_none() {
            return Err(failure);
        }
        self.outcome.retried = true;
        self.outcome.reused = false;
        let endpoint = connection.endpoint();
        let permit = match connection.into_permit().await {
            Some(permit) => permit,
            None => self.upstream.checkout_permit(Instant::now(), &self.live).await?,
        };
        let (connection, _) = self.connect(permit, endpoint, false).await?;
        self.send(connection).await.map_err(|lost| self.give_up(lost))
    }

    /// Opens a connection to `endpoint`, else to the others in turn. True: a kept one was found on the way, where that will do.
    pub(super) async fn connect(
        &mut self,
        mut permit: Permit,
        mut endpoint: usize,
        kept_will_do: bool,
    ) -> Result<(Connection, bool), Failure> {
        let (begun, deadline) = (Instant::now(), Upstream::connect_deadline(&self.live));
        loop {
            self.outcome.endpoint = Some(self.upstream.endpoint_name(endpoint));
            let connected = self.upstream.connect(permit, endpoint, deadline, &self.live, &mut self.tried).await;
            self.now = Instant::now();
            self.outcome.connect_us = Some(micros(self.now - begun));
            let failure = match connected {
                Ok((stream, permit)) => {
                    let place = &self.upstream.endpoints[endpoint];
                    let connection = Link::start(stream, permit, place, endpoint).await.map_err(Failure::Silent)?;
                    self.upstream.count_request(endpoint);
                    return Ok((connection, false));
                }
                Err((failure, back)) => {
                    permit = back;
                    failure
                }
            };
            if self.now >= deadline || !self.upstream.has_untried(&self.tried) {
                return Err(failure);
            }
            match self.upstream.next_line(self.now, permit, &self.tried, kept_will_do) {
                Line::Kept(connection) => return Ok((connection, true)),
                Line::Fresh(same, next) => (permit, endpoint) = (same, next),
            }
        }
    }

    async fn send(&mut self, mut connection: Connection) -> Result<Response, Lost> {
        let failure = match self.head(&mut connection, false).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => Failure::Switched,
            Ok(response) => match self.answer(response, connection).await {
                Ok(response) => return Ok(response),
                Err((failure, broken)) => {
                    connection = broken;
                    failure
                }
            },
            Err(failure) => failure,
        };
        Err(Lost { failure, connection })
    }

    /// Sends the request, and waits for the head of the answer: `read_timeout` from the end of the request, and no more than
    /// `send_timeout` for the upstream to take each piece of it. A request that was not sent is there again after a failure.
    pub(super) async fn head(&mut self, connection: &mut Connection, tunnel: bool) -> Result<Answer, Failure> {
        let mut request = self.request.take().expect("each caller has put one there");
        let endpoint = &self.upstream.endpoints[connection.endpoint()];
        self.outcome.endpoint = Some(endpoint.name.clone());
        if self.live.host == HostHeader::Endpoint {
            request.headers_mut().insert(header::HOST, endpoint.host_field.clone());
        }
        let progress = request.body().progress();
        connection.begin(tunnel);
        let mut answer = pin!(connection.sender.try_send_request(request));
        let (sent, live) = (self.now, self.live);
        let mut look = sent + first_look(progress.as_deref(), &live);
        let head = poll_fn(|cx| {
            if let Poll::Ready(head) = answer.as_mut().poll(cx) {
                return Poll::Ready(head.map_err(Trouble::of));
            }
            while connection.poll_alarm(cx, look).is_ready() {
                match patience(progress.as_deref().map(Progress::stage), sent, Instant::now(), &live) {
                    Ok(next) => look = next,
                    Err(failure) => return Poll::Ready(Err(Trouble::Slow(failure))),
                }
            }
            Poll::Pending
        })
        .await;
        match head {
            Ok(response) => {
                self.now = Instant::now();
                self.outcome.ttfb_us = Some(micros(self.now - sent));
                Ok(response)
            }
            Err(Trouble::Slow(failure)) => Err(failure),
            Err(Trouble::Broken(mut error)) => {
                self.request = error.take_message();
                Err(Failure::of(error.into_error(), connection.has_answered()))
            }
        }
    }

    /// Makes the client's answer. A body that is there already is not streamed: the connection is free at once. Fails if the
    /// body breaks off before its first piece, while another answer can still be given.
    pub(super) async fn answer(
        &self,
        response: Answer,
        connection: Connection,
    ) -> Result<Response, (Failure, Connection)> {
        let (mut parts, mut incoming) = response.into_parts();
        message::rewrite_answer(&mut parts);
        let lease = |connection| Lease::new(connection, self.upstream);
        if incoming.is_end_stream() {
            lease(connection).finish();
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let first = match poll_fn(|cx| Poll::Ready(Pin::new(&mut incoming).poll_frame(cx))).await {
            Poll::Ready(Some(Err(error))) => return Err((Failure::Incomplete(error), connection)),
            Poll::Ready(Some(Ok(frame))) => Some(frame.into_data()),
            Poll::Ready(None) | Poll::Pending => None,
        };
        let body = match first {
            Some(Ok(bytes)) if incoming.is_end_stream() => {
                lease(connection).finish();
                Body::full(bytes)
            }
            Some(Ok(bytes)) => self.stream(incoming, lease(connection), Some(Frame::data(bytes))),
            Some(Err(trailers)) => self.stream(incoming, lease(connection), Some(trailers)),
            None => self.stream(incoming, lease(connection), None),
        };
        Ok(Response::from_parts(parts, body))
    }

    fn stream(&self, incoming: Incoming, lease: Lease, first: Option<Frame<Bytes>>) -> Body {
        Body::stream(AnswerBody::new(incoming, lease, first, self.live.read_timeout))
    }

    /// The failure of a fresh connection, noted against its endpoint.
    fn give_up(&self, lost: Lost) -> Failure {
        if lost.failure.blames_endpoint() {
            self.upstream.blame(lost.connection.endpoint(), &lost.failure, &self.live);
        }
        lost.failure
    }
}

/// Why there is no head. Boxed, because it would make every answer as large as a request.
enum Trouble {
    Slow(Failure),
    Broken(Box<TrySendError<Outgoing>>),
}

impl Trouble {
    fn of(error: TrySendError<Outgoing>) -> Self {
        Self::Broken(Box::new(error))
    }
}

/// When to look at the clock first.
fn first_look(progress: Option<&Progress>, live: &Live) -> Duration {
    if progress.is_some() { live.read_timeout.min(live.send_timeout) } else { live.read_timeout }
}

/// When to look at the clock again; or what took too long.
fn patience(stage: Option<(Stage, Instant)>, sent: Instant, now: Instant, live: &Live) -> Result<Instant, Failure> {
    let (due, failure) = match stage.unwrap_or((Stage::Done, sent)) {
        (Stage::Client, _) => return Ok(now + live.read_timeout.min(live.send_timeout)),
        (Stage::Upstream, since) => (since + live.send_timeout, Failure::SendTimeout),
        (Stage::Done, since) => (since + live.read_timeout, Failure::HeadTimeout),
    };
    if now >= due { Err(failure) } else { Ok(due) }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
