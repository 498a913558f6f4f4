//! What an operator may want to do about a pool, in words.

use super::status::PoolStatus;

/// Samples below which a latency says nothing.
const ENOUGH: u64 = 20;

/// Advice on `status`; none, if all is well.
pub(super) fn on(status: &PoolStatus, held_warning_ms: u32) -> Vec<String> {
    let rules = [suspended, creation_fails, server_full, crowded, too_small, mostly_idle, flapping, unclean, lingering];
    let advice = rules.iter().filter_map(|rule| rule(status));
    advice.chain(held_long(status, held_warning_ms)).collect()
}

fn suspended(status: &PoolStatus) -> Option<String> {
    let what = (status.service != "open").then_some(status.service)?;
    Some(format!("{what} by an operator, {} callers wait: `sluicegate pool resume {}`", status.waiters, status.name))
}

fn creation_fails(status: &PoolStatus) -> Option<String> {
    let breaker = &status.breaker;
    let reason = breaker.reason?;
    let code = breaker.sqlstate.as_deref().map(|code| format!(" (SQLSTATE {code})")).unwrap_or_default();
    let cure = match reason {
        "unreachable" | "timeout" => "check the address, the network and whether the server runs",
        "no-such-database" => "check the name of the database in `url`",
        "authentication" => "check the user and the password; callers are not served until one attempt succeeds",
        "server-full" => "the server's max_connections is used up: lower size.max here or in other clients",
        "account-full" => {
            "the role's or the database's connection limit is used up: lower size.max or raise that limit"
        }
        "unavailable" => "the server starts up, shuts down or recovers; it is tried again by itself",
        _ => "see the log for the server's words",
    };
    let next = breaker.retry_after_ms;
    Some(format!("connections cannot be made: {reason}{code}; next attempt in {next} ms; {cure}"))
}

fn server_full(status: &PoolStatus) -> Option<String> {
    let ceiling = status.ceiling.filter(|ceiling| *ceiling < status.max)?;
    let max = status.max;
    Some(format!("the server grants this pool {ceiling} connections, not {max}: lower size.max or raise its limit"))
}

fn crowded(status: &PoolStatus) -> Option<String> {
    let server = status.server.filter(|server| server.cap.is_some_and(|cap| server.connections >= cap))?;
    let (have, pools) = (server.connections, server.pools);
    let waiting = status.waiters > 0 && status.size < status.target;
    waiting.then(|| {
        format!("the {pools} pools on this server have all {have} connections that they may open together: raise server.connections or server.share if the server has room, or lower size.max of the others")
    })
}

fn too_small(status: &PoolStatus) -> Option<String> {
    let wait = status.latency.wait;
    let hold = status.latency.hold;
    let queueing = wait.samples >= ENOUGH && wait.p95_us > hold.p50_us.max(1_000);
    if !queueing || status.breaker.reason.is_some() {
        return None;
    }
    let (wait_ms, hold_ms) = (wait.p95_us / 1000, hold.p50_us / 1000);
    let cure = match (status.target < status.max, status.frozen) {
        (_, true) => "the sizing policy is frozen because it changed its mind too often",
        (true, _) => "the sizing policy keeps the target below size.max",
        (false, _) => "raise size.max if the database has room, or make the statements faster",
    };
    Some(format!(
        "too small: 5 % of checkouts wait longer than {wait_ms} ms while half are held less than {hold_ms} ms; {cure}"
    ))
}

fn mostly_idle(status: &PoolStatus) -> Option<String> {
    let sizing = status.sizing.as_ref()?;
    let busy = sizing.in_use_peak.max(status.in_use);
    let enough_seen = status.latency.hold.samples >= ENOUGH;
    if !enough_seen || status.min < 4 || busy >= status.min / 4 || status.waiters > 0 {
        return None;
    }
    Some(format!("mostly idle: at most {busy} in use of the {} that size.min keeps open; lower it", status.min))
}

fn flapping(status: &PoolStatus) -> Option<String> {
    status
        .frozen
        .then(|| "the sizing policy changed direction more than 6 times in a minute: its target is frozen".into())
}

fn unclean(status: &PoolStatus) -> Option<String> {
    let counters = &status.counters;
    let mended = counters.rollbacks + counters.recoveries;
    let often = counters.checkouts >= 100 && mended * 10 > counters.checkouts;
    often.then(|| {
        let share = mended * 100 / counters.checkouts;
        format!("{share} % of returned connections had to be rolled back or stopped: callers leave early or forget to end transactions")
    })
}

fn lingering(status: &PoolStatus) -> Option<String> {
    let lost = status.lingering;
    let many = lost > 0 && lost * 4 >= status.max;
    many.then(|| format!("{lost} of {} permits wait for connections that the server may still hold open", status.max))
}

