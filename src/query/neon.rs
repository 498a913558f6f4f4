//! The `neon` dialect: SQL over HTTP as the drivers for Neon's databases speak it.
//!
//! `POST …/sql` below the route's path, with a connection string in `Neon-Connection-String`, a query or a batch of queries in the
//! body, and what the answer shall look like in further headers. `docs/query.md` has it all. The connection string chooses among
//! the databases that the route has; its password is a key or a token of one of our consumers, and never goes further.
//!
//! **When things go wrong.** What the database says, and what is wrong with the request, is 400 with PostgreSQL's fields as JSON;
//! what befalls us has the status that it has in every dialect, and the same shape. Up to 256 KiB of an answer are held back, so
//! that an error has its status; behind them the body breaks off.
//!
//! **Left out**: the parameters of the connection string (`application_name`, `options`), for a session is shared.

mod body;
mod connection;
mod failure;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzzed;
mod head;
#[cfg(test)]
mod tests;
mod writer;

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use self::{body::Asked, failure::Failure, head::Head, writer::Results};
use super::{
    Allowed, Wanted, request,
    stream::{Steps, respond},
};
use crate::{
    backend::{BackendError, Batch, Work},
    edge::{Body, Request, Response, answer::Explained},
};

/// Where queries go, behind the route's path.
const PATH: &str = "/sql";

const METHODS: HeaderValue = HeaderValue::from_static("OPTIONS, POST");

const REQUEST_ID: HeaderName = HeaderName::from_static("neon-request-id");

/// Request headers of the dialect that a page may set.
pub(super) const PAGE_SETS: &str = "neon-connection-string, neon-raw-text-output, neon-array-mode, neon-pool-opt-in, \
                                    neon-batch-read-only, neon-batch-isolation-level, neon-batch-deferrable";

/// Answer headers of the dialect that a page may read.
pub(super) const PAGE_READS: &str =
    "neon-request-id, neon-batch-read-only, neon-batch-isolation-level, neon-batch-deferrable";

/// Answers a request.
pub(super) async fn answer<S: Steps, F: Future<Output = Result<S, BackendError>>>(
    request: Request,
    below: usize,
    allowed: &Allowed<'_>,
    wanted: Wanted,
    start: impl FnOnce(Work, &Wanted) -> F,
) -> Response {
    let answered = if is_query(&request, below) {
        run(request, allowed, wanted, start).await
    } else {
        Err(Failure::not_supported())
    };
    answered.unwrap_or_else(Failure::into_response)
}

fn is_query(request: &Request, below: usize) -> bool {
    request.method() == Method::POST && is_here(request, below)
}

fn is_here(request: &Request, below: usize) -> bool {
    request.uri().path().get(below..) == Some(PATH)
}

async fn run<S: Steps, F: Future<Output = Result<S, BackendError>>>(
    request: Request,
    allowed: &Allowed<'_>,
    mut wanted: Wanted,
    start: impl FnOnce(Work, &Wanted) -> F,
) -> Result<Response, Failure> {
    let head = Head::read(request.headers())?;
    let connection = head::connection(request.headers())?;
    if !allowed.identity.is_none_or(|identity| identity.answers_to(&connection.user)) {
        return Err(Failure::no_such_user(&connection.user));
    }
    wanted.endpoint = Some(connection.endpoint());
    wanted.database = Some(connection.database.into_owned());
    let bounds = allowed.bounds;
    let body = request::read(request.into_body(), bounds.deadline).await?;
    let asked = body::parse(&body, allowed.settings.max_batch)?;
    drop(body);
    let (work, results) = prepare(asked, head);
    for statement in work.statements() {
        allowed.sql(&statement.sql).map_err(|refused| Failure::not_allowed(refused.detail()))?;
    }
    let batch = matches!(work, Work::Batch(_));
    let steps = start(allowed.bound(work), &wanted).await.map_err(|error| Failure::of(error, &wanted))?;
    let mut response = respond(steps, results, bounds).await?;
    if batch {
        head.echo(response.headers_mut());
    }
    Ok(response)
}

/// What is to be done, and how it is to be written.
fn prepare(asked: Asked, head: Head) -> (Work, Results) {
    match asked {
        Asked::Single(query) => {
            let results = Results::single(head.raw, query.array.unwrap_or(head.array));
            (Work::Single(query.statement), results)
        }
        Asked::Batch(queries) => {
            let arrays = queries.iter().map(|query| query.array.unwrap_or(head.array)).collect();
            let batch = Batch {
                statements: queries.into_iter().map(|query| query.statement).collect(),
                isolation: head.isolation,
                read_only: head.read_only,
                deferrable: head.deferrable,
                ..Batch::default()
            };
            (Work::Batch(batch), Results::batch(head.raw, arrays))
        }
    }
}

/// What a request carries to say who calls, in the password of its connection string. Where it has an `Authorization`, that is
/// what counts.
pub(super) fn secret(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    if headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    head::connection(headers).ok()?.password
}

/// Retells a refusal that came before the dialect. Credentials that will not do are told as PostgreSQL tells them.
pub(super) fn refused(request: &Request, below: usize, refusal: Response) -> Response {
    let detail = refusal.extensions().get().map(|Explained(detail)| detail.clone()).unwrap_or_default();
    let failure = if refusal.status() == StatusCode::UNAUTHORIZED {
        if is_query(request, below) { unknown(request.headers()) } else { Failure::not_supported() }
    } else {
        Failure::new(refusal.status(), detail)
    };
    failure.instead_of(refusal)
}

/// Why nobody is known by what a request carries.
fn unknown(headers: &HeaderMap) -> Failure {
    match head::connection(headers) {
        Err(error) => error.into(),
        Ok(connection) if connection.password.is_none() && !headers.contains_key(header::AUTHORIZATION) => {
            Failure::bad_request("missing authentication credentials: required password")
        }
        Ok(connection) => Failure::no_such_user(&connection.user),
    }
}

/// Answers `OPTIONS`, which asks for nothing of the database, nor who asks.
pub(super) fn options(request: &Request, below: usize) -> Option<Response> {
    if request.method() != Method::OPTIONS || !is_here(request, below) {
        return None;
    }
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::ALLOW, METHODS);
    Some(response)
}

/// Gives an answer its number, as a UUID (RFC 9562, version 8): what this process calls itself, and what its access log calls the
/// request.
pub(super) fn number(process: u64, request: u64, headers: &mut HeaderMap) {
    let (high, low) = (process >> 16, request & 0xffff_ffff_ffff);
    let id = format!(
        "{:08x}-{:04x}-8{:03x}-8{:03x}-{low:012x}",
        high >> 16,
        high & 0xffff,
        process & 0xfff,
        process >> 12 & 0xfff
    );
    if let Ok(id) = HeaderValue::from_maybe_shared(bytes::Bytes::from(id)) {
        headers.insert(REQUEST_ID, id);
    }
}

impl From<head::UnknownIsolation> for Failure {
    fn from(error: head::UnknownIsolation) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<connection::ConnectionError> for Failure {
    fn from(error: connection::ConnectionError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<body::BodyError> for Failure {
    fn from(error: body::BodyError) -> Self {
        Self::bad_request(error.to_string())
    }
}
