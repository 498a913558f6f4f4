//! From an HTTP request to a WebSocket (RFC 6455, section 4.2).

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
        UPGRADE,
    },
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    edge::{Body, Request, Response},
    query::problem::Problem,
};

/// The answer that makes `request` a WebSocket.
pub(super) fn accept(request: &Request) -> Result<Response, Problem> {
    let headers = request.headers();
    let only = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    if only(&SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let detail = "WebSocket version 13 is spoken here (RFC 6455)";
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "Upgrade required", detail));
    }
    let key = only(&SEC_WEBSOCKET_KEY).filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    let Some(key) = key else { return Err(Problem::bad_request("`Sec-WebSocket-Key` is not 16 bytes in base64")) };
    // What follows a request that has a body would be taken for frames.
    if headers.contains_key(TRANSFER_ENCODING) || only(&CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return Err(Problem::bad_request("a WebSocket begins with a request without a body"));
    }
    let Ok(answer) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return Err(Problem::bad_request("`Sec-WebSocket-Key` cannot be answered"));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, answer);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::RequestBody;

    fn request(fields: &[(&'static str, &'static str)]) -> Request {
        let mut request = http::Request::new(RequestBody::empty());
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in usual.iter().chain(fields) {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn the_example_of_the_rfc_is_answered() {
        let request = request(&[]);
        let response = accept(&request).unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_websocket_is_told_so() {
        for (field, status) in [
            (("sec-websocket-version", "8"), 426),
            (("sec-websocket-key", "c2hvcnQ="), 400),
            (("content-length", "5"), 400),
            (("transfer-encoding", "chunked"), 400),
        ] {
            let refused = accept(&request(&[field])).unwrap_err();
            assert_eq!(refused.status.as_u16(), status, "{field:?}");
        }
        assert!(accept(&request(&[("content-length", "0")])).is_ok());
        let mut two = request(&[]);
        two.headers_mut().append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(accept(&two).is_err());
    }
}
