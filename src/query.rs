//! Queries over HTTP: a dialect's request becomes [`Work`], its steps become an answer.
//!
//! The `json` dialect is our own. `POST` with `Content-Type: application/json` and
//! `{"sql": "select …", "params": […], "read_only": true}`, or several statements in one transaction:
//! `{"batch": [{"sql", "params"}, …], "isolation": "serializable", "read_only": true}`, where isolation is one of
//! `read-uncommitted`, `read-committed`, `repeatable-read` and `serializable`. A route may make all its requests read only. The
//! answer is
//! `{"columns": [{"name", "type"}], "rows": [[…]], "command", "row_count"}`, for a batch `{"results": […]}`; or, to
//! `Accept: application/x-ndjson`, a line for each row between one with the columns and one with the command; or, to
//! `Accept: text/csv`, one result's names and rows as CSV. Its bytes are compressed for who asks (`compress.rs`).
//!
//! **When things go wrong.** Up to 256 KiB of an answer are held back, so that an error has its status: 400 for what the caller
//! or the statement got wrong, 409 for a conflict that is worth another try, 413, 502 for a lost connection, 503 for no
//! connection or a database that takes no writes, 504 for the deadline, 507 for an answer larger than the route allows.
//! `"retryable": true` says that the same request may succeed, `"outcome": "unknown"` that nobody knows whether it was done.
//! Behind the head, a JSON body breaks off, which is no JSON, and so does CSV; lines end with `{"error": …}`, and without a last line the answer
//! is cut short too.
//!
//! A page of another origin needs the route's leave; over plain HTTP, so does one of the gateway's own name (`cors.rs`).
//!
//! A request has 65,535 parameters at most; arrays and objects among them are held as text. An answer is made as it is taken, in
//! bounded memory. It stops its statement when the client leaves or the deadline passes.
//!
//! Queries may also be asked for by name ([`named`]), and callers' own SQL may be held to a list ([`allow`]).
//!
//! **Left out**: paging, named parameters of SQL that callers send.

mod accept;
pub mod allow;
mod array;
mod compress;
mod cors;
mod csv;
mod document;
mod escape;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzzed;
mod lines;
pub mod named;
mod problem;
mod request;
mod stream;
mod table;
mod value;
mod writer;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use self::{
    accept::{Codings, Shape, Shapes},
    csv::Csv,
    document::Document,
    lines::Lines,
    named::{Place, Who},
    problem::Problem,
    stream::{Bounds, Steps, respond},
};
use crate::{
    access::Identity,
    backend::{BackendError, Database, Limits, Work},
    config::model::{Cors, Dialect, Query},
    edge::{Context, Request, RequestBody, Response, answer},
    limit::Refused,
    observe::trace::Trace,
    pool::Holder,
};

pub use cors::{allow_origin, preflight};

/// What surrounds a query.
pub struct Asked<'a> {
    /// The route's `query`.
    pub settings: &'a Query,
    /// The route's `cors`.
    pub cors: Option<&'a Cors>,
    /// The connection that it came on.
    pub context: &'a Context,
    /// Who asks, if that is known.
    pub identity: Option<&'a Identity>,
    /// Named queries, and what they need.
    pub place: &'a Place,
    /// What the request, or its consumer, names of a pool of many.
    pub database: Option<&'a str>,
    /// Takes more out of the limits than the one that the request has cost already.
    pub charge: &'a Charge<'a>,
    /// When the last byte of the answer must have been taken.
    pub deadline: Instant,
    /// For whom a connection is held.
    pub holder: Holder,
    /// The trace that the request belongs to.
    pub trace: Trace,
}

