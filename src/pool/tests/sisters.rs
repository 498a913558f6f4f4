//! Several pools on one server.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::scripted::{MS, Server, TestPool, in_ms, pool_on, settings, take, until, warm, who};
use crate::pool::{Budget, FailureClass, PoolSettings, ServerBudget, ServerTerms};

fn at_most(connections: u32) -> Arc<ServerBudget> {
    ServerBudget::new(ServerTerms { connections: Some(connections), share: 1.0 })
}

/// A pool of at most `max` on `server`, with its driver.
fn sister(server: &Arc<Server>, budget: &Arc<ServerBudget>, settings: PoolSettings) -> Arc<TestPool> {
    let max = settings.max;
    let pool = pool_on(server, settings, Some(Budget::within(Arc::clone(budget), max)));
    drop(tokio::spawn(Arc::clone(&pool).drive()));
    pool
}

#[tokio::test(start_paused = true)]
async fn a_pool_in_need_takes_what_lies_idle_in_a_sister() {
    let (server, budget) = (Server::new(), at_most(4));
    let (rich, poor) = (sister(&server, &budget, settings(9)), sister(&server, &budget, settings(9)));
    warm(&rich, 4).await;
    let begun = Instant::now();
    let held = [take(&poor).await, take(&poor).await];
    assert!(begun.elapsed() < MS(200), "{:?}", begun.elapsed());
    assert_eq!((rich.status().size, poor.status().size, server.seen().peak), (2, 2, 4));
    assert_eq!(rich.status().counters.closes.yielded, 2);
    // A third is above the fair share: it is given once it has been idle for a while.
    let third = take(&poor).await;
    assert_eq!((rich.status().size, server.seen().peak), (1, 4));
    drop((held, third));
    let status = budget.status();
    assert_eq!((status.connections, status.cap, status.pools), (4, Some(4), 2));
}

#[tokio::test(start_paused = true)]
async fn the_sister_gives_whom_its_eviction_policy_says_it_hurts_least() {
    let (server, budget) = (Server::new(), at_most(6));
    let [busy, calm, poor] = [(); 3].map(|()| sister(&server, &budget, settings(9)));
    warm(&busy, 3).await;
    warm(&calm, 3).await;
    let used = [take(&busy).await, take(&busy).await];
    drop(take(&poor).await);
    assert_eq!((busy.status().size, calm.status().size, poor.status().size), (3, 2, 1));
    drop(used);
}

#[tokio::test(start_paused = true)]
async fn a_minimum_is_not_given_away() {
    let (server, budget) = (Server::new(), at_most(3));
    let keeper = sister(&server, &budget, PoolSettings { min: 2, ..settings(3) });
    until(|| keeper.status().idle == 2).await;
    warm(&keeper, 3).await;
    let poor = sister(&server, &budget, settings(3));
    let one = take(&poor).await;
    let error = poor.checkout(in_ms(1_000), who(1)).await.err().unwrap();
    assert_eq!((keeper.status().size, server.seen().peak), (2, 3), "{error}");
    drop(one);
}

