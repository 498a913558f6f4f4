//! Queries over HTTP: a dialect's request becomes [`Work`], its steps become an answer.
//!
//! There are two dialects: `json`, of which this page tells, and `neon` (`neon.rs`), of the drivers for Neon's databases.
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
//! On a route of the dialect `neon` a WebSocket becomes a tunnel, in which a client speaks PostgreSQL's own protocol ([`tunnel`]).
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
mod neon;
mod problem;
mod request;
mod stream;
mod table;
pub mod tunnel;
mod value;
mod words;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use self::{
    accept::{Codings, Shape, Shapes},
    allow::AllowList,
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
    edge::{Context, Request, RequestBody, Response},
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
    /// The length of the route's own path, without a slash at its end.
    pub below: usize,
    /// Who asks, if that is known.
    pub identity: Option<&'a Identity>,
    /// Which database it is for, as far as its head says in any dialect.
    pub wanted: Wanted,
    /// Named queries, and what they need.
    pub place: &'a Place,
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
    pub role: Option<Arc<str>>,
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
    let Asked { settings, cors, context, below, identity, wanted, place, charge, deadline, holder, trace } = asked;
    if let Err(foreign) = check_origin(&request, cors, context, place, identity.is_some()) {
        return refused(settings.dialect, &request, below, foreign.into_response());
    }
    let Some(codings) = Codings::of(request.headers(), settings.compress) else {
        let problem = Problem::not_acceptable("send Accept-Encoding with gzip, zstd or identity");
        return refused(settings.dialect, &request, below, problem.into_response());
    };
    let allowed = Allowed::of(settings, identity, place, deadline);
    let row = usize::try_from(allowed.bounds.bytes).unwrap_or(usize::MAX);
    let limits = Limits { row, trace: settings.trace_comment.then_some(trace) };
    let start = |work, wanted: &Wanted, deadline| {
        let found = find(wanted);
        async move { found?.start(work, deadline, holder, limits).await }
    };
    let response = match settings.dialect {
        Dialect::Json => {
            let asking = Asking { allowed: &allowed, place, wanted: &wanted, charge };
            let start = |work, deadline| start(work, &wanted, deadline);
            json(request, asking, start).await.unwrap_or_else(Problem::into_response)
        }
        Dialect::Neon => {
            let start = |work, wanted: &Wanted| start(work, wanted, deadline);
            neon::answer(request, below, &allowed, identity, wanted, start).await
        }
    };
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
    let secure = context.peer.tls.is_some();
    cors::check(request.headers(), &context.authority, secure, cors)?;
    if request.method() == Method::POST || place.path.is_none() {
        return Ok(());
    }
    cors::check_get(request.headers(), &context.authority, secure || place.hosts || known)
}

/// What the route and the caller's grant allow together: of each bound the lesser.
struct Allowed<'a> {
    settings: &'a Query,
    bounds: Bounds,
    max_batch: usize,
    read_only: bool,
    /// The route's list of texts.
    list: Option<&'a AllowList>,
    identity: Option<&'a Identity>,
}

impl<'a> Allowed<'a> {
    fn of(settings: &'a Query, identity: Option<&'a Identity>, place: &'a Place, deadline: Instant) -> Self {
        let grant = identity.map(|identity| &*identity.grant);
        let (rows, bytes) = (settings.max_rows, settings.max_response.0);
        let least = |bound: u64, own: Option<u64>| own.map_or(bound, |own| own.min(bound));
        let bounds = Bounds {
            rows: least(rows, grant.and_then(|grant| grant.max_rows)),
            bytes: least(bytes, grant.and_then(|grant| grant.max_response)),
            deadline,
        };
        let read_only = settings.read_only || grant.is_some_and(|grant| grant.read_only);
        let list = place.allow.as_ref();
        Self { settings, bounds, max_batch: settings.max_batch, read_only, list, identity }
    }