fn held_long(status: &PoolStatus, held_warning_ms: u32) -> Option<String> {
    let long = |held_ms: u32| held_warning_ms > 0 && held_ms >= held_warning_ms;
    let longest = status.holders.first().filter(|holder| long(holder.held_ms))?;
    let same = status.holders.iter().filter(|holder| long(holder.held_ms) && holder.route == longest.route).count();
    let (route, seconds) = (&longest.route, longest.held_ms / 1000);
    Some(format!("{same} of {} connections are held by route {route} for up to {seconds} s", status.limit))
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
pub(super) mod tests {
    use super::*;
    use crate::{
        policy::DecidedBy,
        pool::{
            figures::Counters,
            samples::{Histograms, Quantiles},
            server::ServerStatus,
            status::{BreakerStatus, HolderStatus, LatencyStatus, SizingStatus},
        },
    };

    pub(in crate::pool) fn well() -> PoolStatus {
        let breaker = BreakerStatus {
            state: "closed",
            reason: None,
            sqlstate: None,
            text: None,
            since_ms: None,
            retry_after_ms: 0,
        };
        let hold =
            Quantiles { samples: 100, mean_us: 2_100, p50_us: 2_000, p95_us: 4_000, p99_us: 5_000, max_us: 9_000 };
        let wait = Quantiles { samples: 100, mean_us: 3, p50_us: 1, p95_us: 10, p99_us: 100, max_us: 200 };
        PoolStatus {
            name: "main".into(),
            backend: "postgres",
            epoch: 0,
            retired: false,
            service: "open",
            size: 10,
            idle: 5,
            in_use: 5,
            creating: 0,
            closing: 0,
            lingering: 0,
            waiters: 0,
            in_use_peak: 6,
            waiters_peak: 0,
            oldest_wait_ms: 0,
            min: 8,
            max: 10,
            target: 10,
            limit: 10,
            min_idle: 8,
            reserve: 0,
            parallel_creates: 2,
            ceiling: None,
            server: None,
            frozen: false,
            budget: (10, 10),
            breaker,
            counters: Counters::default(),
            latency: LatencyStatus { wait, hold, ..LatencyStatus::default() },
            times: Histograms::default(),
            sizing: Some(SizingStatus {
                ago_ms: 1,
                trigger: 0,
                in_use_peak: 6,
                waiters_peak: 0,
                proposed: 10,
                target: 10,
                reason: 0,
                clamped: vec![],
                by: DecidedBy::Native,
            }),
            eviction: None,
            decisions: vec![],
            failed_checks: 0,
            health: 1.0,
            holders: vec![],
            waiting: vec![],
            advice: vec![],
        }
    }

    fn advice(change: impl FnOnce(&mut PoolStatus)) -> String {
        let mut status = well();
        change(&mut status);
        on(&status, 30_000).join("; ")
    }

    #[test]
    fn a_pool_that_is_well_gets_none() {
        assert_eq!(advice(|_| {}), "");
    }

    #[test]
    fn each_trouble_has_its_words() {
        let failing = advice(|status| {
            status.breaker.reason = Some("server-full");
            status.breaker.sqlstate = Some("53300".into());
        });
        assert!(failing.contains("SQLSTATE 53300") && failing.contains("max_connections"), "{failing}");
        assert!(advice(|status| status.latency.wait.p95_us = 50_000).starts_with("too small"));
        let steered = advice(|status| {
            status.latency.wait.p95_us = 50_000;
            status.target = 5;
        });
        assert!(steered.contains("sizing policy keeps the target below"), "{steered}");
        let idle = advice(|status| {
            status.in_use = 1;
            status.sizing.as_mut().unwrap().in_use_peak = 1;
        });
        assert!(idle.starts_with("mostly idle: at most 1 in use of the 8"), "{idle}");
        let held = advice(|status| {
            let holder = |held_ms| HolderStatus { connection: 1, route: "/report".into(), request: 1, held_ms };
            status.holders = vec![holder(95_000), holder(31_000), holder(5)];
        });
        assert_eq!(held, "2 of 10 connections are held by route /report for up to 95 s");
        assert!(advice(|status| status.ceiling = Some(7)).contains("grants this pool 7 connections, not 10"));
        let crowded = advice(|status| {
            let (connections, cap) = (8, Some(8));
            status.server = Some(ServerStatus { connections, cap, pools: 3, ..ServerStatus::default() });
            (status.size, status.waiters) = (4, 2);
        });
        assert!(crowded.contains("the 3 pools on this server have all 8 connections"), "{crowded}");
        assert!(advice(|status| status.frozen = true).contains("frozen"));
        assert!(advice(|status| status.lingering = 3).contains("3 of 10 permits"));
        let unclean = advice(|status| {
            status.counters.checkouts = 1000;
            status.counters.rollbacks = 200;
        });
        assert!(unclean.starts_with("20 %"), "{unclean}");
    }
}
