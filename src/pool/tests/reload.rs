//! Settings that change, pools that are replaced.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::scripted::{Database, MS, Server, change, driven, in_ms, pool, pool_on, settings, take, until, warm, who};
use crate::{
    policy::NativeValidation,
    pool::{FailureClass, PoolSettings},
};

fn reconfigure(pool: &Arc<super::scripted::TestPool>, server: &Arc<Server>, settings: PoolSettings) {
    pool.reconfigure(settings, change(NativeValidation::BypassWindow), Database(Arc::clone(server)));
}

#[tokio::test(start_paused = true)]
async fn the_size_moves_at_once_in_both_directions() {
    let (pool, server) = pool(2);
    let mut held = vec![take(&pool).await, take(&pool).await];
    reconfigure(&pool, &server, settings(4));
    held.push(take(&pool).await);
    held.push(take(&pool).await);
    reconfigure(&pool, &server, settings(1));
    assert_eq!((pool.status().in_use, pool.status().limit), (4, 1), "nothing in use is closed");
    held.truncate(2);
    until(|| server.seen().live == 2).await;
    held.clear();
    until(|| server.seen().live == 1).await;
    assert_eq!(pool.status().idle, 1);
    assert_eq!(pool.status().counters.closes.surplus, 3);
}

#[tokio::test(start_paused = true)]
async fn timeouts_change_for_those_who_come_next() {
    let (pool, server) = pool(1);
    let _held = take(&pool).await;
    reconfigure(&pool, &server, PoolSettings { checkout_timeout: MS(30), ..settings(1) });
    let begun = Instant::now();
    assert!(pool.checkout(in_ms(5_000), who(2)).await.is_err());
    assert_eq!(begun.elapsed(), MS(30));
}

#[tokio::test(start_paused = true)]
async fn what_shapes_a_session_retires_old_connections_as_they_come_back() {
    let (pool, server) = pool(3);
    warm(&pool, 2).await;
    let held = take(&pool).await;
    reconfigure(&pool, &server, PoolSettings { queue: 7, ..settings(3) });
    assert_eq!((pool.status().epoch, pool.status().idle), (0, 1), "not every change does");
    reconfigure(&pool, &server, PoolSettings { session: 1, ..settings(3) });
    assert_eq!((pool.status().epoch, pool.status().idle), (1, 0));
    drop(held);
    assert_eq!(pool.status().idle, 0);
    assert!(!take(&pool).await.is_reused());
    assert_eq!(pool.status().counters.closes.outdated, 2);
}

#[tokio::test(start_paused = true)]
async fn new_credentials_are_tried_at_once() {
    let (pool, server) = driven(settings(2));
    server.script.lock().refuses = Some(FailureClass::Authentication);
    assert!(pool.checkout(in_ms(100), who(1)).await.is_err());
    assert_eq!((pool.status().breaker.state, pool.status().counters.breaker_trips), ("open", 1));
    server.script.lock().refuses = None;
    reconfigure(&pool, &server, PoolSettings { session: 1, ..settings(2) });
    let begun = Instant::now();
    drop(take(&pool).await);
    assert!(begun.elapsed() < MS(10));
}

#[tokio::test(start_paused = true)]
async fn a_retired_pool_serves_to_the_end_then_is_drained() {
    let server = Server::new();
    let pool = pool_on(&server, settings(2), None);
    let driver = tokio::spawn(Arc::clone(&pool).drive());
    warm(&pool, 2).await;
    let held = take(&pool).await;
    pool.retire();
    until(|| server.seen().live == 1).await;
    let late = take(&pool).await;
    let drained = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.drained().await }
    });
    sleep(MS(5_000)).await;
    assert!(!drained.is_finished() && !driver.is_finished());
    drop((held, late));
    drained.await.unwrap();
    assert_eq!((server.seen().live, pool.budget().live()), (0, 0));
    drop(pool);
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retired_pool_is_drained_when_its_last_waiter_gives_up() {
    let (pool, server) = driven(settings(2));
    server.script.lock().refuses = Some(FailureClass::Unavailable);
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(2_000), who(1)).await.is_err() }
    });
    until(|| server.seen().attempts > 0).await;
    pool.retire();
    let drained = tokio::spawn(async move { tokio::time::timeout(MS(60_000), pool.drained()).await });
    assert!(waiter.await.unwrap());
    drained.await.unwrap().expect("nobody is left");
}

