//! Forwarding to services that are real, down, slow, or change their mind.

use std::time::{Duration, Instant};

use crate::support::{
    client::Client,
    config::{BASE, with_keys},
    eventually,
    faults::{BlackHole, Fault, FaultProxy},
    free_port,
    gateway::Gateway,
    nginx::Nginx,
    origin::Origin,
};

fn config(endpoints: &[String], upstream: &str) -> String {
    let base = with_keys(BASE, "server", "trusted_proxies = []");
    format!(
        r#"{base}
[upstream.web]
endpoints = {endpoints:?}
{upstream}
[[route]]
path = "/"
proxy = {{ upstream = "web" }}
"#
    )
}

async fn before(endpoints: &[String], upstream: &str) -> Gateway {
    Gateway::start(&config(endpoints, upstream)).await
}

#[tokio::test]
async fn a_request_reaches_the_upstream_as_its_operator_expects() {
    let nginx = Nginx::start("one").await;
    let gateway = before(&[nginx.url()], "").await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for mut client in [gateway.h1().await, gateway.h2().await] {
        let headers = [("x-forwarded-for", "6.6.6.6"), ("traceparent", parent)];
        let answer = client.send("GET", "/headers", &headers, "").await.unwrap();
        let text = answer.text();
        assert!(
            text.contains(&format!("host=localhost:{}|for=127.0.0.1|proto=https", gateway.address("public").port())),
            "{text}"
        );
        assert!(
            text.contains("trace=00-4bf92f3577b34da6a3ce929d0e0e4736-") && !text.contains("00f067aa0ba902b7"),
            "{text}"
        );
        assert_eq!(answer.header("x-origin"), "one");
    }
}

#[tokio::test]
async fn endpoints_take_turns_and_one_that_is_down_is_passed_over() {
    let (one, two) = (Nginx::start("one").await, Nginx::start("two").await);
    let down = format!("http://127.0.0.1:{}", free_port());
    let gateway = before(&[one.url(), down, two.url()], "").await;
    let mut client = gateway.h2().await;
    let mut seen = [0, 0];
    for _ in 0..40 {
        let answer = client.get("/hello").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        seen[usize::from(answer.header("x-origin") == "two")] += 1;
    }
    assert!(seen[0] >= 10 && seen[1] >= 10, "{seen:?}");
}

#[tokio::test]
async fn an_upstream_that_is_down_is_502_and_a_slow_one_504_with_the_reason_in_the_log() {
    let origin = Origin::http().await;
    let slow = before(&[origin.url()], "read_timeout = \"300ms\"").await;
    let answer = slow.h1().await.get("/sleep/5000").await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (504, "application/problem+json"));

    let down = before(&[format!("http://127.0.0.1:{}", free_port())], "").await;
    assert_eq!(down.h2().await.get("/").await.unwrap().status, 502);

    let hole = BlackHole::open();
    let black = before(&[format!("http://{}", hole.address)], "connect_timeout = \"300ms\"").await;
    let begun = Instant::now();
    assert_eq!(black.h2().await.get("/").await.unwrap().status, 504);
    assert!(begun.elapsed() < Duration::from_secs(4));

    for (mut gateway, reason) in
        [(slow, "upstream_head_timeout"), (down, "upstream_connect"), (black, "upstream_connect")]
    {
        gateway.terminate().await;
        assert!(gateway.access_log().contains(reason), "{}", gateway.access_log());
    }
}

#[tokio::test]
async fn a_kept_connection_that_died_is_not_the_clients_business() {
    let nginx = Nginx::start("one").await;
    let proxy = FaultProxy::start(nginx.port).await;
    let gateway = before(&[format!("http://{}", proxy.address)], "").await;
    let mut client = gateway.h1().await;
    for _ in 0..10 {
        assert_eq!(client.get("/hello").await.unwrap().status, 200);
        proxy.cut_all();
    }
    assert_eq!(client.get("/hello").await.unwrap().status, 200);
    assert_eq!(proxy.accepted(), 11, "each was cut");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let nginx = Nginx::start("one").await;
    let proxy = FaultProxy::start(nginx.port).await;
    let gateway = before(&[format!("http://{}", proxy.address)], "").await;
    proxy.set(Fault::CutAfter(300_000));
    for mut client in [gateway.h1().await, gateway.h2().await] {
        proxy.set(Fault::CutAfter(300_000));
        let answer = client.get("/1m").await;
        assert!(answer.is_err(), "a cut answer was passed as whole");
        proxy.set(Fault::Pass);
    }
    assert_eq!(gateway.h1().await.get("/1m").await.unwrap().body.len(), 1 << 20);
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let origin = Origin::http().await;
    let gateway = before(&[origin.url()], "").await;
    let body = vec![b'b'; 8 << 20];
    for mut client in [gateway.h1().await, gateway.h2().await] {
        let answer = client.send("POST", "/echo", &[], body.clone()).await.unwrap();
        assert_eq!(answer.body.len(), body.len());
    }
}

#[tokio::test]
async fn the_cap_on_connections_holds_and_the_queue_is_bounded() {
    let origin = Origin::http().await;
    let limits = "max_connections = 8\nqueue = 16\nqueue_timeout = \"10s\"";
    let gateway = before(&[origin.url()], limits).await;
    let client = gateway.h2().await;
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut client = client.share();
        asks.spawn(async move { client.get("/sleep/300").await.unwrap().status });
    }
    let statuses = asks.join_all().await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(503)), (24, 16), "{statuses:?}");
    assert!(origin.peak.load(std::sync::atomic::Ordering::SeqCst) <= 8);
}

#[tokio::test]
async fn clients_that_leave_give_their_connections_back() {
    let origin = Origin::http().await;
    let gateway = before(&[origin.url()], "max_connections = 4\nqueue = 4").await;
    for _ in 0..20 {
        let mut client = gateway.h2().await;
        let left = tokio::time::timeout(Duration::from_millis(30), client.get("/sleep/60000")).await;
        assert!(left.is_err());
    }
    let works = || async { Client::get(&mut gateway.h2().await, "/").await.map_or(0, |answer| answer.status) };
    eventually("connections are free again", works, |status| *status == 200).await;
}
