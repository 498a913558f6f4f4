//! How connections come back.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::scripted::{MS, driven, in_ms, pool, settings, take, until, warm, who};
use crate::pool::{Hygiene, PoolSettings, UseError};

#[tokio::test(start_paused = true)]
async fn an_open_transaction_is_rolled_back_at_once() {
    let (pool, server) = pool(1);
    let mut lease = take(&pool).await;
    lease.hygiene = Hygiene::Transaction;
    drop(lease);
    until(|| pool.status().idle == 1).await;
    assert_eq!((server.seen().rollbacks, pool.status().counters.rollbacks), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_changed_session_is_reset_and_a_running_statement_stopped() {
    let (pool, server) = pool(1);
    for (state, expected) in [(Hygiene::Session, (1, 0, 0)), (Hygiene::Busy, (1, 1, 1))] {
        let mut lease = take(&pool).await;
        lease.hygiene = state;
        drop(lease);
        until(|| pool.status().idle == 1).await;
        let seen = server.seen();
        assert_eq!((seen.resets, seen.recoveries, seen.rollbacks), expected);
    }
    assert_eq!(server.seen().created, 1, "it was kept");
}

#[tokio::test(start_paused = true)]
async fn while_it_is_cleaned_its_permit_is_taken_and_the_next_gets_it_clean() {
    let (pool, server) = pool(1);
    server.script.lock().answer = MS(50);
    let mut lease = take(&pool).await;
    lease.hygiene = Hygiene::Transaction;
    drop(lease);
    assert_eq!((pool.status().in_use, pool.status().idle), (1, 0));
    let begun = Instant::now();
    let next = take(&pool).await;
    assert_eq!((next.hygiene, begun.elapsed(), server.seen().created), (Hygiene::Clean, MS(50), 1));
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_a_connection_that_is_given_up_is_stopped_first() {
    let (pool, server) = pool(1);
    let mut lease = take(&pool).await;
    lease.hygiene = Hygiene::Busy;
    lease.discard();
    until(|| pool.status().closing == 0).await;
    assert_eq!((server.seen().recoveries, server.seen().goodbyes), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_writes_any_more_loses_all_connections_at_once() {
    let (pool, server) = pool(5);
    warm(&pool, 4).await;
    let (mut lease, other) = (take(&pool).await, take(&pool).await);
    lease.failed_with(UseError::ReadOnly);
    drop(lease);
    assert_eq!((pool.status().idle, pool.status().counters.closes.purged), (0, 3));
    drop(other);
    assert_eq!(
        (pool.status().idle, pool.status().counters.closes.outdated),
        (0, 1),
        "one in use goes when it comes back"
    );
    warm(&pool, 3).await;
    let mut again = take(&pool).await;
    again.failed_with(UseError::ReadOnly);
    drop(again);
    until(|| pool.status().in_use == 0).await;
    assert!(pool.status().idle >= 2, "not again and again: {:?}", server.seen());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_clean_is_closed() {
    let (pool, server) = pool(1);
    server.script.lock().stubborn = true;
    let mut lease = take(&pool).await;
    lease.hygiene = Hygiene::Session;
    drop(lease);
    until(|| pool.status().counters.closes.unclean == 1).await;
    server.script.lock().frozen = true;
    server.script.lock().stubborn = false;
    until(|| pool.status().closing == 0).await;
    assert_eq!(server.seen().live, 0);
}

#[tokio::test(start_paused = true)]
async fn cleaning_has_a_deadline_and_a_close_nobody_confirms_lingers() {
    let (pool, server) = driven(PoolSettings { connect_timeout: MS(2_000), ..settings(1) });
    let mut lease = take(&pool).await;
    server.script.lock().frozen = true;
    lease.hygiene = Hygiene::Busy;
    let begun = Instant::now();
    drop(lease);
    until(|| pool.status().counters.closes.unclean == 1).await;
    assert!((MS(2_000)..MS(2_060)).contains(&begun.elapsed()));
    until(|| pool.status().closing == 0).await;
    assert!(begun.elapsed() >= MS(7_000), "the permit came back only after linger");
    assert_eq!(pool.status().counters.closes_unconfirmed, 1);
}

#[tokio::test(start_paused = true)]
async fn broken_and_given_up_connections_are_closed_with_a_goodbye() {
    let (pool, server) = pool(2);
    let (mut broken, given_up) = (take(&pool).await, take(&pool).await);
    broken.hygiene = Hygiene::Broken;
    drop(broken);
    given_up.discard();
    until(|| pool.status().closing == 0).await;
    let closes = pool.status().counters.closes;
    assert_eq!((closes.broken, closes.abandoned, server.seen().goodbyes, server.seen().live), (1, 1, 2, 0));
    assert_eq!(pool.budget().live(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_an_error_the_connection_is_pinged_before_anybody_else_gets_it() {
    let (pool, server) = pool(1);
    let mut lease = take(&pool).await;
    lease.failed_with(UseError::Connection);
    lease.rtt(MS(3));
    drop(lease);
    until(|| pool.status().idle == 1).await;
    assert_eq!(server.seen().probes, 1);
    drop(take(&pool).await);
    assert_eq!(server.seen().probes, 1, "and then trusted again");
    let status = pool.status();
    assert_eq!((status.counters.errors, status.latency.rtt.samples, status.latency.hold.samples), (1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn leases_may_be_dropped_outside_any_runtime() {
    let (pool, server) = pool(2);
    let (clean, mut dirty) = (take(&pool).await, take(&pool).await);
    dirty.hygiene = Hygiene::Transaction;
    std::thread::spawn(move || drop((clean, dirty))).join().unwrap();
    until(|| pool.status().idle == 2).await;
    assert_eq!(server.seen().rollbacks, 1);
}

#[tokio::test(start_paused = true)]
async fn waiters_get_what_is_cleaned_in_their_order() {
    let (pool, _server) = pool(1);
    let mut lease = take(&pool).await;
    let waiters: Vec<_> = (0..3)
        .map(|n| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                let mut lease = pool.checkout(in_ms(1_000), who(n)).await.unwrap();
                sleep(MS(1)).await;
                lease.hygiene = Hygiene::Transaction;
                n
            })
        })
        .collect();
    until(|| pool.status().waiters == 3).await;
    lease.hygiene = Hygiene::Transaction;
    drop(lease);
    for waiter in waiters {
        waiter.await.unwrap();
    }
    until(|| pool.status().idle == 1).await;
    assert_eq!(pool.status().counters.rollbacks, 4);
}
