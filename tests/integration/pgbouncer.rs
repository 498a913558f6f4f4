//! A PgBouncer in transaction mode between the gateway and PostgreSQL: any statement may run in any session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    activity::{count, in_transaction, running, table},
    client::Client,
    eventually,
    front::{ask, batch, gateway, works},
    gateway::Gateway,
    pgbouncer::PgBouncer,
    postgres::Postgres,
};

const SERVERS: u32 = 4;

/// More connections to PgBouncer than it has to the server.
const CONNECTIONS: usize = 12;

async fn behind(bouncer: &PgBouncer) -> Gateway {
    // Restarts a second apart, each with some attempts that fail side by side: the breaker has tests of its own.
    let keys = format!(
        "behind_pgbouncer = true\nsize = {{ min = {CONNECTIONS}, max = {CONNECTIONS} }}\nbackoff = {{ max = \"1s\" }}\n\
         breaker = {{ failures = 20 }}"
    );
    let gateway = gateway(&Postgres::url_at(bouncer.port), &keys).await;
    gateway.status_until("/pools/main/idle", |idle| *idle == CONNECTIONS).await;
    gateway
}

async fn sessions(admin: &tokio_postgres::Client) -> i64 {
    count(admin, "select count(*) from pg_stat_activity where usename = 'app'").await
}

