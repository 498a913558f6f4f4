//! Connections that die, freeze, or cannot be made.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    activity::{end_all, running},
    eventually,
    faults::{Fault, FaultProxy},
    front::{DEADLINE, ask, gateway, works},
    gateway::Gateway,
    postgres::Postgres,
};

/// Brings a pool to `count` connections and lets them lie.
async fn fill(gateway: &Gateway, count: usize) {
    let round = || async {
        for (status, answer) in join_all((0..count).map(|_| ask(gateway, "select pg_sleep(0.5)"))).await {
            assert_eq!(status, 200, "{answer}");
        }
        gateway.figure("/pools/main/idle").await
    };
    // On a busy machine the first to come back may serve the last who asked.
    eventually("all are open", round, |idle| *idle == count as u64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn when_all_idle_connections_die_at_once_no_request_fails_and_two_connects_run_at_a_time() {
    let postgres = Postgres::start(0, &["log_connections=on"]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), "size = { max = 10 }").await;
    let admin = postgres.admin().await;
    fill(&gateway, 10).await;
    assert_eq!(end_all(&admin).await, 10);
    eventually("the gateway can know", || async { proxy.open() }, |open| *open == 0).await;
    // Connects take long enough to overlap.
    proxy.set(Fault::Delay(Duration::from_millis(20)));
    let begun = Instant::now();
    for (status, answer) in join_all((0..20).map(|_| ask(&gateway, "select 1::int"))).await {
        assert_eq!(status, 200, "{answer}");
    }
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    let most = postgres.starting_at_a_time("app");
    assert!((1..=2).contains(&most), "{most} connects at a time, where parallel_creates is 2:\n{}", postgres.log());
    let pool = gateway.status().await["pools"]["main"].clone();
    assert_eq!((&pool["breaker"]["state"], &pool["counters"]["breaker_trips"]), (&json!("closed"), &json!(0)));
    assert!(postgres.sessions(&admin).await <= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn frozen_idle_connections_cost_one_caller_two_probes_and_not_one_each() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    // Permits to spare: those of frozen connections come back after `linger`, as the server may still count them.
    let keys = "size = { max = 12 }\nvalidation = { native = \"always\" }\nvalidation_timeout = \"800ms\"";
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), keys).await;
    fill(&gateway, 8).await;
    proxy.set(Fault::FreezeOpen);
    let begun = Instant::now();
    let (status, answer) = ask(&gateway, "select 1::int").await;
    let took = begun.elapsed();
    assert_eq!(status, 200, "{answer}");
    // Two probes are 1.6 s; eight, one after another, would be more than the deadline.
    assert!(took < DEADLINE, "{took:?}");
    assert!(gateway.figure("/pools/main/counters/closes/purged").await >= 5, "the others were thought dead with them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_that_falls_silent_in_mid_query_costs_its_own_caller_a_deadline_and_nobody_else() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), "size = { max = 2 }").await;
    let admin = postgres.admin().await;
    let active = || running(&admin, "select pg_sleep(60)");
    let begun = Instant::now();
    let others = async {
        eventually("it runs", active, |seen| *seen == 1).await;
        proxy.set(Fault::FreezeOpen);
        for _ in 0..10 {
            let begun = Instant::now();
            let (status, answer) = ask(&gateway, "select 1::int").await;
            assert_eq!(status, 200, "{answer}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    };
    let ((status, answer), ()) = tokio::join!(ask(&gateway, "select pg_sleep(60)"), others);
    assert_eq!((status, answer["outcome"].as_str()), (504, Some("unknown")), "{answer}");
    assert!(begun.elapsed() < 2 * DEADLINE, "{:?}", begun.elapsed());
    // The cancel request goes over a connection of its own, which is not silent.
    eventually("the statement is stopped", active, |seen| *seen == 0).await;
    works(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_resets_every_connect_is_left_alone_however_many_call() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    proxy.set(Fault::Reset);
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), "").await;
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let answers = join_all((0..8).map(|_| ask(&gateway, "select 1::int"))).await;
        asked += answers.len();
        assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
    }
    let attempts = proxy.accepted();
    // 200 ms, doubled each time: 0, 0.2, 0.6, 1.4, 3 s, and the other of the first pair; half as much again for jitter and a slow start.
    assert!((2..=12).contains(&attempts), "{attempts} attempts in {:?} for {asked} callers", begun.elapsed());
    assert!(asked > 40, "an open breaker answers at once: {asked}");
    proxy.set(Fault::Pass);
    let begun = Instant::now();
    works(&gateway).await;
    assert!(
        begun.elapsed() < Duration::from_secs(16),
        "a step of 3.2 s and a second, four times over: {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connects_into_a_black_hole_keep_nobody_from_the_connections_there_are() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let gateway =
        gateway(&Postgres::url_at(proxy.address.port()), "size = { max = 6 }\nconnect_timeout = \"2s\"").await;
    works(&gateway).await;
    proxy.set(Fault::FreezeNew);
    // Twelve callers, one connection that works: each of them waits for it, whoever's connect hangs meanwhile.
    let begun = Instant::now();
    for (status, answer) in join_all((0..12).map(|_| ask(&gateway, "select pg_sleep(0.05)"))).await {
        assert_eq!(status, 200, "{answer}");
    }
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    assert!(proxy.accepted() > 1, "nobody tried to connect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_burst_on_slow_connects_is_served_by_the_warm_and_opens_four_more_at_most() {
    const WARM: usize = 5;
    // The server takes a second for each session; its queries are as fast as ever.
    let postgres = Postgres::start(0, &["log_connections=on", "post_auth_delay=1"]).await;
    let gateway = gateway(&postgres.url(), "size = { min = 5, max = 50 }").await;
    gateway.status_until("/pools/main/idle", |idle| *idle == WARM).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(gateway.h2().await);
    }
    let burst = (0..50).map(|number| {
        let mut client = clients[number % clients.len()].share();
        async move {
            let begun = Instant::now();
            let answer = client.query("select pg_sleep(0.002)", json!([])).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            begun.elapsed()
        }
    });
    let mut took = join_all(burst).await;
    took.sort_unstable();
    // 50 callers, five at a time, 2 ms each: 20 ms to the last; nobody's wait is a connect.
    assert!(took[25] < Duration::from_millis(500) && took[49] < Duration::from_secs(1), "{took:?}");
    let pool = gateway.status().await["pools"]["main"].clone();
    let made = pool["counters"]["creates"].as_u64().unwrap() + pool["creating"].as_u64().unwrap();
    assert!(made <= WARM as u64 + 4, "{made} connections for a burst that five could serve");
    let most = postgres.starting_at_a_time("app");
    assert!((1..=2).contains(&most), "{most} at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_is_starting_up_is_probed_seldom_and_used_when_it_is_ready() {
    let mut postgres = Postgres::start(0, &[]).await;
    postgres.stop();
    // A standby that takes no sessions says what a server in recovery says, until it is promoted.
    postgres.start_in_recovery().await;
    let gateway = gateway(&postgres.url(), "size = { max = 4 }").await;
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let (status, answer) = ask(&gateway, "select 1::int").await;
        assert_eq!(
            (status, answer["sqlstate"].as_str(), answer["retryable"].as_bool()),
            (503, Some("57P03"), Some(true)),
            "{answer}"
        );
        asked += 1;
    }
    // The test itself asked for the first, to see that it is up.
    let attempts = postgres.logged(&["not accepting connections", "starting up"]);
    assert!((2..=16).contains(&attempts), "{attempts} attempts for {asked} callers:\n{}", postgres.log());
    assert_eq!(gateway.status().await["pools"]["main"]["breaker"]["reason"], "unavailable");
    postgres.promote();
    let begun = Instant::now();
    works(&gateway).await;
    assert!(
        begun.elapsed() < Duration::from_secs(18),
        "a step of 3.2 s and a second, four times over: {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_name_with_an_address_where_nobody_listens_leads_to_the_one_where_somebody_does() {
    let postgres = Postgres::start(0, &[]).await;
    // Both are this machine; PostgreSQL listens on the second alone.
    let url = postgres
        .url()
        .replace(&format!("127.0.0.1:{}", postgres.port), &format!("127.0.0.2:{0},localhost:{0}", postgres.port));
    let gateway = gateway(&url, "size = { max = 2 }").await;
    let begun = Instant::now();
    for _ in 0..5 {
        let (status, answer) = ask(&gateway, "select 1::int").await;
        assert_eq!(status, 200, "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(gateway.status().await["pools"]["main"]["breaker"]["state"], "closed");
}
