//! The database fails, and comes back.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::scripted::{MS, Server, TestPool, driven, in_ms, pool, settings, take, until, warm, who};
use crate::pool::{CheckoutErrorKind, FailureClass, PoolSettings};

/// Lets a connection's trust run out.
async fn grow_stale() {
    sleep(MS(600)).await;
}

/// Ends all connections and refuses new ones.
fn outage(server: &Server, class: FailureClass) {
    server.script.lock().refuses = Some(class);
    server.kill_all();
}

async fn until_open(pool: &Arc<TestPool>) {
    while pool.status().breaker.state == "closed" {
        let _error = pool.checkout(in_ms(100), who(1)).await.err().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_that_were_closed_cost_no_caller_an_error() {
    let (pool, server) = pool(5);
    warm(&pool, 5).await;
    server.kill_all();
    let lease = take(&pool).await;
    assert!(!lease.is_reused());
    let status = pool.status();
    assert_eq!((status.counters.closes.broken, status.counters.probes), (5, 0), "a look was enough");
    assert_eq!(status.breaker.state, "closed");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_that_are_frozen_are_not_probed_one_after_another() {
    let (pool, server) = driven(PoolSettings { validation_timeout: MS(200), ..settings(5) });
    warm(&pool, 5).await;
    grow_stale().await;
    server.script.lock().frozen = true;
    let begun = Instant::now();
    let error = pool.checkout(in_ms(1_000), who(1)).await.err().unwrap();
    assert_eq!(begun.elapsed(), MS(1_000), "{error}");
    let status = pool.status();
    assert_eq!(
        (status.counters.probes, status.counters.closes.purged),
        (2, 3),
        "two probes, then all are thought dead"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_takes_at_most_half_of_what_the_caller_has_left() {
    let (pool, server) = pool(2);
    warm(&pool, 1).await;
    grow_stale().await;
    server.script.lock().frozen = true;
    let thaw = tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            sleep(MS(250)).await;
            server.script.lock().frozen = false;
        }
    });
    let begun = Instant::now();
    drop(pool.checkout(in_ms(400), who(1)).await.unwrap());
    assert!((MS(250)..MS(270)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(server.seen().attempts, 2, "200 ms for the probe left 200 ms for a connect");
    thaw.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_during_a_probe_does_not_cost_the_connection() {
    let (pool, server) = pool(1);
    warm(&pool, 1).await;
    grow_stale().await;
    server.script.lock().answer = MS(100);
    let leaving = tokio::time::timeout(MS(50), pool.checkout(in_ms(5_000), who(1))).await;
    assert!(leaving.is_err());
    assert_eq!((pool.status().in_use, pool.status().idle), (1, 0), "the probe goes on");
    let next = take(&pool).await;
    assert!(next.is_reused() && server.seen().probes == 1);
}

#[tokio::test(start_paused = true)]
async fn callers_in_a_hurry_do_not_close_connections_that_answer_slowly() {
    let (pool, server) = pool(4);
    warm(&pool, 4).await;
    grow_stale().await;
    server.script.lock().answer = MS(40);
    for _ in 0..20 {
        assert!(pool.checkout(in_ms(50), who(1)).await.is_err());
        grow_stale().await;
    }
    let status = pool.status();
    assert_eq!((status.idle, server.seen().created), (4, 4), "{:?}", status.counters.closes);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_closes_when_the_pool_has_no_room_for_another_probe() {
    let (pool, server) = driven(settings(1));
    outage(&server, FailureClass::Unreachable);
    until_open(&pool).await;
    server.script.lock().refuses = None;
    until(|| pool.status().breaker.state == "closed").await;
    assert_eq!(server.seen().created, 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_meets_a_full_server_is_not_the_last() {
    let (pool, server) = driven(settings(5));
    outage(&server, FailureClass::Unreachable);
    until_open(&pool).await;
    {
        let mut script = server.script.lock();
        (script.refuses, script.capacity) = (None, 1);
    }
    until(|| pool.status().breaker.state == "closed").await;
    assert_eq!((server.seen().created, pool.status().idle), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_fails_callers_at_once_with_the_reason() {
    let (pool, server) = driven(settings(5));
    warm(&pool, 2).await;
    outage(&server, FailureClass::Unavailable);
    until_open(&pool).await;
    let attempts = server.seen().attempts;
    for _ in 0..1_000 {
        let begun = Instant::now();
        let error = pool.checkout(in_ms(5_000), who(1)).await.err().unwrap();
        let CheckoutErrorKind::BreakerOpen { reason, .. } = error.kind() else { panic!("{error}") };
        assert_eq!((*reason, begun.elapsed()), (FailureClass::Unavailable, Duration::ZERO));
        assert!(error.retry_after().is_some());
    }
    assert_eq!(server.seen().attempts, attempts, "callers do not hammer the database");
    assert!(pool.status().health < 0.01 && pool.status().advice[0].contains("unavailable"));
}

#[tokio::test(start_paused = true)]
async fn waiters_for_whom_nothing_can_come_are_told_when_the_breaker_opens() {
    let (pool, server) = driven(settings(5));
    outage(&server, FailureClass::Unreachable);
    let begun = Instant::now();
    let error = pool.checkout(in_ms(5_000), who(1)).await.err().unwrap();
    assert_eq!(error.kind().as_str(), "breaker-open");
    assert!(begun.elapsed() < MS(4_000), "after five attempts, not at the deadline: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn failing_attempts_are_never_hot() {
    let (pool, server) = driven(settings(5));
    server.script.lock().connect = MS(0);
    outage(&server, FailureClass::Unreachable);
    for _ in 0..600 {
        drop(pool.checkout(in_ms(100), who(1)).await);
        sleep(MS(100)).await;
    }
    let attempts = server.seen().attempts;
    assert!((8..=20).contains(&attempts), "{attempts} attempts in a minute or two");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_hangs_up_is_not_asked_without_a_pause() {
    let (pool, server) = driven(settings(3));
    server.script.lock().connect = MS(1);
    server.script.lock().hangs_up = true;
    let error = pool.checkout(in_ms(5_000), who(1)).await.err().unwrap();
    assert_eq!(error.kind().as_str(), "creating", "{error}");
    assert!(server.seen().created <= 30, "{:?}", server.seen());
    server.script.lock().hangs_up = false;
    drop(take(&pool).await);
}

#[tokio::test(start_paused = true)]
async fn service_is_back_within_a_second_or_a_backoff_step() {
    for outage_ms in [500, 3_000, 20_000, 120_000] {
        let (pool, server) = driven(PoolSettings { min: 2, ..settings(5) });
        warm(&pool, 3).await;
        outage(&server, FailureClass::Unreachable);
        let until = in_ms(outage_ms);
        while Instant::now() < until {
            drop(pool.checkout(in_ms(50), who(1)).await);
            sleep(MS(50)).await;
        }
        let step = MS(pool.status().breaker.retry_after_ms.into());
        server.script.lock().refuses = None;
        let begun = Instant::now();
        assert!(step <= MS(11_000), "after {outage_ms} ms a step is {step:?}");
        while let Err(error) = pool.checkout(in_ms(50), who(1)).await {
            let back = begun.elapsed();
            assert!(back <= step + MS(1_000), "after {outage_ms} ms: {back:?}, a step was {step:?}: {error}");
            sleep(MS(10)).await;
        }
        super::scripted::until(|| pool.status().breaker.state == "closed").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_late_after_others_have_come_through_is_no_sign_of_an_outage() {
    let (pool, server) = driven(PoolSettings { parallel_creates: 9, ..settings(9) });
    server.script.lock().connect = MS(500);
    let caller = |n| {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.checkout(in_ms(60_000), who(n)).await.map(drop) })
    };
    // Eight are on their way to the server that stops, the ninth meets the one that has come, and serves all.
    let mut callers: Vec<_> = (0..8).map(caller).collect();
    until(|| pool.status().creating == 8).await;
    server.script.lock().connect = MS(5);
    callers.push(caller(8));
    for served in callers {
        served.await.unwrap().unwrap();
    }
    assert_eq!(pool.status().creating, 8);
    server.script.lock().refuses = Some(FailureClass::Broken);
    until(|| pool.status().creating == 0).await;
    let status = pool.status();
    assert_eq!((status.counters.create_failures.broken, status.breaker.state), (8, "closed"));
}

#[tokio::test(start_paused = true)]
async fn new_connections_that_end_together_are_one_failure_and_one_after_the_other_as_many() {
    let (pool, server) = driven(PoolSettings { min: 6, ..settings(9) });
    until(|| pool.status().idle == 6).await;
    server.kill_all();
    drop(take(&pool).await);
    let together = pool.status();
    assert_eq!(
        (together.counters.create_failures.broken, together.breaker.state),
        (1, "closed"),
        "{:?}",
        together.counters
    );
    server.script.lock().hangs_up = true;
    pool.reconnect();
    let error = pool.checkout(in_ms(60_000), who(1)).await.err().unwrap();
    assert!(pool.status().counters.create_failures.broken >= 5, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_full_server_is_a_ceiling_not_an_outage() {
    let (pool, server) = driven(settings(10));
    server.script.lock().capacity = 3;
    warm(&pool, 3).await;
    let held = [take(&pool).await, take(&pool).await, take(&pool).await];
    let error = pool.checkout(in_ms(500), who(1)).await.err().unwrap();
    let CheckoutErrorKind::Creating { class, sqlstate, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((*class, sqlstate.as_deref()), (FailureClass::ServerFull, Some("53300")));
    let limit = in_ms(60_000);
    while Instant::now() < limit {
        drop(pool.checkout(in_ms(200), who(1)).await);
    }
    assert!(server.seen().attempts <= 16, "it is not asked again and again: {:?}", server.seen());
    assert_eq!(pool.status().breaker.state, "closed", "it serves us, if less than we want");
    drop(held);
    let attempts = server.seen().attempts;
    for n in 0..200 {
        let pool = Arc::clone(&pool);
        drop(tokio::spawn(async move {
            let lease = pool.checkout(in_ms(5_000), who(n)).await.unwrap();
            sleep(MS(10)).await;
            drop(lease);
        }));
    }
    sleep(MS(1_000)).await;
    let status = pool.status();
    assert_eq!((status.breaker.state, status.waiters), ("closed", 0), "existing connections keep serving");
    assert!(server.seen().attempts - attempts <= 4, "{:?}", server.seen());
    assert!(status.counters.create_failures.server_full > 0);
    server.script.lock().capacity = u32::MAX;
    // Seven steps up, each after the longest pause at worst.
    sleep(MS(120_000)).await;
    let all: Vec<_> = futures(&pool, 10).await;
    assert_eq!(all.len(), 10, "when it grants more again, more is used");
}

async fn futures(pool: &Arc<TestPool>, n: u32) -> Vec<crate::pool::Lease<super::scripted::Database>> {
    let mut leases = Vec::new();
    for _ in 0..n {
        leases.push(take(pool).await);
    }
    leases
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_tried_seldom_and_what_is_open_serves_on() {
    let (pool, server) = driven(settings(3));
    let held = take(&pool).await;
    server.script.lock().refuses = Some(FailureClass::Authentication);
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(4_000), who(2)).await.map(|lease| lease.id()) }
    });
    sleep(MS(2_000)).await;
    assert_eq!(pool.status().breaker.state, "open");
    let id = held.id();
    drop(held);
    assert_eq!(waiter.await.unwrap().unwrap(), id);
    sleep(MS(60_000)).await;
    assert!(server.seen().attempts <= 12, "{:?}", server.seen());
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_timed_out_counts_until_it_has_lingered() {
    let (pool, server) = driven(PoolSettings { connect_timeout: MS(500), linger: MS(3_000), ..settings(1) });
    server.script.lock().frozen = true;
    assert!(pool.checkout(in_ms(600), who(1)).await.is_err());
    assert_eq!((pool.status().creating, pool.status().lingering), (0, 1), "it may have reached the server");
    server.script.lock().frozen = false;
    let begun = Instant::now();
    while server.seen().created == 0 {
        drop(pool.checkout(in_ms(20), who(1)).await);
    }
    assert!(begun.elapsed() >= MS(2_800), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn connects_that_hang_do_not_keep_returned_connections_from_waiters() {
    let (pool, server) = driven(settings(3));
    let held = take(&pool).await;
    server.script.lock().frozen = true;
    let waiters: Vec<_> = (0..3)
        .map(|n| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.checkout(in_ms(4_000), who(n)).await.map(|lease| lease.id()) })
        })
        .collect();
    until(|| server.seen().connecting == 2).await;
    let begun = Instant::now();
    drop(held);
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < MS(10));
    until(|| pool.status().lingering + pool.status().closing > 0 || server.seen().connecting == 0).await;
    assert!(server.seen().peak <= 3);
}
