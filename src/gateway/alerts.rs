//! The alerts of all pools: looked at once a second on the background thread, told when they begin and end.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::generation::Generation;
use crate::pool::{Alarm, Alert};

/// What stands, and what is remembered to find out.
#[derive(Default)]
pub struct Alerts {
    alarms: Mutex<BTreeMap<String, Alarm>>,
    standing: Mutex<Vec<Alert>>,
}

impl Alerts {
    /// Those that stand now, by pool.
    pub fn standing(&self) -> Vec<Alert> {
        self.standing.lock().clone()
    }

    /// Looks at every pool of a generation.
    pub(super) fn look(&self, generation: &Generation) {
        let (now, thresholds) = (Instant::now(), &generation.config().alert);
        let mut alarms = self.alarms.lock();
        let pools = generation.all_pools();
        alarms.retain(|name, _| pools.contains_key(name));
        let mut standing = Vec::new();
        for (name, pool) in &pools {
            let look = alarms.entry(name.clone()).or_default().look(now, &pool.status(), thresholds);
            for Alert { pool, rule, value, threshold, .. } in look.begun {
                tracing::warn!(%pool, rule = rule.as_str(), value, threshold, "alert");
            }
            for rule in look.ended {
                tracing::info!(pool = name, rule = rule.as_str(), "alert ended");
            }
            standing.extend(look.standing);
        }
        *self.standing.lock() = standing;
    }
}
