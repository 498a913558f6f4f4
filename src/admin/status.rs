//! `/status`: the gateway as JSON, for people and scripts.

use std::{sync::atomic::Ordering, time::SystemTime};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{is_draining, pools, replicas};
use crate::{
    gateway::{Generation, PoolEntry, Shared},
    policy::PluginStatus,
    pool::PoolStatus,
};

/// Statements of each pool that are listed: `/pools/NAME` has them all.
const MOST_STATEMENTS: usize = 10;

/// Why `/readyz` says no; empty: it says yes.
pub(super) fn not_ready(shared: &Shared) -> Vec<String> {
    if is_draining(shared) {
        return vec!["draining".into()];
    }
    let Some(generation) = shared.current.load_full() else { return vec!["starting".into()] };
    let required = generation.config().admin.iter().flat_map(|admin| &admin.ready_requires);
    required.filter_map(|name| pool_problem(&generation, name)).collect()
}

/// A pool is ready when a connection of it is open and its breaker lets callers in.
fn pool_problem(generation: &Generation, name: &str) -> Option<String> {
    let status = generation.pools.get(name)?.status();
    if status.breaker.state == "open" {
        let reason = status.breaker.reason.unwrap_or("failing");
        return Some(format!("pool {name}: connecting fails ({reason})"));
    }
    (status.idle + status.in_use == 0).then(|| format!("pool {name}: no connection is open yet"))
}

/// Everything.
pub(super) fn status(shared: &Shared) -> Value {
    let generation = shared.generation();
    let entries = generation.all_pools();
    let standing: Vec<PoolStatus> = entries.values().map(PoolEntry::status).collect();
    let degraded = shared.plugins.status().iter().any(PluginStatus::is_degraded)
        || standing.iter().any(is_degraded)
        || entries.values().any(replicas::lacks_some)
        || shared.overload.standing().cause.is_some();
    let shown = |(pool, entry): (&PoolStatus, _)| (pool.name.to_string(), pools::shown(pool, entry, MOST_STATEMENTS));
    json!({
        "health": health(shared, degraded),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": shared.started.elapsed().as_secs(),
        "workers": shared.workers,
        "generation": generation.number,
        "config": { "hash": generation.loaded.hash(), "files": generation.loaded.files },
        "reload": reload(shared),
        "listeners": listeners(shared),
        "edge": shared.edge.snapshot(),
        "requests": shared.requests(),
        "routes": routes(shared, &generation),
        "pools": standing.iter().zip(entries.values()).map(shown).collect::<Map<_, _>>(),
        "retiring": shared.retiring_pools(),
        "alerts": shared.alerts.standing(),
        "overload": shared.overload.standing(),
        "upstreams": upstreams(&generation),
        "tunnels": shared.tunnels.open(),
        "limits": generation.limits.iter().map(|(name, limiter)| (name.clone(), json!({ "keys": limiter.len() }))).collect::<Map<_, _>>(),
        "named": named(shared, &generation),
        "issuers": generation.issuers(),
        "plugins": plugins(shared),
        "census": census(shared),
        "access_log": { "dropped": shared.access_log.dropped() },
    })
}

/// Named queries, what is kept of their answers, and the lists of texts by their files.
fn named(shared: &Shared, generation: &Generation) -> Value {
    let queries: Map<_, _> =
        generation.named_queries().map(|(name, figures)| (name.to_owned(), json!(figures))).collect();
    let lists: Map<_, _> =
        generation.allow_lists().map(|file| (file.path().display().to_string(), json!(file.status()))).collect();
    json!({ "queries": queries, "cache": shared.query_cache.held(), "allow": lists })
}

fn health(shared: &Shared, degraded: bool) -> &'static str {
    match () {
        () if is_draining(shared) => "draining",
        () if !not_ready(shared).is_empty() => "not ready",
        () if degraded => "degraded",
        () => "ok",
    }
}

/// What must come back to where it was after every change.
fn census(shared: &Shared) -> Value {
    let plugins = shared.plugins.census();
    json!({
        "generations": shared.generations.load(Ordering::Relaxed),
        "plugin_versions": plugins.versions,
        "plugin_stores": plugins.stores,
        "retiring_pools": shared.retiring_pools().len(),
        "connections": shared.edge.snapshot().active,
        "tasks": shared.tasks(),
    })
}

fn reload(shared: &Shared) -> Value {
    let (succeeded, failed) = shared.reloads.counts();
    let last = shared.reloads.last();
    let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "succeeded": succeeded,
        "failed": failed,
        "last_at": last.as_ref().map(|last| seconds(last.at)),
        "last_error": last.and_then(|last| last.error),
    })
}

fn listeners(shared: &Shared) -> Map<String, Value> {
    let serving = shared.listeners.serving();
    let value = |listening: &crate::gateway::Listening| {
        json!({
            "address": listening.address.to_string(),
            "scheme": listening.scheme(),
            "certificates": listening.certificates(),
        })
    };
    serving.iter().map(|listening| (listening.name.to_string(), value(listening))).collect()
}

fn routes(shared: &Shared, generation: &Generation) -> Vec<Value> {
    let names: Vec<_> = generation.route_names().collect();
    let known = shared.http.routes();
    let serving = known.iter().filter(|(name, _)| names.iter().any(|served| &***served == name.as_str()));
    serving
        .map(|(name, figures)| {
            let by_class = figures.durations().into_iter().filter(|(_, now)| now.count > 0);
            let classes: Map<_, _> = by_class.map(|(class, now)| (class.to_owned(), json!(now.count))).collect();
            let overload: u64 = figures.refused().iter().map(|(_, count)| count).sum();
            json!({ "name": name, "active": figures.active(), "answers": classes, "aborted": figures.aborted(), "refused_overloaded": overload, "bytes": figures.sent() })
        })
        .collect()
}

/// A pool that does not serve as it is configured to.
fn is_degraded(pool: &PoolStatus) -> bool {
    pool.breaker.state != "closed" || pool.frozen || pool.service != "open"
}

fn upstreams(generation: &Generation) -> Map<String, Value> {
    let now = Instant::now();
    generation.upstreams.iter().map(|(name, upstream)| (name.clone(), json!(upstream.status(now)))).collect()
}

/// By name in the configuration, with the hooks' calls and faults added up.
fn plugins(shared: &Shared) -> Map<String, Value> {
    let entry = |status: PluginStatus| {
        let mut calls = 0;
        let mut faults = Map::new();
        for hook in status.hooks.values() {
            calls += hook.figures.calls;
            for (kind, count) in &hook.figures.faults {
                let total = faults.entry(kind.as_str()).or_insert_with(|| json!(0));
                *total = json!(total.as_u64().unwrap_or(0) + count);
            }
        }
        let name = status.plugin.clone();
        let mut value = json!(status);
        value["calls"] = json!(calls);
        value["faults"] = Value::Object(faults);
        (name, value)
    };
    shared.plugins.status().into_iter().map(entry).collect()
}
