//! What an operator says, and what becomes of it.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::scripted::{MS, driven, in_ms, settings, take, until, warm, who};
use crate::pool::{CheckoutErrorKind, Operation, OperationError};

#[tokio::test(start_paused = true)]
async fn a_paused_pool_lets_callers_wait_and_keeps_what_is_open() {
    let (pool, server) = driven(settings(3));
    warm(&pool, 2).await;
    let held = take(&pool).await;
    pool.operate(Operation::Pause).unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|n| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.checkout(in_ms(4_000), who(n)).await.map(drop) })
        })
        .collect();
    drop(held);
    sleep(MS(2_000)).await;
    let status = pool.status();
    assert_eq!((status.service, status.idle, status.in_use, status.waiters), ("paused", 2, 0, 3));
    assert_eq!(status.waiting.iter().map(|waiter| waiter.request).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(status.advice[0].contains("resume"), "{:?}", status.advice);
    pool.operate(Operation::Resume).unwrap();
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert!(server.seen().created <= 3);
}

#[tokio::test(start_paused = true)]
async fn a_drained_pool_keeps_nothing_open_and_serves_all_who_waited_when_it_is_resumed() {
    let (pool, server) = driven(settings(3));
    warm(&pool, 3).await;
    let held = take(&pool).await;
    pool.operate(Operation::Drain).unwrap();
    until(|| server.seen().live == 1).await;
    drop(held);
    until(|| server.seen().live == 0).await;
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(4_000), who(1)).await.map(drop) }
    });
    sleep(MS(3_000)).await;
    assert_eq!(server.seen().live, 0, "nothing is made meanwhile, not for the minimum either");
    assert_eq!(pool.status().counters.closes.operator, 3);
    pool.operate(Operation::Resume).unwrap();
    waiter.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_paused_pool_is_told_why() {
    let (pool, _server) = driven(settings(1));
    pool.operate(Operation::Pause).unwrap();
    let error = pool.checkout(in_ms(100), who(1)).await.err().unwrap();
    assert!(matches!(error.kind(), CheckoutErrorKind::Paused), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_and_comes_back_during_a_pause_costs_no_caller() {
    let (pool, server) = driven(settings(2));
    warm(&pool, 2).await;
    pool.operate(Operation::Drain).unwrap();
    until(|| server.seen().live == 0).await;
    server.script.lock().refuses = Some(crate::pool::FailureClass::Unreachable);
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(4_000), who(1)).await.map(drop) }
    });
    sleep(MS(3_000)).await;
    server.script.lock().refuses = None;
    let begun = Instant::now();
    pool.operate(Operation::Resume).unwrap();
    waiter.await.unwrap().unwrap();
    assert!(begun.elapsed() < MS(100), "the breaker knows of nothing: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_connection_can_be_closed_idle_or_in_use() {
    let (pool, server) = driven(settings(2));
    warm(&pool, 2).await;
    let held = take(&pool).await;
    pool.operate(Operation::Evict(held.id())).unwrap();
    assert_eq!(server.seen().live, 2, "nobody is interrupted");
    let id = held.id();
    drop(held);
    until(|| server.seen().live == 1).await;
    let other = take(&pool).await;
    assert_ne!(other.id(), id);
    let idle = other.id();
    drop(other);
    pool.operate(Operation::Evict(idle)).unwrap();
    until(|| server.seen().live == 0).await;
    assert_eq!(pool.operate(Operation::Evict(idle)), Err(OperationError::UnknownConnection(idle)));
}

#[tokio::test(start_paused = true)]
async fn bounds_move_at_once_and_wrong_ones_change_nothing() {
    let (pool, server) = driven(settings(2));
    let resize = |min, max| pool.operate(Operation::Resize { min, max });
    let mut held = vec![take(&pool).await, take(&pool).await];
    resize(None, Some(4)).unwrap();
    held.extend([take(&pool).await, take(&pool).await]);
    resize(None, Some(1)).unwrap();
    held.clear();
    until(|| server.seen().live == 1).await;
    assert_eq!((pool.status().max, pool.status().budget.1), (1, 1));
    for (min, max) in [(None, Some(0)), (Some(2), None), (Some(5), Some(4)), (None, Some(70_000))] {
        assert!(matches!(resize(min, max), Err(OperationError::Size { .. })), "{min:?} {max:?}");
    }
    assert_eq!((pool.status().min, pool.status().max), (0, 1));
    resize(Some(3), Some(3)).unwrap();
    until(|| server.seen().live == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_replaced_while_it_is_paused_serves_who_waits() {
    let (pool, _server) = driven(settings(1));
    pool.operate(Operation::Pause).unwrap();
    let waiter = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.checkout(in_ms(4_000), who(1)).await.map(drop) }
    });
    sleep(MS(10)).await;
    pool.retire();
    waiter.await.unwrap().unwrap();
    assert_eq!(pool.operate(Operation::Pause), Err(OperationError::Retired));
}
