//! The policies at work: how many connections, and which of the idle ones leave. On the driver, never on a request's path.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{field::display, info, warn};

use super::{
    backend::{Backend, Connection, Holder},
    core::{Creation, Gate},
    guards::{Candidate, Plan, Ruling, Situation, SizingGuard, SweepSituation, plan_sweep},
    ledger::Ledger,
    record::{Held, Record, millis},
    settings::PoolSettings,
    shell::Pool,
    status::{EvictionStatus, SizingStatus},
    vet::InHand,
    view::{self, Glance},
};
use crate::policy::{
    DecidedBy, Decision, Eviction, EvictionInput, EvictionOutput, IdleConnection, Sizing, SizingInput, SizingOutput,
};

/// Idle connections that the eviction policy is shown.
const MOST_SHOWN: usize = 256;

/// What the driver knows and remembers between ticks and sweeps.
pub(super) struct Steering {
    sizing: Sizing,
    eviction: Eviction,
    guard: SizingGuard,
    /// The last version of the plugin that decided, whoever did since.
    sizing_version: Option<u64>,
    pub(super) ruling: Ruling,
    pub(super) ledger: Ledger,
    pub(super) last_sizing: Option<(Instant, SizingStatus)>,
    pub(super) last_eviction: Option<(Instant, EvictionStatus)>,
}

impl Steering {
    pub(super) fn new(now: Instant, sizing: Sizing, eviction: Eviction, settings: &PoolSettings) -> Self {
        let ruling = Ruling {
            target: settings.most(),
            min_idle: settings.min_idle,
            reserve: settings.reserve,
            parallel: settings.parallel_creates,
            next_tick: settings.sizing_interval,
            clamps: Vec::new(),
        };
        Self {
            sizing,
            eviction,
            guard: SizingGuard::default(),
            sizing_version: None,
            ruling,
            ledger: Ledger::new(now),
            last_sizing: None,
            last_eviction: None,
        }
    }

    /// Goes on with other policies and settings.
    pub(super) fn take_up(&mut self, sizing: Option<Sizing>, eviction: Option<Eviction>, settings: &PoolSettings) {
        if let Some(sizing) = sizing {
            self.sizing = sizing;
            self.sizing_version = None;
            self.guard.forgive();
        }
        if let Some(eviction) = eviction {
            self.eviction = eviction;
        }
        self.ruling.next_tick = settings.sizing_interval;
    }

    pub(super) fn is_frozen(&self, now: Instant) -> bool {
        self.guard.is_frozen(now)
    }
}

impl<B: Backend> Pool<B> {
    /// Asks the sizing policy and does what the guards leave of its answer. Returns when to ask again.
    pub(super) fn size(self: &Arc<Self>, trigger: u32) -> Duration {
        let settings = self.settings.load_full();
        let mut steering = self.steering.lock();
        let glance = self.glance(&mut steering);
        let pool = view::of(&glance, &steering.ledger.sizing, &settings, self.born);
        let input = SizingInput { pool, trigger, carry: Vec::new() };
        let Decision { answer, by } = steering.sizing.decide(&input);
        if let DecidedBy::Plugin { version } = by
            && steering.sizing_version.replace(version).is_some_and(|last| last != version)
        {
            steering.guard.forgive();
        }
        let was_frozen = steering.guard.is_frozen(glance.now);
        let ruling = steering.guard.rule(&answer, &situation(&glance, &settings));
        let freezes = !was_frozen && steering.guard.is_frozen(glance.now);
        steering.ledger.sizing.restart(glance.now, &glance.counters, glance.area);
        let status = SizingStatus {
            ago_ms: 0,
            trigger,
            in_use_peak: input.pool.gauges.in_use_peak,
            waiters_peak: input.pool.gauges.waiters_peak,
            proposed: answer.target,
            target: ruling.target,
            reason: answer.reason,
            clamped: ruling.clamps.iter().map(|clamp| clamp.as_str()).collect(),
            by,
        };
        steering.last_sizing = Some((glance.now, status));
        steering.ruling = ruling.clone();
        self.state.lock().decisions.count("sizing", by, steering.sizing.name());
        drop(steering);
        self.say_sizing(&glance, &ruling, &answer, freezes);
        self.apply(&ruling, &settings);
        ruling.next_tick
    }

