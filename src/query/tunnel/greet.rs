//! From the first packet to `ReadyForQuery`: who is there, what is wanted, and a session.
//!
//! A client may send its start-up, its password and its first query at once, and read nothing before: what is not read here
//! stays where it is for the session.

use std::future::poll_fn;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Duration, Instant, timeout_at},
};

use super::{
    Admitted, Gate, Proof, Surroundings, TurnedAway, Wish,
    cancel::Known,
    frames::Close,
    socket::{Gone, Socket},
    startup::{self, First, Key, Refused, Startup},
    wire::{self, Severity},
};
use crate::{
    access::NotProved,
    backend::{BackendError, Session, Term},
    config::model::{TunnelAuth, TunnelMode},
    query::Wanted,
};

/// From the upgrade to the password.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest message that holds a secret; a token is the longest of them.
const LONGEST_SECRET: usize = 16 << 10;

/// Requests for encryption, one of each kind as PostgreSQL takes them.
const MOST_PRELUDES: u32 = 2;

/// A session that has begun.
pub(super) struct Greeted {
    pub(super) admitted: Admitted,
    pub(super) wishes: Vec<(String, String)>,
    /// The connection, of a session that keeps it.
    pub(super) session: Option<Session>,
    pub(super) known: Known,
}

/// Why none has.
#[derive(Debug)]
pub(super) enum Farewell {
    /// The client went.
    Gone(Gone),
    /// It was a cancel request.
    Cancel(Key),
    /// It was told why.
    Refused(Close),
}

pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    gate: &impl Gate,
    around: &Surroundings,
) -> Result<Greeted, Farewell> {
    let until = Instant::now() + PATIENCE;
    let authenticating = timeout_at(until, authenticate(socket, gate));
    let late = || TurnedAway::new("57014", "canceling authentication due to timeout");
    let (admitted, startup) = match authenticating.await {
        Ok(Ok(entered)) => entered,
        Ok(Err(Stop::Farewell(farewell))) => return Err(farewell),
        Ok(Err(Stop::Turned(turned))) => return Err(refuse(socket, &turned)),
        Err(_) => return Err(refuse(socket, &late())),
    };
    let wishes = startup::wishes(startup.settings).map_err(TurnedAway::from);
    let wishes = wishes.map_err(|turned| refuse(socket, &turned))?;
    let full = || TurnedAway::new("53300", "sorry, too many tunnels already");
    let known = around.sessions.enter().ok_or_else(|| refuse(socket, &full()))?;
    let term = match admitted.mode {
        TunnelMode::Session => Term::Lasting,
        _ => Term::Transaction,
    };
    let deadline = Instant::now() + around.patience;
    let beginning = admitted.database.session(&wishes, term, deadline, admitted.holder(&around.holder));
    let session = tokio::select! {
        begun = beginning => begun.map_err(|error| cannot_begin(socket, &error, &admitted.wanted))?,
        gone = socket.gone() => return Err(Farewell::Gone(gone)),
    };
    let out = socket.tell();
    session.parameters().for_each(|(name, value)| wire::parameter(name, value, out));
    wire::key(known.key(), out);
    wire::ready(out);
    let session = (term == Term::Lasting).then_some(session);
    Ok(Greeted { admitted, wishes, session, known })
}

/// Why authentication stops.
enum Stop {
    Farewell(Farewell),
    Turned(TurnedAway),
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    gate: &impl Gate,
) -> Result<(Admitted, Startup), Stop> {
    let startup = begin(socket).await?;
    if startup.minor > 0 || !startup.unknown.is_empty() {
        wire::negotiate(&startup.unknown, socket.tell());
    }
    let wish = Wish { user: &startup.user, database: startup.database.as_deref().unwrap_or(&startup.user) };
    let admitted = match gate.way() {
        TunnelAuth::Password => {
            wire::ask_password(socket.tell());
            flush(socket).await?;
            let secret = password(socket).await?;
            gate.admit(&wish, Proof::Secret(&secret))?
        }
        TunnelAuth::Scram => {
            let proved = scram(socket, gate, &startup.user).await?;
            gate.admit(&wish, Proof::Scram(proved))?
        }
    };
    wire::authenticated(socket.tell());
    Ok((admitted, startup))
}