/// The same few texts again and again, as an application does: what would be prepared by name is not in the session that the
/// next statement finds.
async fn work(client: &mut Client, number: i64) -> Result<(), String> {
    let body = match number % 4 {
        0 => json!({"sql": "select $1::int + 1, $2::text", "params": [number, "text"]}),
        1 => json!({"sql": "insert into ledger values ($1::text::int)", "params": [number.to_string()]}),
        2 => json!({"batch": [
            {"sql": "set local work_mem = '9MB'"},
            {"sql": "insert into ledger values ($1::text::int)", "params": [number.to_string()]},
            {"sql": "select current_setting('work_mem')"},
        ]}),
        _ => json!({"batch": [
            {"sql": "insert into ledger values ($1::text::int)", "params": [number.to_string()]},
            {"sql": "select 1 / 0"},
        ]}),
    };
    let answer = client.post("/query", &[], &body).await.map_err(|error| format!("{error:#}"))?;
    let told = answer.json();
    let as_it_should_be = match number % 4 {
        0 => told["rows"] == json!([[number + 1, "text"]]),
        1 => told["row_count"] == 1,
        2 => told["results"][2]["rows"] == json!([["9MB"]]),
        _ => answer.status == 400 && told["sqlstate"] == "22012",
    };
    if as_it_should_be { Ok(()) } else { Err(format!("{} {told}", answer.status)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_pgbouncer_has_itself_serve_statements_and_transactions() {
    const CLIENTS: i64 = 16;
    const EACH: i64 = 100;
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    table(&admin, "ledger (n int primary key)").await;
    let bouncer = PgBouncer::start(&postgres, SERVERS, "").await;
    let gateway = behind(&bouncer).await;
    assert_eq!(bouncer.clients().await, CONNECTIONS);
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = gateway.h2().await;
        tasks.spawn(async move {
            let mut wrong = Vec::new();
            for count in 0..EACH {
                wrong.extend(work(&mut client, number * EACH + count).await.err());
            }
            wrong
        });
    }
    let mut most = 0;
    while !tasks.is_empty() {
        most = most.max(sessions(&admin).await);
        while let Some(done) = tasks.try_join_next() {
            let wrong = done.unwrap();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!((1..=i64::from(SERVERS)).contains(&most), "{most} sessions at the server");
    // Two of four write, one of four fails as a whole.
    let written = count(&admin, "select count(*) from ledger where n % 4 in (1, 2)").await;
    let all = count(&admin, "select count(*) from ledger").await;
    assert_eq!((written, all), (CLIENTS * EACH / 2, CLIENTS * EACH / 2));
    let prepared = "select coalesce(sum(calls), 0)::int from (select 0 calls) x";
    assert_eq!(ask(&gateway, prepared).await.0, 200);
    let named = |name: &str| postgres.logged(&[name]);
    assert_eq!((named("prepared statement \""), named("already exists")), (0, 0), "{}", postgres.log());
    assert_eq!(gateway.figure("/pools/main/counters/errors").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pgbouncer_no_caller_meets_what_another_left() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    let leave = "create function leave_behind(what text) returns text language sql as $$ select set_config('app.tenant', what, false) $$";
    admin.batch_execute(leave).await.unwrap();
    // What a function sets is seen by PgBouncer alone, and its to undo.
    let bouncer = PgBouncer::start(&postgres, SERVERS, "server_reset_query_always = 1").await;
    let gateway = behind(&bouncer).await;
    for refused in
        ["set work_mem = '77MB'", "create temp table leftover (a int)", "listen channel", "prepare mine as select 1"]
    {
        let (status, answer) = ask(&gateway, refused).await;
        assert_eq!(status, 400, "{refused}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("SET LOCAL"), "it says what to do instead: {answer}");
    }
    assert_eq!(ask(&gateway, "begin").await.0, 200);
    eventually("what was begun is rolled back", || in_transaction(&admin), |seen| *seen == 0).await;
    for _ in 0..20 {
        let (left, passing) = tokio::join!(
            ask(&gateway, "select leave_behind('mine')"),
            batch(&gateway, &["set local work_mem = '77MB'", "select current_setting('work_mem')"])
        );
        assert_eq!((left.0, passing.0), (200, 200), "{left:?} {passing:?}");
        let look = "select coalesce(current_setting('app.tenant', true), ''), current_setting('work_mem')";
        for (status, answer) in join_all((0..8).map(|_| ask(&gateway, look))).await {
            assert_eq!((status, &answer["rows"]), (200, &json!([["", "4MB"]])), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_cancels_its_statement_through_pgbouncer() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    let bouncer = PgBouncer::start(&postgres, SERVERS, "").await;
    let gateway = behind(&bouncer).await;
    let running = || running(&admin, "select pg_sleep%");
    for _ in 0..3 {
        let mut client = gateway.h2().await;
        let asks = tokio::spawn(async move { client.query("select pg_sleep(60)", json!([])).await.map(drop) });
        eventually("the statement runs", running, |count| *count == 1).await;
        asks.abort();
        eventually("the statement is cancelled", running, |count| *count == 0).await;
        let (status, answer) = ask(&gateway, "select 1::int").await;
        assert_eq!(status, 200, "{answer}\n{}", bouncer.log());
    }
}

/// What eight clients met while PgBouncer was restarted.
struct Met {
    answered: i64,
    failed: Vec<(u16, Value)>,
}

const TIMES: usize = 3;

/// Restarts it [`TIMES`] times by `signal`, with the pool `drained` by an operator meanwhile or not.
async fn through_restarts(signal: &str, drained: bool) -> Met {
    let postgres = Postgres::start(0, &[]).await;
    let mut bouncer = PgBouncer::start(&postgres, SERVERS, "").await;
    let gateway = behind(&bouncer).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let mut load = JoinSet::new();
    for number in 0..8 {
        let (mut client, stop, answered) = (gateway.h2().await, stop.clone(), answered.clone());
        load.spawn(async move {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) && failed.len() < 1_000 {
                let answer = client.query("select $1::int from pg_sleep(0.005)", json!([number])).await.unwrap();
                match answer.status {
                    200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    status => failed.push((status, answer.json())),
                }
            }
            failed
        });
    }
    let advance = async |more: i64| {
        let target = answered.load(Ordering::Relaxed) + more;
        eventually("the load goes on", || async { answered.load(Ordering::Relaxed) }, |now| *now >= target).await;
    };
    for _ in 0..TIMES {
        advance(200).await;
        if drained {
            assert_eq!(gateway.admin("POST", "/pools/main/drain").await.0, 200);
            gateway.status_until("/pools/main/size", |size| *size == 0).await;
        }
        bouncer.restart(signal).await;
        if drained {
            assert_eq!(gateway.admin("POST", "/pools/main/resume").await.0, 200);
        }
        let begun = Instant::now();
        works(&gateway).await;
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "a second and a step of one, four times over: {:?}",
            begun.elapsed()
        );
    }
    advance(200).await;
    stop.store(true, Ordering::Relaxed);
    let failed = load.join_all().await.concat();
    gateway.status_until("/pools/main/idle", |idle| *idle == CONNECTIONS).await;
    assert_eq!(bouncer.clients().await, CONNECTIONS);
    Met { answered: answered.load(Ordering::Relaxed), failed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_pgbouncer_costs_what_was_under_way_and_nothing_else() {
    let met = through_restarts("TERM", false).await;
    println!("{} answered, {} failed: {:?}", met.answered, met.failed.len(), met.failed);
    for (status, answer) in &met.failed {
        let told = answer["retryable"] == true || answer["outcome"] == "unknown";
        assert!([502, 503].contains(status) && told, "{status} {answer}");
    }
    let lost = met.failed.iter().filter(|(status, _)| *status == 502).count();
    assert!(lost <= 8 * TIMES, "each of eight clients has one statement under way at a time: {lost}");
    assert!(met.failed.len() - lost <= 8 * TIMES, "{:#?}", met.failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_pgbouncer_that_waits_for_transactions_loses_at_most_one_request_a_client() {
    let met = through_restarts("INT", false).await;
    println!("{} answered, {} failed: {:?}", met.answered, met.failed.len(), met.failed);
    assert!(met.failed.len() <= 8 * TIMES, "{:#?}", met.failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_pgbouncer_behind_a_drained_pool_loses_nothing() {
    let met = through_restarts("TERM", true).await;
    assert!(met.failed.is_empty() && met.answered >= 800, "{} answered, {:#?}", met.answered, met.failed);
}
