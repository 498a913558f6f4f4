//! Header fields that do not pass a proxy.
//!
//! One pass over the names finds everything that needs a look; a typical request has only one such field or none.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::edge::tokens;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Fields of one message that need a look, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found(u16);

impl Found {
    pub(super) const CONNECTION: Self = Self(1);
    pub(super) const TE: Self = Self(1 << 1);
    pub(super) const TRANSFER_ENCODING: Self = Self(1 << 2);
    pub(super) const UPGRADE: Self = Self(1 << 3);
    pub(super) const KEEP_ALIVE: Self = Self(1 << 4);
    pub(super) const PROXY: Self = Self(1 << 5);
    pub(super) const EXPECT: Self = Self(1 << 6);
    pub(super) const HTTP2_SETTINGS: Self = Self(1 << 7);
    pub(super) const CONTENT_LENGTH: Self = Self(1 << 8);
    pub(super) const COOKIE: Self = Self(1 << 9);
    pub(super) const FORWARDED: Self = Self(1 << 10);
    /// `X-Forwarded-…`.
    pub(super) const X_FORWARDED: Self = Self(1 << 11);
    pub(super) const HOST: Self = Self(1 << 12);
    pub(super) const CONTENT_TYPE: Self = Self(1 << 13);
    /// What also speaks of the client, and is believed from nobody: `X-Real-IP`, and anything of the kind with underscores.
    pub(super) const ALIAS: Self = Self(1 << 14);

    /// Looks through a message's fields.
    pub(super) fn scan(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |found, name| Self(found.0 | Self::of(name.as_str()).0))
    }

    fn of(name: &str) -> Self {
        match name {
            "host" => Self::HOST,
            "content-type" => Self::CONTENT_TYPE,
            "connection" => Self::CONNECTION,
            "te" => Self::TE,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "upgrade" => Self::UPGRADE,
            "keep-alive" => Self::KEEP_ALIVE,
            "expect" => Self::EXPECT,
            "http2-settings" => Self::HTTP2_SETTINGS,
            "content-length" => Self::CONTENT_LENGTH,
            "cookie" => Self::COOKIE,
            "forwarded" => Self::FORWARDED,
            // `Proxy` would become the variable HTTP_PROXY of a CGI program (CVE-2016-5385).
            "proxy" => Self::PROXY,
            _ => match name.as_bytes().first() {
                Some(b'x') => tells_who(name),
                Some(b'p') if name.starts_with("proxy-") => Self::PROXY,
                _ => Self::default(),
            },
        }
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whether a field speaks of the client in place of the socket: `X-Forwarded-…` and `X-Real-IP`. With underscores it is an
/// alias: CGI and its heirs do not tell them from hyphens, but a proxy before us does, and lets them pass.
fn tells_who(name: &str) -> Found {
    let alike = |wanted: &str| {
        let front = name.as_bytes().get(..wanted.len()).unwrap_or_default();
        front.len() == wanted.len()
            && front.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).eq(wanted.bytes())
    };
    if alike("x-forwarded-") {
        if name.contains('_') { Found::ALIAS } else { Found::X_FORWARDED }
    } else if name.len() == 9 && alike("x-real-ip") {
        Found::ALIAS
    } else {
        Found::default()
    }
}

/// Removes what is meant for one connection only (RFC 9110, section 7.6.1): the fields that `Connection` names, and those that
/// are so by definition. `Trailer` stays, as trailers are passed on.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, found: Found) {
    if found.has(Found::CONNECTION) {
        let one_line = headers.len() == headers.keys_len();
        let plain = |value: &HeaderValue| value == "keep-alive" || value == "close";
        if !one_line || headers.get(header::CONNECTION).is_none_or(|value| !plain(value)) {
            for name in named_by_connection(headers) {
                headers.remove(name);
            }
        }
        headers.remove(header::CONNECTION);
    }
    for (bit, name) in [
        (Found::TE, header::TE),
        (Found::TRANSFER_ENCODING, header::TRANSFER_ENCODING),
        (Found::UPGRADE, header::UPGRADE),
        (Found::KEEP_ALIVE, KEEP_ALIVE),
    ] {
        if found.has(bit) {
            headers.remove(name);
        }
    }
    if found.has(Found::PROXY) {
        remove_all(headers, Found::PROXY);
    }
}

