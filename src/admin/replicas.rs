//! A pool's replicas, in `/status` and `/metrics`.

use serde_json::{Value, json};

use crate::{gateway::PoolEntry, observe::exposition::Exposition, pool::PoolStatus};

/// A pool as JSON, with its replicas if it has some.
pub(super) fn with_replicas(status: &PoolStatus, entry: &PoolEntry) -> Value {
    let mut pool = json!(status);
    if let Some(replicas) = entry.replicas() {
        pool["replicas"] = json!(replicas);
    }
    pool
}

/// Whether a replica of the pool gets no reads.
pub(super) fn lacks_some(entry: &PoolEntry) -> bool {
    entry.replicas().is_some_and(|replicas| replicas.pools.iter().any(|replica| !replica.in_rotation))
}

/// What `/metrics` says of them.
pub(super) fn render(out: &mut Exposition, pool: &str, entry: &PoolEntry) {
    let Some(replicas) = entry.replicas() else { return };
    let label = ("db_client_connection_pool_name", pool);
    let help = "Reads that went to the primary for want of a replica";
    out.counter("sluicegate_replica_fallbacks", help, &[label], replicas.fallbacks);
    for replica in &replicas.pools {
        let labels = [label, ("replica", &*replica.pool)];
        let in_rotation = f64::from(u8::from(replica.in_rotation));
        out.gauge("sluicegate_replica_in_rotation", "Whether a replica gets reads", &labels, in_rotation);
        if let Some(lag) = replica.lag_s {
            out.gauge("sluicegate_replica_lag_seconds", "How far a replica is behind", &labels, lag);
        }
        out.counter("sluicegate_replica_reads", "Reads that began at a replica", &labels, replica.reads);
        let help = "Times that a replica was put out of rotation";
        out.counter("sluicegate_replica_ejections", help, &labels, replica.ejections);
    }
}
