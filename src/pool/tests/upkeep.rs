//! What the driver does without a caller.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, advance, sleep};

use super::scripted::{Database, MS, Server, change, driven, in_ms, pool_on, settings, take, until, warm, who};
use crate::{
    policy::{NativeValidation, SizingInput},
    pool::{PoolSettings, tally::Cause, vet::InHand},
};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn the_minimum_is_made_at_start_and_kept() {
    let (pool, server) = driven(PoolSettings { min: 3, ..settings(5) });
    until(|| pool.status().idle == 3).await;
    assert!(server.seen().connecting_peak <= 2);
    server.kill_all();
    let lease = take(&pool).await;
    until(|| pool.status().idle + pool.status().in_use >= 3).await;
    drop(lease);
    let decisions = pool.status().decisions;
    assert!(decisions.iter().any(|count| count.hook == "sizing" && count.count > 0), "{decisions:?}");
}

#[tokio::test(start_paused = true)]
async fn unused_connections_leave_down_to_the_minimum() {
    let (pool, server) = driven(PoolSettings { min: 2, ..settings(6) });
    warm(&pool, 6).await;
    sleep(MINUTE * 8).await;
    assert_eq!(pool.status().idle, 6, "not before their time");
    sleep(MINUTE * 3).await;
    assert_eq!((pool.status().idle, server.seen().live), (2, 2));
    assert!(pool.status().counters.closes.idle >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_closes_nothing_or_little_at_a_time() {
    let (pool, _server) = driven(settings(6));
    warm(&pool, 6).await;
    advance(Duration::from_secs(30)).await;
    sleep(MS(1)).await;
    assert_eq!(pool.status().counters.closes.iter().map(|(_, n)| n).sum::<u64>(), 0);
    advance(MINUTE * 20).await;
    sleep(MS(1)).await;
    let closes: u64 = pool.status().counters.closes.iter().map(|(_, n)| n).sum();
    assert!(closes <= 2, "{closes} at one blow");
}

#[tokio::test(start_paused = true)]
async fn connections_are_replaced_before_their_end_so_that_no_caller_connects() {
    let lifetime = MINUTE * 3;
    let (pool, server) = driven(PoolSettings { min: 2, max_lifetime: lifetime, ..settings(4) });
    until(|| pool.status().idle == 2).await;
    let until = Instant::now() + lifetime * 3;
    while Instant::now() < until {
        let lease = take(&pool).await;
        assert!(lease.waited() < MS(5), "a caller waited for a connect: {:?}", lease.waited());
        drop(lease);
        sleep(MS(1_300)).await;
    }
    let seen = server.seen();
    assert!(seen.created >= 6 && seen.peak <= 4, "{seen:?}");
    assert!(pool.status().counters.closes.lifetime >= 4);
}

#[tokio::test(start_paused = true)]
async fn used_up_connections_are_closed_on_return() {
    let (pool, server) = driven(PoolSettings { max_uses: 10, ..settings(1) });
    for _ in 0..50 {
        drop(take(&pool).await);
    }
    assert!((4..=6).contains(&server.seen().created), "{:?}", server.seen());
}

#[tokio::test(start_paused = true)]
async fn validation_is_asked_outside_its_window_only() {
    let (pool, server) = driven(settings(1));
    for _ in 0..10 {
        drop(take(&pool).await);
        sleep(MS(100)).await;
    }
    assert_eq!(server.seen().probes, 0, "it was used within 500 ms");
    sleep(MS(600)).await;
    drop(take(&pool).await);
    assert_eq!(server.seen().probes, 1);
    let always = PoolSettings { max: 1, ..PoolSettings::default() };
    pool.reconfigure(always, change(NativeValidation::Always), Database(Arc::clone(&server)));
    sleep(MS(600)).await;
    for _ in 0..5 {
        drop(take(&pool).await);
    }
    assert_eq!(server.seen().probes, 6);
    assert_eq!(pool.status().counters.validations_ok, 6);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_can_be_kept_alive() {
    let server = Server::new();
    let pool = pool_on(&server, settings(2), None);
    warm(&pool, 2).await;
    let keep_alive = |id| {
        let held = pool.change(|state, now, _| state.core.borrow(now, id, who(0))).unwrap();
        super::scripted::TestPool::keep_alive(InHand::new(&pool, held))
    };
    keep_alive(1).await;
    assert_eq!((server.seen().probes, pool.status().idle), (1, 2));
    server.kill_all();
    keep_alive(2).await;
    until(|| pool.status().closing == 0).await;
    assert_eq!((pool.status().idle, pool.status().counters.closes.broken), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_kept_alive_by_itself() {
    let (pool, server) = driven(PoolSettings { keepalive: MINUTE, ..settings(2) });
    warm(&pool, 2).await;
    sleep(MS(50_000)).await;
    assert_eq!(server.seen().probes, 0, "not before its time, less a tenth");
    sleep(MS(13_000)).await;
    assert_eq!((server.seen().probes, pool.status().idle), (2, 2), "each once");
    sleep(MINUTE * 3).await;
    assert!((6..=9).contains(&server.seen().probes), "and again each minute: {}", server.seen().probes);
}

#[tokio::test(start_paused = true)]
async fn the_sizing_policy_is_asked_early_when_callers_wait_long() {
    let (pool, _server) = driven(PoolSettings { sizing_interval: MINUTE, ..settings(1) });
    let held = take(&pool).await;
    sleep(MS(500)).await;
    drop(pool.checkout(in_ms(150), who(2)).await);
    sleep(MS(200)).await;
    let sizing = pool.status().sizing.unwrap();
    assert!([SizingInput::WAITER_OLD, SizingInput::CHECKOUT_TIMEOUT].contains(&sizing.trigger), "{sizing:?}");
    let asked = pool.status().decisions.iter().find(|count| count.hook == "sizing").unwrap().count;
    for _ in 0..20 {
        drop(pool.checkout(in_ms(5), who(2)).await);
    }
    let now = pool.status().decisions.iter().find(|count| count.hook == "sizing").unwrap().count;
    assert!(now - asked <= 2, "but no oftener than every 100 ms");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn the_driver_sleeps_when_there_is_nothing_to_do() {
    let server = Server::new();
    let pool = pool_on(&server, settings(2), None);
    let driver = tokio::spawn(Arc::clone(&pool).drive());
    sleep(MS(10_500)).await;
    let turns = pool.status().decisions.iter().map(|count| count.count).sum::<u64>();
    assert!((10..=12).contains(&turns), "{turns} sizing decisions in ten seconds");
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn status_can_be_shown() {
    let (pool, _server) = driven(PoolSettings { min: 1, ..settings(2) });
    let held = take(&pool).await;
    sleep(MS(1_500)).await;
    let status = serde_json::to_value(pool.status()).unwrap();
    assert_eq!((&status["name"], &status["in_use"], &status["backend"]), (&"test".into(), &1.into(), &"sqlite".into()));
    assert_eq!(status["holders"][0]["route"], "/test");
    assert_eq!(status["sizing"]["by"], "native");
    assert_eq!(status["counters"]["closes"][Cause::Idle.as_str()], 0);
    drop(held);
}