pub(super) fn remove_all(headers: &mut HeaderMap, kind: Found) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| Found::of(name.as_str()) == kind).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// The fields that `Connection` names, other than those that are for all recipients whatever it says: naming `Host`, a
/// credential or a `Forwarded` is an attempt to have it dropped on the way.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &header::CONNECTION)
        .filter(|token| !matches!(token.to_ascii_lowercase().as_slice(), b"close" | b"keep-alive" | b"upgrade" | b"te"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !is_end_to_end(name.as_str()))
        .collect()
}

fn is_end_to_end(name: &str) -> bool {
    matches!(name, "host" | "authorization" | "cookie" | "forwarded" | "x-api-key" | "set-cookie" | "cache-control")
        || name.starts_with("x-forwarded-")
        || name.starts_with("content-")
}

/// Removes from trailers what belongs in the head (RFC 9110, section 6.5.1): framing, routing, credentials, and what is said
/// of the client. Some servers merge trailers into the head, after all that was checked there.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    let names: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name.as_str())).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
}

fn may_trail(name: &str) -> bool {
    let name = &*name.replace('_', "-");
    Found::of(name) == Found::default()
        && !is_end_to_end(name)
        && !matches!(name, "trailer" | "traceparent" | "tracestate")
}

/// Joins a field that came in several lines; HTTP/2 splits `Cookie` (RFC 9113, section 8.2.3).
pub(super) fn join(headers: &mut HeaderMap, name: &HeaderName, separator: &[u8]) {
    if headers.get_all(name).iter().nth(1).is_none() {
        return;
    }
    if let Some(joined) = joined(headers, name, separator, b"") {
        headers.insert(name.clone(), joined);
    }
}

/// All lines of a field, and `last` behind them.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8], last: &[u8]) -> Option<HeaderValue> {
    let mut text = BytesMut::new();
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    for line in lines.chain([last]).filter(|line| !line.is_empty()) {
        if !text.is_empty() {
            text.put_slice(separator);
        }
        text.put_slice(line);
    }
    HeaderValue::from_maybe_shared(text.freeze()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn stripped(fields: &[(&'static str, &str)]) -> Vec<String> {
        let mut map = headers(fields);
        let found = Found::scan(&map);
        strip_hop_by_hop(&mut map, found);
        let mut names: Vec<String> = map.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_for_one_connection_goes() {
        let left = stripped(&[
            ("connection", "keep-alive, X-Secret-Hop"),
            ("connection", "x-other"),
            ("x-secret-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "close"),
            ("proxy", "evil"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left, ["accept", "trailer"]);
    }

    #[test]
    fn connection_does_not_drop_what_is_for_all() {
        let left = stripped(&[
            ("connection", "close, Host, Authorization, X-Forwarded-For, Content-Type, \u{fc}, x y"),
            ("host", "a"),
            ("authorization", "b"),
            ("x-forwarded-for", "c"),
            ("content-type", "d"),
        ]);
        assert_eq!(left, ["authorization", "content-type", "host", "x-forwarded-for"]);
    }

    #[test]
    fn crumbs_are_joined() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join(&mut map, &header::COOKIE, b"; ");
        assert_eq!(map.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn trailers_hold_nothing_that_belongs_in_the_head() {
        let mut map = headers(&[
            ("grpc-status", "0"),
            ("grpc-message", "fine"),
            ("x-sum", "7"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x_forwarded_for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("host", "evil"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=1"),
            ("set-cookie", "a=1"),
            ("x-api-key", "x"),
            ("x_api_key", "x"),
            ("traceparent", "00-x"),
            ("trailer", "x"),
        ]);
        strip_trailers(&mut map);
        assert_eq!(map.keys().collect::<Vec<_>>(), ["grpc-status", "grpc-message", "x-sum"]);
    }
}