#[tokio::test(start_paused = true)]
async fn nobody_starves_while_a_sister_is_busy_all_the_time() {
    let (server, budget) = (Server::new(), at_most(4));
    let (greedy, poor) = (sister(&server, &budget, settings(9)), sister(&server, &budget, settings(9)));
    let end = in_ms(10_000);
    for n in 0..40 {
        let greedy = Arc::clone(&greedy);
        drop(tokio::spawn(async move {
            while Instant::now() < end {
                let lease = greedy.checkout(end, who(n)).await;
                sleep(MS(20)).await;
                drop(lease);
            }
        }));
    }
    until(|| greedy.status().in_use == 4 && greedy.status().waiters > 30).await;
    let begun = Instant::now();
    let held = [take(&poor).await, take(&poor).await];
    assert!(begun.elapsed() < MS(500), "{:?}", begun.elapsed());
    assert_eq!((greedy.status().size, poor.status().size), (2, 2), "a fair share each");
    assert!(poor.checkout(in_ms(500), who(9)).await.is_err(), "and no more than that");
    // What it no longer needs goes back.
    drop(held);
    until(|| greedy.status().size == 4).await;
    assert_eq!(server.seen().peak, 4);
    sleep(MS(11_000)).await;
    assert_eq!((greedy.status().waiters, poor.status().waiters), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_server_is_shared_like_a_budget() {
    let server = Server::new();
    server.script.lock().capacity = 5;
    let budget = ServerBudget::new(ServerTerms { connections: None, share: 0.8 });
    let (rich, poor) = (sister(&server, &budget, settings(9)), sister(&server, &budget, settings(9)));
    warm(&rich, 5).await;
    let held = take(&poor).await;
    assert_eq!(poor.status().counters.create_failures.server_full, 1, "it was asked once");
    assert_eq!((rich.status().size, server.seen().peak), (4, 5));
    assert!(budget.status().ceiling.is_some_and(|ceiling| ceiling <= 6), "raised once, at most: {:?}", budget.status());
    drop(held);
    // One of two gateways on it goes away.
    server.script.lock().capacity = u32::MAX;
    sleep(MS(60_000)).await;
    let all: Vec<_> = futures_util::future::join_all((0..9).map(|_| take(&rich))).await;
    assert_eq!(all.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_full_role_is_its_pools_own_matter() {
    let (server, budget) = (Server::new(), at_most(9));
    let (full, other) = (sister(&server, &budget, settings(9)), sister(&server, &budget, settings(9)));
    warm(&full, 2).await;
    server.script.lock().refuses = Some(FailureClass::AccountFull);
    let held = [take(&full).await, take(&full).await];
    assert!(full.checkout(in_ms(300), who(1)).await.is_err());
    let (status, server_status) = (full.status(), budget.status());
    assert_eq!((status.ceiling, server_status.ceiling), (Some(2), None));
    server.script.lock().refuses = None;
    drop(take(&other).await);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn who_owes_and_does_not_give_is_not_waited_for_when_another_has_some_idle() {
    let (server, budget) = (Server::new(), at_most(8));
    let [slow, brisk, poor] = [(); 3].map(|()| sister(&server, &budget, settings(9)));
    let reports = [take(&slow).await, take(&slow).await, take(&slow).await, take(&slow).await, take(&slow).await];
    let busy = [take(&brisk).await, take(&brisk).await, take(&brisk).await];
    let waiter = tokio::spawn({
        let poor = Arc::clone(&poor);
        async move { poor.checkout(in_ms(5_000), who(1)).await.map(drop) }
    });
    until(|| poor.status().waiters == 1).await;
    sleep(MS(200)).await;
    // The one that owes goes on for minutes; the other's come back.
    drop(busy);
    let begun = Instant::now();
    waiter.await.unwrap().unwrap();
    assert!(begun.elapsed() < MS(300), "{:?}", begun.elapsed());
    assert_eq!((slow.status().size, brisk.status().counters.closes.yielded), (5, 1));
    drop(reports);
    sleep(MS(100)).await;
    assert_eq!(slow.status().counters.closes.yielded, 0, "nothing is owed any more");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_connect_takes_nothing_from_its_sisters() {
    let (server, budget) = (Server::new(), at_most(4));
    let (rich, poor) = (sister(&server, &budget, settings(9)), sister(&server, &budget, settings(9)));
    let held = take(&poor).await;
    let refused = Server::new();
    refused.script.lock().refuses = Some(FailureClass::Authentication);
    poor.reconfigure(settings(9), crate::pool::PolicyChange::default(), super::scripted::Database(refused));
    // Its one connection serves, so that its callers queue though the breaker is open.
    let caller = |n| {
        let poor = Arc::clone(&poor);
        tokio::spawn(async move { poor.checkout(in_ms(20_000), who(n)).await.map(drop) })
    };
    let first = caller(0);
    until(|| poor.status().breaker.state == "open").await;
    warm(&rich, 3).await;
    let queue = [caller(1), caller(2), caller(3)];
    sleep(MS(10_000)).await;
    let closes = rich.status().counters.closes;
    assert_eq!((closes.yielded, rich.status().size), (0, 3), "{closes:?}");
    drop(held);
    for caller in queue.into_iter().chain([first]) {
        let _ = caller.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_drains_leaves_its_heirs_claims_alone() {
    let (server, budget) = (Server::new(), at_most(4));
    let greedy = sister(&server, &budget, settings(9));
    let old = sister(&server, &budget, settings(9));
    let report = take(&old).await;
    old.retire();
    let heir = pool_on(&server, settings(9), Some(old.budget()));
    drop(tokio::spawn(Arc::clone(&heir).drive()));
    let end = in_ms(5_000);
    for n in 0..20 {
        let greedy = Arc::clone(&greedy);
        drop(tokio::spawn(async move {
            while Instant::now() < end {
                let lease = greedy.checkout(end, who(n)).await;
                sleep(MS(20)).await;
                drop(lease);
            }
        }));
    }
    until(|| greedy.status().in_use == 3 && greedy.status().waiters > 10).await;
    let drains = tokio::spawn({
        let old = Arc::clone(&old);
        async move {
            loop {
                old.bell.notify_one();
                sleep(MS(1)).await;
            }
        }
    });
    let begun = Instant::now();
    let held = take(&heir).await;
    drains.abort();
    assert!(begun.elapsed() < MS(300), "{:?}", begun.elapsed());
    assert_eq!(server.seen().peak, 4);
    drop((report, held));
}

#[tokio::test(start_paused = true)]
async fn more_busy_pools_than_connections_take_turns() {
    let (server, budget) = (Server::new(), at_most(2));
    let pools = [(); 4].map(|()| sister(&server, &budget, settings(9)));
    let served = Arc::new(parking_lot::Mutex::new([0_u32; 4]));
    let end = in_ms(30_000);
    let callers = pools.iter().enumerate().flat_map(|(at, pool)| (0..4).map(move |n| (at, n, Arc::clone(pool))));
    let callers = callers.map(|(at, n, pool)| {
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            while Instant::now() < end {
                if let Ok(lease) = pool.checkout(end, who(n)).await {
                    sleep(MS(10)).await;
                    served.lock()[at] += 1;
                    drop(lease);
                }
            }
        })
    });
    futures_util::future::join_all(callers).await;
    assert!(served.lock().iter().all(|count| *count > 100), "{:?}", served.lock());
    assert!(server.seen().created < 120, "a turn lasts a second: {:?}", server.seen());
    assert_eq!(server.seen().peak, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_promised_to_a_pool_that_goes_away_is_for_everybody() {
    let (server, budget) = (Server::new(), at_most(2));
    let (rich, poor) = (sister(&server, &budget, settings(2)), sister(&server, &budget, settings(2)));
    let held = [take(&rich).await, take(&rich).await];
    let waiter = tokio::spawn({
        let poor = Arc::clone(&poor);
        async move { poor.checkout(in_ms(60_000), who(1)).await.map(drop) }
    });
    until(|| poor.status().waiters == 1).await;
    sleep(MS(100)).await;
    waiter.abort();
    until(|| poor.status().waiters == 0).await;
    sleep(MS(100)).await;
    drop(held);
    sleep(MS(100)).await;
    assert_eq!((rich.status().idle, rich.status().counters.closes.yielded), (2, 0), "nothing is owed any more");
    poor.retire();
    drop(poor);
    warm(&rich, 2).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Callers with random needs in several pools: the server's cap holds, everybody is served, everything comes back.
    #[test]
    fn the_servers_cap_holds_and_everybody_is_served(
        pools in 2..5_usize,
        cap in 1..7_u32,
        calls in prop::collection::vec((0..5_usize, 0..400_u64, 1..60_u64), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (server, budget) = (Server::new(), at_most(cap));
            let pools: Vec<_> = (0..pools).map(|_| sister(&server, &budget, settings(4))).collect();
            let calls = calls.into_iter().map(|(pool, after, holds)| {
                let pool = Arc::clone(&pools[pool % pools.len()]);
                async move {
                    sleep(MS(after)).await;
                    let lease = pool.checkout(in_ms(60_000), who(after)).await.unwrap();
                    sleep(MS(holds)).await;
                    drop(lease);
                }
            });
            futures_util::future::join_all(calls).await;
            assert!(server.seen().peak <= cap, "{} of {cap}", server.seen().peak);
            for pool in &pools {
                assert_eq!((pool.status().waiters, pool.status().in_use), (0, 0));
                pool.retire();
                pool.drained().await;
            }
            assert_eq!((budget.status().connections, server.seen().live), (0, 0));
        });
    }
}
