//! Policies and settings that are compared, each with the same room: twenty connections.

use serde_json::{Value, json};

use crate::{pooled::plugin, server::Bouncing};

/// Connections at most.
pub const ROOM: u32 = 20;

/// One that is compared.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// What it is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A pool of ours with that component and configuration, and a minimum.
    Component {
        /// Its file.
        file: &'static str,
        /// Its configuration.
        config: Value,
        /// `size.min`.
        min: u32,
    },
    /// A PgBouncer.
    Bouncer(Bouncing),
}

impl Contestant {
    /// Keys of its pool's table.
    pub fn keys(&self, room: u32) -> Value {
        let min = match &self.kind {
            Kind::Component { min, .. } => *min,
            Kind::Bouncer(_) => 0,
        };
        json!({ "size": { "min": min, "max": room }, "sizing": plugin(self.name, "fixed"), "sizing_interval": "250ms",
            "sweep_interval": "250ms", "checkout_timeout": "2s", "queue": 10_000, "slow_checkout": "0s" })
    }
}

fn component(name: &'static str, file: &'static str, min: u32, config: Value) -> Contestant {
    Contestant { name, kind: Kind::Component { file, config, min } }
}

/// Those that adapt. What counts minutes in a policy's defaults is seconds here, since a load lasts fifteen; `aimd` needs a
/// bound on round trips, twice a statement's. Three begin at `start` connections.
pub fn adaptive(start: u32) -> Vec<Contestant> {
    vec![
        component(
            "utilisation",
            "utilisation",
            0,
            json!({ "calm_ticks": 8, "smoothing_ms": 1000, "step": 5, "wait_ms": 50 }),
        ),
        component("little", "little", 0, json!({ "smoothing_ms": 2000, "calm_ms": 5000 })),
        component(
            "aimd",
            "aimd",
            0,
            json!({ "rtt_above_ms": 60, "cooldown_ms": 3000, "retry_ms": 15_000, "start": start }),
        ),
        component("gradient2", "gradient2", 0, json!({ "start": start })),
        component("vegas", "vegas", 0, json!({ "start": start })),
    ]
}

/// All of them, for a database that bears `knee` statements at once (0: any number). PgBouncer's settings are a pool of fifteen and a
/// reserve of five after a second, HikariCP's a fixed pool, all of it open. Where there is a knee, somebody knows it.
pub fn all(knee: u32) -> Vec<Contestant> {
    let reserve = json!({ "target": 15, "reserve": 5, "reserve_after_ms": 1000 });
    let mut all = vec![component("fixed", "fixed", 0, json!({}))];
    if knee > 0 {
        all.push(component("fixed at the knee", "fixed", 0, json!({ "target": knee })));
    }
    all.extend(adaptive(10));
    all.push(component("HikariCP's settings", "fixed", ROOM, json!({ "min_idle": ROOM })));
    all.push(component("PgBouncer's settings", "fixed", 0, reserve));
    let pooling = Bouncing { size: 15, reserve: 5, wait_s: 2 };
    all.push(Contestant { name: "PgBouncer itself", kind: Kind::Bouncer(pooling) });
    all
}
