//! The tunnel of the `neon` dialect: PostgreSQL's wire protocol (version 3) in binary WebSocket frames.
//!
//! A client speaks to the gateway as to a server. The gateway authenticates it by a key or a token that it sends as its password;
//! the database's own authentication is between the gateway and the database, over a connection of the pool. Then messages pass as
//! they are. In `session` mode a tunnel has one connection for its life: `LISTEN`, `COPY`, prepared statements, temporary tables.
//! In `transaction` mode it takes one when a transaction begins and gives it back when that ends.
//!
//! A client may send start-up, password and first query at once. Frames mean nothing: they may be of any length and hold parts of
//! messages. Encryption within the tunnel is refused (`N`), as it has its own.
//!
//! **When things go wrong.** Whatever can be said of the HTTP request is said by its status. Behind that, errors are PostgreSQL's:
//! 28P01 for a secret that does not open, 53300 where no connection is to be had, 57P01 when access is revoked, the gateway
//! stops or the tunnel has lived for long enough, 57P05 when nobody says anything. Then the WebSocket is closed: 1000 after a
//! goodbye, 1001, 1002 and 1003 for what a WebSocket client got wrong, 1008 where it may not, 1011 when the database has gone. A
//! client that leaves in the middle of a statement has it cancelled.
//!
//! **What is bounded.** What either side has said and the other has not taken, by 64 KiB in each direction and stage, so that a
//! client who does not read stops its database; unanswered messages, by 4,096; start-up, secret and control frames by their
//! length; the time of each stage.
//!
//! A cancel request comes on a tunnel of its own, and finds the session by a key that is ours, at this gateway alone.
//!
//! **Left out**: replication, encryption within the tunnel, `permessage-deflate`, WebSockets over HTTP/2 (RFC 8441).

mod address;
mod cancel;
mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzzed;
mod greet;
mod handshake;
mod pipe;
mod run;
mod socket;
mod startup;
mod statements;
mod transaction;
mod wire;

use std::{borrow::Cow, sync::Arc};

use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Duration, timeout};

use super::{Wanted, cors, problem::Problem, words::words};
use crate::{
    access::{Exchange, Identity, NotProved},
    backend::{BackendError, Database},
    config::model::{Cors, Query, TunnelAuth, TunnelMode},
    edge::{Context, HANDOVER, Request, Response, Tunnels},
    pool::{Asked, Holder},
};

pub use cancel::Sessions;

/// Lets clients of tunnels in. Asked once a tunnel, after the upgrade.
pub trait Gate: Send + Sync + 'static {
    /// How a client is to show who it is.
    fn way(&self) -> TunnelAuth;

    /// Hears the first word of SCRAM for this user, and answers.
    ///
    /// # Errors
    /// It is none.
    fn challenge(&self, user: &str, first: &str) -> Result<(Exchange, String), NotProved>;

    /// Whoever shows this.
    ///
    /// # Errors
    /// What it is told instead.
    fn admit(&self, wish: &Wish<'_>, proof: Proof<'_>) -> Result<Admitted, TurnedAway>;
}

/// What a client shows.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// A key or a token.
    Secret(&'a [u8]),
    /// It has proved by SCRAM that it is its user, or not.
    Scram(Result<(), NotProved>),
}

/// What a client says that it is and wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The user.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
}

/// A client that may come in.
#[derive(Clone)]
pub struct Admitted {
    /// Who it is, and for how long; none: anybody.
    pub identity: Option<Identity>,
    /// For how long it has a connection.
    pub mode: TunnelMode,
    /// Where it comes to.
    pub database: Database,
    /// What that is called.
    pub wanted: Wanted,
}

/// A client that may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// SQLSTATE.
    pub code: Cow<'static, str>,
    /// What it is told.
    pub message: String,
    /// Nothing is wrong with it, nor with what it wants: it may come in another time.
    pub later: bool,
}

