//! What a pool tells of itself, and that looking changes nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::scripted::{Database, MS, change, driven, in_ms, pool, settings, take, until, warm, who};
use crate::{
    policy::NativeValidation,
    pool::{PoolSettings, PoolStatus},
};

const SECOND: Duration = Duration::from_secs(1);

fn counts(status: &PoolStatus) -> [u64; 4] {
    let times = &status.times;
    [times.wait.count, times.hold.count, times.create.count, times.validate.count]
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_has_seen_nothing_tells_of_nothing() {
    let (pool, _server) = driven(settings(3));
    sleep(SECOND * 5).await;
    let status = pool.status();
    assert_eq!(counts(&status), [0; 4]);
    assert_eq!((status.latency.wait, status.in_use_peak), Default::default());
    assert!(status.times.wait.sum == 0.0 && status.health >= 1.0);
    let shown = serde_json::to_string(&status).unwrap();
    assert!(!shown.contains("NaN") && shown.contains("\"mean_us\":0"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn times_since_the_pool_began_are_there_at_once_and_stay() {
    let (pool, _server) = driven(settings(2));
    warm(&pool, 2).await;
    let before = pool.status();
    for _ in 0..10 {
        let lease = take(&pool).await;
        sleep(MS(40)).await;
        drop(lease);
        let now = pool.status();
        assert_eq!(now.times.wait.count, now.counters.returns, "nothing waits for the driver");
    }
    // Far beyond what `/status` remembers.
    sleep(SECOND * 200).await;
    let status = pool.status();
    assert_eq!(status.latency.hold.samples, 0);
    assert_eq!(status.times.hold.count, before.times.hold.count + 10);
    let took = status.times.hold.sum - before.times.hold.sum;
    assert!((took - 0.4).abs() < 0.02, "ten times 40 ms are {took} s");
    assert_eq!((status.in_use_peak, before.in_use_peak), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn looking_takes_nothing_from_whoever_looks_after() {
    let (pool, _server) = driven(PoolSettings { sizing_interval: SECOND * 60, ..settings(4) });
    sleep(SECOND).await;
    warm(&pool, 3).await;
    let first = pool.status();
    for _ in 0..3 {
        let again = pool.status();
        assert_eq!(counts(&again), counts(&first));
        assert_eq!((again.latency.wait, again.in_use_peak), (first.latency.wait, 3));
    }
    // The sizing policy is asked after all these looks, and told of all that was since it was asked last.
    sleep(SECOND * 61).await;
    assert_eq!(pool.status().sizing.unwrap().in_use_peak, 3);
}

#[tokio::test(start_paused = true)]
async fn a_summary_tells_of_its_interval() {
    let (pool, server) = pool(2);
    let with = |every| PoolSettings { summary_interval: every, ..settings(2) };
    assert_eq!(pool.summarise(Instant::now()), (None, None), "nobody asked for one");
    pool.reconfigure(with(SECOND * 60), change(NativeValidation::BypassWindow), Database(Arc::clone(&server)));
    warm(&pool, 2).await;
    let begun = Instant::now();
    assert_eq!(pool.summarise(begun), (None, Some(begun + SECOND * 60)), "from now on");
    let held = (take(&pool).await, take(&pool).await);
    assert!(pool.checkout(in_ms(500), who(3)).await.is_err());
    drop(held);
    sleep(SECOND * 10).await;
    assert_eq!(pool.summarise(Instant::now()).0, None);
    // A shorter interval holds at once.
    pool.reconfigure(with(SECOND * 5), change(NativeValidation::BypassWindow), Database(Arc::clone(&server)));
    let (summary, next) = pool.summarise(Instant::now());
    let summary = summary.unwrap();
    assert_eq!((summary.checkouts, summary.waits, summary.timeouts, summary.errors), (3, 1, 1, 0));
    assert_eq!((summary.created, summary.size, summary.in_use_peak), (0, 2, 2), "two were made before");
    assert_eq!((summary.wait.samples, summary.hold.samples), (3, 2));
    assert!(summary.wait.p99_us >= 500_000 && summary.hold.mean_us >= 500_000, "{summary:?}");
    sleep(SECOND * 5).await;
    assert_eq!(next, Some(Instant::now()));
    let (summary, _) = pool.summarise(Instant::now());
    assert_eq!(summary.map(|summary| (summary.checkouts, summary.in_use_peak, summary.wait.p99_us)), Some((0, 0, 0)));
    drop(take(&pool).await);
    assert_eq!(pool.last_summary().map(|summary| summary.checkouts), Some(1), "what is left when the pool ends");
    assert_eq!(pool.last_summary(), None);
}

#[tokio::test(start_paused = true)]
async fn decisions_are_counted_by_policy() {
    let (pool, server) = driven(PoolSettings { min: 1, ..settings(2) });
    until(|| pool.status().idle == 1).await;
    pool.reconfigure(settings(2), change(NativeValidation::Never), Database(server));
    sleep(SECOND).await;
    drop(take(&pool).await);
    let decisions = pool.status().decisions;
    let by = |hook, policy: &str| decisions.iter().find(|count| count.hook == hook && *count.policy == *policy);
    assert!(by("sizing", "fixed").is_some() && by("eviction", "lifetime").is_some(), "{decisions:?}");
    assert_eq!(by("validation", "never").map(|count| (count.by, count.count)), Some(("native", 1)), "{decisions:?}");
    assert!(by("validation", "bypass-window").is_some(), "what decided before is still counted: {decisions:?}");
}
