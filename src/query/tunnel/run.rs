//! A tunnel's life, from the upgrade to the close.

use std::{
    future::{Future, pending, poll_fn},
    pin::Pin,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};

use super::{
    Admitted, Gate, Surroundings,
    cancel::{Asker, Known},
    frames::Close,
    greet::{self, Farewell, Greeted},
    pipe::{Event, Pipe, close_for},
    socket::Socket,
    wire::{self, Severity},
};
use crate::{
    access::{Ended as Revocation, Identity},
    backend::{Session, Term},
    edge::Tunnels,
    query::words::words,
};

/// How a tunnel ended: a word for the log.
type Ended = &'static str;

/// Why a tunnel is ended from our side: SQLSTATE, text, close code and word.
type End = (&'static str, &'static str, Close, Ended);

const DRAINED: End = ("57P01", "terminating connection: the gateway is shutting down", Close::Away, "drained");
const REVOKED: End = ("57P01", "terminating connection: access was revoked", Close::Policy, "revoked");
const EXPIRED: End = ("57P01", "terminating connection: access has expired", Close::Policy, "expired");
const OLD: End = ("57P01", "terminating connection: the tunnel has reached its lifetime", Close::Away, "lifetime");
const IDLE: End = ("57P05", "terminating connection due to idle tunnel timeout", Close::Away, "idle");
const HELD: End =
    ("57P01", "terminating connection: the database connection was held for too long", Close::Policy, "held");

/// Serves one client to the end. Bytes from and to the client are counted in what it returns.
pub(super) async fn serve<S, G>(stream: S, gate: G, around: &Surroundings) -> (Ended, (u64, u64))
where
    S: AsyncRead + AsyncWrite + Unpin,
    G: Gate,
{
    let mut socket = Socket::new(stream);
    let begun = Instant::now();
    let greeted = tokio::select! {
        biased;
        () = around.tunnels.closing() => Err(Farewell::Refused(Close::Away)),
        greeted = greet::greet(&mut socket, &gate, around) => greeted,
    };
    // With it goes the generation that the client came in by.
    drop(gate);
    match greeted {
        Ok(greeted) => live(socket, greeted, begun, around).await,
        Err(farewell) => {
            let (ended, close) = match farewell {
                Farewell::Gone(gone) => ("gone", close_for(&gone)),
                Farewell::Cancel(key) => {
                    let found = around.sessions.cancel(key).await;
                    (if found { "cancel" } else { "cancel_unknown" }, Some(Close::Normal))
                }
                Farewell::Refused(close) => ("refused", Some(close)),
            };
            let moved = socket.moved;
            finish(socket, close).await;
            (ended, moved)
        }
    }
}

/// A cancel request on its way; whether it is known to have come.
type Cancelling = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What happens next.
enum Next {
    Pipe(Event),
    /// Somebody asks to cancel what runs, and waits until that is done.
    Asked(Asker),
    Cancelled(bool),
    End(End),
    /// Time to look at the clocks.
    Clock,
}

async fn live<S: AsyncRead + AsyncWrite + Unpin>(
    socket: Socket<S>,
    greeted: Greeted,
    begun: Instant,
    around: &Surroundings,
) -> (Ended, (u64, u64)) {
    let Greeted { admitted, wishes, session, mut known } = greeted;
    let mut pipe = Pipe::new(socket, session);
    let mut cancelling: Option<Cancelling> = None;
    let mut askers = Vec::new();
    let mut told = std::pin::pin!(told_to_end(&around.tunnels, &admitted));
    let mut alarm = std::pin::pin!(sleep_until(begun));
    let (ended, close) = loop {
        alarm.as_mut().reset(next_alarm(&pipe, begun, around));
        let next = tokio::select! {
            biased;
            end = &mut told => Next::End(end),
            () = &mut alarm => Next::Clock,
            asker = known.asked() => Next::Asked(asker),
            known = cancelled(&mut cancelling) => Next::Cancelled(known),
            event = poll_fn(|cx| pipe.poll(cx)) => Next::Pipe(event),
        };
        match next {
            Next::Asked(asker) => {
                if let Some(session) = pipe.session.as_mut().filter(|session| session.is_busy()) {
                    cancelling.get_or_insert_with(|| Box::pin(session.cancel()));
                    askers.push(asker);
                }
            }
            Next::Cancelled(known) => {
                cancelling = None;
                askers.clear();
                pipe.session.iter_mut().for_each(|session| session.cancelled(known));
            }
            Next::Clock => {
                if let Some(end) = overdue(&mut pipe, begun, around) {
                    break say(&mut pipe, end);
                }
            }
            Next::End(end) => break say(&mut pipe, end),
            Next::Pipe(Event::Settled) => pipe.session = None,
            Next::Pipe(Event::Wanted) => {
                let open = open(&mut pipe, &admitted, &wishes, &mut known, around);
                tokio::select! {
                    biased;
                    end = &mut told => break say(&mut pipe, end),
                    opened = open => if let Err(event) = opened { break over(&mut pipe, event) },
                }
            }
            Next::Pipe(event) => break over(&mut pipe, event),
        }
    };
    if let (Some(cancelling), Some(session)) = (cancelling, &mut pipe.session) {
        // Or its signal could come when somebody else has the connection.
        let known = cancelling.await;
        session.cancelled(known);
    }
    let Pipe { socket, session, .. } = pipe;
    drop((session, known));
    let moved = socket.moved;
    finish(socket, close).await;
    (ended, moved)
}