async fn begin<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<Startup, Stop> {
    let mut preludes = 0;
    loop {
        let Some((first, length)) = startup::parse(&socket.said)? else {
            hear(socket).await?;
            continue;
        };
        let _ = socket.said.split_to(length);
        match first {
            First::Start(startup) => return Ok(startup),
            First::Cancel(key) => return Err(Stop::Farewell(Farewell::Cancel(key))),
            First::Encryption if preludes < MOST_PRELUDES => {
                preludes += 1;
                socket.tell().extend_from_slice(b"N");
                flush(socket).await?;
            }
            First::Encryption => return Err(TurnedAway::new("08P01", "no encryption is to be had here").into()),
        }
    }
}

/// Has the client prove who it is.
async fn scram<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    gate: &impl Gate,
    user: &str,
) -> Result<Result<(), NotProved>, Stop> {
    wire::ask_scram(socket.tell());
    flush(socket).await?;
    let first = secret_message(socket).await?;
    let first = first.strip_prefix(b"SCRAM-SHA-256\0").and_then(|rest| rest.get(4..)).map(std::str::from_utf8);
    let Some(Ok(first)) = first else {
        return Err(TurnedAway::new("08P01", "client selected an invalid SASL authentication mechanism").into());
    };
    let Ok((exchange, answer)) = gate.challenge(user, first) else {
        return Err(TurnedAway::new("08P01", "malformed SCRAM message").into());
    };
    wire::scram_continues(&answer, socket.tell());
    flush(socket).await?;
    let last = secret_message(socket).await?;
    let proved = std::str::from_utf8(&last).map_err(|_| NotProved).and_then(|last| exchange.finish(last));
    Ok(proved.map(|answer| wire::scram_ends(&answer, socket.tell())))
}

/// The secret in a `PasswordMessage`.
async fn password<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<Vec<u8>, Stop> {
    let body = secret_message(socket).await?;
    match body.strip_suffix(&[0]) {
        Some(secret) if !secret.contains(&0) => Ok(secret.to_vec()),
        _ => Err(TurnedAway::new("08P01", "invalid password packet size").into()),
    }
}

/// The body of a message of type `p`.
async fn secret_message<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<Vec<u8>, Stop> {
    loop {
        if let Some((tag, rest)) = socket.said.split_first() {
            if *tag != b'p' {
                return Err(TurnedAway::new("08P01", "expected password response").into());
            }
            if let Some(length) = rest.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if !(4..=LONGEST_SECRET).contains(&length) {
                    return Err(TurnedAway::new("08P01", "invalid password packet size").into());
                }
                if rest.len() >= length {
                    let message = socket.said.split_to(length + 1);
                    return Ok(message[5..].to_vec());
                }
            }
        }
        hear(socket).await?;
    }
}

async fn hear<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<(), Stop> {
    poll_fn(|cx| socket.poll_hear(cx)).await.map_err(|gone| Stop::Farewell(Farewell::Gone(gone)))
}

async fn flush<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<(), Stop> {
    poll_fn(|cx| socket.poll_write(cx)).await.map_err(|gone| Stop::Farewell(Farewell::Gone(gone)))
}

fn refuse<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>, turned: &TurnedAway) -> Farewell {
    wire::error(Severity::Fatal, &turned.code, &turned.message, socket.tell());
    Farewell::Refused(if turned.later { Close::Failed } else { Close::Policy })
}

fn cannot_begin<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    error: &BackendError,
    wanted: &Wanted,
) -> Farewell {
    match error {
        BackendError::Database(error) => {
            wire::database_error(error, socket.tell());
            Farewell::Refused(Close::Failed)
        }
        error => refuse(socket, &TurnedAway::of(error, wanted)),
    }
}

impl From<TurnedAway> for Stop {
    fn from(turned: TurnedAway) -> Self {
        Self::Turned(turned)
    }
}

impl From<Refused> for TurnedAway {
    fn from(Refused(code, message): Refused) -> Self {
        Self::new(code, message)
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Turned(refused.into())
    }
}
