//! Queries over HTTP: a dialect's request becomes [`Work`], its steps become an answer.
//!
//! There are two dialects: `json` (`json.rs`), our own, and `neon` (`neon.rs`), of the drivers for Neon's databases, who may also
//! speak PostgreSQL's own protocol in a WebSocket ([`tunnel`]). Their bytes are compressed for who asks (`compress.rs`).
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
mod json;
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

use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use self::{accept::Codings, allow::AllowList, named::Place, problem::Problem, stream::Bounds};
use crate::{
    access::Identity,
    backend::{BackendError, Database, Limits, Work},
    config::model::{Cors, Dialect, Query},
    edge::{Context, Request, Response},
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

/// What a host's name calls an endpoint: its first label, in small letters.
fn label(host: &str) -> String {
    host.split('.').next().unwrap_or_default().to_ascii_lowercase()
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
            let asking = json::Asking { allowed: &allowed, place, wanted: &wanted, charge };
            json::answer(request, asking, |work, deadline| start(work, &wanted, deadline)).await
        }
        Dialect::Neon => {
            let start = |work, wanted: &Wanted| start(work, wanted, deadline);
            neon::answer(request, below, &allowed, wanted, start).await
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
        Self { settings, bounds, read_only, list, identity }
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
