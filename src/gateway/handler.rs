//! The walk of a request through a generation: route, limits by address, access, limits by consumer, target.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, StatusCode, header};
use tokio::time::Instant;

use super::{
    entry::{Beginning, Entry},
    generation::{Fixed, Generation, Moved, RouteEntry, Target},
    listeners::Listening,
    shared::Shared,
};
use crate::{
    access::{ConsumerHandle, Denied},
    backend::Database,
    config::model::Query,
    edge::{self, Body, Context, Handler, Refusal, Request, Response, answer},
    limit::{Caller, Refused, Tally},
    observe::access_log::Lines,
    pool::Holder,
    proxy::{self, Forward, Tunnels, Upstream},
    query,
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
    async fn handle(&self, request: Request) -> Response {
        let generation = self.shared.generation();
        let Some(context) = Context::of(&request).cloned() else {
            return answer::problem(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", "the request has no context");
        };
        let socket = context.peer.socket.ip();
        let trusted = &generation.config().server.trusted_proxies;
        let client = edge::client_ip(socket, request.headers(), trusted);
        let mut entry = Entry::begin(
            self.lines.clone(),
            Beginning {
                id: self.shared.request_id(),
                peer: &context.peer,
                client,
                method: request.method(),
                target: context.original.as_ref().or(request.uri().path_and_query()),
                host: &context.authority.host,
                version: request.version(),
                headers: request.headers(),
            },
        );
        let is_trusted = trusted.iter().any(|network| network.contains(&socket));
        let asked = Asked { context: &context, client, trusted: is_trusted, started: Instant::now() };
        // Boxed, lest the connection's own future carry, and copy, the longest of all walks.
        let response = Box::pin(self.walk(&generation, request, &asked, &mut entry)).await;
        drop(generation);
        entry.answered(response.status().as_u16());
        response.map(|body| body.observed(move |bytes, complete| entry.sent(bytes, complete)))
    }

    fn refused(&self, refusal: &Refusal<'_>) {
        let generation = self.shared.generation();
        let trusted = &generation.config().server.trusted_proxies;
        let client = edge::client_ip(refusal.peer.socket.ip(), &refusal.head.headers, trusted);
        Entry::refused(self.lines.clone(), self.shared.request_id(), client, refusal);
    }
}

impl Walk {
    async fn walk(&self, generation: &Generation, request: Request, asked: &Asked<'_>, entry: &mut Entry) -> Response {
        if let Some(redirect) = &self.listening.config().https_redirect {
            return edge::https_redirect(&request, redirect);
        }
        let found = generation.table.lookup(&asked.context.authority.host, request.uri().path(), request.method());
        let route = match found {
            Found::Route(index) => &generation.routes[index],
            Found::MethodNotAllowed(allow) => match preflight(generation, &request, asked) {
                Some(response) => return response,
                None => return not_allowed(allow),
            },
            Found::NotFound => return answer::problem(StatusCode::NOT_FOUND, "Not found", "no route matches"),
        };
        entry.routed(&route.name, &route.figures);
        if let Some((reason, detail)) = bad_path(generation, route, &request, asked.context) {
            entry.reason = Some(reason);
            return answer::problem(StatusCode::BAD_REQUEST, "Bad path", detail);
        }
        if let Some(cors) = &route.cors
            && let Some(response) = query::preflight(cors, &request)
        {
            return response;
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut tally = Tally::default();
        let mut response = self.admitted(generation, route, request, asked, entry, &mut tally).await;
        if !route.limits.is_empty() {
            route.limits.render(tally, response.headers_mut());
        }
        if let Some(cors) = &route.cors {
            query::allow_origin(cors, origin.as_ref(), response.headers_mut());
        }
        response
    }

    /// Past the limits and the door, or not.
    async fn admitted(
        &self,
        generation: &Generation,
        route: &RouteEntry,
        request: Request,
        asked: &Asked<'_>,
        entry: &mut Entry,
        tally: &mut Tally,
    ) -> Response {
        let mut caller = Caller { address: asked.client, consumer: None, headers: request.headers() };
        if let Err(refused) = route.limits.check_before_access(&caller, tally) {
            entry.reason = Some("rate-limit");
            return too_many(&refused);
        }
        let consumer = match route.admission.admit(&generation.consumers, request.headers()) {
            Ok(consumer) => consumer,
            Err(denied) => return self.denied(denied, asked.client, entry),
        };
        caller.consumer = consumer.as_ref().map(|consumer| consumer.id());
        if let Err(refused) = route.limits.check_after_access(&caller, tally) {
            entry.reason = Some("rate-limit");
            return too_many(&refused);
        }
        if let Some(consumer) = &consumer {
            entry.called_by(consumer.clone());
        }
        self.reach(route, request, asked, consumer, entry).await
    }

    fn denied(&self, denied: Denied, client: IpAddr, entry: &mut Entry) -> Response {
        entry.reason = Some("access");
        if denied.is_suspicious() {
            let outcome = self.shared.failed_auth.failed(client);
            if !outcome.allowed {
                let detail = "too many failed authentications from this address";
                let mut response = answer::problem(StatusCode::TOO_MANY_REQUESTS, "Too many requests", detail);
                response.headers_mut().insert(header::RETRY_AFTER, outcome.reset_seconds.into());
                return response;
            }
        }
        let title = if denied.status() == StatusCode::FORBIDDEN { "Forbidden" } else { "Unauthorized" };
        let mut response = answer::problem(denied.status(), title, denied.public());
        if let Some(challenge) = denied.challenge() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    async fn reach(
        &self,
        route: &RouteEntry,
        mut request: Request,
        asked: &Asked<'_>,
        consumer: Option<Arc<ConsumerHandle>>,
        entry: &mut Entry,
    ) -> Response {
        if let Some(limit) = route.body_limit {
            request.body_mut().limit(limit);
        }
        match &route.target {
            Target::Query { database, settings } => {
                let holder = Holder { route: route.name.clone(), request: entry.id };
                Box::pin(answer_query(request, route, database, settings, asked, holder)).await
            }
            Target::Proxy { upstream, strip } => {
                forward(request, upstream, strip.as_deref(), asked, consumer, &self.shared.tunnels, entry).await
            }
            Target::Respond(fixed) => respond(fixed),
            Target::Redirect(moved) => redirect(moved, &request),
        }
    }
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

async fn answer_query(
    request: Request,
    route: &RouteEntry,
    database: &Database,
    settings: &Query,
    asked: &Asked<'_>,
    holder: Holder,
) -> Response {
    query::json(request, settings, route.cors.as_ref(), asked.context, database, asked.started + route.deadline, holder)
        .await
}

async fn forward(
    mut request: Request,
    upstream: &Arc<Upstream>,
    strip: Option<&str>,
    asked: &Asked<'_>,
    consumer: Option<Arc<ConsumerHandle>>,
    tunnels: &Arc<Tunnels>,
    entry: &mut Entry,
) -> Response {
    request.headers_mut().insert(crate::observe::trace::TRACEPARENT, entry.trace.header());
    let forward = Forward {
        context: asked.context,
        client: asked.client,
        trusted: asked.trusted,
        strip_prefix: strip,
        consumer,
        tunnels,
    };
    let (response, outcome) = proxy::forward(request, upstream, &forward).await;
    entry.forwarded = Some((upstream.name().clone(), outcome));
    response
}

fn respond(fixed: &Fixed) -> Response {
    let mut response = Response::new(Body::full(fixed.body.clone()));
    *response.status_mut() = fixed.status;
    response.headers_mut().insert(fixed.content_type.0.clone(), fixed.content_type.1.clone());
    response
}

/// `{path}` becomes the request's path and query, as normalised: it begins with one slash and no backslash, so that the
/// target's host cannot be changed by it.
fn redirect(moved: &Moved, request: &Request) -> Response {
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

fn too_many(refused: &Refused) -> Response {
    let detail = format!("limit `{}` is used up", refused.policy);
    let mut response =
        answer::problem_with(StatusCode::TOO_MANY_REQUESTS, "Too many requests", &detail, refused.problem());
    refused.render(response.headers_mut());
    response
}

fn not_allowed(allow: &HeaderValue) -> Response {
    let detail = "the path is routed, but not for this method";
    let mut response = answer::problem(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail);
    response.headers_mut().insert(header::ALLOW, allow.clone());
    response
}

/// A preflight asks with OPTIONS about the method it means: the route is the one of that method.
fn preflight(generation: &Generation, request: &Request, asked: &Asked<'_>) -> Option<Response> {
    let method = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let method = http::Method::from_bytes(method.as_bytes()).ok()?;
    match generation.table.lookup(&asked.context.authority.host, request.uri().path(), &method) {
        Found::Route(index) => query::preflight(generation.routes[index].cors.as_ref()?, request),
        _ => None,
    }
}
