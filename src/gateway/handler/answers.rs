//! Answers that need nobody: fixed ones, redirects, and refusals.

use http::{HeaderValue, StatusCode, header};

use crate::{
    access::Full,
    edge::{Body, Request, Response, answer},
    gateway::{
        entry::Entry,
        generation::{Fixed, Moved},
    },
    limit::Refused,
};

pub(super) fn respond(fixed: &Fixed) -> Response {
    let mut response = Response::new(Body::full(fixed.body.clone()));
    *response.status_mut() = fixed.status;
    response.headers_mut().insert(fixed.content_type.0.clone(), fixed.content_type.1.clone());
    response
}

/// `{path}` becomes the request's path and query, as normalised: it begins with one slash and no backslash, so that the
/// target's host cannot be changed by it.
pub(super) fn redirect(moved: &Moved, request: &Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let to = moved.to.replace("{path}", path);
    let Ok(location) = HeaderValue::from_str(&to) else {
        return answer::problem(StatusCode::BAD_REQUEST, "Bad path", "the path cannot stand in a redirect");
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = moved.status;
    response.headers_mut().insert(header::LOCATION, location);
    response
}

pub(super) fn too_many(refused: &Refused) -> Response {
    let detail = format!("limit `{}` is used up", refused.policy);
    let mut response =
        answer::problem_with(StatusCode::TOO_MANY_REQUESTS, "Too many requests", &detail, refused.problem());
    refused.render(response.headers_mut());
    response
}

/// The consumer has too much under way. A limit of its own, so 429 and not 503: others are served.
pub(super) fn crowded(full: Full, entry: &mut Entry) -> Response {
    entry.reason = Some("concurrency");
    let mut response = answer::problem(StatusCode::TOO_MANY_REQUESTS, "Too many requests", &full.to_string());
    response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    response
}

pub(super) fn not_allowed(allow: &HeaderValue) -> Response {
    let detail = "the path is routed, but not for this method";
    let mut response = answer::problem(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail);
    response.headers_mut().insert(header::ALLOW, allow.clone());
    response
}
