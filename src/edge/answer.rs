//! The one table from what went wrong to what the client is told.
//!
//! Errors are `application/problem+json` (RFC 9457), or for gRPC a trailers-only answer. They hold what the caller may
//! know; what the operator should know goes to the log. Other rooms bring a status, a title and a detail; what the edge
//! refuses by itself is a [`Rejection`].

use std::fmt::Write;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, LOCATION},
};
use serde_json::{Map, Value};

use super::{Body, Context, Request, Response, normalise::BadPath};
use crate::config::model::HttpsRedirect;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// In which shape a client expects errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `application/problem+json`.
    Problem,
    /// gRPC: status 200, and the error in `grpc-status` and `grpc-message`.
    Grpc,
}

impl Shape {
    /// As the request's `Content-Type` tells. gRPC-Web is not gRPC: its errors travel in the body.
    pub fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match kind.strip_prefix(b"application/grpc") {
            Some([] | [b'+' | b';' | b' ', ..]) => Self::Grpc,
            _ => Self::Problem,
        }
    }

    /// An error answer in this shape.
    pub fn answer(self, status: StatusCode, title: &str, detail: &str) -> Response {
        match self {
            Self::Problem => problem(status, title, detail),
            Self::Grpc => grpc(status, detail),
        }
    }
}

/// A problem with a detail. `title` should be the same for all problems of a kind; empty means the status' own phrase.
pub fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    problem_with(status, title, detail, Map::new())
}

