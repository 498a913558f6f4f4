//! The `json` dialect: `POST` with `Content-Type: application/json` and
//! `{"sql": "select …", "params": […], "read_only": true}`, or several statements in one transaction:
//! `{"batch": [{"sql", "params"}, …], "isolation": "serializable", "read_only": true}`, where isolation is one of
//! `read-uncommitted`, `read-committed`, `repeatable-read` and `serializable`. A route may make all its requests read only. The
//! answer is
//! `{"columns": [{"name", "type"}], "rows": [[…]], "command", "row_count"}`, for a batch `{"results": […]}`; or, to
//! `Accept: application/x-ndjson`, a line for each row between one with the columns and one with the command; or, to
//! `Accept: text/csv`, one result's names and rows as CSV.
//!
//! **When things go wrong.** Up to 256 KiB of an answer are held back, so that an error has its status: 400 for what the caller
//! or the statement got wrong, 409 for a conflict that is worth another try, 413, 502 for a lost connection, 503 for no
//! connection or a database that takes no writes, 504 for the deadline, 507 for an answer larger than the route allows.
//! `"retryable": true` says that the same request may succeed, `"outcome": "unknown"` that nobody knows whether it was done.
//! Behind the head, a JSON body breaks off, which is no JSON, and so does CSV; lines end with `{"error": …}`, and without a last line the answer
//! is cut short too.
//!

use http::{HeaderValue, Method, header};
use tokio::time::Instant;

use super::{
    Allowed, Charge, Wanted,
    accept::{Shape, Shapes},
    csv::Csv,
    document::Document,
    lines::Lines,
    named::{self, Place, Who},
    problem::Problem,
    request,
    stream::{Bounds, Steps, respond},
};
use crate::{
    backend::{BackendError, Work},
    edge::{Request, Response},
};

/// What it must know.
pub(super) struct Asking<'a> {
    pub(super) allowed: &'a Allowed<'a>,
    pub(super) place: &'a Place,
    pub(super) wanted: &'a Wanted,
    pub(super) charge: &'a Charge<'a>,
}

/// Answers a request. Cancel safe: dropped, it stops its statement.
pub(super) async fn answer<S: Steps, F: Future<Output = Result<S, BackendError>>>(
    request: Request,
    asking: Asking<'_>,
    start: impl FnOnce(Work, Instant) -> F,
) -> Response {
    let bodiless = matches!(*request.method(), Method::GET | Method::HEAD);
    let answered = run(request, asking, start).await;
    answered.unwrap_or_else(|problem| if bodiless { problem.not_kept() } else { problem.into_response() })
}

async fn run<S: Steps, F: Future<Output = Result<S, BackendError>>>(
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
        None => request::parse(&request::read(body, allowed.bounds.deadline).await?, allowed.settings.max_batch)?,
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
