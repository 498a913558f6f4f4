//! What changes in a request and in an answer on their way through.
//!
//! Framing is never the client's word: `Transfer-Encoding` is removed, and `Content-Length` is written anew from the body that
//! really follows, so that the two cannot contradict each other or it (request smuggling, RFC 9112 section 11.2).

use http::{HeaderMap, HeaderValue, Uri, Version, header, response, uri::PathAndQuery};
use http_body::Body;

use super::{
    Forward,
    fields::{self, Found},
    forwarded,
};
use crate::edge::{Request, RequestBody, has_token, wants_websocket};

/// Rewrites a request for an upstream. `found` are its fields; `upgrade`: it asks for a WebSocket.
pub(super) fn rewrite_request(request: &mut Request, found: Found, context: &Forward<'_>, upgrade: bool) {
    if !found.has(Found::HOST)
        && let Some(host) = request.uri().authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let framing = Framing::of(request.body());
    let headers = request.headers_mut();
    let trailers = found.has(Found::TE) && has_token(headers, &header::TE, "trailers");
    fields::strip_hop_by_hop(headers, found);
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    } else if trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // The edge answers `Expect: 100-continue` when the body is first asked for; the upstream gets no say.
    if found.has(Found::EXPECT) {
        headers.remove(header::EXPECT);
    }
    if found.has(Found::HTTP2_SETTINGS) {
        headers.remove("http2-settings");
    }
    if found.has(Found::COOKIE) {
        fields::join(headers, &header::COOKIE, b"; ");
    }
    framing.write(headers, found);
    forwarded::write(headers, found, context);
    rewrite_target(request.uri_mut(), context.strip_prefix);
    *request.version_mut() = Version::HTTP_11;
    // What the edge attached is not for hyper to keep.
    request.extensions_mut().clear();
}

/// How a body will be framed.
#[derive(Clone, Copy)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

