//! Sizes beyond a minimum and a maximum: a reserve, idle connections kept ready, the pace of opening.

use std::sync::Arc;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::scripted::{MS, driven, in_ms, settings, take, until, who};
use crate::{
    config::model::IdleOrder,
    pool::{CheckoutErrorKind, PoolSettings},
};

#[tokio::test(start_paused = true)]
async fn the_reserve_is_opened_for_who_has_waited_and_closed_behind_them() {
    let (pool, server) = driven(PoolSettings { reserve: 1, reserve_after: MS(200), ..settings(3) });
    let held = [take(&pool).await, take(&pool).await];
    let begun = Instant::now();
    let third = take(&pool).await;
    assert!((MS(200)..MS(300)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((server.seen().live, pool.status().target, pool.status().reserve), (3, 2, 1));
    drop(third);
    until(|| server.seen().live == 2).await;
    drop(held);
    assert_eq!(pool.status().idle, 2);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_kept_ready_beside_those_in_use() {
    let (pool, server) = driven(PoolSettings { min_idle: 2, ..settings(5) });
    until(|| server.seen().live == 2).await;
    let _one = take(&pool).await;
    until(|| server.seen().live == 3).await;
    let _more = [take(&pool).await, take(&pool).await];
    until(|| server.seen().live == 5).await;
    sleep(MS(5_000)).await;
    assert_eq!(server.seen().live, 5, "the maximum holds");
}

#[tokio::test(start_paused = true)]
async fn connections_are_opened_no_faster_than_told() {
    let (pool, server) = driven(PoolSettings { creates_per_second: 10, parallel_creates: 8, ..settings(8) });
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for n in 0..5 {
        let pool = Arc::clone(&pool);
        callers.spawn(async move { pool.checkout(in_ms(4_000), who(n)).await.unwrap() });
    }
    let leases = callers.join_all().await;
    assert_eq!((leases.len(), server.seen().created), (5, 5));
    assert!((MS(400)..MS(700)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_most_are_refused_at_once() {
    let (pool, _server) = driven(PoolSettings { max_clients: 2, ..settings(1) });
    let held = take(&pool).await;
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(4_000), who(1)).await.map(drop) }
    });
    until(|| pool.status().waiters == 1).await;
    let begun = Instant::now();
    let error = pool.checkout(in_ms(4_000), who(2)).await.err().unwrap();
    assert!(matches!(error.kind(), CheckoutErrorKind::TooManyClients), "{error}");
    assert!(begun.elapsed() < MS(1));
    drop(held);
    waiter.await.unwrap().unwrap();
    assert_eq!(pool.status().counters.refused, 1);
}

#[tokio::test(start_paused = true)]
async fn in_order_of_return_every_connection_is_used_in_turn() {
    let (pool, _server) = driven(PoolSettings { idle_order: IdleOrder::Fifo, ..settings(3) });
    drop([take(&pool).await, take(&pool).await, take(&pool).await]);
    let mut used = Vec::new();
    for _ in 0..6 {
        sleep(MS(1)).await;
        used.push(take(&pool).await.id());
    }
    assert_eq!(used[..3], used[3..]);
    used.truncate(3);
    used.sort_unstable();
    assert_eq!(used, [1, 2, 3]);
}
