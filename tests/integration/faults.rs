//! What databases do at night: each fault with the outcome it must have.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    activity::{end_all, end_running, in_transaction, running},
    config::{consumer, with_keys},
    eventually,
    faults::{BlackHole, Fault, FaultProxy},
    free_port,
    front::{SERVER_FULL, ask, config, gateway, never_asked_for_more, works},
    gateway::Gateway,
    postgres::{PASSWORD, Postgres, REFUSED_AS_FULL},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn backends_killed_while_idle_cost_no_request() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { min = 4, max = 4 }").await;
    let admin = postgres.admin().await;
    let sessions = || async { postgres.sessions(&admin).await };
    eventually("warm", sessions, |seen| *seen == 4).await;
    for _ in 0..5 {
        end_all(&admin).await;
        for _ in 0..4 {
            let (status, answer) = ask(&gateway, "select 1::int").await;
            assert_eq!(status, 200, "{answer}");
        }
        eventually("replaced", sessions, |seen| *seen == 4).await;
    }
    let pool = gateway.status().await["pools"]["main"].clone();
    assert_eq!((&pool["breaker"]["state"], &pool["counters"]["breaker_trips"]), (&json!("closed"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backend_killed_in_mid_query_is_an_error_and_the_next_query_works() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { max = 1 }").await;
    let admin = postgres.admin().await;
    let ((status, answer), ()) =
        tokio::join!(ask(&gateway, "select pg_sleep(30)"), end_running(&admin, "select pg_sleep%"));
    // It said so itself before it went: nothing was done.
    assert_eq!((status, &answer["retryable"], &answer["outcome"]), (502, &json!(true), &Value::Null), "{answer}");
    works(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_frozen_server_costs_one_deadline_and_serves_when_it_thaws() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    // One more than the maximum would be refused by the server itself.
    postgres.grant_sessions(&admin, 4).await;
    let gateway = gateway(&postgres.url(), "size = { min = 2, max = 4 }").await;
    works(&gateway).await;
    postgres.signal_all("STOP");
    let begun = Instant::now();
    for (status, answer) in join_all((0..8).map(|_| ask(&gateway, "select 1::int"))).await {
        assert!([503, 504].contains(&status), "{status} {answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "a frozen server held requests {:?}", begun.elapsed());
    postgres.signal_all("CONT");
    works(&gateway).await;
    for (status, answer) in join_all((0..8).map(|_| ask(&gateway, "select pg_sleep(0.1)"))).await {
        assert_eq!(status, 200, "{answer}");
    }
    let sessions = postgres.sessions(&admin).await;
    assert!((1..=4).contains(&sessions), "{sessions} sessions");
    never_asked_for_more(&gateway, &postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_restart_queries_work_within_a_second_and_a_backoff_step() {
    let mut postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { min = 2, max = 4 }\nbackoff = { max = \"1s\" }").await;
    works(&gateway).await;
    postgres.stop();
    let (status, answer) = ask(&gateway, "select 1::int").await;
    assert_eq!(status, 503, "{answer}");
    postgres.start_again().await;
    let begun = Instant::now();
    works(&gateway).await;
    // A second and a step of a second, twice over.
    assert!(begun.elapsed() < Duration::from_secs(4), "recovery took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refused_connect_fails_fast_with_the_reason_and_the_breaker_opens() {
    let gateway = gateway(&Postgres::url_at(free_port()), "").await;
    let begun = Instant::now();
    for _ in 0..8 {
        let answer = gateway.h1().await.query("select 1", json!([])).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
        assert!(!answer.text().contains("127.0.0.1"), "an address crossed the trust line: {}", answer.text());
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    gateway.status_until("/pools/main/breaker/state", |state| *state == "open").await;
    let mut client = gateway.h2().await;
    let opened = Instant::now();
    for _ in 0..20 {
        let answer = client.query("select 1", json!([])).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    assert!(opened.elapsed() < Duration::from_secs(1), "an open breaker held 20 requests {:?}", opened.elapsed());
    assert_eq!(gateway.admin("GET", "/readyz").await.0, 503);
    assert_eq!(gateway.admin("GET", "/livez").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_black_hole_costs_a_caller_no_more_than_its_deadline() {
    let hole = BlackHole::open();
    let gateway =
        gateway(&Postgres::url_at(hole.address.port()), "connect_timeout = \"1s\"\ncheckout_timeout = \"2s\"").await;
    let begun = Instant::now();
    let (status, answer) = ask(&gateway, "select 1").await;
    assert!([503, 504].contains(&status), "{status} {answer}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_half_open_connection_is_found_out_within_the_deadline() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let keys = "size = { min = 3, max = 4 }\nvalidation = { native = \"always\" }\nvalidation_timeout = \"300ms\"";
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), keys).await;
    works(&gateway).await;
    proxy.set(Fault::Freeze);
    let open = proxy.accepted();
    let begun = Instant::now();
    let (status, _) = ask(&gateway, "select 1::int").await;
    assert!([503, 504].contains(&status), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(8));
    proxy.cut_all();
    proxy.set(Fault::Pass);
    works(&gateway).await;
    assert!(proxy.accepted() > open, "nothing that was open then can have answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reset_in_mid_answer_is_never_passed_as_a_whole_answer() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), "size = { max = 2 }").await;
    works(&gateway).await;
    proxy.set(Fault::CutAfter(2_000_000));
    let answer = gateway.h2().await.query("select repeat('x', 1000) from generate_series(1, 20000)", json!([])).await;
    assert!(answer.map_or(true, |answer| answer.status >= 500), "a cut answer was passed as whole");
    proxy.set(Fault::Pass);
    works(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_changed_password_is_told_and_the_new_one_works_after_a_reload() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { min = 1, max = 2 }").await;
    works(&gateway).await;
    let admin = postgres.admin().await;
    admin.batch_execute("alter role app password 'changed'").await.unwrap();
    end_all(&admin).await;
    let refused = |(status, answer): &(u16, Value)| *status == 503 && answer.to_string().contains("28P01");
    eventually("the refusal is told", || ask(&gateway, "select 1::int"), refused).await;
    let mut client = gateway.h2().await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let answer = client.query("select 1::int", json!([])).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    let attempts = postgres.logged(&["password authentication failed"]);
    assert!((1..=10).contains(&attempts), "{attempts} attempts with a refused password: accounts are locked for less");
    let pool = gateway.status().await["pools"]["main"].to_string();
    assert!(!pool.contains("changed") && !pool.contains(PASSWORD), "{pool}");
    let changed = config(&postgres.url().replace(PASSWORD, "changed"), "size = { min = 1, max = 2 }");
    gateway.reconfigure(&changed).await;
    works(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_server_is_not_hammered_and_those_who_have_a_connection_go_on() {
    let postgres = Postgres::start(0, &["max_connections=8", "superuser_reserved_connections=3"]).await;
    let gateway = gateway(
        &postgres.url(),
        "size = { max = 12 }\nserver = { connections = 12 }\nparallel_creates = 4\ncheckout_timeout = \"3s\"",
    )
    .await;
    works(&gateway).await;
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut client = gateway.h1().await;
        asks.spawn(async move { client.query("select pg_sleep(0.05)", json!([])).await.unwrap().status });
    }
    let statuses = asks.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let (counted, logged) = (gateway.figure(SERVER_FULL).await, postgres.logged(&REFUSED_AS_FULL));
    assert!((1..20).contains(&counted), "{counted} attempts on a full server");
    assert!((1..20).contains(&logged), "{logged} attempts on a full server, as it says itself:\n{}", postgres.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_leaves_cancels_its_statement() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { min = 1, max = 1 }").await;
    let admin = postgres.admin().await;
    let running = || running(&admin, "select pg_sleep%");
    for h2 in [false, true] {
        let mut client = if h2 { gateway.h2().await } else { gateway.h1().await };
        let asks = tokio::spawn(async move { client.query("select pg_sleep(60)", json!([])).await.map(drop) });
        eventually("the statement runs", running, |count| *count == 1).await;
        asks.abort();
        let _ = asks.await;
        eventually("the statement is cancelled", running, |count| *count == 0).await;
        let begun = Instant::now();
        assert_eq!(ask(&gateway, "select 1::int").await.0, 200, "the only connection serves the next");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_statement_that_outlives_the_drain_is_cancelled_though_its_worker_has_stopped() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    let config = config(&postgres.url(), "size = { min = 0, max = 2 }");
    let config = with_keys(&config, "server", "drain_delay = \"0s\"\ndrain_deadline = \"500ms\"")
        .replace("deadline = \"4s\"", "deadline = \"60s\"");
    let mut gateway = Gateway::start(&config).await;
    let mut client = gateway.h1().await;
    let query = tokio::spawn(async move { client.query("select pg_sleep(50)", json!([])).await.map(drop) });
    let running = || running(&admin, "select pg_sleep(50)%");
    eventually("the statement runs", running, |seen| *seen == 1).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
    eventually("the statement is cancelled", running, |seen| *seen == 0).await;
    assert!(query.await.unwrap().is_err(), "the client was cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_transaction_left_open_is_rolled_back_at_once() {
    let postgres = Postgres::start(0, &[]).await;
    // The server would not do it by itself.
    let keys = "size = { min = 1, max = 1 }\nidle_in_transaction_timeout = \"0s\"";
    let gateway = gateway(&postgres.url(), keys).await;
    let admin = postgres.admin().await;
    assert_eq!(ask(&gateway, "begin").await.0, 200);
    eventually("rolled back without another request", || in_transaction(&admin), |count| *count == 0).await;
    let (status, answer) = ask(&gateway, "savepoint a").await;
    assert_eq!((status, answer["sqlstate"].as_str()), (400, Some("25P01")), "no transaction is met: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn session_state_is_not_met_by_the_next_caller() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { min = 1, max = 1 }").await;
    for statement in [
        "set work_mem = '77MB'",
        "select set_config('work_mem', '77MB', false)",
        "do $$ begin perform set_config('work_mem', '77MB', false); end $$",
        "create temp table leftover (a int)",
        "select pg_advisory_lock(4711)",
        "listen channel",
        "prepare mine as select 1",
    ] {
        assert_eq!(ask(&gateway, statement).await.0, 200, "{statement}");
        let (status, answer) = ask(
            &gateway,
            "select current_setting('work_mem'), (select count(*)::int from pg_class where relname = 'leftover'), \
             (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()), \
             (select count(*)::int from pg_listening_channels()), \
             (select count(*)::int from pg_prepared_statements where name = 'mine')",
        )
        .await;
        assert_eq!((status, &answer["rows"]), (200, &json!([["4MB", 0, 0, 0, 0]])), "after {statement}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_database_that_is_absent_at_start_is_used_when_it_comes() {
    let mut postgres = Postgres::start(0, &[]).await;
    postgres.stop();
    let gateway = gateway(&postgres.url(), "size = { min = 1, max = 2 }\nbackoff = { max = \"1s\" }").await;
    assert_eq!(ask(&gateway, "select 1").await.0, 503);
    assert_eq!(gateway.admin("GET", "/readyz").await.0, 503);
    postgres.start_again().await;
    works(&gateway).await;
    let ready = || async { gateway.admin("GET", "/readyz").await.0 };
    eventually("ready", ready, |status| *status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_that_shrinks_keeps_its_cap_and_kills_nobody() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { max = 8 }").await;
    let admin = postgres.admin().await;
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = gateway.h1().await;
        asks.spawn(async move { client.query("select pg_sleep(2)", json!([])).await.unwrap().status });
    }
    eventually("all busy", || async { postgres.sessions(&admin).await }, |seen| *seen == 8).await;
    fs::write(gateway.config_path(), config(&postgres.url(), "size = { max = 2 }")).unwrap();
    assert!(asks.join_all().await.iter().all(|status| *status == 200), "in-use connections are never killed");
    eventually("shrunk", || async { postgres.sessions(&admin).await }, |seen| *seen <= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_that_comes_to_be_shared_shows_nobody_what_another_left_in_the_session() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    // A statement that does not look as if it set anything.
    let leave = "create function leave_behind(what text) returns text language sql as \
                 $$ select set_config('app.tenant', what, false) $$";
    admin.batch_execute(leave).await.unwrap();
    let alone = config(&postgres.url(), "size = { min = 1, max = 1 }");
    let gateway = Gateway::start(&alone).await;
    let seen = || ask(&gateway, "select current_setting('app.tenant', true)");
    assert_eq!(ask(&gateway, "select leave_behind('mine')").await.0, 200);
    assert_eq!(seen().await.1["rows"], json!([["mine"]]), "one consumer alone may meet itself");
    let other = r#"
[[route]]
path = "/other"
query = { dialect = "json", pool = "main" }
access = ["other"]
"#;
    gateway.reconfigure(&(alone + other + &consumer("other", ""))).await;
    let nothing = |rows: &Value| rows == &json!([[null]]) || rows == &json!([[""]]);
    let rows = seen().await.1["rows"].clone();
    assert!(nothing(&rows), "from before the reload: {rows}");
    assert_eq!(ask(&gateway, "select leave_behind('mine')").await.0, 200);
    let rows = seen().await.1["rows"].clone();
    assert!(nothing(&rows), "from after the reload: {rows}");
}
