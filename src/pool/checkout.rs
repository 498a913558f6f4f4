//! From asking for a connection to having one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::{
    backend::{Backend, Holder},
    core::{Caller, Checkout, Handed, Refused, Ticket},
    error::CheckoutError,
    explain,
    lease::Lease,
    record::Held,
    shell::Pool,
    vet::Patience,
};
use crate::policy::SizingInput;

/// A waiter this old is told to the sizing policy before its next tick.
const OLD: Duration = Duration::from_millis(100);
/// Slow checkouts are logged once in so long: a full pool would else bury its own log.
const SLOW_LOG_EVERY: Duration = Duration::from_secs(1);

/// One caller's way to a connection.
struct Attempt {
    since: Instant,
    holder: Holder,
    /// Its place in the queue, once it has had one.
    place: Option<Ticket>,
    /// Connections that had come back to the pool when it began to wait.
    returns: u64,
    asked: bool,
    /// A longer wait is logged; zero: never.
    slow: Duration,
    patience: Patience,
}

/// A place in the queue. Dropping it leaves the queue; what it was given goes to the next.
struct Waiting<'a, B: Backend> {
    pool: &'a Arc<Pool<B>>,
    ticket: Option<Ticket>,
}

impl<B: Backend> Pool<B> {
    /// Lends a connection, made clean and found fit, until the lease is dropped. Waits until `deadline`, at most the pool's
    /// `checkout_timeout`; queueing, connecting and validating all count.
    ///
    /// Cancel safe: a caller that goes away leaves the queue, a connection being made for it goes to the next.
    ///
    /// # Errors
    /// No connection was to be had in time, or none can be expected; the error says why.
    pub async fn checkout(self: &Arc<Self>, deadline: Instant, who: Holder) -> Result<Lease<B>, CheckoutError> {
        let mut attempt = self.attempt(deadline, who);
        loop {
            let held = match self.ask(&mut attempt) {
                Checkout::Idle(held) => held,
                Checkout::Wait(ticket) => self.wait(&mut attempt, ticket).await?,
                Checkout::Refused(why) => return Err(self.refuse(why, attempt.since)),
            };
            match self.vet(held, &mut attempt.patience).await {
                Ok(held) => return Ok(self.lend(held, &attempt)),
                Err(holder) => attempt.holder = holder,
            }
            if attempt.patience.now >= attempt.patience.deadline {
                return Err(self.give_up(&attempt));
            }
        }
    }

