//! What goes wrong on the way to an upstream, and what the client and the log are told.

use std::{error::Error, sync::Arc};

use http::{HeaderValue, StatusCode, header};

use crate::{
    edge::{BodyError, Response, Shape},
    net::DialError,
};

/// What became of a forwarded request, for the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The endpoint that answered, or was asked last: `host:port`.
    pub endpoint: Option<Arc<str>>,
    /// Microseconds spent on connecting; none on a kept connection.
    pub connect_us: Option<u32>,
    /// Microseconds from the sending of the request to the head of the answer; none without one.
    pub ttfb_us: Option<u32>,
    /// Whether the connection had served before.
    pub reused: bool,
    /// Whether the request was sent a second time.
    pub retried: bool,
    /// A word for why the gateway answered itself; none if the answer is the upstream's.
    pub reason: Option<&'static str>,
}

/// Why an upstream's answer is not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("as many requests wait for a connection as may")]
    QueueFull,
    #[error("no connection became free in time")]
    QueueTimeout,
    #[error(transparent)]
    Connect(#[from] DialError),
    #[error("the connection was closed without an answer: {0}")]
    Silent(#[source] hyper::Error),
    #[error("the answer broke off in its head: {0}")]
    Incomplete(#[source] hyper::Error),
    #[error("the answer is not HTTP: {0}")]
    Garbage(#[source] hyper::Error),
    #[error("the upstream switched protocols unasked")]
    Switched,
    #[error("the upstream stopped taking the request")]
    SendTimeout,
    #[error("the upstream did not begin to answer in time")]
    HeadTimeout,
    #[error("the client's body failed: {0}")]
    Client(hyper::Error),
    #[error("the client's body failed before its first piece: {0}")]
    Unsent(#[source] BodyError),
}

impl Failure {
    /// Classifies what hyper says about an exchange. `answered`: bytes of the answer had come.
    pub(super) fn of(error: hyper::Error, answered: bool) -> Self {
        if client_error(&error).is_some() {
            Self::Client(error)
        } else if error.is_parse() {
            Self::Garbage(error)
        } else if answered {
            Self::Incomplete(error)
        } else {
            Self::Silent(error)
        }
    }

    /// The word for the log.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::QueueFull => "upstream_queue_full",
            Self::QueueTimeout => "upstream_queue_timeout",
            Self::Connect(error) if error.is_timeout() => "upstream_connect_timeout",
            Self::Connect(error) if error.is_tls() => "upstream_tls",
            Self::Connect(_) => "upstream_connect",
            Self::Silent(_) => "upstream_closed",
            Self::Incomplete(_) => "upstream_incomplete",
            Self::Garbage(_) => "upstream_garbage",
            Self::Switched => "upstream_switched",
            Self::SendTimeout => "upstream_send_timeout",
            Self::HeadTimeout => "upstream_head_timeout",
            Self::Client(_) | Self::Unsent(_) => "client_body",
        }
    }

    /// Whether the endpoint is to blame, so that others should go first for a while. Slowness is not: one slow page would take
    /// an endpoint away from all others.
    pub(super) fn blames_endpoint(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Silent(_) | Self::Incomplete(_) | Self::Garbage(_))
    }

    /// 502 when the upstream is down or talks nonsense, 503 when it is busy, 504 when it is slow; the body's own when it is the
    /// client's.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::QueueFull | Self::QueueTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(error) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Self::SendTimeout | Self::HeadTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(_) | Self::Silent(_) | Self::Incomplete(_) | Self::Garbage(_) | Self::Switched => {
                StatusCode::BAD_GATEWAY
            }
            Self::Client(error) => client_error(error).map_or(StatusCode::BAD_REQUEST, BodyError::status),
            Self::Unsent(error) => error.status(),
        }
    }

    /// What the client is told: no address, no name.
    fn public(&self) -> &'static str {
        match self {
            Self::QueueFull => "too many requests wait for this service",
            Self::QueueTimeout => "the service had no free connection in time",
            Self::Connect(error) => error.public(),
            Self::Silent(_) => "the service closed the connection without an answer",
            Self::Incomplete(_) => "the service's answer broke off",
            Self::Garbage(_) | Self::Switched => "the service's answer was not valid HTTP",
            Self::SendTimeout => "the service stopped reading the request",
            Self::HeadTimeout => "the service did not answer in time",
            Self::Client(_) | Self::Unsent(_) => "the request's body did not arrive in full",
        }
    }

    /// The answer to the client.
    pub(super) fn answer(&self, shape: Shape) -> Response {
        let status = self.status();
        let mut response = shape.answer(status, "", self.public());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The client's error, if it was the request's body that failed.
fn client_error(error: &hyper::Error) -> Option<&BodyError> {
    error.source()?.downcast_ref()
}
