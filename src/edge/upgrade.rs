//! From HTTP/1.1 to a WebSocket: what everyone needs who takes connections over.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, header};

use super::Request;

/// From our 101 to the client's connection being ours: a matter of one write.
pub const HANDOVER: Duration = Duration::from_secs(30);

/// Whether a request asks to become a WebSocket, whatever else is wrong with it. Other protocols are not upgraded to: `h2c` would
/// carry requests past the routes (h2c smuggling).
pub fn wants_websocket(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket")
}

/// The comma-separated tokens of a field, over all its lines.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether a list field holds a token, in whatever case; parameters are left out of the comparison.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    fn bare(token: &[u8]) -> &[u8] {
        token.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
    }
    tokens(headers, name).any(|token| bare(token).eq_ignore_ascii_case(wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::RequestBody;

    fn request(fields: &[(&str, &str)]) -> Request {
        let fields =
            fields.iter().fold(http::Request::get("/"), |builder, (name, value)| builder.header(*name, *value));
        fields.body(RequestBody::empty()).unwrap()
    }

    #[test]
    fn tokens_are_compared_whole() {
        let request =
            request(&[("connection", "Keep-Alive, UPGRADE"), ("te", "trailers;q=0.5"), ("upgrade", "websocket2")]);
        assert!(has_token(request.headers(), &header::CONNECTION, "upgrade"));
        assert!(has_token(request.headers(), &header::TE, "trailers"));
        assert!(!has_token(request.headers(), &header::UPGRADE, "websocket"));
    }

    #[test]
    fn a_websocket_is_asked_for_by_get_and_two_fields() {
        let good = || request(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert!(wants_websocket(&good()));
        assert!(wants_websocket(&request(&[
            ("connection", "keep-alive"),
            ("connection", "upgrade"),
            ("upgrade", "websocket")
        ])));
        assert!(!wants_websocket(&request(&[("connection", "close"), ("upgrade", "websocket")])));
        assert!(!wants_websocket(&request(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        let mut post = good();
        *post.method_mut() = Method::POST;
        assert!(!wants_websocket(&post));
    }
}
