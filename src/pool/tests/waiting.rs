//! What callers wait for, and what they are told when it does not come.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::scripted::{MS, driven, in_ms, pool, settings, take, until, warm, who};
use crate::pool::{CheckoutErrorKind, FailureClass, PoolSettings};

#[tokio::test(start_paused = true)]
async fn a_connection_returned_comes_before_one_being_made() {
    let (pool, server) = pool(2);
    server.script.lock().connect = MS(1_000);
    let held = take(&pool).await;
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(5_000), who(2)).await.unwrap().id() }
    });
    until(|| pool.status().waiters == 1).await;
    let (id, begun) = (held.id(), Instant::now());
    drop(held);
    assert_eq!(waiter.await.unwrap(), id);
    assert!(begun.elapsed() < MS(10));
    until(|| pool.status().idle == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_does_not_waste_its_connect() {
    let (pool, server) = pool(2);
    server.script.lock().connect = MS(100);
    assert!(timeout(MS(50), pool.checkout(in_ms(5_000), who(1))).await.is_err());
    assert_eq!(server.seen().connecting, 1, "it goes on");
    until(|| pool.status().idle == 1).await;
    let begun = Instant::now();
    drop(take(&pool).await);
    assert_eq!((begun.elapsed(), server.seen().attempts), (Duration::ZERO, 1));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_who_is_given_a_dead_connection_keeps_its_place() {
    let (pool, server) = pool(1);
    let held = take(&pool).await;
    let served = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let waiters: Vec<_> = (0..3)
        .map(|n| {
            let (pool, served) = (Arc::clone(&pool), Arc::clone(&served));
            tokio::spawn(async move {
                let lease = pool.checkout(in_ms(5_000), who(n)).await.unwrap();
                served.lock().push(n);
                sleep(MS(1)).await;
                drop(lease);
            })
        })
        .collect();
    until(|| pool.status().waiters == 3).await;
    server.kill_all();
    drop(held);
    for waiter in waiters {
        waiter.await.unwrap();
    }
    assert_eq!((&**served.lock(), server.seen().created), (&[0, 1, 2][..], 2));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_whatever_is_slow() {
    let (pool, server) = driven(PoolSettings { connect_timeout: MS(60_000), ..settings(2) });
    server.script.lock().connect = MS(30_000);
    let begun = Instant::now();
    let error = pool.checkout(in_ms(700), who(1)).await.err().unwrap();
    assert_eq!((error.kind().as_str(), begun.elapsed()), ("slow", MS(700)));
    let begun = Instant::now();
    let error = pool.checkout(in_ms(60_000), who(1)).await.err().unwrap();
    assert_eq!(begun.elapsed(), MS(5_000), "the pool's own timeout, {error}");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_says_whether_it_is_saturated_or_slow() {
    let (pool, _server) = pool(1);
    let held = take(&pool).await;
    let error = pool.checkout(in_ms(100), who(2)).await.err().unwrap();
    assert_eq!(error.kind().as_str(), "slow", "nothing came back meanwhile");
    let busy = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move {
            let _first = pool.checkout(in_ms(1_000), who(3)).await.unwrap();
            sleep(MS(500)).await;
        }
    });
    until(|| pool.status().waiters == 1).await;
    let late = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(100), who(4)).await.err().unwrap() }
    });
    until(|| pool.status().waiters == 2).await;
    drop(held);
    let error = late.await.unwrap();
    assert_eq!(error.kind().as_str(), "saturated", "another was first");
    assert_eq!(error.waited(), MS(100));
    busy.await.unwrap();
    let counters = pool.status().counters;
    assert_eq!((counters.timeouts, counters.refused), (2, 0));
    assert_eq!(pool.status().breaker.state, "closed", "waiting in vain is no failure of the database");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_names_those_who_do_not_give_back() {
    let (pool, _server) = driven(settings(2));
    let leaks = [take(&pool).await, take(&pool).await];
    sleep(MS(40_000)).await;
    let error = pool.checkout(in_ms(50), who(2)).await.err().unwrap();
    let CheckoutErrorKind::Leaked { holders } = error.kind() else { panic!("{error}") };
    assert_eq!((holders.len(), &*holders[0].route), (2, "/test"));
    let status = pool.status();
    assert_eq!(status.counters.held_long, 2, "said once each");
    assert!(status.advice.iter().any(|advice| advice.contains("held by route /test")), "{:?}", status.advice);
    drop(leaks);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_says_that_connecting_fails_and_how() {
    let (pool, server) = driven(settings(2));
    let _held = take(&pool).await;
    server.script.lock().refuses = Some(FailureClass::Authentication);
    let error = pool.checkout(in_ms(300), who(2)).await.err().unwrap();
    let CheckoutErrorKind::Creating { class, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(*class, FailureClass::Authentication);
    assert!(error.is_upstream());
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_stopped_worker_serve_on_another() {
    let (pool, server) = pool(3);
    let elsewhere = Arc::clone(&pool);
    let worker = move || {
        crate::observe::set_worker(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(warm(&elsewhere, 2));
    };
    std::thread::spawn(worker).join().unwrap();
    assert_eq!(pool.status().idle, 2);
    let leases = [take(&pool).await, take(&pool).await];
    let seen = server.seen();
    assert_eq!((seen.rehomed, seen.created, pool.status().counters.rehomed), (2, 2, 2));
    drop(leases);
    warm(&pool, 2).await;
    assert_eq!(server.seen().rehomed, 2, "they are at home here now");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_while_connecting_holds_its_permit_until_it_has_lingered() {
    let (pool, server) = driven(settings(1));
    server.script.lock().connect = MS(1_000);
    let elsewhere = Arc::clone(&pool);
    let worker = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { timeout(MS(1), elsewhere.checkout(in_ms(5_000), who(1))).await.is_err() })
    };
    assert!(std::thread::spawn(worker).join().unwrap());
    let status = pool.status();
    assert_eq!((status.creating, status.closing, status.lingering), (0, 1, 1));
    server.script.lock().connect = MS(5);
    let begun = Instant::now();
    drop(take_for(&pool, 20_000).await);
    assert!(begun.elapsed() >= MS(4_900), "the server may still hold it: {:?}", begun.elapsed());
    assert!(server.seen().peak <= 1);
}

/// Checks out with a patience longer than the pool's.
async fn take_for(pool: &Arc<super::scripted::TestPool>, ms: u64) -> crate::pool::Lease<super::scripted::Database> {
    let limit = in_ms(ms);
    loop {
        match pool.checkout(limit, who(1)).await {
            Ok(lease) => return lease,
            Err(error) => assert!(Instant::now() < limit, "{error}"),
        }
    }
}
