//! What surrounds a query: paths, refusals, credentials, numbers.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{number, options, refused, secret};
use crate::edge::{Request, RequestBody, Response, answer};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let header =
        |(name, value): &(&'static str, &'static str)| (name.parse().unwrap(), HeaderValue::from_static(value));
    pairs.iter().map(header).collect()
}

fn request(method: Method, path: &str, pairs: &[(&'static str, &'static str)]) -> Request {
    let mut request = http::Request::new(RequestBody::empty());
    (*request.method_mut(), *request.uri_mut()) = (method, path.parse().unwrap());
    *request.headers_mut() = headers(pairs);
    request
}

async fn told(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn refusals_keep_their_status_and_headers_but_for_bad_credentials() {
    let string = |value| [("neon-connection-string", value)];
    let no_password = "missing authentication credentials: required password";
    for (path, method, pairs, status, expected) in [
        (
            "/a/sql",
            Method::POST,
            &string("postgres://x:wrong@h/d")[..],
            401,
            "password authentication failed for user 'x'",
        ),
        ("/a/sql", Method::POST, &string("postgres://x@h/d"), 401, no_password),
        (
            "/a/sql",
            Method::POST,
            &[string("postgres://x@h/d")[0], ("authorization", "Bearer y")],
            401,
            "password authentication failed for user 'x'",
        ),
        ("/a/sql", Method::POST, &[], 401, "invalid header: neon-connection-string"),
        ("/a/sql", Method::GET, &[], 401, "query is not supported"),
        ("/a/b", Method::POST, &string("postgres://x:wrong@h/d"), 401, "query is not supported"),
        ("/a/sql", Method::POST, &string("postgres://x:y@h/d"), 403, "why"),
        ("/a/sql", Method::POST, &[], 429, "why"),
        ("/a/b", Method::POST, &[], 503, "why"),
    ] {
        let mut refusal = answer::problem(StatusCode::from_u16(status).unwrap(), "", "why");
        refusal.headers_mut().insert(header::RETRY_AFTER, 7.into());
        let retold = refused(&request(method.clone(), path, pairs), "/a".len(), refusal);
        assert_eq!(retold.headers()[header::RETRY_AFTER], "7");
        assert_eq!(retold.headers()[header::CONTENT_TYPE], "application/json");
        let (answered, said) = told(retold).await;
        assert_eq!(
            (answered, &said["message"]),
            (if status == 401 { 400 } else { status }, &json!(expected)),
            "{method} {path}"
        );
        assert_eq!(said.as_object().unwrap().len(), 17);
    }
}

#[test]
fn the_password_is_what_tells_who_calls_unless_there_is_an_authorization() {
    let string = ("neon-connection-string", "postgres://x:k%65y@h/d");
    assert_eq!(secret(&headers(&[string])).as_deref(), Some(&b"key"[..]));
    assert_eq!(secret(&headers(&[string, ("authorization", "Bearer other")])), None);
    assert_eq!(secret(&headers(&[("neon-connection-string", "postgres://x@h/d")])), None);
    assert_eq!(secret(&headers(&[("neon-connection-string", "x:key@h")])), None);
    assert_eq!(secret(&HeaderMap::new()), None);
}

#[test]
fn options_are_answered_where_queries_go() {
    for (method, path, answered) in [
        (Method::OPTIONS, "/a/sql", true),
        (Method::OPTIONS, "/a/sql/", false),
        (Method::OPTIONS, "/sql", false),
        (Method::POST, "/a/sql", false),
    ] {
        let answer = options(&request(method.clone(), path, &[]), "/a".len());
        assert_eq!(answer.is_some(), answered, "{method} {path}");
        assert!(answer.is_none_or(|answer| answer.headers()[header::ALLOW] == "OPTIONS, POST"));
    }
}

#[test]
fn a_number_is_a_uuid_that_tells_process_and_request() {
    let id = |process, request| {
        let mut headers = HeaderMap::new();
        number(process, request, &mut headers);
        headers["neon-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id(0x0123_4567_89ab_cdef, 0x2a), "01234567-89ab-8def-8abc-00000000002a");
    assert_eq!(id(u64::MAX, u64::MAX), "ffffffff-ffff-8fff-8fff-ffffffffffff");
    assert_ne!(id(7, 1), id(7, 2));
    assert_ne!(id(7, 1), id(8, 1));
}