    /// When a checkout that begins now ends at the latest. For one who may have to begin anew.
    pub fn checkout_ends(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.settings.load().checkout_timeout)
    }

    fn attempt(&self, deadline: Instant, who: Holder) -> Attempt {
        let since = Instant::now();
        let settings = self.settings.load();
        let deadline = deadline.min(since + settings.checkout_timeout);
        let patience = Patience { deadline, now: since, bad: 0, limits: settings.limits() };
        let slow = settings.slow_checkout;
        Attempt { since, holder: who, place: None, returns: 0, asked: false, slow, patience }
    }

    fn ask(self: &Arc<Self>, attempt: &mut Attempt) -> Checkout<B::Conn> {
        let first = !std::mem::replace(&mut attempt.asked, true);
        let caller = Caller {
            worker: crate::observe::worker(),
            holder: std::mem::take(&mut attempt.holder),
            since: attempt.since,
            again: attempt.place,
        };
        self.change_at(attempt.patience.now, |state, now, todo| {
            state.counters.checkouts += u64::from(first);
            state.retries.put_in(u32::from(first));
            let answer = state.core.checkout(now, caller, todo);
            match answer {
                Checkout::Idle(_) => {}
                Checkout::Wait(_) => {
                    if attempt.place.is_none() {
                        state.counters.waited += 1;
                        attempt.returns = state.counters.returns;
                    }
                }
                Checkout::Refused(_) => state.counters.refused += 1,
            }
            answer
        })
    }

    async fn wait(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        ticket: Ticket,
    ) -> Result<Box<Held<B::Conn>>, CheckoutError> {
        attempt.place = Some(ticket);
        let mut waiting = Waiting { pool: self, ticket: Some(ticket) };
        let deadline = attempt.patience.deadline;
        let old = attempt.since + OLD;
        let mut handed = timeout_at(old.min(deadline), &mut waiting).await;
        if handed.is_err() && old < deadline {
            self.hurry(SizingInput::WAITER_OLD);
            handed = timeout_at(deadline, &mut waiting).await;
        }
        attempt.patience.now = Instant::now();
        match handed {
            Ok(Handed::Connection(held)) => Ok(held),
            Ok(Handed::Refused(why)) => {
                self.state.lock().counters.refused += 1;
                Err(self.refuse(why, attempt.since))
            }
            Err(_) => {
                // Out of the queue before the queue is described.
                drop(waiting);
                Err(self.give_up(attempt))
            }
        }
    }

    fn lend(self: &Arc<Self>, mut held: Box<Held<B::Conn>>, attempt: &Attempt) -> Lease<B> {
        let now = attempt.patience.now;
        held.record.uses += 1;
        let waited = now - attempt.since;
        if !attempt.slow.is_zero() && waited >= attempt.slow {
            self.say_slow(now, waited);
        }
        Lease::new(Arc::clone(self), held, now, waited)
    }

    fn say_slow(&self, now: Instant, waited: Duration) {
        let mut state = self.state.lock();
        state.counters.slow_checkouts += 1;
        let say = state.slow_log.take(now, 1, SLOW_LOG_EVERY);
        let counts = state.core.counts();
        drop(state);
        if say {
            let waited_ms = waited.as_millis();
            let (in_use, waiters) = (counts.in_use, counts.waiters);
            warn!(pool = %self.name, waited_ms, in_use, waiters, "slow checkout");
        }
    }

    /// Asks for an early sizing decision.
    pub(super) fn hurry(&self, trigger: u32) {
        self.state.lock().early = Some(trigger);
        self.bell.notify_one();
    }

    fn refuse(&self, why: Refused, since: Instant) -> CheckoutError {
        let now = Instant::now();
        let state = self.state.lock();
        let kind = explain::refusal(why, &state.breaker, now);
        CheckoutError::new(Arc::clone(&self.name), kind, now - since, explain::load(&state.core))
    }

    /// The deadline has passed.
    fn give_up(&self, attempt: &Attempt) -> CheckoutError {
        let now = Instant::now();
        let waited = now - attempt.since;
        let mut state = self.state.lock();
        state.counters.timeouts += 1;
        state.samples.wait.record(waited);
        state.early = Some(SizingInput::CHECKOUT_TIMEOUT);
        let held_warning = self.settings.load().held_warning;
        let returned = state.counters.returns - attempt.returns;
        let kind = explain::timeout(&state.core, &state.breaker, now, held_warning, returned);
        let load = explain::load(&state.core);
        let say = state.slow_log.take(now, 1, SLOW_LOG_EVERY);
        drop(state);
        self.bell.notify_one();
        let error = CheckoutError::new(Arc::clone(&self.name), kind, waited, load);
        if say {
            warn!(pool = %self.name, waited_ms = waited.as_millis(), %error, "no connection in time");
        }
        error
    }
}

impl<B: Backend> Future for Waiting<'_, B> {
    type Output = Handed<B::Conn>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else { return Poll::Pending };
        match self.pool.state.lock().core.poll(ticket, context.waker()) {
            Some(handed) => {
                self.ticket = None;
                Poll::Ready(handed)
            }
            None => Poll::Pending,
        }
    }
}

impl<B: Backend> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.pool.change(|state, now, todo| {
                state.counters.cancelled += 1;
                state.core.cancel(now, ticket, todo);
            });
        }
    }
}
