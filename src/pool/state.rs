//! What the pool's one lock guards: the gate, and all that is decided and counted together with it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    backend::FailureClass,
    breaker::{Breaker, Reason},
    ceiling::Ceiling,
    core::{Actions, Core, Counts},
    decisions::Decisions,
    figures::{Counters, Pulse},
    guards::Allowance,
    retry::RetryBudget,
    samples::Samples,
    settings::PoolSettings,
};

/// Probes that fail in a row, over all callers, before all idle connections are thought dead.
const BAD_IN_A_ROW: u32 = 3;
/// A policy may have the idle connections purged once in so long.
const PURGE_EVERY: Duration = Duration::from_secs(10);

pub(super) struct State<C> {
    pub(super) core: Core<C>,
    pub(super) breaker: Breaker,
    pub(super) ceiling: Ceiling,
    pub(super) counters: Counters,
    pub(super) samples: Samples,
    /// Outcomes of validations.
    pub(super) proofs: Pulse,
    /// Outcomes of attempts to connect.
    pub(super) attempts: Pulse,
    pub(super) decisions: Decisions,
    /// Why the sizing policy should be asked before its time.
    pub(super) early: Option<u32>,
    bad_in_a_row: u32,
    /// The same, whatever was done about it.
    pub(super) failed_checks: u32,
    pub(super) retries: RetryBudget,
    discards: Allowance,
    purges: Allowance,
    pub(super) slow_log: Allowance,
    born: Instant,
    /// When a connection was made last.
    pub(super) made_at: Option<Instant>,
    /// When a new connection was last found closed before its first use.
    pub(super) mourned_at: Option<Instant>,
}

impl<C> State<C> {
    pub(super) fn new(now: Instant, core: Core<C>, settings: &PoolSettings) -> Self {
        Self {
            core,
            breaker: Breaker::new(settings.thresholds),
            ceiling: Ceiling::default(),
            counters: Counters::default(),
            samples: Samples::default(),
            proofs: Pulse::default(),
            attempts: Pulse::default(),
            decisions: Decisions::default(),
            early: None,
            bad_in_a_row: 0,
            failed_checks: 0,
            retries: RetryBudget::new(now),
            discards: Allowance::default(),
            purges: Allowance::default(),
            slow_log: Allowance::default(),
            born: now,
            made_at: None,
            mourned_at: None,
        }
    }

    /// All counters, those that the core keeps too.
    pub(super) fn counters(&self) -> Counters {
        Counters { handoffs: self.core.handoffs(), closes: self.core.closes(), ..self.counters }
    }

    /// A connection came back from its caller, who waited for it, held it, and measured a last round trip.
    pub(super) fn note_use(
        &mut self,
        now: Instant,
        since: Instant,
        waited: Duration,
        rtt: Option<Duration>,
        error: bool,
    ) {
        self.counters.returns += 1;
        self.counters.errors += u64::from(error);
        self.samples.wait.record(waited);
        self.samples.hold.record(now.saturating_duration_since(since));
        if let Some(rtt) = rtt {
            self.samples.rtt.record(rtt);
        }
    }

    // === making connections ===

    /// A connection was made; the core is told next. Returns whether that closed the breaker.
    pub(super) fn made(&mut self, now: Instant, took: Duration) -> bool {
        self.counters.creates += 1;
        self.samples.create.record(took);
        self.attempts.beat(now - self.born, true);
        self.ceiling.granted(self.core.counts().live());
        self.made_at = Some(now);
        if let Some((server, me)) = self.core.server() {
            server.made(me);
        }
        let closed = self.breaker.succeeded(now);
        self.tell_core(now);
        closed
    }

    /// A connection could not be made that was begun at `began`; the core is told next. Returns whether that opened the breaker.
    pub(super) fn not_made(
        &mut self,
        now: Instant,
        began: Option<Instant>,
        reason: Reason,
        settings: &PoolSettings,
        roll: f64,
    ) -> bool {
        self.counters.create_failures.count(reason.class);
        self.attempts.beat(now - self.born, false);
        let counts = self.core.counts();
        if let Some((server, _)) = self.core.server() {
            server.hear();
        }
        let full = matches!(reason.class, FailureClass::ServerFull | FailureClass::AccountFull);
        if full {
            self.note_full(now, reason.class, settings, roll);
        }
        // A full server that serves us is no outage: what there is goes on, and the ceiling keeps us from asking again.
        let opened = if full && counts.idle + counts.in_use > 0 {
            self.breaker.full(now, reason, roll);
            false
        } else if began < self.made_at {
            // One was made since it was begun: what a server that restarts does to the last that came before is old news.
            false
        } else {
            self.breaker.failed(now, reason, roll)
        };
        self.counters.breaker_trips += u64::from(opened);
        self.tell_core(now);
        opened
    }

