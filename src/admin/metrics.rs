//! `/metrics`: figures under OpenTelemetry's names, dots as underscores, base units as suffix.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{replicas, status};
use crate::{
    gateway::{Generation, Shared},
    limit::Shares,
    observe::{self, exposition::Exposition, pressure::Pressure},
    pool::{Counters, DecisionCount, Histograms, PoolStatus},
};

pub(super) fn render(shared: &Shared) -> String {
    let mut out = Exposition::default();
    let generation = shared.generation();
    process(&mut out, shared, &generation);
    http(&mut out, shared);
    for (name, pool) in &generation.all_pools() {
        let status = pool.status();
        connections(&mut out, name, &status);
        counters(&mut out, name, &status.counters);
        policies(&mut out, name, &status);
        times(&mut out, name, status.times);
        replicas::render(&mut out, name, pool);
    }
    for alert in shared.alerts.standing() {
        let labels = [("db_client_connection_pool_name", &*alert.pool), ("rule", alert.rule.as_str())];
        out.gauge("sluicegate_alert", "An alert that stands, with its figure", &labels, alert.value);
    }
    overload(&mut out, shared);
    issuers(&mut out, &generation);
    upstreams(&mut out, &generation);
    named(&mut out, shared, &generation);
    plugins(&mut out, shared);
    out.render()
}

/// Named queries by name, the answers kept of them, and lists of texts by file.
fn named(out: &mut Exposition, shared: &Shared, generation: &Generation) {
    for (name, figures) in generation.named_queries() {
        let outcomes =
            [("hit", figures.hits), ("miss", figures.misses), ("stale", figures.stale), ("failed", figures.failed)];
        for (outcome, count) in outcomes {
            let labels = [("query", name), ("outcome", outcome)];
            out.counter("sluicegate_named_queries", "Requests for a named query, alone", &labels, count);
        }
    }
    let held = shared.query_cache.held();
    out.gauge("sluicegate_query_cache_entries", "Answers of named queries that are kept", &[], held.entries as f64);
    out.gauge("sluicegate_query_cache_bytes", "Memory that they take, about", &[], held.bytes as f64);
    for file in generation.allow_lists() {
        let (path, status) = (file.path().display().to_string(), file.status());
        let help = "Texts that an allow-list holds";
        out.gauge("sluicegate_allow_list_texts", help, &[("file", &path)], status.texts as f64);
        let events = [("learnt", status.learnt), ("dropped", status.dropped), ("refused", status.refused)];
        for (event, count) in events {
            let labels = [("file", path.as_str()), ("event", event)];
            out.counter(
                "sluicegate_allow_list_statements",
                "What became of statements that it did not hold",
                &labels,
                count,
            );
        }
    }
}

