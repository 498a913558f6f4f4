//! A tunnel's life, from the upgrade to the close.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
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

/// How a tunnel ended, and how its WebSocket is closed; none: not at all.
type Last = (Ended, Option<Close>);

async fn live<S: AsyncRead + AsyncWrite + Unpin>(
    socket: Socket<S>,
    greeted: Greeted,
    begun: Instant,
    around: &Surroundings,
) -> (Ended, (u64, u64)) {
    let Greeted { admitted, wishes, session, known } = greeted;
    let mut told = pin!(told_to_end(&around.tunnels, &admitted));
    let mut alarm = pin!(sleep_until(begun));
    let mut life = Life {
        pipe: Pipe::new(socket, session),
        known,
        cancelling: None,
        askers: Vec::new(),
        begun,
        admitted: &admitted,
        wishes: &wishes,
        around,
    };
    let (ended, close) = loop {
        alarm.as_mut().reset(life.next_alarm());
        let next = life.next(told.as_mut(), alarm.as_mut()).await;
        if let Some(last) = life.step(next, told.as_mut()).await {
            break last;
        }
    };
    let Life { pipe: Pipe { socket, mut session, .. }, known, cancelling, .. } = life;
    if let (Some(cancelling), Some(session)) = (cancelling, &mut session) {
        // Or its signal could come when somebody else has the connection.
        let known = cancelling.await;
        session.cancelled(known);
    }
    drop((session, known));
    let moved = socket.moved;
    finish(socket, close).await;
    (ended, moved)
}

/// A tunnel whose client has come in.
struct Life<'a, S> {
    pipe: Pipe<S>,
    known: Known,
    cancelling: Option<Cancelling>,
    /// Those who wait until it is cancelled.
    askers: Vec<Asker>,
    begun: Instant,
    admitted: &'a Admitted,
    wishes: &'a [(String, String)],
    around: &'a Surroundings,
}

// === impl Life ===

impl<S: AsyncRead + AsyncWrite + Unpin> Life<'_, S> {
    async fn next(&mut self, told: Pin<&mut impl Future<Output = End>>, alarm: Pin<&mut Sleep>) -> Next {
        let Self { pipe, known, cancelling, .. } = self;
        tokio::select! {
            biased;
            end = told => Next::End(end),
            () = alarm => Next::Clock,
            asker = known.asked() => Next::Asked(asker),
            known = cancelled(cancelling) => Next::Cancelled(known),
            event = poll_fn(|cx| pipe.poll(cx)) => Next::Pipe(event),
        }
    }

    /// Does what is to be done next. Some: that was the end.
    async fn step(&mut self, next: Next, told: Pin<&mut impl Future<Output = End>>) -> Option<Last> {
        match next {
            Next::Asked(asker) => self.cancel(asker),
            Next::Cancelled(known) => {
                self.cancelling = None;
                self.askers.clear();
                self.pipe.session.iter_mut().for_each(|session| session.cancelled(known));
            }
            Next::Clock => return self.overdue().map(|end| say(&mut self.pipe, end)),
            Next::End(end) => return Some(say(&mut self.pipe, end)),
            Next::Pipe(Event::Settled) => self.pipe.session = None,
            Next::Pipe(Event::Wanted) => {
                let opened = tokio::select! {
                    biased;
                    end = told => Err(end),
                    opened = self.open() => Ok(opened),
                };
                return match opened {
                    Ok(Ok(())) => None,
                    Ok(Err(event)) => Some(over(&mut self.pipe, event)),
                    Err(end) => Some(say(&mut self.pipe, end)),
                };
            }
            Next::Pipe(event) => return Some(over(&mut self.pipe, event)),
        }
        None
    }

    /// Has what runs cancelled, if anything does.
    fn cancel(&mut self, asker: Asker) {
        if let Some(session) = self.pipe.session.as_mut().filter(|session| session.is_busy()) {
            self.cancelling.get_or_insert_with(|| Box::pin(session.cancel()));
            self.askers.push(asker);
        }
    }

    /// Takes a connection for a transaction, while the client may go. That there is none is told to the client.
    async fn open(&mut self) -> Result<(), Event> {
        let Self { pipe, known, admitted, wishes, around, .. } = self;
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

    // --- clocks ---

    fn next_alarm(&self) -> Instant {
        let held = self.pipe.session.as_ref().and_then(Session::ends);
        let lifetime = self.around.lifetime;
        let old = (!lifetime.is_zero()).then(|| self.begun + lifetime);
        [held, old].into_iter().flatten().fold(self.pipe.last + self.around.idle, Instant::min)
    }

    fn overdue(&mut self) -> Option<End> {
        let now = Instant::now();
        let held = |session: &&mut Session| session.ends().is_some_and(|end| now >= end);
        if let Some(session) = self.pipe.session.as_mut().filter(held) {
            session.overheld();
            return Some(HELD);
        }
        let Surroundings { idle, lifetime, .. } = *self.around;
        if !lifetime.is_zero() && now >= self.begun + lifetime {
            return Some(OLD);
        }
        (now >= self.pipe.last + idle).then_some(IDLE)
    }
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

// --- the end ---

/// Says why we end it, where that does not fall into the middle of something else.
fn say<S: AsyncRead + AsyncWrite + Unpin>(pipe: &mut Pipe<S>, end: End) -> Last {
    let (code, text, close, ended) = end;
    pipe.last_words(code, text);
    (ended, Some(close))
}

fn over<S: AsyncRead + AsyncWrite + Unpin>(pipe: &mut Pipe<S>, event: Event) -> Last {
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