#[tokio::test(start_paused = true)]
async fn a_retired_pool_asks_nothing_of_a_server_that_was_left() {
    let (pool, server) = driven(settings(2));
    server.script.lock().refuses = Some(FailureClass::Authentication);
    assert!(pool.checkout(in_ms(100), who(1)).await.is_err());
    assert_eq!(pool.status().breaker.state, "open");
    pool.retire();
    let before = server.seen().attempts;
    sleep(MS(120_000)).await;
    assert_eq!(server.seen().attempts, before);
    pool.drained().await;
}

#[tokio::test(start_paused = true)]
async fn all_connections_can_be_replaced() {
    let (pool, server) = pool(3);
    warm(&pool, 2).await;
    let held = take(&pool).await;
    pool.reconnect();
    until(|| server.seen().live == 1).await;
    drop(held);
    until(|| server.seen().live == 0).await;
    assert!(!take(&pool).await.is_reused());
    assert_eq!(pool.status().counters.closes.outdated, 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_pool_and_the_one_it_replaces_share_the_servers_cap() {
    let server = Server::new();
    let old = pool_on(&server, settings(3), None);
    drop(tokio::spawn(Arc::clone(&old).drive()));
    let held: Vec<_> = [take(&old).await, take(&old).await, take(&old).await].into();
    let new = pool_on(&server, settings(3), Some(old.budget()));
    drop(tokio::spawn(Arc::clone(&new).drive()));
    old.retire();
    let waiter = tokio::spawn({
        let new = Arc::clone(&new);
        async move { new.checkout(in_ms(5_000), who(1)).await.unwrap().id() }
    });
    sleep(MS(100)).await;
    assert!(!waiter.is_finished(), "the old pool has it all");
    let begun = Instant::now();
    drop(held);
    waiter.await.unwrap();
    assert!(begun.elapsed() < MS(50), "it hears at once: {:?}", begun.elapsed());
    assert!(server.seen().peak <= 3);
    old.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_a_refused_configuration_leaves_no_trace() {
    let server = Server::new();
    let old = pool_on(&server, settings(3), None);
    drop(pool_on(&server, settings(9), Some(old.budget())));
    assert_eq!(old.budget().cap(), 3);
    let new = pool_on(&server, settings(5), Some(old.budget()));
    drop(tokio::spawn(new.drive()));
    sleep(MS(1)).await;
    assert_eq!(old.budget().cap(), 5, "its cap holds from when it is driven");
}

#[tokio::test(start_paused = true)]
async fn waiters_keep_their_place_in_a_retired_pool_until_it_is_shut() {
    let (pool, _server) = driven(settings(1));
    let held = take(&pool).await;
    let waiters: Vec<_> = (0..2)
        .map(|n| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                let lease = pool.checkout(in_ms(5_000), who(n)).await;
                sleep(MS(100)).await;
                lease.err().map(|error| error.kind().as_str())
            })
        })
        .collect();
    until(|| pool.status().waiters == 2).await;
    pool.retire();
    drop(held);
    until(|| pool.status().waiters == 1).await;
    pool.shut();
    let mut answers = Vec::new();
    for waiter in waiters {
        answers.push(waiter.await.unwrap());
    }
    assert_eq!(answers, [None, Some("retired")]);
    assert_eq!(pool.checkout(in_ms(5_000), who(3)).await.err().unwrap().kind().as_str(), "retired");
}