/// A problem with members of its own besides the standard ones. A member `type` replaces `about:blank`.
pub fn problem_with(status: StatusCode, title: &str, detail: &str, extra: Map<String, Value>) -> Response {
    let title = if title.is_empty() { status.canonical_reason().unwrap_or("Error") } else { title };
    let mut members = Map::new();
    members.insert("type".into(), "about:blank".into());
    members.insert("title".into(), title.into());
    members.insert("status".into(), status.as_u16().into());
    members.insert("detail".into(), detail.into());
    members.extend(extra);
    let mut response = Response::new(Body::full(Value::Object(members).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
    response.extensions_mut().insert(Explained(detail.to_owned()));
    response
}

/// The detail of a problem, with its answer, for who tells it in another shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained(pub String);

/// A trailers-only gRPC answer: the status that fits, and the message in percent encoding.
pub fn grpc(status: StatusCode, message: &str) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert("grpc-status", HeaderValue::from(grpc_status(status)));
    if let Ok(message) = HeaderValue::from_maybe_shared(Bytes::from(grpc_message(message))) {
        headers.insert("grpc-message", message);
    }
    response
}

/// What a gateway means by an HTTP status, in gRPC's codes.
fn grpc_status(status: StatusCode) -> u16 {
    const INVALID_ARGUMENT: u16 = 3;
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    const UNKNOWN: u16 = 2;
    match status.as_u16() {
        400 | 411 | 414 | 415 | 422 | 431 => INVALID_ARGUMENT,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 501 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 429 | 507 => RESOURCE_EXHAUSTED,
        500 => INTERNAL,
        421 | 502 | 503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// Percent encoding as the gRPC specification wants it: all but printable ASCII, and `%` itself.
fn grpc_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => {
                // Writing into a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

// === what the edge refuses ===

/// A request that the edge answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    NoHost,
    ManyHosts,
    BadHost,
    HostsDiffer,
    Misdirected,
    Certificate,
    Connect,
    Path(BadPath),
    TransferEncoding,
    TooManyHeaders,
}

impl Rejection {
    fn text(self) -> (StatusCode, &'static str, String) {
        let bad = StatusCode::BAD_REQUEST;
        match self {
            Self::NoHost => (bad, "", "the request names no host".into()),
            Self::ManyHosts => (bad, "", "the request names more than one host".into()),
            Self::BadHost => (bad, "", "the host is malformed".into()),
            Self::HostsDiffer => (bad, "", "`Host` and `:authority` differ".into()),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "",
                "the host is not the one that the TLS connection was opened for".into(),
            ),
            Self::Certificate => (
                StatusCode::MISDIRECTED_REQUEST,
                "",
                "the certificate that this connection was opened with does not hold any more: open another one".into(),
            ),
            Self::Connect => (StatusCode::METHOD_NOT_ALLOWED, "", "this is not a forward proxy".into()),
            Self::Path(error) => (bad, "", error.to_string()),
            Self::TransferEncoding => {
                (StatusCode::NOT_IMPLEMENTED, "", "no transfer coding but a single `chunked` is understood".into())
            }
            Self::TooManyHeaders => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "", "the request has too many header fields".into())
            }
        }
    }

    /// A word for the log.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NoHost => "no-host",
            Self::ManyHosts => "many-hosts",
            Self::BadHost => "bad-host",
            Self::HostsDiffer => "hosts-differ",
            Self::Misdirected => "misdirected",
            Self::Certificate => "certificate",
            Self::Connect => "connect",
            Self::Path(_) => "bad-path",
            Self::TransferEncoding => "transfer-encoding",
            Self::TooManyHeaders => "too-many-headers",
        }
    }

    /// Whether what follows on an HTTP/1 connection cannot be trusted to be the next request, or will fare no better.
    fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::Certificate | Self::Connect | Self::TransferEncoding | Self::ManyHosts | Self::NoHost | Self::BadHost
        )
    }

    pub(super) fn answer(self, shape: Shape) -> Response {
        let (status, title, detail) = self.text();
        let mut response = shape.answer(status, title, &detail);
        if self == Self::Connect {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        if self.ends_connection() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Sends the client to the same place over HTTPS, by the request's normalised path.
pub fn https_redirect(request: &Request, redirect: &HttpsRedirect) -> Response {
    let host = Context::of(request).map(|context| &*context.authority.host).filter(|host| !host.is_empty());
    let Some(host) = host else { return Rejection::NoHost.answer(Shape::Problem) };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target } else { "/" };
    let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    if let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(format!("https://{host}{port}{target}"))) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;
    use crate::edge::{Authority, RequestBody};

    fn json(response: Response) -> Value {
        let body = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn problems_have_the_members_of_the_rfc_and_more() {
        let extra = Map::from_iter([("pool".to_owned(), Value::from("demo"))]);
        let response = problem_with(StatusCode::SERVICE_UNAVAILABLE, "Pool exhausted", "no \"permit\"", extra);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Pool exhausted", "status": 503, "detail": "no \"permit\"", "pool": "demo",
        });
        assert_eq!(json(response), expected);
        assert_eq!(json(problem(StatusCode::NOT_FOUND, "", "x"))["title"], "Not Found");
    }

    #[test]
    fn grpc_clients_get_trailers_only() {
        let headers = |kind: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x"] {
            assert_eq!(Shape::of(&headers(kind)), Shape::Grpc);
        }
        for kind in ["application/grpc-web", "application/json"] {
            assert_eq!(Shape::of(&headers(kind)), Shape::Problem);
        }
        let response = Shape::Grpc.answer(StatusCode::TOO_MANY_REQUESTS, "", "slow down: 100 %\n\u{fc}");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-message"], "slow down: 100 %25%0A%C3%BC");
        assert!(response.body().is_empty());
    }

    fn redirected(uri: &str, host: &[u8], redirect: &HttpsRedirect) -> String {
        let mut request = Request::new(RequestBody::empty());
        *request.uri_mut() = uri.parse().unwrap();
        let authority = Authority::parse(host).unwrap_or_else(Authority::none);
        request.extensions_mut().insert(Context::for_host(authority));
        let response = https_redirect(&request, redirect);
        response
            .headers()
            .get(LOCATION)
            .map_or_else(|| response.status().to_string(), |to| to.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_redirect_goes_to_the_same_place() {
        let to = HttpsRedirect { port: 443, status: 308 };
        assert_eq!(redirected("/a?b=c", b"Example.com:80", &to), "https://example.com/a?b=c");
        assert_eq!(redirected("/", b"[::1]:80", &HttpsRedirect { port: 8443, ..to.clone() }), "https://[::1]:8443/");
        assert_eq!(redirected("/", b"", &to), "400 Bad Request");
    }
}
