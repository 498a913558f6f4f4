//! The walk of a request through a generation: route, overload, limits by address, access, limits by consumer, target.

mod answers;

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::Instant;

use self::answers::{crowded, not_allowed, redirect, respond, too_many};
use super::{
    entry::{Beginning, Entry},
    generation::{Generation, RouteEntry, Target},
    listeners::Listening,
    shared::Shared,
    source::Source,
    tunnel::{self, Door},
};
use crate::{
    access::{Denied, FailedAuth, Identity, Shown},
    config::model::Query,
    edge::{self, Context, Handler, Peer, Refusal, Request, RequestBody, Response, answer},
    limit::{Caller, Refused, RouteLimits, Tally},
    observe::{access_log::Lines, trace::TRACEPARENT},
    pool::Holder,
    proxy::{self, Forward},
    query::{
        self,
        named::Place,
        tunnel::{Opening, Surroundings},
    },
    route::Found,
};

/// Answers the requests of one listener on one worker.
#[derive(Clone)]
pub(super) struct Walk {
    pub(super) shared: Arc<Shared>,
    pub(super) lines: Arc<Lines>,
    pub(super) listening: Arc<Listening>,
}

/// What is known of a request beyond itself.
struct Asked<'a> {
    context: &'a Context,
    client: IpAddr,
    trusted: bool,
    started: Instant,
}

impl Handler for Walk {
    // A block that captures, not an `async fn`: that would keep the request twice, and so would every connection.
    #[allow(clippy::manual_async_fn)]
    fn handle(&self, mut request: Request) -> impl Future<Output = Response> {
        async move {
            let generation = self.shared.generation();
            let Some(context) = Context::of(&request).cloned() else {
                let detail = "the request has no context";
                return answer::problem(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", detail);
            };
            let asked = Asked::of(&context, &request, &generation);
            let mut entry = Entry::begin(
                self.lines.clone(),
                Beginning {
                    id: self.shared.request_id(),
                    peer: &context.peer,
                    client: asked.client,
                    method: request.method(),
                    target: context.original.as_ref().or(request.uri().path_and_query()),
                    host: &context.authority.host,
                    version: request.version(),
                    headers: request.headers(),
                },
            );
            let response = self.answer(&generation, &mut request, &asked, &mut entry).await;
            drop(generation);
            entry.answered(response.status().as_u16());
            response.map(|body| body.observed(move |bytes, complete| entry.sent(bytes, complete)))
        }
    }

    fn refused(&self, refusal: &Refusal<'_>) {
        let generation = self.shared.generation();
        let trusted = &generation.config().server.trusted_proxies;
        let client = edge::client_ip(refusal.peer.socket.ip(), &refusal.head.headers, trusted);
        Entry::refused(self.lines.clone(), self.shared.request_id(), client, refusal);
    }
}

impl<'a> Asked<'a> {
    fn of(context: &'a Context, request: &Request, generation: &Generation) -> Self {
        let socket = context.peer.socket.ip();
        let proxies = &generation.config().server.trusted_proxies;
        Self {
            context,
            client: edge::client_ip(socket, request.headers(), proxies),
            trusted: proxies.iter().any(|network| network.contains(&socket)),
            started: Instant::now(),
        }
    }
}

/// Told to an address that has shown too much that nobody has.
pub(super) const TOO_MANY_FAILED: &str = "too many failed authentications from this address";

/// What a request shows of who calls: its head, the certificate of its connection, and a secret where a dialect carries one.
pub(super) fn shown_by<'a>(
    (headers, method): (&'a HeaderMap, &'a Method),
    client: IpAddr,
    peer: &'a Peer,
    route: &RouteEntry,
    secret: Option<&'a [u8]>,
    failed: &'a FailedAuth,
) -> Shown<'a> {
    let certificate = peer.tls.as_ref().and_then(|tls| tls.client.as_ref());
    let upstream = matches!(route.target, Target::Proxy { .. });
    Shown { headers, secret, certificate, upstream, client, failed: Some(failed), method }
}

/// What limits said of a request so far.
#[derive(Default)]
struct Standing {
    of_route: Tally,
    of_consumer: Option<(Arc<RouteLimits>, Tally)>,
}

