//! A pool as a sister of others on the same server: what it can give up, and how.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    backend::Backend,
    server::{Offer, Sister},
    shell::Pool,
};

/// A connection in use a shorter while ago will be wanted again at once, as likely as not.
const RESTED: Duration = Duration::from_millis(100);

/// A pool keeps its last connection so long at least, however many have none: each turn costs two of them a connect.
const SETTLED: Duration = Duration::from_secs(1);

impl<B: Backend> Sister for Pool<B> {
    fn offer(&self) -> Offer {
        let min = self.settings.load().min;
        let now = Instant::now();
        let state = self.state.lock();
        let (counts, owed) = (state.core.counts(), state.core.owed());
        let rested = state.core.idle().filter(|held| now.saturating_duration_since(held.record.returned) >= RESTED);
        let surplus = counts.size().saturating_sub(min);
        Offer {
            size: counts.size().saturating_sub(owed),
            min,
            idle: counts.idle,
            spare: counts.idle.min(surplus),
            rested: (rested.count() as u32).min(surplus),
            cost: 0,
            active: counts.size() + counts.waiters > 0 && state.counters.creates > 0,
            settled: state.made_at.is_none_or(|at| now.saturating_duration_since(at) >= SETTLED),
        }
    }

    fn cost(&self) -> u32 {
        self.yield_cost()
    }

    fn give(self: Arc<Self>) -> bool {
        self.change(|state, now, todo| state.core.give(now, todo))
    }

    fn owe(&self) {
        self.state.lock().core.owe();
    }

    fn forgive(&self) -> bool {
        self.state.lock().core.forgive()
    }

    fn ring(&self) {
        self.bell.notify_one();
    }
}
