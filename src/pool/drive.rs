//! The pool's own loop: whatever happens without a caller.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::{backend::Backend, guards::SHORTEST_TICK, shell::Pool};
use crate::policy::SizingInput;

/// No matter what is due: the loop never turns more often.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// While sisters have nothing to give they are asked again so often.
const RELIEF_EVERY: Duration = Duration::from_millis(50);

/// When what is due next.
struct Diary {
    size_at: Instant,
    sized_at: Option<Instant>,
    sweep_at: Instant,
    summary_at: Option<Instant>,
    /// When sisters may be asked next; none, if they have not been since callers last had what they need.
    relief_at: Option<Instant>,
}

impl<B: Backend> Pool<B> {
    /// Sizing ticks, sweeps, filling up to the minimum (first of all), replacing connections before their end, probing a database
    /// that failed, warning of connections held for long. Runs until the pool is retired, drained, and referred to by nobody
    /// else. Without it, a pool serves, but never recovers from an open breaker.
    pub async fn drive(self: Arc<Self>) {
        // Not before: a pool of a configuration that is refused in the end must leave no trace.
        self.budget.set_cap(self.settings.load().max);
        let now = Instant::now();
        let mut diary = Diary { size_at: now, sized_at: None, sweep_at: now, summary_at: None, relief_at: None };
        loop {
            self.turn(&mut diary);
            if Arc::strong_count(&self) == 1 && self.state.lock().core.is_drained() {
                if let Some(summary) = self.last_summary() {
                    summary.say(&self.name);
                }
                if self.state.lock().counters.creates > 0 {
                    info!(pool = %self.name, "drained");
                }
                return;
            }
            let next = self.next_turn(&diary).max(Instant::now() + SHORTEST_SLEEP);
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                () = self.bell.notified() => {}
            }
        }
    }

    fn turn(self: &Arc<Self>, diary: &mut Diary) {
        let early = self.upkeep();
        self.seek_relief(diary);
        let now = Instant::now();
        if early.is_some() {
            // Soon, but no more often than the shortest tick.
            let soonest = diary.sized_at.map_or(now, |at| at + SHORTEST_TICK);
            diary.size_at = diary.size_at.min(soonest);
        }
        let retired = self.state.lock().core.is_retired();
        if diary.size_at <= now {
            let trigger = self.state.lock().early.take().unwrap_or(SizingInput::TICK);
            let next = if retired { self.settings.load().sizing_interval } else { self.size(trigger) };
            diary.sized_at = Some(now);
            diary.size_at = now + next;
        }
        if diary.sweep_at <= now {
            if let Some((server, _)) = self.budget.server() {
                server.settle();
            }
            self.sweep();
            diary.sweep_at = now + self.settings.load().sweep_interval;
        }
        let (summary, next) = self.summarise(now);
        diary.summary_at = next;
        if let Some(summary) = summary {
            summary.say(&self.name);
        }
    }

    /// Permits that have lingered, pauses that are over, a probe that is due, room that has come free.
    fn upkeep(self: &Arc<Self>) -> Option<u32> {
        let settings = self.settings.load_full();
        self.change(|state, now, todo| {
            state.ceiling.raise(now, settings.max, &settings.thresholds.backoff);
            if let Some((server, _)) = state.core.server() {
                server.raise(now, &settings.thresholds.backoff);
            }
            state.tell_core(now);
            state.core.reap(now, todo);
            state.core.kick(now, todo);
            if state.breaker.is_probe_due(now) {
                // A pool that drains asks for nobody: its server may be the one that was moved away from.
                let wanted = !state.core.is_retired();
                if wanted && state.core.try_probe(todo) {
                    state.breaker.probing();
                } else if !wanted || state.core.counts().creating > 0 || !state.breaker.make_do() {
                    state.breaker.postpone(now);
                }
            }
            state.early
        })
    }

    /// Where callers wait and the server's budget has no room, sisters are asked to make some.
    fn seek_relief(&self, diary: &mut Diary) {
        let Some((server, me)) = self.budget.server() else { return };
        let state = self.state.lock();
        let (size, short) = (state.core.counts().size(), state.core.short());
        drop(state);
        let now = Instant::now();
        if short == 0 {
            // Only what was asked for here: a pool that takes this one's place may be in need.
            if diary.relief_at.take().is_some() {
                server.calm(me);
            }
        } else if diary.relief_at.is_none_or(|at| at <= now) {
            let given = server.relieve(me, size, short);
            diary.relief_at = Some(if given { now } else { now + RELIEF_EVERY });
        }
    }

    fn next_turn(&self, diary: &Diary) -> Instant {
        let now = Instant::now();
        let state = self.state.lock();
        let gate = state.core.gate();
        let reserve = (gate.reserve > 0).then(|| state.core.oldest_wait()).flatten();
        let due = [
            state.core.next_linger(),
            state.breaker.next_change(now),
            state.ceiling.next_change(),
            reserve.map(|since| since + gate.reserve_after).filter(|at| *at > now),
            state.core.next_start(now),
            state.core.server().and_then(|(server, _)| server.next_change()),
            (state.core.short() > 0).then(|| diary.relief_at.unwrap_or(now).max(now + RELIEF_EVERY)),
        ];
        let usual = diary.size_at.min(diary.sweep_at);
        due.into_iter().chain([diary.summary_at]).flatten().fold(usual, Instant::min)
    }
}