impl Standing {
    /// Asks the limit of the consumer's own.
    fn check_consumer(&mut self, identity: &Identity, caller: &Caller<'_>) -> Result<(), Refused> {
        let Some(limits) = identity.grant.limits() else { return Ok(()) };
        let (limits, tally) = self.of_consumer.insert((limits.clone(), Tally::default()));
        limits.check_before_access(caller, tally)
    }

    /// Takes more than the one permit that each limit has given.
    fn charge(&mut self, route: &RouteEntry, caller: &Caller<'_>, more: u32) -> Result<(), Refused> {
        if let Some((limits, tally)) = &mut self.of_consumer {
            limits.charge(caller, more, tally)?;
        }
        route.limits.charge(caller, more, &mut self.of_route)
    }

    fn render(self, route: &RouteEntry, headers: &mut HeaderMap) {
        if !route.limits.is_empty() {
            route.limits.render(self.of_route, headers);
        }
        if let Some((limits, tally)) = self.of_consumer {
            limits.render(tally, headers);
        }
    }
}

impl Walk {
    /// All that can be said without waiting is said by plain functions; what waits is one boxed future, so that a request takes
    /// no more room than its own target needs.
    async fn answer(
        &self,
        generation: &Arc<Generation>,
        request: &mut Request,
        asked: &Asked<'_>,
        entry: &mut Entry,
    ) -> Response {
        let index = match self.find(generation, request, asked, entry) {
            Ok(index) => index,
            Err(response) => return *response,
        };
        let route = &generation.routes[index];
        if let Some(settings) = tunnel::asked(generation, route, request) {
            return self
                .tunnel(generation, (index, settings), request, asked, entry)
                .unwrap_or_else(|refusal| *refusal);
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut standing = Standing::default();
        let mut response = match self.admit(generation, route, request, asked, entry, &mut standing) {
            Ok(identity) => self.reach(route, request, asked, identity, &mut standing, entry).await,
            Err(refusal) => route.retell(request, *refusal),
        };
        standing.render(route, response.headers_mut());
        if let Some(cors) = &route.cors {
            query::allow_origin(cors, route.dialect(), origin.as_ref(), response.headers_mut());
        }
        if let Some(dialect) = route.dialect() {
            query::number(dialect, entry.id, response.headers_mut());
        }
        response
    }

    /// The index of the request's route, or the answer to a request that needs none.
    fn find(
        &self,
        generation: &Generation,
        request: &Request,
        asked: &Asked<'_>,
        entry: &mut Entry,
    ) -> Result<usize, Box<Response>> {
        if let Some(redirect) = &self.listening.config().https_redirect {
            return Err(edge::https_redirect(request, redirect).into());
        }
        let found = generation.table.lookup(&asked.context.authority.host, request.uri().path(), request.method());
        let index = match found {
            Found::Route(index) => index,
            Found::MethodNotAllowed(allow) => {
                let preflight = preflight(generation, request, asked);
                return Err(preflight.unwrap_or_else(|| not_allowed(allow)).into());
            }
            Found::NotFound => {
                return Err(answer::problem(StatusCode::NOT_FOUND, "Not found", "no route matches").into());
            }
        };
        let route = &generation.routes[index];
        entry.routed(&route.name, &route.figures);
        if let Some((reason, detail)) = bad_path(generation, route, request, asked.context) {
            entry.reason = Some(reason);
            return Err(answer::problem(StatusCode::BAD_REQUEST, "Bad path", detail).into());
        }
        match route.preflight(request).or_else(|| route.options(request)) {
            Some(answer) => Err(answer.into()),
            None => Ok(index),
        }
    }

    /// Past overload, the limits and the door, or not.
    fn admit(
        &self,
        generation: &Generation,
        route: &RouteEntry,
        request: &Request,
        asked: &Asked<'_>,
        entry: &mut Entry,
        standing: &mut Standing,
    ) -> Result<Option<Identity>, Box<Response>> {
        if let Some(refusal) = self.shared.overload.refusal(route, entry) {
            return Err(refusal.into());
        }
        let limited = |entry: &mut Entry, refused: Refused| {
            entry.reason = Some("rate-limit");
            Box::new(too_many(&refused))
        };
        let mut caller = Caller { address: asked.client, consumer: None, headers: request.headers() };
        let before = route.limits.check_before_access(&caller, &mut standing.of_route);
        before.map_err(|refused| limited(entry, refused))?;
        let secret = route.dialect().and_then(|dialect| query::secret(dialect, request.headers()));
        let head = (request.headers(), request.method());
        let failed = &self.shared.failed_auth;
        let shown = shown_by(head, asked.client, &asked.context.peer, route, secret.as_deref(), failed);
        let identity = route.admission.admit(&generation.consumers, &shown);
        let mut identity = identity.map_err(|denied| self.denied(denied, asked.client, entry))?;
        caller.consumer = identity.as_ref().map(|identity| identity.consumer.id());
        if let Some(identity) = &mut identity {
            entry.called_by(identity.clone());
            standing.check_consumer(identity, &caller).map_err(|refused| limited(entry, refused))?;
        }
        let after = route.limits.check_after_access(&caller, &mut standing.of_route);
        after.map_err(|refused| limited(entry, refused))?;
        if let Some(identity) = &mut identity {
            identity.take_seat().map_err(|full| crowded(full, entry))?;
            entry.called_by(identity.clone());
        }
        Ok(identity)
    }

    /// A tunnel's client says who it is when it is open.
    fn tunnel(
        &self,
        generation: &Arc<Generation>,
        (index, settings): (usize, &Query),
        request: &mut Request,
        asked: &Asked<'_>,
        entry: &mut Entry,
    ) -> Result<Response, Box<Response>> {
        let route = &generation.routes[index];
        if let Some(refusal) = self.shared.overload.refusal(route, entry) {
            return Err(refusal.into());
        }
        let caller = Caller { address: asked.client, consumer: None, headers: request.headers() };
        if let Err(refused) = route.limits.check_before_access(&caller, &mut Tally::default()) {
            entry.reason = Some("rate-limit");
            return Err(too_many(&refused).into());
        }
        let opening = Opening {
            settings,
            cors: route.cors.as_ref(),
            context: asked.context,
            open: route.admission.is_open(),
            trusted: asked.trusted,
        };
        let checked = tunnel::check(generation, request, &opening);
        let wanted = checked.inspect_err(|_| entry.reason = Some("tunnel"))?;
        let door = Door {
            shared: self.shared.clone(),
            generation: generation.clone(),
            route: index,
            headers: request.headers().clone(),
            client: asked.client,
            peer: asked.context.peer.clone(),
            wanted,
        };
        let around = Surroundings {
            tunnels: self.shared.tunnels.clone(),
            sessions: self.shared.sessions.clone(),
            holder: Holder { route: route.name.clone(), request: entry.id, ..Holder::default() },
            patience: route.deadline,
            idle: settings.tunnel_idle.0,
            lifetime: settings.tunnel_lifetime.0,
        };
        query::tunnel::open(take(request), around, door)
    }

    fn denied(&self, denied: Denied, client: IpAddr, entry: &mut Entry) -> Response {
        entry.reason = Some(denied.reason());
        if denied.is_suspicious() {
            let outcome = self.shared.failed_auth.failed(client);
            if !outcome.allowed {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let mut response = answer::problem(status, "Too many requests", TOO_MANY_FAILED);
                response.headers_mut().insert(header::RETRY_AFTER, outcome.reset_seconds.into());
                return response;
            }
        }
        let mut response = answer::problem(denied.status(), "", denied.public());
        if matches!(denied.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        }
        if let Some(challenge) = denied.challenge() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    async fn reach(
        &self,
        route: &RouteEntry,
        request: &mut Request,
        asked: &Asked<'_>,
        identity: Option<Identity>,
        standing: &mut Standing,
        entry: &mut Entry,
    ) -> Response {
        if let Some(limit) = route.body_limit {
            request.body_mut().limit(limit);
        }
        match &route.target {
            Target::Query { source, settings, place } => {
                let to = (&**source, &**settings, place);
                Box::pin(ask(route, to, request, asked, identity.as_ref(), standing, entry)).await
            }
            Target::Proxy { upstream, strip } => {
                request.headers_mut().insert(TRACEPARENT, entry.trace.header());
                let forward = Forward {
                    context: asked.context,
                    client: asked.client,
                    trusted: asked.trusted,
                    strip_prefix: strip.as_deref(),
                    identity,
                    tunnels: &self.shared.tunnels,
                };
                let (response, outcome) = Box::pin(proxy::forward(take(request), upstream, &forward)).await;
                entry.forwarded = Some((upstream.name().clone(), outcome));
                response
            }
            Target::Respond(fixed) => respond(fixed),
            Target::Redirect(moved) => redirect(moved, request),
        }
    }
}

/// A query, of whoever asks it.
async fn ask(
    route: &RouteEntry,
    (source, settings, place): (&Source, &Query, &Place),
    request: &mut Request,
    asked: &Asked<'_>,
    identity: Option<&Identity>,
    standing: &mut Standing,
    entry: &Entry,
) -> Response {
    let own = identity.and_then(|identity| identity.grant.deadline);
    let standing = RefCell::new(standing);
    let charge = |more: u32, headers: &HeaderMap| {
        let consumer = identity.map(|identity| identity.consumer.id());
        let caller = Caller { address: asked.client, consumer, headers };
        standing.borrow_mut().charge(route, &caller, more)
    };
    let asked = query::Asked {
        settings,
        cors: route.cors.as_ref(),
        context: asked.context,
        below: source.below,
        identity,
        place,
        charge: &charge,
        wanted: source.wanted(request, identity),
        deadline: asked.started + own.map_or(route.deadline, |own| own.min(route.deadline)),
        holder: Holder {
            route: route.name.clone(),
            request: entry.id,
            consumer: identity.map(|identity| identity.consumer.name().clone()),
            statement: None,
        },
        trace: entry.trace,
    };
    let mut response = query::answer(take(request), asked, |wanted| source.find(wanted, identity)).await;
    // What it was for is not in its URL.
    response.headers_mut().extend(source.named_in().map(|field| (header::VARY, field)));
    response
}

impl RouteEntry {
    fn preflight(&self, request: &Request) -> Option<Response> {
        query::preflight(self.cors.as_ref()?, self.dialect(), self.cors_methods, request)
    }

    /// What needs neither caller nor database.
    fn options(&self, request: &Request) -> Option<Response> {
        match &self.target {
            Target::Query { source, settings, .. } => query::options(settings.dialect, request, source.below),
            _ => None,
        }
    }

    /// A refusal as the route's callers read it.
    fn retell(&self, request: &Request, refusal: Response) -> Response {
        match &self.target {
            Target::Query { source, settings, .. } => query::refused(settings.dialect, request, source.below, refusal),
            _ => refusal,
        }
    }
}

/// Leaves an empty request behind: its owner is a future that would otherwise grow by the room of another.
fn take(request: &mut Request) -> Request {
    std::mem::replace(request, Request::new(RequestBody::empty()))
}

/// Why a path is refused that others might read otherwise than the routes do: a word for the log, and a text.
fn bad_path(
    generation: &Generation,
    route: &RouteEntry,
    request: &Request,
    context: &Context,
) -> Option<(&'static str, &'static str)> {
    let (flags, path) = (context.path, request.uri().path());
    if route.allow_encoded_separators {
        None
    } else if flags.encoded_separator {
        Some(("encoded-separator", "the path holds an encoded slash, backslash or NUL"))
    } else if flags.parameters && generation.table.is_ambiguous(&context.authority.host, path, request.method()) {
        Some(("path-parameters", "the path is routed otherwise without its parameters"))
    } else {
        None
    }
}

/// A preflight asks with OPTIONS about the method it means: the route is the one of that method.
fn preflight(generation: &Generation, request: &Request, asked: &Asked<'_>) -> Option<Response> {
    let method = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    match generation.table.lookup(&asked.context.authority.host, request.uri().path(), &method) {
        Found::Route(index) => generation.routes[index].preflight(request),
        _ => None,
    }
}