    /// A full server is the matter of all pools on it; a role or a database that has all it may, of this one.
    fn note_full(&mut self, now: Instant, class: FailureClass, settings: &PoolSettings, roll: f64) {
        let backoff = &settings.thresholds.backoff;
        match self.core.server() {
            Some((server, _)) if class == FailureClass::ServerFull => server.refused(now, backoff, roll),
            _ => self.ceiling.refused(now, self.core.counts().live().saturating_sub(1), backoff, roll),
        }
    }

    /// Hands on what breaker and ceiling allow.
    pub(super) fn tell_core(&mut self, now: Instant) {
        self.core.note(self.breaker.creation(now), self.ceiling.seen());
        self.core.note_crowded(self.breaker.reason().is_some_and(|reason| reason.class == FailureClass::ServerFull));
    }

    /// Connections that the server grants, to this pool or to all pools on it; none, if nothing is known.
    pub(super) fn server_cap(&self) -> Option<u32> {
        let of_all = self.core.server().and_then(|(server, _)| server.cap());
        [self.ceiling.seen(), of_all].into_iter().flatten().min()
    }

    /// Whether the server has refused more than there is, and is still believed.
    pub(super) fn is_refused_more(&self) -> bool {
        self.ceiling.seen().is_some() || self.core.server().is_some_and(|(server, _)| server.is_full())
    }

    // === validating ===

    /// A connection proved good by a round trip.
    pub(super) fn proved_good(&mut self, now: Instant, took: Duration) {
        self.counters.probes += 1;
        self.counters.validations_ok += 1;
        self.samples.validate.record(took);
        self.proofs.beat(now - self.born, true);
        self.bad_in_a_row = 0;
        self.failed_checks = 0;
    }

    /// A round trip failed. `suspicious`: the caller has met several bad ones, or the policy wants the idle ones gone. When the
    /// bad ones pile up, the idle ones are closed unseen: each would cost somebody a timeout.
    pub(super) fn proved_bad(&mut self, now: Instant, took: Duration, suspicious: bool, todo: &mut Actions<C>) {
        self.counters.probes += 1;
        self.samples.validate.record(took);
        self.found_bad(now);
        self.bad_in_a_row += 1;
        if suspicious || self.bad_in_a_row >= BAD_IN_A_ROW {
            self.bad_in_a_row = 0;
            self.core.purge(now, todo);
        }
    }

    /// A connection was found bad by a look at it.
    pub(super) fn found_bad(&mut self, now: Instant) {
        self.counters.validations_failed += 1;
        self.failed_checks = self.failed_checks.saturating_add(1);
        self.proofs.beat(now - self.born, false);
    }

    /// Bad and good ones of the last ten seconds.
    pub(super) fn recent_proofs(&mut self, now: Instant) -> (u32, u32) {
        let (good, bad) = self.proofs.recent(now - self.born);
        (bad, good)
    }

    /// Whether a connection may be closed only because a policy says so: a tenth of the pool a second, and at least one.
    pub(super) fn may_discard(&mut self, now: Instant) -> bool {
        let most = (self.core.counts().size() / 10).max(1);
        self.discards.take(now, most, Duration::from_secs(1))
    }

    /// Whether the idle ones may be closed only because a policy says so.
    pub(super) fn may_purge(&mut self, now: Instant) -> bool {
        self.purges.take(now, 1, PURGE_EVERY)
    }

    /// Good outcomes among those of the last ten seconds.
    pub(super) fn health(&mut self, now: Instant, counts: Counts) -> f64 {
        let since = now - self.born;
        let (good, bad) = self.proofs.recent(since);
        let (made, not_made) = self.attempts.recent(since);
        let barred = self.breaker.creation(now) == super::core::Creation::Barred;
        if barred && counts.idle + counts.in_use == 0 {
            return 0.0;
        }
        let all = good + bad + made + not_made;
        if all == 0 { 1.0 } else { f64::from(good + made) / f64::from(all) }
    }
}
