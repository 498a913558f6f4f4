//! Whether a connection may be handed out, and what to do about it first.
//!
//! Always: its epoch (the gate), its age and uses, and a look at its socket. The validation policy is asked only outside the
//! window that its last verdict gave. What it asks for is done in `probe`.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    backend::{Backend, Connection, Holder, Peek, Probe},
    record::{Held, Limits, Record, millis},
    shell::Pool,
    tally::{Cause, Clamp},
};
use crate::policy::{Action, Decision, ValidationInput, Verdict};

/// What a look at a connection says.
enum Look {
    Fit,
    Unfit(Cause),
    Probe(Probe, Verdict),
}

/// A connection that is being probed or cleaned. Should the task be dropped meanwhile, nobody knows its state: it is closed.
pub(super) struct InHand<B: Backend> {
    pub(super) pool: Arc<Pool<B>>,
    held: Option<Box<Held<B::Conn>>>,
}

impl<B: Backend> InHand<B> {
    pub(super) fn new(pool: &Arc<Pool<B>>, held: Box<Held<B::Conn>>) -> Self {
        Self { pool: Arc::clone(pool), held: Some(held) }
    }

    pub(super) fn held(&mut self) -> &mut Held<B::Conn> {
        self.held.as_mut().expect("a connection in hand is there until it is let go")
    }

    #[expect(clippy::unnecessary_box_returns, reason = "a connection travels boxed")]
    pub(super) fn let_go(mut self) -> Box<Held<B::Conn>> {
        self.held.take().expect("a connection in hand is there until it is let go")
    }
}

impl<B: Backend> Drop for InHand<B> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.pool.change(|state, now, todo| drop(state.core.discard(now, held, Cause::Abandoned, todo)));
        }
    }
}

/// What one vetting after another must respect.
pub(super) struct Patience {
    pub(super) deadline: Instant,
    /// When it was last looked at the clock.
    pub(super) now: Instant,
    /// Probes that failed so far.
    pub(super) bad: u32,
    pub(super) limits: Limits,
}

impl<B: Backend> Pool<B> {
    /// The connection, fit for use here; or whose it was, when it was not.
    pub(super) async fn vet(
        self: &Arc<Self>,
        mut held: Box<Held<B::Conn>>,
        patience: &mut Patience,
    ) -> Result<Box<Held<B::Conn>>, Holder> {
        match self.look(&mut held, ValidationInput::CHECKOUT, patience) {
            Look::Fit => Ok(held),
            Look::Unfit(cause) => Err(self.reject(held, cause, patience.now)),
            Look::Probe(probe, verdict) => self.probe(held, probe, verdict, patience).await,
        }
    }

    /// Looks after an idle connection: whatever the validation policy says, and a round trip at least.
    pub(super) async fn keep_alive(in_hand: InHand<B>) {
        let pool = Arc::clone(&in_hand.pool);
        let mut held = in_hand.let_go();
        let now = Instant::now();
        let limits = pool.settings.load().limits();
        let mut patience = Patience { deadline: now + Duration::from_mins(1), now, bad: 0, limits };
        held.record.valid_for = Duration::ZERO;
        let (probe, verdict) = match pool.look(&mut held, ValidationInput::KEEP_ALIVE, &patience) {
            Look::Fit => (Probe::Ping, Verdict { valid_for_ms: millis(held.record.valid_for), ..Verdict::default() }),
            Look::Probe(probe, verdict) => (probe, verdict),
            Look::Unfit(cause) => return drop(pool.reject(held, cause, now)),
        };
        if let Ok(held) = pool.probe(held, probe, verdict, &mut patience).await {
            pool.change(|state, now, todo| drop(state.core.give_back(now, held, todo)));
        }
    }

