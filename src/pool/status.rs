//! A pool as `/status` shows it.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    advice,
    backend::Backend,
    breaker::{Breaker, Position},
    core::Service,
    decisions::DecisionCount,
    explain,
    figures::Counters,
    record::millis,
    samples::{Histograms, Quantiles, Samples},
    server::ServerStatus,
    shell::Pool,
};
use crate::{config::model::BackendKind, policy::DecidedBy};

/// A pool at a moment. Names follow OpenTelemetry's where it has them (`db.client.connection.*`).
#[derive(Clone, Debug, Serialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: Arc<str>,
    /// `postgres` or `sqlite`.
    pub backend: &'static str,
    /// Changes of credentials, address or settings so far, and failovers.
    pub epoch: u32,
    /// Whether it is being drained, as another has taken its place.
    pub retired: bool,
    /// `open`; or by an operator's word `paused` (nothing is lent) or `drained` (and nothing kept open).
    pub service: &'static str,
    /// Connections that can serve, now or soon: idle, in use, being made.
    pub size: u32,
    /// Unused ones.
    pub idle: u32,
    /// Checked out, handed over, being probed or cleaned.
    pub in_use: u32,
    /// Being made.
    pub creating: u32,
    /// Being closed; their permits are not back yet.
    pub closing: u32,
    /// Those of them that nobody closes any more, and that may still live at the server.
    pub lingering: u32,
    /// Callers in the queue.
    pub waiters: u32,
    /// Connections in use at most in the last one to two minutes.
    pub in_use_peak: u32,
    /// Callers in the queue at most in the last one to two minutes.
    pub waiters_peak: u32,
    /// How long the first in the queue has waited.
    pub oldest_wait_ms: u32,
    /// Connections kept open at least.
    pub min: u32,
    /// Connections at most.
    pub max: u32,
    /// What the sizing policy aims at, within the bounds.
    pub target: u32,
    /// Connections that may exist now, after every bound.
    pub limit: u32,
    /// Idle connections kept ready, as the sizing policy asked.
    pub min_idle: u32,
    /// Connections above the target for waiters that grow old.
    pub reserve: u32,
    /// Connections made at a time.
    pub parallel_creates: u32,
    /// What the server was seen to grant this pool's role and database, while it is believed.
    pub ceiling: Option<u32>,
    /// What all pools on the same server have, and may have; none where the database has no server.
    pub server: Option<ServerStatus>,
    /// Whether the target is frozen because the policy flapped.
    pub frozen: bool,
    /// Connections of all pools that share the budget, and its cap.
    pub budget: (u32, u32),
    /// The breaker.
    pub breaker: BreakerStatus,
    /// Since the pool began.
    pub counters: Counters,
    /// Of the last one to two minutes.
    pub latency: LatencyStatus,
    /// The same since the pool began, in buckets: for `/metrics`.
    #[serde(skip)]
    pub times: Histograms,
    /// The last sizing decision.
    pub sizing: Option<SizingStatus>,
    /// The last eviction decision.
    pub eviction: Option<EvictionStatus>,
    /// Decisions by hook, who took them, policy and version, since the pool began.
    pub decisions: Vec<DecisionCount>,
    /// Validations that failed in a row.
    pub failed_checks: u32,
    /// Good outcomes among creates and validations of the last ten seconds; 1 if there were none, 0 while the breaker is open
    /// and no connection is left.
    pub health: f64,
    /// Who holds connections, the longest first; at most 32.
    pub holders: Vec<HolderStatus>,
    /// Who waits for one, the longest first; at most 32.
    pub waiting: Vec<WaiterStatus>,
    /// What an operator may want to do.
    pub advice: Vec<String>,
}

/// A breaker at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct BreakerStatus {
    /// `closed`, `half-open` or `open`.
    pub state: &'static str,
    /// Class of the last failure, unless a connection was made since.
    pub reason: Option<&'static str>,
    /// Its SQLSTATE, where the server gave one.
    pub sqlstate: Option<String>,
    /// Its text, fit for callers.
    pub text: Option<String>,
    /// How long ago it was.
    pub since_ms: Option<u32>,
    /// Until the next attempt.
    pub retry_after_ms: u32,
}

/// Times of the last one to two minutes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencyStatus {
    /// From asking for a connection to having one, or giving up.
    pub wait: Quantiles,
    /// From checkout to return.
    pub hold: Quantiles,
    /// On the backend alone.
    pub rtt: Quantiles,
    /// Making a connection.
    pub create: Quantiles,
    /// Validating one.
    pub validate: Quantiles,
}

/// A sizing decision: what was asked, answered, and made of it.
#[derive(Clone, Debug, Serialize)]
pub struct SizingStatus {
    /// How long ago.
    pub ago_ms: u32,
    /// Why it was asked; see `sizing.wit`.
    pub trigger: u32,
    /// Connections in use at most since the decision before.
    pub in_use_peak: u32,
    /// Waiters at most since the decision before.
    pub waiters_peak: u32,
    /// What the policy proposed.
    pub proposed: u32,
    /// What was done.
    pub target: u32,
    /// The policy's own number.
    pub reason: u32,
    /// How the answer was clamped.
    pub clamped: Vec<&'static str>,
    /// Who decided.
    pub by: DecidedBy,
}

/// An eviction decision: what was asked, answered, and made of it.
#[derive(Clone, Debug, Serialize)]
pub struct EvictionStatus {
    /// How long ago.
    pub ago_ms: u32,
    /// Idle connections shown to the policy.
    pub asked: u32,
    /// Those it would close, probe or replace.
    pub proposed: u32,
    /// Closed.
    pub closed: u32,
    /// Probed.
    pub probed: u32,
    /// Replaced.
    pub replaced: u32,
    /// What giving a slot to a sister pool would hurt, 0 to 1000.
    pub yield_cost: u32,
    /// Who decided.
    pub by: DecidedBy,
}

