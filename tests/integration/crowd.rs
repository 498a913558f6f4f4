//! Five hundred clients over twenty-five connections: nobody fails, nobody waits for long, and nothing is left of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    support::{
        client::Client,
        eventually,
        front::{config, never_asked_for_more},
        gateway::Gateway,
        postgres::Postgres,
    },
    swaps::{census, census_at_rest},
};

const CLIENTS: u64 = 500;
const CONNECTIONS: u32 = 25;

/// What 95 % of callers wait at most.
const MOST_WAIT_US: u64 = 200_000;

/// What a load is.
struct Plan {
    /// In all.
    requests: u64,
    /// Between two requests of a client, up to half as much again or less.
    pause: Duration,
}

/// What came of it.
struct Outcome {
    took: Duration,
    failures: Vec<String>,
    /// Resident memory of the gateway in KiB: when all clients had connected, then at each tenth of the load.
    memory: Vec<u64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_share_twenty_five_connections_and_none_fails_or_waits_for_long() {
    // Five hundred a second: neither PostgreSQL nor the machine is what they wait for.
    let plan = Plan { requests: 20_000, pause: Duration::from_secs(1) };
    let (gateway, _postgres, outcome) = run(&plan).await;
    assert!(outcome.failures.is_empty(), "{} failures: {:#?}", outcome.failures.len(), outcome.failures);
    let pool = gateway.status().await["pools"]["main"].clone();
    let count = |name: &str| pool["counters"][name].as_u64().unwrap();
    assert!(count("checkouts") >= plan.requests, "{}", pool["counters"]);
    assert!(count("timeouts") * 1000 < count("checkouts"), "one in a thousand may time out: {}", pool["counters"]);
    let wait = &pool["latency"]["wait"];
    println!("{:.0} requests/s, waits {wait}", plan.requests as f64 / outcome.took.as_secs_f64());
    assert!(wait["samples"].as_u64() > Some(plan.requests / 4), "{wait}");
    // Where the machine has others to serve, and the crowd falls behind, what it waits for is not the pool.
    let planned = plan.pause * u32::try_from(plan.requests / CLIENTS).unwrap();
    let kept_up = outcome.took < planned.mul_f64(1.15);
    assert!(!kept_up || wait["p95_us"].as_u64() < Some(MOST_WAIT_US), "{wait}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "endurance: make soak runs it"]
async fn soak_a_million_requests_of_five_hundred_clients() {
    const MOST_GROWTH_KIB: u64 = 50 << 10;
    let requests =
        std::env::var("SOAK_REQUESTS").ok().map_or(1_000_000, |text| text.parse().expect("SOAK_REQUESTS is a number"));
    let (gateway, _postgres, outcome) = run(&Plan { requests, pause: Duration::ZERO }).await;
    let pool = gateway.status().await["pools"]["main"].clone();
    let (rate, wait) = (requests as f64 / outcome.took.as_secs_f64(), &pool["latency"]["wait"]);
    println!("{requests} requests in {:?}, {rate:.0} a second, waits {wait}", outcome.took);
    println!("resident memory, in KiB: {:?}", outcome.memory);
    assert!(outcome.failures.is_empty(), "{} failures: {:#?}", outcome.failures.len(), &outcome.failures[..5]);
    let counters = &pool["counters"];
    assert!(counters["timeouts"].as_u64().unwrap() * 1000 < requests, "{counters}");
    assert!(wait["p95_us"].as_u64() < Some(MOST_WAIT_US), "{wait}");
    let growth = outcome.memory.last().unwrap().saturating_sub(outcome.memory[0]);
    assert!(growth < MOST_GROWTH_KIB, "{growth} KiB more than when all had connected");
}

async fn run(plan: &Plan) -> (Gateway, Postgres, Outcome) {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    // One more than that would be refused by the server itself.
    postgres.grant_sessions(&admin, CONNECTIONS.into()).await;
    let keys = format!("size = {{ min = {CONNECTIONS}, max = {CONNECTIONS} }}");
    let gateway = Gateway::start(&config(&postgres.url(), &keys)).await;
    gateway.status_until("/pools/main/idle", |idle| *idle == CONNECTIONS).await;
    let baseline = census_at_rest(&gateway).await;

    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(if number % 2 == 0 { gateway.h1().await } else { gateway.h2().await });
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, client) in (0..).zip(clients) {
        tasks.spawn(ask(client, number, plan.requests / CLIENTS, plan.pause));
    }
    let (mut failures, mut memory) = (Vec::new(), vec![gateway.rss_kib()]);
    let checkouts = async || gateway.figure("/pools/main/counters/checkouts").await;
    while !tasks.is_empty() {
        tokio::time::sleep(Duration::from_millis(250)).await;
        while let Some(done) = tasks.try_join_next() {
            failures.extend(done.unwrap());
        }
        assert!(postgres.sessions(&admin).await <= CONNECTIONS.into());
        if checkouts().await * 10 >= plan.requests * memory.len() as u64 {
            memory.push(gateway.rss_kib());
        }
    }
    let took = begun.elapsed();
    memory.push(gateway.rss_kib());

    let at_rest = |pool: &Value| pool["in_use"] == 0 && pool["waiters"] == 0 && pool["size"] == CONNECTIONS;
    gateway.status_until("/pools/main", at_rest).await;
    assert_eq!(postgres.sessions(&admin).await, i64::from(CONNECTIONS));
    never_asked_for_more(&gateway, &postgres).await;
    eventually("nothing is left of the crowd", || census(&gateway), |now| now.rest == baseline.rest).await;
    (gateway, postgres, Outcome { took, failures, memory })
}

async fn ask(mut client: Client, number: u64, requests: u64, pause: Duration) -> Vec<String> {
    let mut failures = Vec::new();
    for count in 0..requests {
        if !pause.is_zero() {
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        }
        match client.query("select $1::int as n", json!([number + count])).await {
            Ok(answer) if answer.status == 200 && answer.json()["rows"] == json!([[number + count]]) => {}
            Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => {
                // The connection is gone, and what was to come with it.
                failures.push(format!("{error:#}"));
                break;
            }
        }
    }
    failures
}