/// Takes a connection for a transaction, while the client may go. That there is none is told to the client.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    admitted: &Admitted,
    wishes: &[(String, String)],
    known: &mut Known,
    around: &Surroundings,
) -> Result<(), Event> {
    let deadline = Instant::now() + around.patience;
    let opening = admitted.database.session(wishes, Term::Transaction, deadline, admitted.holder(&around.holder));
    let opened = tokio::select! {
        opened = opening => opened,
        _asker = known.asked() => {
            return pipe.refuse("57014".into(), "canceling statement due to user request".to_owned());
        }
        gone = pipe.socket.gone() => return Err(Event::Gone(gone)),
    };
    match opened {
        Ok(session) => pipe.lend(session),
        Err(error) => {
            let (code, text) = words(&error, &admitted.wanted);
            pipe.refuse(code, text)?;
        }
    }
    Ok(())
}

async fn cancelled(cancelling: &mut Option<Cancelling>) -> bool {
    match cancelling {
        Some(cancelling) => cancelling.await,
        None => pending().await,
    }
}

/// Completes when the tunnel is to end, whatever goes on in it.
async fn told_to_end(tunnels: &Tunnels, admitted: &Admitted) -> End {
    tokio::select! {
        biased;
        () = tunnels.closing() => DRAINED,
        ended = Identity::end_of(admitted.identity.as_ref()) => match ended {
            Revocation::Revoked => REVOKED,
            Revocation::Expired => EXPIRED,
        },
    }
}

// --- clocks ---

fn next_alarm<S: AsyncRead + AsyncWrite + Unpin>(pipe: &Pipe<S>, begun: Instant, around: &Surroundings) -> Instant {
    let held = pipe.session.as_ref().and_then(Session::ends);
    let old = (!around.lifetime.is_zero()).then(|| begun + around.lifetime);
    [held, old].into_iter().flatten().fold(pipe.last + around.idle, Instant::min)
}

fn overdue<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    begun: Instant,
    around: &Surroundings,
) -> Option<End> {
    let now = Instant::now();
    if let Some(session) = pipe.session.as_mut().filter(|session| session.ends().is_some_and(|end| now >= end)) {
        session.overheld();
        return Some(HELD);
    }
    if !around.lifetime.is_zero() && now >= begun + around.lifetime {
        return Some(OLD);
    }
    (now >= pipe.last + around.idle).then_some(IDLE)
}

// --- the end ---

/// Says why we end it, where that does not fall into the middle of something else.
fn say<S: AsyncRead + AsyncWrite + Unpin>(pipe: &mut Pipe<S>, end: End) -> (Ended, Option<Close>) {
    let (code, text, close, ended) = end;
    pipe.last_words(code, text);
    (ended, Some(close))
}

fn over<S: AsyncRead + AsyncWrite + Unpin>(pipe: &mut Pipe<S>, event: Event) -> (Ended, Option<Close>) {
    match event {
        Event::Goodbye => ("closed", Some(Close::Normal)),
        Event::Gone(gone) => {
            gone.tell();
            ("gone", close_for(&gone))
        }
        Event::Breach(text) => {
            pipe.last_words("08P01", text);
            ("breach", Some(Close::Policy))
        }
        Event::Refused(code, text) => {
            pipe.last_words(&code, &text);
            ("refused", Some(Close::Failed))
        }
        Event::Lost(error) => {
            tracing::debug!(%error, "a tunnel's database connection is lost");
            if !pipe.session.as_ref().is_some_and(Session::is_over) {
                pipe.last_words("08006", "the connection to the database was lost");
            }
            ("lost", Some(Close::Failed))
        }
        // Neither ends a tunnel.
        Event::Wanted | Event::Settled => ("closed", None),
    }
}

async fn finish<S: AsyncRead + AsyncWrite + Unpin>(socket: Socket<S>, close: Option<Close>) {
    if let Some(close) = close {
        socket.close(close).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pipe<S> {
    fn last_words(&mut self, code: &str, text: &str) {
        if self.session.as_ref().is_none_or(|session| !session.is_in_a_message()) {
            wire::error(Severity::Fatal, code, text, self.socket.tell());
        }
    }
}