    fn apply(self: &Arc<Self>, ruling: &Ruling, settings: &PoolSettings) {
        self.change(|state, now, todo| {
            ruling.clamps.iter().for_each(|clamp| state.counters.clamped.count(*clamp));
            let gate = Gate {
                // A reconfiguration may have come between: its bounds hold.
                target: ruling.target.min(state.core.gate().max),
                reserve: ruling.reserve,
                parallel: ruling.parallel,
                ..state.core.gate()
            };
            state.core.set_gate(now, gate, todo);
            state.core.fill(now, settings.min, ruling.min_idle, todo);
        });
    }

    fn say_sizing(&self, glance: &Glance, ruling: &Ruling, answer: &SizingOutput, freezes: bool) {
        let (from, to) = (glance.gate.target, ruling.target);
        if from != to {
            info!(pool = %self.name, from, to, reason = answer.reason, "target changed");
        }
        if freezes {
            warn!(pool = %self.name, target = to, "the sizing policy flaps: target frozen for a minute");
        }
    }

    /// Looks at all idle connections: closes, replaces and probes what the limits and the eviction policy say, and fills up to
    /// the minimum.
    pub(super) fn sweep(self: &Arc<Self>) {
        let settings = self.settings.load_full();
        let mut steering = self.steering.lock();
        let glance = self.glance(&mut steering);
        let idle = self.idle_by_use(glance.now);
        let plan = self.plan(&mut steering, &glance, &settings, idle);
        let min_idle = steering.ruling.min_idle;
        drop(steering);
        let borrowed = self.change(|state, now, todo| {
            plan.clamps.iter().for_each(|clamp| state.counters.clamped.count(*clamp));
            for (id, cause) in &plan.close {
                state.core.evict(now, *id, *cause, todo);
            }
            state.core.fill(now, settings.min, min_idle, todo);
            state.core.replace(now, &plan.replace, todo);
            let holder = Holder { route: "keep-alive".into(), ..Holder::default() };
            let borrow = |id: &u64| state.core.borrow(now, *id, holder.clone());
            plan.probe.iter().filter_map(borrow).collect::<Vec<_>>()
        });
        for held in borrowed {
            self.spawn(Self::keep_alive(InHand::new(self, held)));
        }
        self.warn_of_long_held(&settings);
    }

    fn plan(
        &self,
        steering: &mut Steering,
        glance: &Glance,
        settings: &PoolSettings,
        idle: Vec<(Record, IdleConnection)>,
    ) -> Plan {
        if idle.is_empty() {
            return Plan::default();
        }
        let input = self.shown(steering, glance, settings, &idle);
        let unseen = idle.len() - input.idle.len();
        let Decision { answer, by } = steering.eviction.review(&input);
        steering.ledger.eviction.restart(glance.now, &glance.counters, glance.area);
        let verdict = |at: usize| at.checked_sub(unseen).and_then(|at| answer.verdicts.get(at).copied());
        let candidate =
            |(at, (record, _)): (usize, &(Record, IdleConnection))| Candidate { record: *record, verdict: verdict(at) };
        let candidates: Vec<Candidate> = idle.iter().enumerate().map(candidate).collect();
        let plan = plan_sweep(&candidates, &sweep_situation(glance, settings));
        let status = EvictionStatus {
            ago_ms: 0,
            asked: input.idle.len() as u32,
            proposed: answer.verdicts.iter().filter(|verdict| **verdict != EvictionOutput::KEEP).count() as u32,
            closed: plan.close.len() as u32,
            probed: plan.probe.len() as u32,
            replaced: plan.replace.len() as u32,
            yield_cost: answer.yield_cost,
            by,
        };
        steering.last_eviction = Some((glance.now, status));
        self.state.lock().decisions.count("eviction", by, steering.eviction.name());
        plan
    }