/// Who holds a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HolderStatus {
    /// The connection's id.
    pub connection: u64,
    /// The route's name.
    pub route: Arc<str>,
    /// The request's id.
    pub request: u64,
    /// For how long.
    pub held_ms: u32,
}

/// Who waits for a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaiterStatus {
    /// The route's name.
    pub route: Arc<str>,
    /// The request's id.
    pub request: u64,
    /// For how long.
    pub waited_ms: u32,
}

/// What matters to whoever would drop a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Connections that can serve, now or soon.
    pub size: u32,
    /// Callers with a connection or waiting for one.
    pub callers: u32,
    /// Whether it has ever had a connection.
    pub proven: bool,
}

impl<B: Backend> Pool<B> {
    /// The least of [`Self::status`], at the least cost.
    pub fn standing(&self) -> Standing {
        let state = self.state.lock();
        let counts = state.core.counts();
        let proven = state.counters.creates > 0;
        Standing { size: counts.size(), callers: counts.in_use + counts.waiters, proven }
    }

    /// The pool as it is now. Takes the pool's lock for some microseconds.
    pub fn status(&self) -> PoolStatus {
        let settings = self.settings.load_full();
        let mut steering = self.steering.lock();
        let now = Instant::now();
        let mut state = self.state.lock();
        let drawn = steering.ledger.draw(&mut state);
        let counts = state.core.counts();
        let gate = state.core.gate();
        let status = PoolStatus {
            name: Arc::clone(self.name()),
            backend: backend_name(settings.backend),
            epoch: state.core.epoch(),
            retired: state.core.is_retired(),
            service: service_name(state.core.service()),
            size: counts.size(),
            idle: counts.idle,
            in_use: counts.in_use,
            creating: counts.creating,
            closing: counts.closing,
            lingering: counts.lingering,
            waiters: counts.waiters,
            in_use_peak: 0,
            waiters_peak: 0,
            oldest_wait_ms: state.core.oldest_wait().map_or(0, |since| millis(now.saturating_duration_since(since))),
            min: settings.min,
            max: settings.max,
            target: gate.target,
            limit: explain::limit(&state.core),
            min_idle: steering.ruling.min_idle,
            reserve: gate.reserve,
            parallel_creates: gate.parallel,
            ceiling: state.ceiling.seen(),
            server: state.core.server().map(|(server, _)| server.status()),
            frozen: steering.is_frozen(now),
            budget: (self.budget.live(), self.budget.cap()),
            breaker: BreakerStatus::of(&state.breaker, now),
            counters: state.counters(),
            latency: LatencyStatus::default(),
            times: Histograms::default(),
            sizing: aged(steering.last_sizing.as_ref(), now, |status, ago_ms| SizingStatus { ago_ms, ..status }),
            eviction: aged(steering.last_eviction.as_ref(), now, |status, ago_ms| EvictionStatus { ago_ms, ..status }),
            decisions: state.decisions.list().to_vec(),
            failed_checks: state.failed_checks,
            health: state.health(now, counts),
            holders: explain::holders(&state.core, now, MOST_LISTED),
            waiting: explain::waiters(&state.core, now, MOST_LISTED),
            advice: Vec::new(),
        };
        drop(state);
        steering.ledger.enter(now, drawn);
        let (recent, peaks) = steering.ledger.recent();
        let times = steering.ledger.totals();
        drop(steering);
        let (in_use_peak, waiters_peak) = (peaks.in_use, peaks.waiters);
        PoolStatus { latency: LatencyStatus::of(&recent), times, in_use_peak, waiters_peak, ..status }
            .advised(millis(settings.held_warning))
    }
}

/// Holders and waiters that are listed.
const MOST_LISTED: usize = 32;

fn service_name(service: Service) -> &'static str {
    match service {
        Service::Open => "open",
        Service::Paused => "paused",
        Service::Drained => "drained",
    }
}

fn backend_name(kind: BackendKind) -> &'static str {
    match kind {
        BackendKind::Postgres => "postgres",
        BackendKind::Sqlite => "sqlite",
    }
}

fn aged<T: Clone>(last: Option<&(Instant, T)>, now: Instant, age: impl Fn(T, u32) -> T) -> Option<T> {
    last.map(|(at, status)| age(status.clone(), millis(now.saturating_duration_since(*at))))
}

impl BreakerStatus {
    fn of(breaker: &Breaker, now: Instant) -> Self {
        let reason = breaker.reason();
        Self {
            state: match breaker.position() {
                Position::Closed => "closed",
                Position::HalfOpen => "half-open",
                Position::Open => "open",
            },
            reason: reason.map(|reason| reason.class.as_str()),
            sqlstate: reason.and_then(|reason| reason.sqlstate.clone()),
            text: reason.map(|reason| reason.public.clone()),
            since_ms: reason.map(|reason| millis(now.saturating_duration_since(reason.at))),
            retry_after_ms: millis(breaker.retry_after(now)),
        }
    }
}

impl LatencyStatus {
    fn of(samples: &Samples) -> Self {
        Self {
            wait: samples.wait.quantiles(),
            hold: samples.hold.quantiles(),
            rtt: samples.rtt.quantiles(),
            create: samples.create.quantiles(),
            validate: samples.validate.quantiles(),
        }
    }
}

impl PoolStatus {
    /// Fills in the advice, which rests on all the rest.
    pub(crate) fn advised(mut self, held_warning_ms: u32) -> Self {
        self.advice = advice::on(&self, held_warning_ms);
        self
    }
}
