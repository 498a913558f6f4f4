//! A request through an upstream: connection, sending, head of the answer, and the second try.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::{Duration, Instant, sleep_until};

use super::{
    Forward, Outcome, Upstream,
    body::{AnswerBody, Progress, SendBody, Stage},
    checkout::{Line, Tried},
    connection::{Connection, Permit},
    failure::Failure,
    idle::Parked as _,
    lease::Lease,
    message, tunnel,
    upstream::Live,
};
use crate::{
    config::model::HostHeader,
    edge::{Body, Request, Response, Shape},
};

pub(super) type Outgoing = http::Request<SendBody>;

/// Forwards a request, and says what became of it. There is always an answer: the upstream's, or a problem document.
///
/// Cancel safe: dropping the future cuts the connection that is in use. The same goes for the answer's body.
pub async fn forward(request: Request, upstream: &Arc<Upstream>, context: &Forward<'_>) -> (Response, Outcome) {
    let shape = Shape::of(request.headers());
    let mut exchange = Exchange::new(upstream);
    let result = exchange.run(request, context).await;
    let mut outcome = exchange.outcome;
    let response = result.unwrap_or_else(|failure| {
        let (name, endpoint, reason) = (upstream.name(), outcome.endpoint.as_deref(), failure.reason());
        tracing::debug!(upstream = %name, endpoint, reason, error = %failure, "not forwarded");
        outcome.reason = Some(reason);
        failure.answer(shape)
    });
    (response, outcome)
}

/// One request on its way.
pub(super) struct Exchange<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) live: Live,
    /// The time, as of the last wait.
    pub(super) now: Instant,
    tried: Tried,
    outcome: Outcome,
}

/// A connection died under a request.
struct Lost {
    failure: Failure,
    connection: Connection,
    /// The request, if none of it was sent.
    unsent: Option<Outgoing>,
}