    /// What the eviction policy is shown.
    fn shown(
        &self,
        steering: &Steering,
        glance: &Glance,
        settings: &PoolSettings,
        idle: &[(Record, IdleConnection)],
    ) -> EvictionInput {
        // Those unused longest are at the end: they are the ones to judge.
        let unseen = idle.len().saturating_sub(MOST_SHOWN);
        let mut pool = view::of(glance, &steering.ledger.eviction, settings, self.born);
        if let Some((server, _)) = self.budget.server() {
            let left = server.left_for(glance.counts.live()).unwrap_or(u32::MAX);
            pool.bounds.server_cap = glance.server_cap.map_or(0, |cap| cap.min(left));
        }
        EvictionInput { pool, idle: idle[unseen..].iter().map(|(_, shown)| *shown).collect(), carry: Vec::new() }
    }

    /// What it would hurt to give up an idle connection now, as the eviction policy says: 0 to 1000.
    pub(super) fn yield_cost(&self) -> u32 {
        let settings = self.settings.load_full();
        let mut steering = self.steering.lock();
        let glance = self.glance(&mut steering);
        let idle = self.idle_by_use(glance.now);
        if idle.is_empty() {
            return EvictionOutput::YIELD_COST_MAX;
        }
        let input = self.shown(&steering, &glance, &settings, &idle);
        let Decision { answer, by } = steering.eviction.review(&input);
        self.state.lock().decisions.count("eviction", by, steering.eviction.name());
        answer.yield_cost
    }

    /// All idle connections, the most recently used first, and as the policy sees them.
    fn idle_by_use(&self, now: Instant) -> Vec<(Record, IdleConnection)> {
        let state = self.state.lock();
        let epoch = state.core.epoch();
        let shown = |held: &Held<B::Conn>| (held.record, view::idle(&held.record, held.conn.statements(), epoch, now));
        let mut idle: Vec<_> = state.core.idle().map(shown).collect();
        drop(state);
        idle.sort_by_key(|(record, _)| std::cmp::Reverse(record.returned));
        idle
    }

    /// The pool at this moment, and its figures since the last glance, which go into the ledger.
    pub(super) fn glance(&self, steering: &mut Steering) -> Glance {
        let now = Instant::now();
        let mut state = self.state.lock();
        let drawn = steering.ledger.draw(&mut state);
        let counts = state.core.counts();
        let area = state.core.area(now);
        let glance = Glance {
            now,
            counts,
            gate: state.core.gate(),
            counters: state.counters(),
            area,
            oldest_wait: state.core.oldest_wait(),
            breaker: state.breaker.position(),
            server_cap: state.server_cap(),
            may_grow: state.breaker.creation(now) == Creation::Free && !state.is_refused_more(),
        };
        drop(state);
        steering.ledger.enter(now, drawn);
        glance
    }

    fn warn_of_long_held(&self, settings: &PoolSettings) {
        if settings.held_warning.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut long = Vec::new();
        for used in state.core.uses_mut() {
            if !used.warned && now.saturating_duration_since(used.since) >= settings.held_warning {
                used.warned = true;
                long.push(used.clone());
            }
        }
        state.counters.held_long += long.len() as u64;
        drop(state);
        for used in long {
            let held_ms = millis(now.saturating_duration_since(used.since));
            let (route, request) = (&*used.holder.route, used.holder.request);
            let statement = used.holder.statement.as_ref().map(display);
            warn!(pool = %self.name, connection = used.id, route, request, held_ms, statement, "connection held for long");
        }
    }
}

fn situation(glance: &Glance, settings: &PoolSettings) -> Situation {
    Situation {
        now: glance.now,
        target: glance.gate.target,
        min: settings.min,
        max: settings.most(),
        beyond: settings.max,
        min_idle: settings.min_idle,
        reserve: settings.reserve,
        parallel: settings.parallel_creates,
        interval: settings.sizing_interval,
        max_step: settings.max_step,
        dwell: settings.dwell,
        may_grow: glance.may_grow,
        waiters: glance.counts.waiters,
    }
}

fn sweep_situation(glance: &Glance, settings: &PoolSettings) -> SweepSituation {
    SweepSituation {
        now: glance.now,
        size: glance.counts.size(),
        min: settings.min,
        waiters: glance.counts.waiters,
        lifetime: settings.max_lifetime,
        idle_timeout: settings.idle_timeout,
        keepalive: settings.keepalive,
    }
}