    /// The work, of which writes are refused if that is all that is allowed.
    fn bound(&self, work: Work) -> Work {
        if self.read_only { work.read_only() } else { work }
    }

    /// Whether SQL of the caller's own passes.
    ///
    /// # Errors
    /// 403.
    fn sql(&self, sql: &str) -> Result<(), Problem> {
        let refused = |detail: String| Err(Problem::new(StatusCode::FORBIDDEN, "SQL refused", detail));
        if !self.settings.raw {
            return refused("this route answers named queries only".to_owned());
        }
        if self.identity.is_some_and(|identity| identity.grant.named_only) {
            return refused("this consumer may ask named queries only".to_owned());
        }
        let consumer = self.identity.map(|identity| &**identity.consumer.name());
        match self.list.map(|list| list.check(sql, consumer)) {
            Some(Err(not)) => refused(not.to_string()),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

/// What a request carries within its dialect to say who calls: a key or a token, as one in `Authorization: Bearer` would be.
pub fn secret(dialect: Dialect, headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    match dialect {
        Dialect::Json => None,
        Dialect::Neon => neon::secret(headers),
    }
}

/// The answer to a request that needs neither database nor caller. `below` is as in [`Asked`].
pub fn options(dialect: Dialect, request: &Request, below: usize) -> Option<Response> {
    match dialect {
        Dialect::Json => None,
        Dialect::Neon => neon::options(request, below),
    }
}

/// Gives an answer the request's number, where the dialect has a place for it.
pub fn number(dialect: Dialect, request: u64, headers: &mut HeaderMap) {
    /// So that numbers of two processes are not one.
    static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
    if dialect == Dialect::Neon {
        neon::number(*PROCESS, request, headers);
    }
}

/// A refusal that comes before the dialect (no access, too many requests, overload), in the dialect's own shape. `below` is as in
/// [`Asked`].
pub fn refused(dialect: Dialect, request: &Request, below: usize, refusal: Response) -> Response {
    match dialect {
        Dialect::Json => refusal,
        Dialect::Neon => neon::refused(request, below, refusal),
    }
}

/// What the `json` dialect must know.
struct Asking<'a> {
    allowed: &'a Allowed<'a>,
    place: &'a Place,
    wanted: &'a Wanted,
    charge: &'a Charge<'a>,
}

async fn json<S: Steps, F: Future<Output = Result<S, BackendError>>>(
    request: Request,
    asking: Asking<'_>,
    start: impl FnOnce(Work, Instant) -> F,
) -> Result<Response, Problem> {
    let Asking { allowed, place, wanted, charge } = asking;
    let by_path = named::wish_of(&request, allowed.settings, place)?;
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
        None => request::parse(&read(body, allowed.bounds.deadline).await?, allowed.max_batch)?,
    };
    let single = !wish.batch;
    let Some(shape) = shapes.best(!single) else {
        return Err(Problem::not_acceptable("the answer to a batch is application/json or application/x-ndjson"));
    };
    let who = Who::of(allowed.identity, wanted);
    // What is kept is given without asking for the pool.
    if !allowed.identity.is_none_or(|identity| identity.grant.may_ask(&allowed.settings.pool)) {
        return Err(BackendError::Forbidden.into());
    }
    let job = named::compose(wish, shape as u8, allowed, place, &who)?;
    let deadline = job.ends(allowed.bounds.deadline, Instant::now());
    let bounds = Bounds { deadline, ..allowed.bounds };
    let headers = &head.headers;
    let ask = |work: Work, more| async move {
        if more > 0 {
            charge(more, headers)?;
        }
        let steps = start(work, deadline).await?;
        match shape {
            Shape::Document if single => respond(steps, Document::single(), bounds).await,
            Shape::Document => respond(steps, Document::batch(), bounds).await,
            Shape::Lines => respond(steps, Lines::new(), bounds).await,
            Shape::Csv => respond(steps, Csv::new(), bounds).await,
        }
        .map_err(Problem::from)
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