/// Takes so many more permits out of the limits of route and consumer; the request's fields may be what they count by.
pub type Charge<'a> = dyn Fn(u32, &HeaderMap) -> Result<(), Refused> + 'a;

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
    let Asked { settings, cors, context, identity, place, database, charge, deadline, holder, trace } = asked;
    let trace = settings.trace_comment.then_some(trace);
    let limits = Limits { row: settings.max_response.as_usize(), trace };
    let Some(codings) = Codings::of(request.headers(), settings.compress) else {
        let detail = "send Accept-Encoding with gzip, zstd or identity";
        return refused(settings.dialect, StatusCode::NOT_ACCEPTABLE, "Not acceptable", detail);
    };
    let start = |work, deadline| async move { find(&Wanted::default())?.start(work, deadline, holder, limits).await };
    let asking = Asking { settings, place, who: Who::of(identity, database), charge, deadline };
    let answered = match check_origin(&request, cors, context, place, identity.is_some()) {
        Ok(()) => match settings.dialect {
            Dialect::Json => json(request, asking, start).await,
        },
        Err(foreign) => Err(foreign),
    };
    let response = answered.unwrap_or_else(Problem::into_response);
    if settings.compress { compress::respond(response, codings).await } else { response }
}

/// Whether a page may have sent it that must not. `known`: the caller has shown who it is.
fn check_origin(
    request: &Request,
    cors: Option<&Cors>,
    context: &Context,
    place: &Place,
    known: bool,
) -> Result<(), Problem> {
    cors::check(request.headers(), &context.authority, context.peer.tls.is_some(), cors)?;
    if request.method() == Method::POST || place.path.is_none() {
        return Ok(());
    }
    cors::check_get(request.headers(), context, place.hosts, known)
}

/// A refusal that comes before the dialect (no access, too many requests, overload), in the dialect's own shape.
pub fn refused(dialect: Dialect, status: StatusCode, title: &str, detail: &str) -> Response {
    match dialect {
        Dialect::Json => answer::problem(status, title, detail),
    }
}

/// What the `json` dialect must know.
struct Asking<'a> {
    settings: &'a Query,
    place: &'a Place,
    who: Who<'a>,
    charge: &'a Charge<'a>,
    deadline: Instant,
}

async fn json<S: Steps, F: Future<Output = Result<S, BackendError>>>(
    request: Request,
    asking: Asking<'_>,
    start: impl FnOnce(Work, Instant) -> F,
) -> Result<Response, Problem> {
    let Asking { settings, place, who, charge, deadline } = asking;
    let by_path = named::wish_of(&request, settings, place)?;
    if by_path.is_none() {
        request::check_head(request.method(), request.headers(), place.path.is_some())?;
    }
    let shapes = Shapes::of(request.headers());
    if shapes.best(false).is_none() {
        return Err(Problem::not_acceptable("an answer is application/json, application/x-ndjson or text/csv"));
    }
    let (head, body) = request.into_parts();
    let get = by_path.is_some().then_some(&head.headers);
    let wish = match by_path {
        Some(wish) => wish,
        None => request::parse(&read(body, deadline).await?, settings.max_batch)?,
    };
    let single = !wish.batch;
    let Some(shape) = shapes.best(!single) else {
        return Err(Problem::not_acceptable("the answer to a batch is application/json or application/x-ndjson"));
    };
    let job = named::compose(wish, shape as u8, settings, place, &who)?;
    let deadline = job.timeout.map_or(deadline, |timeout| deadline.min(Instant::now() + timeout));
    let headers = &head.headers;
    let ask = |work: Work, more| async move {
        if more > 0 {
            charge(more, headers)?;
        }
        let steps = start(work, deadline).await?;
        let bounds = Bounds { rows: settings.max_rows, bytes: settings.max_response.0, deadline };
        match shape {
            Shape::Document if single => respond(steps, Document::single(), bounds).await,
            Shape::Document => respond(steps, Document::batch(), bounds).await,
            Shape::Lines => respond(steps, Lines::new(), bounds).await,
            Shape::Csv => respond(steps, Csv::new(), bounds).await,
        }
    };
    let mut response = named::run(job, place, get, deadline, ask).await?;
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

async fn read(body: RequestBody, deadline: Instant) -> Result<Bytes, Problem> {
    match timeout_at(deadline, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Problem::new(error.status(), "Bad request body", error.public())),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Bad request body", "the body did not come in time")),
    }
}