/// What a tunnel needs of the process and of its route.
pub struct Surroundings {
    /// All tunnels of the process, to be counted and ended with.
    pub tunnels: Arc<Tunnels>,
    /// Their sessions.
    pub sessions: Arc<Sessions>,
    /// For whom connections are held.
    pub holder: Holder,
    /// Longest wait for a connection.
    pub patience: Duration,
    /// Longest silence.
    pub idle: Duration,
    /// Longest life; zero: no bound.
    pub lifetime: Duration,
}

/// What a request for a tunnel is looked at by.
pub struct Opening<'a> {
    /// The route's `query`.
    pub settings: &'a Query,
    /// The route's `cors`.
    pub cors: Option<&'a Cors>,
    /// The connection that the request came on.
    pub context: &'a Context,
    /// Anyone may come in: nobody has a secret to show.
    pub open: bool,
    /// The other end of its socket is a proxy that is believed.
    pub trusted: bool,
}

// === impl Admitted ===

impl Admitted {
    /// For whom a connection is held.
    fn holder(&self, of: &Holder) -> Holder {
        let consumer = self.identity.as_ref().map(|identity| identity.consumer.name().clone());
        Holder { consumer, statement: Some(Asked(Arc::new("(in a tunnel)"))), ..of.clone() }
    }
}

// === impl TurnedAway ===

impl TurnedAway {
    /// With this SQLSTATE and text.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), later: false }
    }

    /// As there is no database for it.
    pub fn of(error: &BackendError, wanted: &Wanted) -> Self {
        let (code, message) = words(error, wanted);
        let never = matches!(
            error,
            BackendError::NoSuchDatabase
                | BackendError::NoSuchEndpoint
                | BackendError::NoRole
                | BackendError::Forbidden
                | BackendError::Unsupported(_)
        );
        Self { code, message, later: !never }
    }
}

/// Looks at a request for a tunnel, before it is one: which database it is for.
///
/// # Errors
/// The answer to a request that may not become one: from a page of another origin, to another address, with secrets in the clear.
pub fn check(request: &Request, opening: &Opening<'_>) -> Result<Wanted, Box<Response>> {
    let Opening { settings, context, .. } = opening;
    let secure = context.peer.tls.is_some();
    cors::check(request.headers(), &context.authority, secure, opening.cors)
        .and_then(|()| address::check(request.uri().query(), &context.authority, settings))
        .and_then(|wanted| {
            let hidden = secure || opening.open || settings.tunnel_auth == TunnelAuth::Scram;
            if hidden || is_near(request, opening) { Ok(wanted) } else { Err(in_the_clear()) }
        })
        .map_err(|problem| Box::new(problem.into_response()))
}

/// Nobody listens between a client on this machine and us; and a proxy that is believed says what stands before it.
fn is_near(request: &Request, opening: &Opening<'_>) -> bool {
    let said = request.headers().get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    opening.context.peer.socket.ip().to_canonical().is_loopback() && !opening.trusted || opening.trusted && said
}

fn in_the_clear() -> Problem {
    let detail = "a tunnel's password needs TLS: come by https";
    Problem::new(StatusCode::FORBIDDEN, "TLS needed", detail)
}

/// Makes a tunnel of `request`, which [`check`] has found to be allowed. The client is let in by `gate` when it is open.
///
/// # Errors
/// The answer to a request that cannot become a WebSocket.
pub fn open(mut request: Request, around: Surroundings, gate: impl Gate) -> Result<Response, Box<Response>> {
    let response = handshake::accept(&request).map_err(|problem| Box::new(problem.into_response()))?;
    let Some(client) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(Problem::bad_request("a WebSocket needs HTTP/1.1").into_response().into());
    };
    let entered = around.tunnels.enter();
    tokio::spawn(async move {
        // The count goes when the tunnel does.
        let _counted = entered;
        let Ok(Ok(client)) = timeout(HANDOVER, client).await else { return };
        let (ended, (received, sent)) = Box::pin(run::serve(TokioIo::new(client), gate, &around)).await;
        let (route, request) = (&*around.holder.route, around.holder.request);
        tracing::debug!(route, request, ended, received, sent, "tunnel ended");
    });
    Ok(response)
}
