//! Several pools, and several gateways, on one database server.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    config::{BASE, pool},
    eventually,
    gateway::Gateway,
    postgres::{Postgres, REFUSED_AS_FULL},
};

/// Ten connections for ordinary roles.
const TEN: &[&str] = &["max_connections=13", "superuser_reserved_connections=3"];

/// Pools `a`, `b` and `c` on one server, each asked at `/NAME`; `server`: what is said of it.
fn config(postgres: &Postgres, server: &str) -> String {
    let url = postgres.url();
    let keys = format!("size = {{ max = 10 }}\nserver = {{ {server} }}\ncheckout_timeout = \"20s\"");
    let pool_and_route = |name: &str| {
        let pool = pool(name, &url, &keys);
        format!(
            r#"{pool}
[[route]]
path = "/{name}"
query = {{ dialect = "json", pool = "{name}" }}
access = "open"
deadline = "20s"
"#
        )
    };
    BASE.to_owned() + &["a", "b", "c"].map(pool_and_route).concat()
}

/// `clients` at a time ask one pool, `each` so many times. Returns what was not answered with 200.
async fn ask(gateway: &Gateway, pool: &str, clients: usize, each: usize, sql: &str) -> Vec<String> {
    let body = json!({ "sql": sql });
    let clients = (0..clients).map(|_| async {
        let mut client = gateway.h1().await;
        let mut wrong = Vec::new();
        for _ in 0..each {
            let answer = client.post(&format!("/{pool}"), &[], &body).await.expect("an answer");
            if answer.status != 200 {
                wrong.push(answer.text());
            }
        }
        wrong
    });
    join_all(clients).await.concat()
}

/// The most sessions of gateways that the server had while `work` ran.
async fn watched<T>(postgres: &Postgres, work: impl Future<Output = T>) -> (T, i64) {
    let admin = postgres.admin().await;
    let mut most = 0;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return (done, most),
            now = postgres.sessions(&admin) => most = most.max(now),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pools_on_one_server_stay_within_their_part_of_it_and_everybody_is_served() {
    let postgres = Postgres::start(0, TEN).await;
    let gateway = Gateway::start(&config(&postgres, "share = 0.8")).await;
    let sql = "select pg_sleep(0.005)";
    let all = async { join_all(["a", "b", "c"].map(|pool| ask(&gateway, pool, 12, 40, sql))).await.concat() };
    let (wrong, most) = watched(&postgres, all).await;
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!((4..=8).contains(&most), "{most} sessions, of ten that the server grants");
    assert_eq!(postgres.logged(&REFUSED_AS_FULL), 0, "the server was never asked for more");
    for pool in ["a", "b", "c"] {
        let server = gateway.figure(&format!("/pools/{pool}/server/cap")).await;
        assert_eq!((server, gateway.figure(&format!("/pools/{pool}/server/grants")).await), (8, 10));
    }
    // What the others no longer need goes to the one that does.
    let begun = Instant::now();
    let (wrong, most) = watched(&postgres, ask(&gateway, "a", 8, 20, "select pg_sleep(0.05)")).await;
    assert!(wrong.is_empty() && most <= 8, "{most} {wrong:?}");
    assert!(gateway.figure("/pools/a/size").await >= 6, "{}", gateway.status().await["pools"]["a"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "eight at a time, a second in all: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_gets_its_fair_share_of_a_server_that_a_sister_keeps_busy() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&postgres, "connections = 4")).await;
    let busy = ask(&gateway, "a", 16, 60, "select pg_sleep(0.02)");
    let poor = async {
        eventually("a has it all", || gateway.figure("/pools/a/in_use"), |used| *used == 4).await;
        let begun = Instant::now();
        let wrong = ask(&gateway, "b", 2, 5, "select 1").await;
        (wrong, begun.elapsed())
    };
    let ((busy, (poor, took)), most) = watched(&postgres, async { tokio::join!(busy, poor) }).await;
    assert!(busy.is_empty() && poor.is_empty(), "{busy:?} {poor:?}");
    assert!(most <= 4, "{most} of four");
    assert!(took < Duration::from_secs(2), "five queries of two callers took {took:?}");
    assert!(gateway.figure("/pools/a/counters/closes/yielded").await >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_gateways_with_a_part_each_never_fill_the_server() {
    let postgres = Postgres::start(0, TEN).await;
    let text = config(&postgres, "share = 0.45");
    let (one, other) = (Gateway::start(&text).await, Gateway::start(&text).await);
    let sql = "select pg_sleep(0.005)";
    let both = async {
        let (one, other) = (ask(&one, "a", 12, 40, sql), ask(&other, "b", 12, 40, sql));
        tokio::join!(one, other)
    };
    let ((one, other), most) = watched(&postgres, both).await;
    assert!(one.is_empty() && other.is_empty(), "{one:?} {other:?}");
    assert!(most <= 8, "four each: {most}");
    assert_eq!(postgres.logged(&REFUSED_AS_FULL), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_role_and_a_full_server_are_told_apart() {
    let postgres = Postgres::start(0, TEN).await;
    let admin = postgres.admin().await;
    postgres.grant_sessions(&admin, 2).await;
    let gateway = Gateway::start(&config(&postgres, "share = 1.0")).await;
    assert!(ask(&gateway, "a", 6, 10, "select pg_sleep(0.02)").await.is_empty());
    let status = gateway.status().await;
    let pool = &status["pools"]["a"];
    assert!(pool["counters"]["create_failures"]["account_full"].as_u64() >= Some(1), "{pool}");
    assert_eq!(pool["server"]["ceiling"], json!(null), "the server has room: {pool}");
}
