//! The operator's listener: health, figures, status, reload, commands to single pools.
//!
//! Plain HTTP on the background thread, on an address of its own, so that it answers while the public side is full. `/livez`
//! and `/readyz` are open; everything else needs the token (`Authorization: Bearer`), which is made at first start and kept in
//! `<state>/admin.token`, mode 0600. `[admin] access = "open"` lifts that for reading. A request by a name that is neither an
//! address, `localhost`, nor in `[admin] hosts` is refused with 421: a page in an operator's browser must not reach this
//! listener through a name it has rebound to loopback.
//!
//! When things go wrong: health answers without a lock on anything that a request holds; a figure that cannot be had is left
//! out.
//!
//! Left out: TLS (keep it on loopback or a private network), a dashboard.

mod metrics;
mod pools;
mod replicas;
mod status;
mod token;

use std::sync::{Arc, atomic::Ordering};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    config::{Finding, model},
    edge::{self, Body, Context, Drain, Handler, Request, Response, answer},
    gateway::{Generation, Shared},
    observe::exposition,
};
use token::Token;
pub use token::token;

/// Connections of operators at a time.
const CONNECTIONS: u32 = 256;

/// Answers operators.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<Shared>,
    token: Arc<Mutex<Shown>>,
}

/// What an operator must show, as the configuration of a generation has it.
struct Shown {
    generation: u64,
    /// None, when it cannot be read: then nobody can show it.
    token: Option<Token>,
}

impl Admin {
    /// Binds the listener and serves from then on, on the current thread. Returns where.
    ///
    /// # Errors
    /// The address cannot be bound, or the token neither read nor made.
    pub fn start(shared: &Arc<Shared>, settings: &model::Admin) -> Result<String, Finding> {
        let token = Token::open(settings, &shared.state).map_err(|error| Finding::new("admin.token", error))?;
        let token = Shown { generation: 0, token: Some(token) };
        let cannot = |error| Finding::new("admin.address", format!("cannot listen on {}: {error}", settings.address));
        edge::probe(settings.address).map_err(cannot)?;
        let socket = edge::bind(settings.address, 128, true).map_err(cannot)?;
        let socket = tokio::net::TcpListener::from_std(socket).map_err(cannot)?;
        let address = socket.local_addr().map_err(cannot)?;
        let listener = model::Listener::plain(settings.address);
        let service = edge::Service {
            settings: Arc::new(ArcSwap::from_pointee(edge::Settings::new("admin", &listener, None))),
            handler: Self { shared: shared.clone(), token: Arc::new(Mutex::new(token)) },
            limits: edge::ConnectionLimits::new(CONNECTIONS, CONNECTIONS),
            counters: Arc::default(),
            drain: Drain::new(),
        };
        tokio::task::spawn_local(edge::serve(socket, service));
        Ok(format!("http://{address}"))
    }

    fn health(&self, path: &str) -> Response {
        let failing = if path == "/livez" { Vec::new() } else { status::not_ready(&self.shared) };
        if failing.is_empty() {
            return text(StatusCode::OK, "ok\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", failing.join("\n")))
    }

    /// Whether the request may see `path`.
    fn allowed(&self, request: &Request) -> bool {
        let generation = self.shared.generation();
        let open = generation.config().admin.as_ref().is_some_and(|admin| admin.access == model::AdminAccess::Open);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        (open && reads) || self.shows_token(&generation, request.headers())
    }

    /// Whether a request shows the token of `generation`, which is read once a generation.
    fn shows_token(&self, generation: &Generation, headers: &HeaderMap) -> bool {
        let mut shown = self.token.lock();
        // A configuration without `[admin]` closes this listener only at the next start.
        if let Some(settings) = &generation.config().admin
            && shown.generation != generation.number
        {
            let token = Token::open(settings, &self.shared.state);
            let token = token.inspect_err(|error| tracing::error!(error, "the admin token cannot be read"));
            *shown = Shown { generation: generation.number, token: token.ok() };
        }
        shown.token.as_ref().is_some_and(|token| token.is_shown(headers))
    }

    fn is_our_name(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let generation = self.shared.current.load();
        let named = generation.as_ref().and_then(|generation| generation.config().admin.as_ref());
        bare.parse::<std::net::IpAddr>().is_ok()
            || host == "localhost"
            || named.is_some_and(|admin| admin.hosts.iter().any(|name| name.eq_ignore_ascii_case(host)))
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request) -> Response {
        let host = Context::of(&request).map(|context| context.authority.host.clone());
        if !host.is_some_and(|host| self.is_our_name(&host)) {
            let detail = "this listener is not known by that name";
            return answer::problem(StatusCode::MISDIRECTED_REQUEST, "Misdirected request", detail);
        }
        let path = request.uri().path().to_owned();
        if matches!(path.as_str(), "/livez" | "/readyz") {
            return self.health(&path);
        }
        if self.shared.current.load().is_none() {
            return answer::problem(StatusCode::SERVICE_UNAVAILABLE, "Starting", "the gateway does not serve yet");
        }
        if !self.allowed(&request) {
            let detail = if request.headers().contains_key(header::AUTHORIZATION) {
                "that is not the admin token"
            } else {
                "show the admin token: `Authorization: Bearer`, and what `admin.token` in the state directory holds"
            };
            let mut refused = answer::problem(StatusCode::UNAUTHORIZED, "Unauthorized", detail);
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refused;
        }
        if let Some(rest) = path.strip_prefix("/pools/") {
            return pools::answer(&self.shared, &request, rest);
        }
        match (path.as_str(), request.method()) {
            ("/status", &Method::GET | &Method::HEAD) => json(StatusCode::OK, &status::status(&self.shared)),
            ("/metrics", &Method::GET | &Method::HEAD) => {
                let mut response = text(StatusCode::OK, &metrics::render(&self.shared));
                let content_type = HeaderValue::from_static(exposition::CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                response
            }
            ("/reload", &Method::POST) => self.reload().await,
            ("/status" | "/metrics", _) => not_allowed("GET, HEAD"),
            ("/reload", _) => not_allowed("POST"),
            _ => answer::problem(StatusCode::NOT_FOUND, "Not found", "there is no such thing here"),
        }
    }
}

impl Admin {
    async fn reload(&self) -> Response {
        tracing::info!("reload asked for by the admin listener");
        match self.shared.reload("admin listener").await {
            Ok(summary) => json(StatusCode::OK, &json!(summary)),
            Err(report) => {
                let problems: Vec<String> = report.problems().iter().map(ToString::to_string).collect();
                let mut extra = serde_json::Map::new();
                extra.insert("problems".into(), json!(problems));
                let detail = "nothing was changed; the old configuration serves on";
                answer::problem_with(StatusCode::UNPROCESSABLE_ENTITY, "Configuration refused", detail, extra)
            }
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response {
    let mut response = Response::new(Body::full(body.to_owned()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = text(status, &format!("{body:#}\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn not_allowed(allow: &'static str) -> Response {
    let detail = format!("ask with {allow}");
    let mut response = answer::problem(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", &detail);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Whether the gateway is on its way out.
fn is_draining(shared: &Shared) -> bool {
    shared.draining.load(Ordering::Relaxed)
}