    /// What can be said without waiting.
    fn look(self: &Arc<Self>, held: &mut Held<B::Conn>, trigger: u32, patience: &Patience) -> Look {
        let now = patience.now;
        if held.record.outlived(now, patience.limits) {
            return Look::Unfit(Cause::Lifetime);
        }
        match held.come_home() {
            Ok(false) => {}
            Ok(true) => self.state.lock().counters.rehomed += 1,
            Err(_) => return Look::Unfit(Cause::Broken),
        }
        let Held { conn, record } = held;
        let peek = conn.peek();
        if peek == Peek::Closed {
            self.state.lock().found_bad(now);
            return Look::Unfit(Cause::Broken);
        }
        if record.is_trusted(now) {
            return Look::Fit;
        }
        let left = patience.deadline.saturating_duration_since(now);
        let mut input = question(record, now, trigger, left);
        describe(&mut input, conn);
        input.peek = u32::from(peek == Peek::Pending);
        let verdict = self.ask_validation(&mut input);
        self.heed(record, now, verdict)
    }

    /// Turns a verdict into what is done. Discards are bounded; beyond, a round trip decides.
    fn heed(self: &Arc<Self>, record: &mut Record, now: Instant, verdict: Verdict) -> Look {
        match probe_for(verdict.action) {
            Ok(None) => {
                record.valid_for = Duration::from_millis(verdict.valid_for_ms.into());
                Look::Fit
            }
            Ok(Some(probe)) => Look::Probe(probe, verdict),
            Err(_discard) => self.change_at(now, |state, now, todo| {
                if !state.may_discard(now) {
                    state.counters.clamped.count(Clamp::Discarding);
                    return Look::Probe(Probe::Ping, verdict);
                }
                if verdict.purge && state.may_purge(now) {
                    state.core.purge(now, todo);
                }
                Look::Unfit(Cause::Discarded)
            }),
        }
    }

    /// Closes a connection that needs no probe to be found unfit.
    fn reject(self: &Arc<Self>, held: Box<Held<B::Conn>>, cause: Cause, now: Instant) -> Holder {
        if cause == Cause::Broken {
            self.mourn(&held, now);
        }
        let used = self.change_at(now, |state, now, todo| state.core.discard(now, held, cause, todo));
        used.map(|used| used.holder).unwrap_or_default()
    }

    /// Asks the validation policy, and counts who answered.
    pub(super) fn ask_validation(&self, input: &mut ValidationInput) -> Verdict {
        (input.recent_bad, input.recent_good) = self.state.lock().recent_proofs(Instant::now());
        let validation = self.validation.load();
        let Decision { answer, by } = validation.check(input);
        self.state.lock().decisions.count("validation", by, validation.name());
        answer
    }

    /// The longest probe: the policy's word within the pool's setting.
    pub(super) fn probe_limit(&self, timeout_ms: u32) -> Duration {
        let most = self.settings.load().validation_timeout;
        if timeout_ms == 0 { most } else { most.min(Duration::from_millis(timeout_ms.into())) }
    }
}

/// The verdict as a probe; none: trust it.
///
/// # Errors
/// The connection is to be closed.
pub(super) fn probe_for(action: Action) -> Result<Option<Probe>, Discard> {
    match action {
        Action::Pass => Ok(None),
        Action::Ping => Ok(Some(Probe::Ping)),
        Action::Query => Ok(Some(Probe::Query)),
        Action::Rollback => Ok(Some(Probe::Rollback)),
        Action::ResetSession => Ok(Some(Probe::ResetSession)),
        Action::ResetFully => Ok(Some(Probe::ResetFully)),
        Action::Discard => Err(Discard),
    }
}

/// The policy wants the connection closed.
pub(super) struct Discard;

/// What the record tells the validation policy.
pub(super) fn question(record: &Record, now: Instant, trigger: u32, left: Duration) -> ValidationInput {
    let since = |then: Instant| millis(now.saturating_duration_since(then));
    ValidationInput {
        trigger,
        age_ms: since(record.created),
        idle_ms: since(record.returned),
        uses: u32::try_from(record.uses).unwrap_or(u32::MAX),
        errors: record.errors,
        since_validated_ms: since(record.validated),
        last_valid_for_ms: millis(record.valid_for),
        last_error: record.last_error.map_or(0, |error| error as u32),
        deadline_left_ms: millis(left),
        failed_probes: record.failed_probes,
        ..ValidationInput::default()
    }
}

/// What the connection tells it.
pub(super) fn describe(input: &mut ValidationInput, conn: &impl Connection) {
    input.transaction = conn.transaction();
    input.dirty = conn.dirty();
}