/// What is needed to send a request without a body again.
struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl<'a> Exchange<'a> {
    fn new(upstream: &'a Arc<Upstream>) -> Self {
        let outcome = Outcome {
            upstream: upstream.name().clone(),
            endpoint: None,
            connect_us: None,
            ttfb_us: None,
            reused: false,
            retried: false,
            reason: None,
        };
        Self { upstream, live: upstream.live(), now: Instant::now(), tried: Tried::default(), outcome }
    }

    async fn run(&mut self, request: Request, context: &Forward<'_>) -> Result<Response, Failure> {
        let (mut parts, body) = request.into_parts();
        let body = SendBody::new(body, self.now);
        let wants_tunnel = message::wants_websocket(&parts, !body.is_empty());
        let client = if wants_tunnel { parts.extensions.remove::<OnUpgrade>() } else { None };
        message::rewrite_request(&mut parts, &body, context, client.is_some());
        let request = Outgoing::from_parts(parts, body);
        match client {
            Some(client) => tunnel::open(self, request, client, context).await,
            None => self.forward(request).await,
        }
    }

    async fn forward(&mut self, request: Outgoing) -> Result<Response, Failure> {
        let line = self.upstream.checkout(self.now, &self.live, &self.tried).await?;
        let (connection, kept) = match line {
            Line::Kept(connection) => (connection, true),
            Line::Fresh(permit, endpoint) => self.connect(permit, endpoint, true).await?,
        };
        self.outcome.reused = kept;
        if !kept {
            return self.send(connection, request).await.map_err(|lost| self.give_up(lost));
        }
        let copy = Copy::of(&request);
        let lost = match self.send(connection, request).await {
            Ok(response) => return Ok(response),
            Err(lost) => lost,
        };
        let silent = matches!(lost.failure, Failure::Silent(_));
        let again = lost.unsent.or_else(|| copy.filter(|_| silent).map(Copy::into_request));
        match again {
            Some(request) => self.retry(lost.connection, request).await,
            None => Err(lost.failure),
        }
    }

    /// Sends a request a second time, on a fresh connection.
    async fn retry(&mut self, dead: Connection, request: Outgoing) -> Result<Response, Failure> {
        self.outcome.retried = true;
        self.outcome.reused = false;
        let endpoint = dead.endpoint();
        let permit = match dead.into_permit().await {
            Some(permit) => permit,
            None => self.upstream.checkout_permit(Instant::now(), &self.live).await?,
        };
        let (connection, _) = self.connect(permit, endpoint, false).await?;
        self.send(connection, request).await.map_err(|lost| self.give_up(lost))
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
                    let connection =
                        Connection::start(stream, permit, place, endpoint).await.map_err(Failure::Silent)?;
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

    /// Sends a request, and waits for the head of the answer.
    async fn send(&mut self, mut connection: Connection, mut request: Outgoing) -> Result<Response, Lost> {
        self.address(&connection, &mut request);
        let progress = request.body().progress();
        connection.begin(false);
        let answer = connection.sender.try_send_request(request);
        let (failure, unsent) = match self.head(answer, progress.as_deref()).await {
            Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => (Failure::Switched, None),
            Ok(Ok(response)) => match self.answer(response, connection).await {
                Ok(response) => return Ok(response),
                Err((failure, broken)) => {
                    connection = broken;
                    (failure, None)
                }
            },
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                (Failure::of(error.into_error(), connection.has_answered()), unsent)
            }
            Err(failure) => (failure, None),
        };
        Err(Lost { failure, connection, unsent })
    }

    /// Notes which endpoint is asked, and names it in `Host` where that is configured.
    pub(super) fn address(&mut self, connection: &Connection, request: &mut Outgoing) {
        let endpoint = &self.upstream.endpoints[connection.endpoint()];
        self.outcome.endpoint = Some(endpoint.name.clone());
        if self.live.host == HostHeader::Endpoint {
            request.headers_mut().insert(header::HOST, endpoint.host_field.clone());
        }
    }

    /// Waits for the head of an answer: `read_timeout` from the end of the request, and no more than `send_timeout` for the
    /// upstream to take each piece of it.
    pub(super) async fn head<F: Future>(
        &mut self,
        answer: F,
        progress: Option<&Progress>,
    ) -> Result<F::Output, Failure> {
        let (sent, live) = (self.now, self.live);
        let mut answer = pin!(answer);
        let mut alarm = pin!(sleep_until(sent + first_look(progress, &live)));
        let output = poll_fn(|cx| {
            if let Poll::Ready(output) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            while alarm.as_mut().poll(cx).is_ready() {
                match patience(progress.map(Progress::stage), sent, Instant::now(), &live) {
                    Ok(until) => alarm.as_mut().reset(until),
                    Err(failure) => return Poll::Ready(Err(failure)),
                }
            }
            Poll::Pending
        })
        .await?;
        self.now = Instant::now();
        self.outcome.ttfb_us = Some(micros(self.now - sent));
        Ok(output)
    }

    /// Makes the client's answer. A body that is there already is not streamed: the connection is free at once. Fails if the
    /// body breaks off before its first piece, while another answer can still be given.
    pub(super) async fn answer(
        &self,
        response: http::Response<Incoming>,
        connection: Connection,
    ) -> Result<Response, (Failure, Connection)> {
        let (mut parts, mut incoming) = response.into_parts();
        message::rewrite_answer(&mut parts);
        if incoming.is_end_stream() {
            Lease::new(connection, self.upstream).finish();
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let first = match poll_fn(|cx| Poll::Ready(Pin::new(&mut incoming).poll_frame(cx))).await {
            Poll::Ready(Some(Err(error))) => return Err((Failure::Incomplete(error), connection)),
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            Poll::Ready(None) | Poll::Pending => None,
        };
        let lease = Lease::new(connection, self.upstream);
        let body = match first.map(Frame::into_data) {
            Some(Ok(bytes)) if incoming.is_end_stream() => {
                lease.finish();
                Body::full(bytes)
            }
            Some(Ok(bytes)) => self.stream(incoming, lease, Some(Frame::data(bytes))),
            Some(Err(trailers)) => self.stream(incoming, lease, Some(trailers)),
            None => self.stream(incoming, lease, None),
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

impl Copy {
    /// Only where sending twice does no more than sending once (RFC 9110, section 9.2.2).
    fn of(request: &Outgoing) -> Option<Self> {
        (request.method().is_idempotent() && request.body().is_empty()).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn into_request(self) -> Outgoing {
        let mut request = Outgoing::new(SendBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
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
