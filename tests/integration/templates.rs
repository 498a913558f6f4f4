//! One pool in the configuration, one for each database that requests name.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    client::JSON,
    config::{BASE, pool},
    eventually,
    gateway::Gateway,
    postgres::{PASSWORD, Postgres},
};

const WHERE_AM_I: &str = "select current_database()::text";

/// A server with databases `tenant_a`, `tenant_b` and `tenant_c`.
async fn three_tenants() -> Postgres {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    for name in ["a", "b", "c"] {
        admin.batch_execute(&format!("create database tenant_{name}")).await.unwrap();
    }
    postgres
}

fn config(url: &str, keys: &str) -> String {
    format!(
        r#"{BASE}
{}
[[route]]
path = "/t"
query = {{ dialect = "json", pool = "tenants", database = "path" }}
access = "open"
[[route]]
exact = "/query"
query = {{ dialect = "json", pool = "tenants", database = "header:X-Tenant" }}
access = "open"
"#,
        pool("tenants", url, &format!("per = \"database\"\nsize = {{ max = 2 }}\n{keys}"))
    )
}

fn url(postgres: &Postgres) -> String {
    format!("postgres://app:{PASSWORD}@127.0.0.1:{}/tenant_*", postgres.port)
}

async fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)], sql: &str) -> (u16, Value) {
    let answer = gateway.h1().await.post(path, headers, &json!({ "sql": sql })).await.unwrap();
    (answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
}

/// The pools there are, by name.
async fn pools(gateway: &Gateway) -> Vec<String> {
    gateway.status().await["pools"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_database_that_is_named_gets_a_pool_of_its_own_and_no_other_can_be_named() {
    let postgres = three_tenants().await;
    let gateway = Gateway::start(&config(&url(&postgres), "")).await;
    assert_eq!(pools(&gateway).await, [""; 0], "none before it is asked for");
    for name in ["a", "b", "a"] {
        let by_path = ask(&gateway, &format!("/t/{name}"), &[], WHERE_AM_I).await;
        let by_header = ask(&gateway, "/query", &[("x-tenant", name)], WHERE_AM_I).await;
        assert_eq!(by_path, by_header);
        assert_eq!((by_path.0, &by_path.1["rows"][0][0]), (200, &json!(format!("tenant_{name}"))));
    }
    assert_eq!(pools(&gateway).await, ["tenants:a", "tenants:b"]);
    for path in ["/t", "/t/", "/t/a/b", "/t/..%2fpostgres", "/t/a%20b", "/t/*", "/t/a;x", "/t/a'--"] {
        let (status, answer) = ask(&gateway, path, &[], WHERE_AM_I).await;
        assert!(matches!(status, 400 | 404), "{path}: {status} {answer}");
    }
    for name in ["", "../postgres", "a b", "a\tb", &"x".repeat(64)] {
        assert_eq!(ask(&gateway, "/query", &[("x-tenant", name)], WHERE_AM_I).await.0, 404, "{name}");
    }
    assert_eq!(ask(&gateway, "/query", &[], WHERE_AM_I).await.0, 404, "no name at all");
    let (status, _) = ask(&gateway, "/query", &[("x-tenant", "a"), ("x-tenant", "b")], WHERE_AM_I).await;
    assert_eq!(status, 404, "whoever stands before us may have read the other");
    assert_eq!(pools(&gateway).await, ["tenants:a", "tenants:b"], "none of them made a pool");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_that_is_none_makes_no_pool_and_drives_nobody_out() {
    let postgres = three_tenants().await;
    // A pool that is made opens a connection by itself, and is seen.
    let text = config(&url(&postgres), "max_pools = 3").replace("size = { max", "size = { min = 1, max");
    let gateway = Gateway::start(&text).await;
    for name in ["a", "b"] {
        assert_eq!(ask(&gateway, &format!("/t/{name}"), &[], WHERE_AM_I).await.0, 200);
    }
    // Until what there is has not been asked for in a while, and could be dropped.
    eventually("a second has passed", || async { gateway.status().await["uptime_s"].as_u64() }, |up| *up >= Some(4))
        .await;
    let mut client = gateway.h1().await;
    for _ in 0..20 {
        assert_eq!(client.get("/t/c").await.unwrap().status, 405);
        assert_eq!(client.send("POST", "/t/c", &[("content-type", "text/plain")], "{}").await.unwrap().status, 415);
        assert_eq!(client.send("POST", "/t/c", &[JSON], "{").await.unwrap().status, 400);
    }
    assert_eq!(pools(&gateway).await, ["tenants:a", "tenants:b"]);
    // Nor do names that no database has, many at a time.
    let made_up = (0..30).map(|n| {
        let gateway = &gateway;
        async move { ask(gateway, &format!("/t/nobody{n}"), &[], WHERE_AM_I).await.0 }
    });
    let answers = futures_util::future::join_all(made_up).await;
    assert!(answers.iter().all(|status| matches!(status, 404 | 503)), "{answers:?}");
    assert_eq!(pools(&gateway).await, ["tenants:a", "tenants:b"]);
    let creates = gateway.figure("/pools/tenants:a/counters/creates").await;
    assert_eq!(creates, 1, "it has kept its connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_name_that_no_database_has_is_not_found_and_leaves_nothing_behind() {
    let postgres = three_tenants().await;
    let gateway = Gateway::start(&config(&url(&postgres), "max_pools = 2")).await;
    assert_eq!(ask(&gateway, "/t/a", &[], WHERE_AM_I).await.0, 200);
    for n in 0..5 {
        let begun = std::time::Instant::now();
        let (status, answer) = ask(&gateway, &format!("/t/nobody{n}"), &[], WHERE_AM_I).await;
        assert_eq!((status, answer["title"].as_str()), (404, Some("No such database")), "{answer}");
        assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
        assert!(pools(&gateway).await.contains(&"tenants:a".to_owned()), "it takes nobody's place");
    }
    eventually("they are gone", || pools(&gateway), |pools| *pools == ["tenants:a"]).await;
    let attempts = postgres.logged(&["does not exist"]);
    assert!((5..=10).contains(&attempts), "one attempt each, and at most one of the breaker: {attempts}");
    // The database comes; its name is found from then on.
    postgres.admin().await.batch_execute("create database tenant_nobody1").await.unwrap();
    let found = || async { ask(&gateway, "/t/nobody1", &[], WHERE_AM_I).await.0 };
    eventually("it is found", found, |status| *status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn there_are_no_more_pools_than_there_may_be_and_those_nobody_uses_go() {
    let postgres = three_tenants().await;
    let admin = postgres.admin().await;
    let keys = "max_pools = 2\npool_idle_timeout = \"3s\"";
    let gateway = Gateway::start(&config(&url(&postgres), keys)).await;
    let slow = "select pg_sleep(1.5), current_database()::text";
    let (a, b, c) = tokio::join!(ask(&gateway, "/t/a", &[], slow), ask(&gateway, "/t/b", &[], slow), async {
        eventually("both are in use", || pools(&gateway), |pools| pools.len() == 2).await;
        ask(&gateway, "/t/c", &[], WHERE_AM_I).await
    });
    assert_eq!((a.0, b.0), (200, 200));
    assert_eq!((c.0, c.1["detail"].as_str()), (503, Some("too many databases are in use at a time")));
    let other = || async { ask(&gateway, "/t/c", &[], WHERE_AM_I).await.0 };
    eventually("one that nobody uses made room", other, |status| *status == 200).await;
    assert_eq!(pools(&gateway).await.len(), 2);
    eventually("pools go that nobody asks for", || pools(&gateway), Vec::is_empty).await;
    eventually("and their connections", || postgres.sessions(&admin), |sessions| *sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_an_operator_says_and_changes_holds_for_the_pools_there_are() {
    let postgres = three_tenants().await;
    let admin = postgres.admin().await;
    let text = config(&url(&postgres), "");
    let gateway = Gateway::start(&text).await;
    assert_eq!(ask(&gateway, "/t/a", &[], WHERE_AM_I).await.0, 200);
    let (status, _) = gateway.admin("POST", "/pools/tenants:a/pause").await;
    assert_eq!(status, 200);
    assert_eq!(gateway.status().await["pools"]["tenants:a"]["service"], "paused");
    assert_eq!(gateway.admin("POST", "/pools/tenants:a/resume").await.0, 200);
    let before = gateway.status().await["pools"]["tenants:a"]["counters"]["checkouts"].clone();
    gateway.reconfigure(&text.replace("max = 2", "max = 5")).await;
    gateway.status_until("/pools/tenants:a/max", |max| *max == 5).await;
    let now = gateway.status().await["pools"]["tenants:a"]["counters"]["checkouts"].clone();
    assert_eq!(now, before, "it is the same pool");
    // Another pattern: what there was drains.
    gateway.reconfigure(&text.replace("tenant_*", "tenant_*?application_name=other")).await;
    assert_eq!(ask(&gateway, "/t/a", &[], WHERE_AM_I).await.0, 200);
    gateway.reconfigure(&text.replace("/tenant_*", "/other_*")).await;
    eventually("it is drained", || pools(&gateway), Vec::is_empty).await;
    eventually("at the server", || postgres.sessions(&admin), |sessions| *sessions == 0).await;
    assert_eq!(ask(&gateway, "/t/a", &[], WHERE_AM_I).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn files_of_sqlite_are_named_the_same_way_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(format!("{name}.db"));
    for name in ["one", "two"] {
        rusqlite_make(&file(name), name);
    }
    let gateway = Gateway::start(&config(&format!("sqlite:{}/*.db", dir.path().display()), "")).await;
    for name in ["one", "two"] {
        let (status, answer) = ask(&gateway, &format!("/t/{name}"), &[], "select name from me").await;
        assert_eq!((status, &answer["rows"][0][0]), (200, &json!(name)), "{answer}");
    }
    assert_eq!(ask(&gateway, "/t/three", &[], "select 1").await.0, 404);
    assert!(!file("three").exists());
    fs::remove_file(file("two")).unwrap();
}

fn rusqlite_make(file: &std::path::Path, name: &str) {
    let made = rusqlite::Connection::open(file).unwrap();
    made.execute_batch(&format!("create table me (name text); insert into me values ('{name}')")).unwrap();
}
