//! A round trip to find out whether a connection lives.
//!
//! It may take the pool's limit, or half of what the caller has left, whichever is less. A caller that runs out of patience, or
//! goes away, does not cost a connection that may well live: the probe goes on without it, and the connection goes to
//! the next. One caller sees at most two probes fail; then all idle connections are closed unseen, since each would cost
//! somebody a timeout, and what comes next has just been made or has just proved itself.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::{
    backend::{Backend, FailureClass, Holder, Probe},
    breaker::Reason,
    record::Held,
    shell::Pool,
    tally::{Cause, Clamp},
    vet::{InHand, Patience},
};
use crate::{observe, policy::Verdict};

/// Failed probes after which a caller is spared the rest of the idle ones.
const MOST_BAD: u32 = 2;
/// A probe without an answer for so long tells against all idle connections. One for less tells of a caller in a hurry: on a
/// busy pool, such callers would else close many good connections.
const EVIDENCE: Duration = Duration::from_millis(100);
/// A connection that breaks unused within this was stillborn.
const INFANCY: Duration = Duration::from_secs(1);

/// A probe under way. Dropped before its end, it goes on in the background; but not when its worker stops.
struct Probing<B: Backend> {
    pool: Arc<Pool<B>>,
    trip: Option<Trip<B>>,
    begun: Instant,
    verdict: Verdict,
}

/// The connection, and what its probe came to.
type Trip<B> = Pin<Box<dyn Future<Output = (InHand<B>, Outcome)> + Send>>;
/// Why the connection is bad, if it is.
type Outcome = Result<(), String>;

impl<B: Backend> Pool<B> {
    /// The connection, if it proved good; else whose it was.
    pub(super) async fn probe(
        self: &Arc<Self>,
        held: Box<Held<B::Conn>>,
        probe: Probe,
        verdict: Verdict,
        patience: &mut Patience,
    ) -> Result<Box<Held<B::Conn>>, Holder> {
        let begun = patience.now;
        let share = patience.deadline.saturating_duration_since(begun) / 2;
        let seat = held.record.seat;
        let until = begun + self.probe_limit(verdict.timeout_ms);
        let trip = self.send(held, probe, until);
        let mut probing = Probing { pool: Arc::clone(self), trip: Some(trip), begun, verdict };
        let outcome = timeout_at(begun + share, &mut probing).await;
        patience.now = Instant::now();
        match outcome {
            Ok((in_hand, Ok(()))) => return Ok(self.approve(in_hand, begun, verdict)),
            Ok((in_hand, Err(error))) => {
                patience.bad += 1;
                return Err(self.condemn(in_hand, begun, verdict, patience.bad, &error));
            }
            Err(_) => patience.bad += 1,
        }
        // It goes on without the caller, who tries another, or gives up.
        let holder = self.state.lock().core.holder(seat);
        drop(probing);
        if patience.bad >= MOST_BAD {
            if share >= EVIDENCE {
                self.change(|state, now, todo| state.core.purge(now, todo));
            } else {
                patience.deadline = patience.now;
            }
        }
        Err(holder)
    }

    fn send(self: &Arc<Self>, held: Box<Held<B::Conn>>, probe: Probe, until: Instant) -> Trip<B> {
        let backend = self.backend.load_full();
        let mut in_hand = InHand::new(self, held);
        Box::pin(async move {
            let outcome = match timeout_at(until, backend.probe(&mut in_hand.held().conn, probe)).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            (in_hand, outcome)
        })
    }

    #[expect(clippy::unnecessary_box_returns, reason = "a connection travels boxed")]
    fn approve(&self, in_hand: InHand<B>, begun: Instant, verdict: Verdict) -> Box<Held<B::Conn>> {
        let now = Instant::now();
        self.state.lock().proved_good(now, now - begun);
        let mut held = in_hand.let_go();
        let record = &mut held.record;
        record.validated = now;
        record.valid_for = Duration::from_millis(verdict.valid_for_ms.into());
        record.failed_probes = 0;
        record.last_error = None;
        held
    }

    /// Closes a connection whose probe failed, and perhaps the idle ones with it. `bad`: how many its caller has met.
    fn condemn(
        self: &Arc<Self>,
        in_hand: InHand<B>,
        begun: Instant,
        verdict: Verdict,
        bad: u32,
        error: &str,
    ) -> Holder {
        let held = in_hand.let_go();
        debug!(pool = %self.name, connection = held.record.id, error, "connection proved bad");
        let now = Instant::now();
        self.mourn(&held, now);
        self.change_at(now, |state, now, todo| {
            let used = state.core.discard(now, held, Cause::Broken, todo);
            let may_purge = verdict.purge && state.may_purge(now);
            if verdict.purge && !may_purge {
                state.counters.clamped.count(Clamp::Purging);
            }
            state.proved_bad(now, now - begun, may_purge || bad >= MOST_BAD, todo);
            used.map(|used| used.holder).unwrap_or_default()
        })
    }

    /// A connection that breaks before its first use, and soon, counts as one that could not be made: a server that accepts
    /// and hangs up would else be asked again and again without a pause. Several that end together are one sign of it.
    pub(super) fn mourn(&self, held: &Held<B::Conn>, now: Instant) {
        let record = &held.record;
        if record.uses > 0 || now.saturating_duration_since(record.created) > INFANCY {
            return;
        }
        let public = "the database closed a new connection".to_owned();
        let reason = Reason { class: FailureClass::Broken, sqlstate: None, public, at: now };
        let settings = self.settings.load();
        let mut state = self.state.lock();
        if state.mourned_at.replace(now).is_some_and(|at| record.created <= at) {
            return;
        }
        let opened = state.not_made(now, Some(now), reason, &settings, rand::random_range(-1.0..=1.0));
        drop(state);
        warn!(pool = %self.name, connection = record.id, opened, "the database closed a new connection");
        self.bell.notify_one();
    }
}

impl<B: Backend> Future for Probing<B> {
    type Output = (InHand<B>, Outcome);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(trip) = &mut self.trip else { return Poll::Pending };
        let done = trip.as_mut().poll(context);
        if done.is_ready() {
            self.trip = None;
        }
        done
    }
}

impl<B: Backend> Drop for Probing<B> {
    fn drop(&mut self) {
        let Some(trip) = self.trip.take() else { return };
        // Socket and timer belong to a runtime that is about to end: the connection is closed, and nothing is known of it.
        if observe::lasting_runtime().is_none() {
            return drop(trip);
        }
        let (pool, begun, verdict) = (Arc::clone(&self.pool), self.begun, self.verdict);
        self.pool.spawn(async move {
            match trip.await {
                (in_hand, Ok(())) => {
                    let held = pool.approve(in_hand, begun, verdict);
                    pool.change(|state, now, todo| drop(state.core.give_back(now, held, todo)));
                }
                (in_hand, Err(error)) => drop(pool.condemn(in_hand, begun, verdict, 0, &error)),
            }
        });
    }
}