fn process(out: &mut Exposition, shared: &Shared, generation: &Generation) {
    let ready = f64::from(u8::from(status::not_ready(shared).is_empty()));
    out.gauge("sluicegate_ready", "Whether /readyz says yes", &[], ready);
    out.gauge("sluicegate_build_info", "1, with the version", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    out.gauge("sluicegate_generation", "Number of the generation that serves", &[], generation.number as f64);
    let live = shared.generations.load(Ordering::Relaxed) as f64;
    out.gauge("sluicegate_generations_live", "Generations that some request still holds", &[], live);
    let (succeeded, failed) = shared.reloads.counts();
    for (outcome, count) in [("succeeded", succeeded), ("failed", failed)] {
        out.counter("sluicegate_reloads", "Configuration reloads", &[("outcome", outcome)], count);
    }
    let last_failed = shared.reloads.last().is_some_and(|last| last.error.is_some());
    out.gauge(
        "sluicegate_config_last_reload_success",
        "Whether the last reload took effect",
        &[],
        f64::from(u8::from(!last_failed)),
    );
    out.counter(
        "sluicegate_access_log_dropped_lines",
        "Lines lost to a slow or full disk",
        &[],
        shared.access_log.dropped(),
    );
    let lost = observe::dropped_log_lines();
    out.counter("sluicegate_log_dropped_lines", "Log lines lost as nobody read standard error", &[], lost);
    for listening in shared.listeners.serving() {
        if let Some(expiry) = listening.not_after() {
            let labels = [("listener", &*listening.name)];
            let help = "When the first certificate of a listener expires, in seconds since 1970";
            out.gauge("sluicegate_certificate_expiry_seconds", help, &labels, expiry as f64);
        }
    }
    for (name, value) in shared.edge.snapshot().counters() {
        out.counter("sluicegate_edge_events", "What happened to connections", &[("event", name)], value);
    }
    let open = shared.edge.snapshot().active as f64;
    out.gauge("http_server_open_connections", "Client connections open", &[], open);
    out.gauge("sluicegate_tunnels", "Upgraded connections open", &[], shared.tunnels.open() as f64);
}

fn issuers(out: &mut Exposition, generation: &Generation) {
    for (name, status) in generation.issuers() {
        let issuer = ("issuer", name.as_str());
        out.gauge("sluicegate_issuer_keys", "Keys of an issuer of tokens", &[issuer], status.keys as f64);
        for (outcome, count) in [("succeeded", status.fetched), ("failed", status.failed)] {
            let help = "Times that an issuer's keys were read";
            out.counter("sluicegate_issuer_key_reads", help, &[issuer, ("outcome", outcome)], count);
        }
        if let Some(age) = status.age_seconds {
            let help = "Since an issuer's keys were last read";
            out.gauge("sluicegate_issuer_keys_age_seconds", help, &[issuer], age as f64);
        }
    }
}

fn http(out: &mut Exposition, shared: &Shared) {
    for (route, figures) in shared.http.routes() {
        let help = "Requests under way";
        out.gauge("http_server_active_requests", help, &[("http_route", &route)], figures.active() as f64);
        out.counter(
            "http_server_aborted_responses",
            "Answers that broke off",
            &[("http_route", &route)],
            figures.aborted(),
        );
        let help = "Bytes of answers' bodies";
        out.counter("http_server_response_body_bytes", help, &[("http_route", &route)], figures.sent());
        for (class, now) in figures.durations() {
            if now.count > 0 {
                let labels = [("http_route", route.as_str()), ("http_response_status_class", class)];
                out.histogram("http_server_request_duration_seconds", "From head to last byte", &labels, now);
            }
        }
    }
}

fn connections(out: &mut Exposition, pool: &str, status: &PoolStatus) {
    let states = [
        ("idle", status.idle),
        ("used", status.in_use),
        ("creating", status.creating),
        ("closing", status.closing),
        ("lingering", status.lingering),
    ];
    for (state, count) in states {
        let labels = [("db_client_connection_pool_name", pool), ("state", state)];
        out.gauge("db_client_connection_count", "Connections by state", &labels, f64::from(count));
    }
    let pool = [("db_client_connection_pool_name", pool)];
    let mut gauge = |name, help, value: f64| out.gauge(name, help, &pool, value);
    gauge("db_client_connection_max", "Connections at most", f64::from(status.max));
    gauge("db_client_connection_idle_min", "Connections kept open", f64::from(status.min));
    gauge("db_client_connection_target", "Connections the sizing policy aims at", f64::from(status.target));
    gauge("db_client_connection_pending_requests", "Callers in the queue", f64::from(status.waiters));
    let peak = f64::from(status.in_use_peak);
    gauge("db_client_connection_used_peak", "Connections in use at most in the last one to two minutes", peak);
    let peak = f64::from(status.waiters_peak);
    gauge("db_client_connection_pending_requests_peak", "Callers in the queue at most in that time", peak);
    let oldest = f64::from(status.oldest_wait_ms) / 1e3;
    gauge("db_client_connection_oldest_wait_seconds", "How long the first in the queue has waited", oldest);
    gauge("db_client_connection_health_ratio", "Good among creates and validations", status.health);
    gauge("db_client_connection_limit", "Connections that may exist now, after every bound", f64::from(status.limit));
    gauge("db_client_connection_failed_checks", "Validations that failed in a row", f64::from(status.failed_checks));
    if let Some(server) = status.server {
        gauge(
            "sluicegate_database_server_connections",
            "Of all pools on the same server",
            f64::from(server.connections),
        );
        let cap = server.cap.map_or(f64::INFINITY, f64::from);
        gauge("sluicegate_database_server_connections_max", "That all pools on the server may have together", cap);
    }
    let open = f64::from(u8::from(status.breaker.state == "open"));
    gauge("db_client_connection_breaker_open", "Whether the breaker is open", open);
}

/// Every counter of the pool: plain ones by event, those that are tables by cause.
fn counters(out: &mut Exposition, pool: &str, c: &Counters) {
    let plain = [
        ("acquired", c.checkouts),
        ("waited", c.waited),
        ("timeouts", c.timeouts),
        ("refused", c.refused),
        ("cancelled", c.cancelled),
        ("slow_checkouts", c.slow_checkouts),
        ("handoffs", c.handoffs),
        ("rehomed", c.rehomed),
        ("created", c.creates),
        ("probes", c.probes),
        ("validations_ok", c.validations_ok),
        ("validation_failures", c.validations_failed),
        ("rollbacks", c.rollbacks),
        ("resets", c.resets),
        ("recoveries", c.recoveries),
        ("errors", c.errors),
        ("released", c.returns),
        ("breaker_trips", c.breaker_trips),
        ("retries", c.retries),
        ("retries_refused", c.retries_refused),
        ("retries_sent", c.retries_sent),
        ("retries_failed", c.retries_failed),
        ("held_long", c.held_long),
        ("held_ended", c.held_ended),
        ("closes_unconfirmed", c.closes_unconfirmed),
    ];
    for (event, count) in plain {
        let labels = [("db_client_connection_pool_name", pool), ("event", event)];
        out.counter("db_client_connection_events", "What happened to connections and callers", &labels, count);
    }
    let mut by_cause = |name, help, causes: &mut dyn Iterator<Item = (&'static str, u64)>| {
        for (cause, count) in causes {
            // As in `/status`.
            let cause = cause.replace('-', "_");
            out.counter(name, help, &[("db_client_connection_pool_name", pool), ("cause", &cause)], count);
        }
    };
    let help = "Connections that could not be made";
    by_cause("db_client_connection_create_failures", help, &mut c.create_failures.iter());
    by_cause("db_client_connection_closed", "Connections closed", &mut c.closes.iter());
}

fn policies(out: &mut Exposition, pool: &str, status: &PoolStatus) {
    for DecisionCount { hook, by, policy, version, count } in &status.decisions {
        let version = version.to_string();
        let labels = [
            ("db_client_connection_pool_name", pool),
            ("hook", hook),
            ("by", by),
            ("policy", policy),
            ("version", &version),
        ];
        let help = "Decisions by hook, who took them, policy and version";
        out.counter("sluicegate_policy_decisions", help, &labels, *count);
    }
    for (hook, cause, count) in status.counters.clamped.by_hook() {
        let labels = [("db_client_connection_pool_name", pool), ("hook", hook), ("cause", cause)];
        let help = "Policies' answers that were not followed to the letter";
        out.counter("sluicegate_policy_clamped", help, &labels, count);
    }
}

/// Times since the pool began; of a pool that has seen nothing as well, so that its first are an increase.
fn times(out: &mut Exposition, pool: &str, of: Histograms) {
    let all = [
        ("db_client_connection_wait_time_seconds", "From asking for a connection to having one, or giving up", of.wait),
        ("db_client_connection_use_time_seconds", "From checkout to return", of.hold),
        ("db_client_connection_create_time_seconds", "Making a connection", of.create),
        ("db_client_connection_validate_time_seconds", "Validating a connection", of.validate),
        ("db_client_operation_round_trip_seconds", "On the backend alone", of.rtt),
    ];
    for (name, help, now) in all {
        out.histogram(name, help, &[("db_client_connection_pool_name", pool)], now);
    }
}

/// How short the gateway itself is of something, and who is refused for it.
fn overload(out: &mut Exposition, shared: &Shared) {
    let standing = shared.overload.standing();
    let Pressure { memory, cpu } = standing.pressure;
    for (resource, share) in [("memory", memory), ("cpu", cpu)] {
        let help = "How full a resource of the gateway's own is, from 0 to 1";
        if let Some(share) = share {
            out.gauge("sluicegate_pressure_ratio", help, &[("resource", resource)], share);
        }
    }
    let Shares { low, normal, high } = standing.refused;
    for (priority, share) in [("low", low), ("normal", normal), ("high", high)] {
        let help = "Share of requests refused, by the priority of their route";
        out.gauge("sluicegate_overload_refused_ratio", help, &[("priority", priority)], share);
    }
    for (route, figures) in shared.http.routes() {
        for (cause, count) in figures.refused() {
            let labels = [("http_route", route.as_str()), ("cause", cause.as_str())];
            out.counter("sluicegate_overload_refused_requests", "Requests refused while overloaded", &labels, count);
        }
    }
}

fn upstreams(out: &mut Exposition, generation: &Generation) {
    for (name, upstream) in &generation.upstreams {
        let status = upstream.status(Instant::now());
        let help = "Connections to an upstream";
        for (state, count) in [("idle", status.idle), ("active", status.in_use)] {
            let labels = [("upstream", name.as_str()), ("http_connection_state", state)];
            out.gauge("http_client_open_connections", help, &labels, count as f64);
        }
        let labels = [("upstream", name.as_str())];
        out.gauge("http_client_pending_requests", "Requests waiting for a connection", &labels, status.waiting as f64);
        for endpoint in &status.endpoints {
            let labels = [("upstream", name.as_str()), ("server_address", &*endpoint.address)];
            out.counter("http_client_requests", "Requests sent to an endpoint", &labels, endpoint.requests);
            out.counter("http_client_failures", "Failed connects and invalid answers", &labels, endpoint.failures);
        }
    }
}

fn plugins(out: &mut Exposition, shared: &Shared) {
    for plugin in shared.plugins.status() {
        let name = plugin.plugin.as_str();
        let help = "Versions of a plugin that have served";
        out.counter("sluicegate_plugin_versions", help, &[("plugin", name)], plugin.generation);
        out.gauge("sluicegate_plugin_instances", "Live instances", &[("plugin", name)], plugin.instances as f64);
        for (hook, status) in &plugin.hooks {
            let labels = [("plugin", name), ("hook", hook.as_str())];
            out.counter("sluicegate_plugin_calls", "Calls of a plugin", &labels, status.figures.calls);
            let quarantined = f64::from(u8::from(status.quarantined));
            out.gauge("sluicegate_plugin_quarantined", "Whether the fallback holds", &labels, quarantined);
            let help = "Mean duration of a call";
            out.gauge("sluicegate_plugin_call_seconds_mean", help, &labels, status.figures.mean_us / 1e6);
            for (kind, count) in &status.figures.faults {
                let labels = [("plugin", name), ("hook", hook.as_str()), ("fault", kind.as_str())];
                out.counter("sluicegate_plugin_faults", "Calls that the fallback answered", &labels, *count);
            }
        }
    }
}
