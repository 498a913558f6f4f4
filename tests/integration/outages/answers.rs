//! Answers that break off, come too slowly, or are not known to have been meant; statements that the server has forgotten.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{
    activity::{count, end_running, running, table},
    eventually,
    faults::{Fault, FaultProxy},
    front::{DEADLINE, ask, batch, gateway, works},
    gateway::Gateway,
    postgres::Postgres,
};

async fn rows(admin: &tokio_postgres::Client) -> i64 {
    count(admin, "select count(*) from seen").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backend_killed_in_mid_transaction_leaves_nothing_of_it_and_nobody_tries_again() {
    let postgres = Postgres::start(0, &["log_statement=all"]).await;
    let gateway = gateway(&postgres.url(), "size = { max = 2 }").await;
    let admin = postgres.admin().await;
    table(&admin, "seen (n int)").await;
    let statements = ["insert into seen values (17)", "select pg_sleep(30)", "insert into seen values (18)"];
    let ((status, answer), ()) = tokio::join!(batch(&gateway, &statements), end_running(&admin, "select pg_sleep%"));
    // The caller hears that nothing was done, and decides.
    assert_eq!((status, &answer["retryable"], &answer["outcome"]), (502, &json!(true), &Value::Null), "{answer}");
    works(&gateway).await;
    assert_eq!(rows(&admin).await, 0);
    assert_eq!(postgres.logged(&["execute <unnamed>: insert into seen values (17)"]), 1, "{}", postgres.log());
    assert_eq!(gateway.figure("/pools/main/counters/retries").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_commit_whose_reply_is_lost_is_told_as_an_unknown_outcome_and_done_once() {
    let postgres = Postgres::start(0, &["log_statement=all"]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), "size = { min = 1, max = 1 }").await;
    let admin = postgres.admin().await;
    table(&admin, "seen (n int)").await;
    works(&gateway).await;
    for round in 1..=4 {
        proxy.set(Fault::Mute);
        let insert = format!("insert into seen values ({round})");
        let write = async {
            if round % 2 == 0 { ask(&gateway, &insert).await } else { batch(&gateway, &[&insert, "select 1"]).await }
        };
        let cut = async {
            // The server has committed, and its word is under way.
            eventually("committed", || rows(&admin), |seen| *seen == round).await;
            proxy.cut_all();
            proxy.set(Fault::Pass);
        };
        let ((status, answer), ()) = tokio::join!(write, cut);
        assert_eq!(
            (status, &answer["outcome"], &answer["retryable"]),
            (502, &json!("unknown"), &Value::Null),
            "{answer}"
        );
        works(&gateway).await;
        assert_eq!(rows(&admin).await, round);
        assert_eq!(postgres.logged(&[&format!("execute <unnamed>: {insert}")]), 1, "{}", postgres.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_at_a_kilobyte_a_second_ends_at_the_deadline_and_is_not_gathered() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), "size = { max = 2 }").await;
    let admin = postgres.admin().await;
    works(&gateway).await;
    let before = gateway.rss_kib();
    proxy.set(Fault::Trickle(1000));
    let begun = Instant::now();
    let mut client = gateway.h2().await;
    let answer = client.query("select repeat('x', 1000) from generate_series(1, 100000)", json!([])).await;
    assert!(begun.elapsed() < 3 * DEADLINE, "{:?}", begun.elapsed());
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 504), "a part was passed as the whole: {answer:?}");
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for an answer of 100 MB that came at 1 kB/s");
    proxy.set(Fault::Pass);
    eventually("the statement is stopped", || running(&admin, "select repeat%"), |seen| *seen == 0).await;
    works(&gateway).await;
}

/// One connection, so that each request meets what the one before left prepared.
async fn one_connection(postgres: &Postgres, keys: &str) -> Gateway {
    gateway(&postgres.url(), &format!("size = {{ min = 1, max = 1 }}\n{keys}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_statement_whose_table_has_changed_or_that_was_deallocated_is_prepared_once_more() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = one_connection(&postgres, "").await;
    let admin = postgres.admin().await;
    table(&admin, "seen (n int)").await;
    // A text that does not look as if it dropped statements.
    let forget = "create function forget() returns void language plpgsql as $$ begin execute 'deallocate all'; end $$";
    admin.batch_execute(forget).await.unwrap();
    let columns = async || {
        let (status, answer) = ask(&gateway, "select * from seen").await;
        assert_eq!(status, 200, "{answer}");
        answer["columns"].as_array().unwrap().len()
    };
    for _ in 0..3 {
        assert_eq!(columns().await, 1);
    }
    admin.batch_execute("alter table seen add m int").await.unwrap();
    for _ in 0..3 {
        assert_eq!(columns().await, 2);
    }
    assert_eq!(postgres.logged(&["cached plan must not change result type"]), 1, "{}", postgres.log());
    assert_eq!(ask(&gateway, "select forget()").await.0, 200);
    for _ in 0..3 {
        assert_eq!(columns().await, 2);
    }
    assert_eq!(postgres.logged(&["prepared statement \"sg"]), 1, "{}", postgres.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_server_holds_no_more_prepared_statements_than_the_cache_is_large() {
    const CACHE: i64 = 8;
    let postgres = Postgres::start(0, &[]).await;
    let gateway = one_connection(&postgres, &format!("statement_cache = {CACHE}")).await;
    let mut client = gateway.h2().await;
    for text in 0..40 {
        for _ in 0..3 {
            let answer = client.query(&format!("select {text}::int"), json!([])).await.unwrap();
            assert_eq!(answer.json()["rows"], json!([[text]]));
        }
        let held = client.query("select count(*)::int from pg_prepared_statements", json!([])).await.unwrap();
        let held = held.json()["rows"][0][0].as_i64().unwrap();
        assert!((1..=CACHE).contains(&held), "{held} prepared statements after {} texts", text + 1);
    }
}
