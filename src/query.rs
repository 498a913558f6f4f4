//! Queries over HTTP: a dialect's request becomes [`Work`], its steps become an answer.
//!
//! The `json` dialect is our own. `POST` with `Content-Type: application/json` and
//! `{"sql": "select …", "params": […], "read_only": true}`, or several statements in one transaction:
//! `{"batch": [{"sql", "params"}, …], "isolation": "serializable", "read_only": true}`, where isolation is one of
//! `read-uncommitted`, `read-committed`, `repeatable-read` and `serializable`. A route may make all its requests read only. The
//! answer is
//! `{"columns": [{"name", "type"}], "rows": [[…]], "command", "row_count"}`, for a batch `{"results": […]}`; or, to
//! `Accept: application/x-ndjson`, a line for each row between one with the columns and one with the command.
//!
//! **When things go wrong.** Up to 256 KiB of an answer are held back, so that an error has its status: 400 for what the caller
//! or the statement got wrong, 409 for a conflict that is worth another try, 413, 502 for a lost connection, 503 for no
//! connection or a database that takes no writes, 504 for the deadline, 507 for an answer larger than the route allows.
//! `"retryable": true` says that the same request may succeed, `"outcome": "unknown"` that nobody knows whether it was done.
//! Behind the head, a JSON body breaks off, which is no JSON; lines end with `{"error": …}`, and without a last line the answer
//! is cut short too.
//!
//! A page of another origin needs the route's leave; over plain HTTP, so does one of the gateway's own name (`cors.rs`).
//!
//! A request has 65,535 parameters at most; arrays and objects among them are held as text. An answer is made as it is taken, in
//! bounded memory. It stops its statement when the client leaves or the deadline passes.
//!
//! **Left out**: compression, paging, named parameters, prepared queries.

mod array;
mod cors;
mod document;
mod escape;
mod lines;
mod problem;
mod request;
mod stream;
mod table;
mod value;
mod writer;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use self::{
    document::Document,
    lines::Lines,
    problem::Problem,
    stream::{Bounds, Steps, respond},
};
use crate::{
    access::Identity,
    backend::{BackendError, Database, Limits, Work},
    config::model::{Cors, Dialect, Query},
    edge::{Context, Request, RequestBody, Response, answer},
    pool::Holder,
};

pub use cors::{allow_origin, preflight};

/// What surrounds a query.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The route's `query`.
    pub settings: &'a Query,
    /// The route's `cors`.
    pub cors: Option<&'a Cors>,
    /// The connection that it came on.
    pub context: &'a Context,
    /// Who asks, if that is known.
    pub identity: Option<&'a Identity>,
    /// When the last byte of the answer must have been taken.
    pub deadline: Instant,
    /// For whom a connection is held.
    pub holder: Holder,
}

/// Which database a request is for, beyond what its route says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The first label of the host in its connection string.
    pub endpoint: Option<String>,
    /// The database in its connection string.
    pub database: Option<String>,
    /// The login role, of a pool that is one for each.
    pub role: Option<String>,
}

/// Answers a query in its route's dialect. Dropping the future, or the answer's body, stops the statement.
///
/// `find` gives the database; it is asked when all that can be wrong with the request itself has been found to be right.
/// The request body's limit is set by the caller; so are the answer's CORS headers ([`allow_origin`]).
pub async fn answer(
    request: Request,
    asked: Asked<'_>,
    find: impl FnOnce(&Wanted) -> Result<Database, BackendError>,
) -> Response {
    let Asked { settings, cors, context, identity: _, deadline, holder } = asked;
    let row = settings.max_response.as_usize();
    let start = |work| async move { find(&Wanted::default())?.start(work, deadline, holder, Limits { row }).await };
    let answered = match cors::check(request.headers(), &context.authority, context.peer.tls.is_some(), cors) {
        Ok(()) => match settings.dialect {
            Dialect::Json => json(request, settings, deadline, start).await,
        },
        Err(foreign) => Err(foreign),
    };
    answered.unwrap_or_else(Problem::into_response)
}

/// A refusal that comes before the dialect (no access, too many requests, overload), in the dialect's own shape.
pub fn refused(dialect: Dialect, status: StatusCode, title: &str, detail: &str) -> Response {
    match dialect {
        Dialect::Json => answer::problem(status, title, detail),
    }
}

async fn json<S: Steps, F: Future<Output = Result<S, BackendError>>>(
    request: Request,
    settings: &Query,
    deadline: Instant,
    start: impl FnOnce(Work) -> F,
) -> Result<Response, Problem> {
    request::check_head(request.method(), request.headers())?;
    let lines = request::wants_lines(request.headers());
    let body = read(request.into_body(), deadline).await?;
    let mut work = request::parse(&body, settings.max_batch)?;
    drop(body);
    if settings.read_only {
        work = work.read_only();
    }
    let single = work.is_single();
    let steps = start(work).await?;
    let bounds = Bounds { rows: settings.max_rows, bytes: settings.max_response.0, deadline };
    if lines {
        respond(steps, Lines::new(), bounds).await
    } else {
        respond(steps, if single { Document::single() } else { Document::batch() }, bounds).await
    }
}

async fn read(body: RequestBody, deadline: Instant) -> Result<Bytes, Problem> {
    match timeout_at(deadline, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Problem::new(error.status(), "Bad request body", error.public())),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Bad request body", "the body did not come in time")),
    }
}
