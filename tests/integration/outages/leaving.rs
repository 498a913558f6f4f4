//! What callers leave behind, and callers who leave.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    activity::{end_all, in_transaction, running, table},
    eventually,
    faults::{Fault, FaultProxy},
    front::{ask, batch, gateway, never_asked_for_more, works},
    postgres::Postgres,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn six_hundred_callers_who_leave_at_any_moment_cost_no_permit() {
    const MAX: i64 = 4;
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    postgres.grant_sessions(&admin, MAX).await;
    let gateway = gateway(&postgres.url(), &format!("size = {{ max = {MAX} }}")).await;
    works(&gateway).await;
    for _ in 0..20 {
        let h2 = gateway.h2().await;
        let callers = (0..30).map(|number| {
            let (shared, gateway) = (h2.share(), &gateway);
            async move {
                // In the queue, on its connection, or done: whichever it is by then. HTTP/1.1 leaves by closing, HTTP/2 by a reset.
                let patience = Duration::from_millis(rand::random_range(0..60));
                let mut client = if number % 2 == 0 { gateway.h1().await } else { shared };
                let ask = client.query("select pg_sleep(0.005)", json!([]));
                tokio::time::timeout(patience, ask).await.is_err()
            }
        });
        join_all(callers).await;
    }
    let at_rest = |pool: &Value| pool["in_use"] == 0 && pool["waiters"] == 0 && pool["creating"] == 0;
    let pool = gateway.status_until("/pools/main", at_rest).await;
    assert!(pool["counters"]["cancelled"].as_u64() > Some(20), "somebody left the queue: {}", pool["counters"]);
    assert!(pool["counters"]["recoveries"].as_u64() > Some(0), "somebody left a statement: {}", pool["counters"]);
    // As many as may be at work at a time are: no permit is lost, and none was made.
    let working = join_all((0..MAX).map(|_| ask(&gateway, "select pg_sleep(1)")));
    let all = || running(&admin, "select pg_sleep(1)");
    let (answers, _) = tokio::join!(working, eventually("all at work", all, |seen| *seen == MAX));
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    never_asked_for_more(&gateway, &postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_transaction_that_failed_is_rolled_back_at_once_and_not_met_by_the_next() {
    let postgres = Postgres::start(0, &[]).await;
    // The server would not do it by itself.
    let keys = "size = { min = 1, max = 1 }\nidle_in_transaction_timeout = \"0s\"";
    let gateway = gateway(&postgres.url(), keys).await;
    let admin = postgres.admin().await;
    table(&admin, "seen (n int)").await;
    let open = || in_transaction(&admin);
    for _ in 0..5 {
        let (status, answer) = batch(&gateway, &["insert into seen values (1)", "select 1 / 0"]).await;
        assert_eq!((status, answer["sqlstate"].as_str()), (400, Some("22012")), "{answer}");
        eventually("rolled back without another request", open, |seen| *seen == 0).await;
        let (status, answer) = ask(&gateway, "select count(*)::int from seen").await;
        assert_eq!((status, &answer["rows"]), (200, &json!([[0]])), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_transaction_that_the_server_ended_while_it_was_idle_costs_a_connection_and_no_request() {
    let postgres = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let keys = "size = { max = 1 }\nidle_in_transaction_timeout = \"50ms\"";
    let gateway = gateway(&Postgres::url_at(proxy.address.port()), keys).await;
    works(&gateway).await;
    // The rollback comes too late: the way there takes longer than the server's patience.
    proxy.set(Fault::Delay(Duration::from_millis(150)));
    assert_eq!(ask(&gateway, "begin").await.0, 200);
    proxy.set(Fault::Pass);
    for _ in 0..5 {
        let (status, answer) = ask(&gateway, "select 1::int").await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(postgres.logged(&["idle-in-transaction timeout"]), 1, "it came to that:\n{}", postgres.log());
    assert_eq!(gateway.figure("/pools/main/counters/creates").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_policy_that_trusts_everything_skips_neither_the_rollback_nor_a_closed_socket() {
    let postgres = Postgres::start(0, &[]).await;
    let keys = "size = { min = 1, max = 1 }\nvalidation = { native = \"never\" }\nidle_in_transaction_timeout = \"0s\"";
    let gateway = gateway(&postgres.url(), keys).await;
    let admin = postgres.admin().await;
    let open = || in_transaction(&admin);
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "begin").await.0, 200);
        eventually("rolled back", open, |seen| *seen == 0).await;
        end_all(&admin).await;
        let begun = Instant::now();
        let (status, answer) = ask(&gateway, "select 1::int").await;
        assert_eq!(status, 200, "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
