//! From sockets to requests: the generic HTTP server.
//!
//! [`serve`] accepts on one socket and hands each request to a [`Handler`], over HTTP/1.1 or HTTP/2, in the clear or under
//! TLS. It runs on a `LocalRuntime` (or in a `LocalSet`); a worker has one such loop for each listener. What the handler sees is the same whatever
//! came over the wire: the target is a normalised path ([`normalise`]), `Host` is there, [`Context`] in the extensions says
//! who asked for what, and there is exactly one way to read where the body ends.
//!
//! What a connection may cost is bounded: its number ([`ConnectionLimits`]), the size and count of its headers, its streams
//! and windows, and its time. Deadlines are for progress, not for completion: a large upload may take an hour as long as it
//! moves. One timer a connection watches them (`deadline`), and one for each HTTP/2 answer that stalls (`streams`). A client that
//! keeps asking and giving up is asked to leave.
//!
//! Where clients show certificates, a connection is held to what it was opened with: the name that it asked for, and a certificate
//! that is not over and that today's authorities sign. That is asked before each request, so that a certificate which ends, or an
//! authority that is taken out, ends what was opened by it.
//!
//! What the edge refuses by itself, the handler is told of, for its log.
//!
//! When things go wrong: what is malformed is answered with 400 and the connection closed, when where the next request
//! begins is in doubt; nothing a client sends can panic or stop the accept loop. A handler's future is dropped when its client
//! leaves. Errors in an answer's body cut it short, so that a client never takes half for the whole. When the process runs out
//! of file descriptors, accepting pauses and goes on.
//!
//! A [`Drain`] lets connections finish: HTTP/1 after its current request, HTTP/2 with two GOAWAYs. Upgraded connections belong
//! to whoever took them over, and hold up the drain until they are dropped.
//!
//! Left out: PROXY protocol, HTTP/3, CONNECT (405), upgrades to h2c (prior knowledge works on a plain listener).
//!
//! Message framing is hyper's, and strict: a request with both `Transfer-Encoding` and `Content-Length` is read by the former,
//! loses the latter, and is the last on its connection (RFC 9112, section 6.1).

mod accept;
mod address;
mod admit;
mod authority;
mod bind;
mod body;
mod connection;
mod counters;
mod deadline;
mod drain;
mod farewell;
mod gather;
mod io;
mod keeper;
mod limits;
mod pace;
mod request_body;
mod service;
mod settings;
mod streams;
#[cfg(test)]
mod tests;
mod tunnels;
mod upgrade;
mod watch;

pub mod answer;
pub mod normalise;

use std::{net::SocketAddr, sync::Arc};

use http::{request::Parts, uri::PathAndQuery};

pub use accept::{Service, serve};
pub use address::client_ip;
pub use answer::{Shape, https_redirect, problem, problem_with};
pub use authority::Authority;
pub use bind::{bind, listen, probe, raise_file_limit, reserve};
pub use body::{Body, BodySender, BoxError, Gone};
pub use counters::{EdgeCounters, EdgeFigures};
pub use drain::{Drain, Hold};
pub use limits::{ConnectionLimits, Permit, Refused};
pub use request_body::{BodyError, RequestBody};
pub use settings::Settings;
pub use tunnels::{Entered, Tunnels};
pub use upgrade::{HANDOVER, has_token, tokens, wants_websocket};

pub use crate::net::TlsInfo;

/// A request as handlers see it. Its target is an absolute path with its query (or `*`, for OPTIONS alone); [`Context`] is
/// in its extensions, and for an HTTP/1 upgrade hyper's `OnUpgrade`.
pub type Request = http::Request<RequestBody>;

/// An answer.
pub type Response = http::Response<Body>;

/// Answers requests.
pub trait Handler: Clone + 'static {
    /// Answers one. The future is dropped when the client leaves before the answer has begun; the answer's body, when it
    /// leaves later. It runs on the worker that accepted the connection.
    fn handle(&self, request: Request) -> impl Future<Output = Response>;

    /// Is told of a request that the edge has answered by itself. For logs; by default nothing is done.
    fn refused(&self, _refusal: &Refusal<'_>) {}
}

/// A request that never reached the handler.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// Its head, as far as it was brought into form.
    pub head: &'a Parts,
    /// The connection.
    pub peer: &'a Arc<Peer>,
    /// Why, in a word.
    pub reason: &'static str,
    /// What it was answered.
    pub response: &'a Response,
}

impl<F, A> Handler for F
where
    F: Fn(Request) -> A + Clone + 'static,
    A: Future<Output = Response>,
{
    fn handle(&self, request: Request) -> impl Future<Output = Response> {
        self(request)
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's end of the socket; not the client, where a proxy stands before us ([`client_ip`]).
    pub socket: SocketAddr,
    /// Our end of it.
    pub local: SocketAddr,
    /// What TLS agreed on; none in the clear.
    pub tls: Option<Arc<TlsInfo>>,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The listener's drain, for those who take over upgraded connections.
    pub drain: Drain,
}

/// What the edge knows of a request beyond HTTP: one value in its extensions.
#[derive(Clone, Debug)]
pub struct Context {
    /// The connection.
    pub peer: Arc<Peer>,
    /// Whom the request is addressed to.
    pub authority: Authority,
    /// What is odd about its path.
    pub path: PathFlags,
    /// The target as the client wrote it, where normalising changed it. For logs only.
    pub original: Option<PathAndQuery>,
}

/// What is odd about a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathFlags {
    /// It holds an encoded slash, backslash or NUL, or a bare backslash. Answer 400 unless the route allows it.
    pub encoded_separator: bool,
    /// A segment has parameters (`;…`), which some servers cut off before they look where a path leads.
    pub parameters: bool,
}

impl Context {
    /// The context of a request that came through this room.
    pub fn of<B>(request: &http::Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// A context for tests of handlers: a plain connection between two loopback ports.
    pub fn for_host(authority: Authority) -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let peer = Peer {
            socket: loopback(40_000),
            local: loopback(80),
            tls: None,
            listener: "test".into(),
            drain: Drain::new(),
        };
        Self { peer: Arc::new(peer), authority, path: PathFlags::default(), original: None }
    }
}
