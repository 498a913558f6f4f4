//! Forwarding HTTP to upstream services.
//!
//! An [`Upstream`] is one `[upstream.NAME]`: its endpoints, the connections open to them, and the queue in front. It is shared
//! by all workers and outlives generations. [`forward`] takes a request through it: checkout of a connection, exchange over
//! HTTP/1.1, and an answer whose body streams as the client reads it; the connection goes back when the body is over. Nothing
//! is buffered in either direction. A WebSocket becomes a tunnel, registered in [`Tunnels`], which holds only what it needs:
//! it survives any reload, and ends when its consumer's key is revoked.
//!
//! # Connections
//!
//! A worker keeps the connections it opened on a stack of its own, newest first. `max_connections` counts all that are open,
//! from before the dial until the server, too, has closed; at the cap a request takes an idle connection of another worker,
//! else it waits its turn in a bounded queue. A request with a body asks for one when the first piece of the body has come. An
//! answer that is cut short costs its connection.
//!
//! # When things go wrong
//!
//! | what happens | answer | tried again |
//! |---|---|---|
//! | queue full, no connection within `queue_timeout` | 503, `Retry-After: 1` | no |
//! | connect refused, reset, TLS failed | 502 | on each other endpoint |
//! | connect slower than `connect_timeout` | 504 | on other endpoints, within three times `connect_timeout` |
//! | a kept connection dies before the first byte of the answer | 502 | once, on a fresh connection, if the request was not sent, or is idempotent and has no body |
//! | a fresh connection dies, or the answer is not HTTP | 502 | no |
//! | the upstream stops taking the request for `send_timeout`, or is silent for `read_timeout` | 504, or a cut answer | no |
//! | the client's body fails | its own status | no |
//!
//! An endpoint that cannot be reached, or dies or babbles on a fresh connection, is passed over for `fail_timeout` while
//! another is left. Slowness does not count: one slow page would take the endpoint away from all others. [`Outcome`] has a
//! word for the log for each of these.
//!
//! # What is changed on the way
//!
//! Hop-by-hop fields go in both directions; the key of an authenticated consumer goes, as it is the gateway's secret; `X-Forwarded-*` and `Forwarded` are written; framing is made anew; nothing is said
//! about `Via`, and `Location` is not touched. `Expect: 100-continue` is not passed on: the edge answers it when the body is
//! wanted, which is before there is a connection. Interim answers (1xx) of the upstream are dropped.
//!
//! Left out: HTTP/2 to upstreams, active health checks, weights, sticky sessions, caching.

mod body;
mod checkout;
mod connection;
mod dial;
mod endpoint;
mod exchange;
mod failure;
mod fields;
mod forwarded;
mod gate;
mod idle;
mod lease;
mod message;
mod spare;
mod splice;
#[cfg(test)]
mod tests;
mod tunnel;
mod upstream;

use std::{net::IpAddr, sync::Arc};

pub use body::AnswerError;
pub use exchange::forward;
pub use failure::Outcome;
pub use upstream::{EndpointStatus, Upstream, UpstreamError, UpstreamStatus};

use crate::{
    access::Identity,
    edge::{Context, Tunnels},
};

/// What [`forward`] needs to know about a request beyond the request.
#[derive(Clone, Debug)]
pub struct Forward<'a> {
    /// How the request came: its socket's other end is appended to `X-Forwarded-For`.
    pub context: &'a Context,
    /// The client's address, as found behind trusted proxies.
    pub client: IpAddr,
    /// Whether that other end is a proxy that is believed about those before it.
    pub trusted: bool,
    /// Taken off the front of the path, on a segment boundary.
    pub strip_prefix: Option<&'a str>,
    /// Who calls: the key is taken out of the request, and a tunnel ends when it is revoked or expires.
    pub identity: Option<Identity>,
    /// Where a tunnel is registered.
    pub tunnels: &'a Arc<Tunnels>,
}

impl Forward<'_> {
    /// The scheme the client spoke.
    fn scheme(&self) -> &'static str {
        if self.context.peer.tls.is_some() { "https" } else { "http" }
    }
}