impl Framing {
    fn of(body: &RequestBody) -> Self {
        match body.size_hint().exact() {
            _ if body.is_end_stream() => Self::None,
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }

    fn write(self, headers: &mut HeaderMap, found: Found) {
        match self {
            // `Content-Length: 0` is what a POST without content has; anything else would promise a body.
            Self::None => {
                let promised =
                    |headers: &HeaderMap| headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
                if found.has(Found::CONTENT_LENGTH) && promised(headers) {
                    headers.remove(header::CONTENT_LENGTH);
                }
            }
            Self::Length(length) => _ = headers.insert(header::CONTENT_LENGTH, length.into()),
            Self::Chunked => {
                headers.remove(header::CONTENT_LENGTH);
                // hyper would leave out a body of unknown length after a GET.
                headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
    }
}

/// Makes the target origin-form, without the prefix.
fn rewrite_target(uri: &mut Uri, strip: Option<&str>) {
    let stripped = strip.and_then(|prefix| stripped(uri, prefix));
    if stripped.is_none() && uri.authority().is_none() {
        return;
    }
    let old = std::mem::take(uri).into_parts().path_and_query;
    *uri = stripped.or(old).map_or_else(Uri::default, Uri::from);
}

/// The path and query behind a prefix that ends on a segment boundary.
fn stripped(uri: &Uri, prefix: &str) -> Option<PathAndQuery> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let whole = uri.path_and_query()?.as_str();
    let rest = whole.strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
    match rest.as_bytes().first() {
        Some(b'/') => PathAndQuery::try_from(rest).ok(),
        None | Some(b'?') => PathAndQuery::try_from(format!("/{rest}")).ok(),
        Some(_) => None,
    }
}

/// Whether a request asks for a WebSocket in a way that may be passed on: over HTTP/1.1, without a body.
pub(super) fn may_upgrade(request: &Request) -> bool {
    request.version() == Version::HTTP_11 && request.body().is_end_stream() && wants_websocket(request)
}

/// Rewrites an answer for the client.
pub(super) fn rewrite_answer(parts: &mut response::Parts) {
    let found = Found::scan(&parts.headers);
    // The length was overruled by the other (RFC 9112, section 6.3), and must not reach the client (section 6.1).
    if found.has(Found::TRANSFER_ENCODING) && found.has(Found::CONTENT_LENGTH) {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    fields::strip_hop_by_hop(&mut parts.headers, found);
    parts.version = Version::HTTP_11;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::request;

    use super::*;
    use crate::edge::{Authority, Context};

    const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn rewritten(request: request::Builder, body: RequestBody, strip: Option<&str>) -> request::Parts {
        let (at, tunnels) = (Context::for_host(Authority::none()), Arc::default());
        let context = Forward {
            context: &at,
            client: LOOPBACK,
            trusted: false,
            strip_prefix: strip,
            identity: None,
            tunnels: &tunnels,
        };
        let mut request = request.body(body).unwrap();
        let found = Found::scan(request.headers());
        rewrite_request(&mut request, found, &context, false);
        request.into_parts().0
    }

    #[test]
    fn the_prefix_is_taken_off_on_a_segment_boundary() {
        for (uri, prefix, expected) in [
            ("/api/users?x=1", "/api", "/users?x=1"),
            ("/api/users", "/api/", "/users"),
            ("/api", "/api", "/"),
            ("/api/", "/api", "/"),
            ("/api?x=/api", "/api", "/?x=/api"),
            ("/apiary", "/api", "/apiary"),
            ("/other", "/api", "/other"),
            ("/x", "/", "/x"),
            ("https://h/api/x?y", "/api", "/x?y"),
        ] {
            let parts = rewritten(http::Request::get(uri), RequestBody::empty(), Some(prefix));
            assert_eq!(parts.uri.to_string(), expected, "{uri} less {prefix}");
        }
    }

    #[test]
    fn an_http2_request_becomes_one_of_http1() {
        let request = http::Request::get("https://www.example.com/a?b")
            .version(Version::HTTP_2)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers");
        let parts = rewritten(request, RequestBody::empty(), None);
        assert_eq!((parts.uri.to_string().as_str(), parts.version), ("/a?b", Version::HTTP_11));
        assert_eq!(parts.headers["host"], "www.example.com");
        assert_eq!(parts.headers["cookie"], "a=1; b=2");
        assert_eq!(
            (&parts.headers["te"], &parts.headers["connection"]),
            (&"trailers".parse().unwrap(), &"te".parse().unwrap())
        );
    }

    #[test]
    fn framing_follows_the_body_and_nothing_else() {
        let lies = || http::Request::get("/").header("transfer-encoding", "chunked").header("content-length", "5");
        let none = rewritten(lies(), RequestBody::empty(), None).headers;
        assert!(!none.contains_key("transfer-encoding") && !none.contains_key("content-length"));
        let known = rewritten(lies().header("content-length", "7"), RequestBody::full("abc"), None).headers;
        assert_eq!(known.get_all("content-length").iter().collect::<Vec<_>>(), ["3"]);
        assert!(!known.contains_key("transfer-encoding"));
        let empty_post =
            rewritten(http::Request::post("/").header("content-length", "0"), RequestBody::empty(), None).headers;
        assert_eq!(empty_post["content-length"], "0");
    }

    #[test]
    fn expectations_and_upgrades_stay_here() {
        let request = http::Request::post("/")
            .header("expect", "100-continue")
            .header("upgrade", "h2c")
            .header("http2-settings", "AAMAAABkAAQAAP__")
            .header("connection", "Upgrade, HTTP2-Settings");
        let parts = rewritten(request, RequestBody::full("x"), None);
        for name in ["expect", "upgrade", "http2-settings", "connection"] {
            assert!(!parts.headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn only_a_websocket_without_a_body_is_upgraded() {
        let request = |upgrade: &str, connection: &str| {
            let builder = http::Request::get("/").header("upgrade", upgrade).header("connection", connection);
            builder.body(RequestBody::empty()).unwrap()
        };
        assert!(may_upgrade(&request("WebSocket", "keep-alive, Upgrade")));
        assert!(!may_upgrade(&request("h2c", "upgrade")));
        let good = || request("websocket", "upgrade");
        assert!(!may_upgrade(&good().map(|_| RequestBody::full("x"))));
        let mut second = good();
        *second.version_mut() = Version::HTTP_2;
        assert!(!may_upgrade(&second));
    }

    #[test]
    fn an_answer_loses_its_connection_fields_and_keeps_its_own() {
        let answer = http::Response::builder()
            .header("connection", "keep-alive, x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("transfer-encoding", "chunked")
            .header("content-length", "5")
            .header("trailer", "x-sum")
            .header("location", "http://internal:8080/x")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2");
        let (mut parts, ()) = answer.body(()).unwrap().into_parts();
        rewrite_answer(&mut parts);
        let names: Vec<&str> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["trailer", "location", "set-cookie"]);
        assert_eq!(parts.headers.get_all("set-cookie").iter().count(), 2);
    }
}
