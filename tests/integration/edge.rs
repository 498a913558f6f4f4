//! What arrives at the socket: bytes that are not TLS, names that disagree, requests that smuggle, clients that dawdle.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    client::{Client, tls_stream},
    config::{BASE, also_named, consumer, with_keys},
    eventually,
    gateway::Gateway,
    nginx::Nginx,
    origin::Origin,
};

fn config(upstream: &str, listener: &str) -> String {
    let base = with_keys(&also_named(BASE, "other.test"), "listener.public", listener);
    format!(
        r#"{base}
[listener.plain]
address = "127.0.0.1:0"
{listener}
[upstream.web]
endpoints = ["{upstream}"]
[limit.tight]
key = "client-address"
rate = "1/m"
burst = 3
[[route]]
path = "/up"
proxy = {{ upstream = "web", strip_prefix = true }}
[[route]]
path = "/open"
allow_encoded_separators = true
respond = {{ status = 200, body = "open" }}
[[route]]
path = "/private"
respond = {{ status = 403, body = "private" }}
[[route]]
path = "/limited"
respond = {{ status = 200 }}
limits = ["tight"]
[[route]]
path = "/"
respond = {{ status = 200, body = "ok" }}
"#
    )
}

async fn started(listener: &str) -> (Origin, Gateway) {
    let origin = Origin::http().await;
    let gateway = Gateway::start(&config(&origin.url(), listener)).await;
    (origin, gateway)
}

/// Sends bytes on a connection of their own and returns all that comes back until the end or 5 s.
async fn raw(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address("plain")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split_whitespace().nth(1).unwrap_or("closed")
}

#[tokio::test]
async fn bytes_that_are_not_tls_are_told_so_and_cost_nothing() {
    let (_origin, gateway) = started("").await;
    let mut stream = TcpStream::connect(gateway.address("public")).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(status(&answer), "400", "{answer}");
    let mut stream = TcpStream::connect(gateway.address("public")).await.unwrap();
    stream.write_all(&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await;
    assert_eq!(gateway.h2().await.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_server_name_and_an_authority_that_disagree_get_421() {
    let (_origin, gateway) = started("").await;
    for mut client in [gateway.h1().await, gateway.h2().await] {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    let answer = gateway.h1().await.send("GET", "/", &[("host", "other.test")], "").await.unwrap();
    assert_eq!(answer.status, 421);
}

#[tokio::test]
async fn with_both_transfer_encoding_and_content_length_the_length_never_reaches_the_upstream() {
    let (_origin, gateway) = started("").await;
    let smuggle = "POST /up/head HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let answer = raw(&gateway, smuggle.as_bytes()).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(!answer.to_lowercase().contains("\ncontent-length: 3"), "{answer}");
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    // The body that counts is the chunked one, and what follows it is not a second request.
    let echo = smuggle.replace("/up/head", "/up/echo");
    assert!(raw(&gateway, echo.as_bytes()).await.ends_with("hello"));
}

#[tokio::test]
async fn requests_that_two_parsers_could_read_differently_are_refused() {
    let (_origin, gateway) = started("").await;
    for request in [
        "POST /up/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /up/echo HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "POST /up/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    ] {
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(["400", "501", "closed"].contains(&status(&answer)), "{request:?} got {answer}");
    }
}

#[tokio::test]
async fn a_path_is_normalised_before_it_is_routed() {
    let (_origin, gateway) = started("").await;
    let at = async |path: &str| {
        status(&raw(&gateway, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await)
            .to_owned()
    };
    for path in
        ["/private", "//private", "/x/../private", "/./private/a", "/%70rivate", "/private/../private", "/../private"]
    {
        assert_eq!(at(path).await, "403", "{path}");
    }
    assert_eq!(at("/privateer").await, "200", "a prefix ends at a segment's end");
    for path in ["/x%2fprivate", "/x%5Cprivate", "/x%00", "/x\\private"] {
        assert_eq!(at(path).await, "400", "{path}");
    }
    assert_eq!(at("/open/a%2Fb").await, "200");
}

#[tokio::test]
async fn a_rate_limit_tells_what_is_left_and_when_to_come_back() {
    let (_origin, gateway) = started("").await;
    let mut client = gateway.h2().await;
    for left in ["r=2", "r=1", "r=0"] {
        let answer = client.get("/limited").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.header("ratelimit").contains(left), "{}", answer.header("ratelimit"));
        assert!(
            answer.header("ratelimit-policy").starts_with("\"tight\";q=3"),
            "{}",
            answer.header("ratelimit-policy")
        );
    }
    let refused = client.get("/limited").await.unwrap();
    assert_eq!((refused.status, refused.header("content-type")), (429, "application/problem+json"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    assert_eq!(refused.json()["violated-policies"], json!(["tight"]));
    assert_eq!(client.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_cut_and_cost_no_others() {
    let deadlines =
        "header_timeout = \"1s\"\nidle_timeout = \"1s\"\nprogress_timeout = \"1s\"\nmin_body_rate = \"100B\"";
    let (_origin, gateway) = started(deadlines).await;
    let mut slow = Vec::new();
    for start in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n",
        "POST /up/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
    ] {
        slow.push(tokio::spawn(dawdle(gateway.address("plain"), start)));
    }
    let begun = Instant::now();
    let mut client = gateway.h2().await;
    while slow.iter().any(|task| !task.is_finished()) {
        let asked = Instant::now();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "a neighbour waited {:?}", asked.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(20), "a slow client is still there");
    }
    for task in slow {
        let held = task.await.unwrap();
        assert!(held < Duration::from_secs(10), "a slow client was held {held:?}");
    }
}

/// Sends a byte each 100 ms after `start`, until the other side has had enough; returns how long that took.
async fn dawdle(address: std::net::SocketAddr, start: &str) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let trickle = async {
        while !start.is_empty() && write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut sink = Vec::new();
    tokio::select! {
        _ = read.read_to_end(&mut sink) => {}
        () = trickle => {}
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_reader_that_stops_is_cut_and_holds_up_no_others() {
    let nginx = Nginx::start("one").await;
    let gateway = Gateway::start(&config(&nginx.url(), "progress_timeout = \"1s\"")).await;
    let mut stream = tls_stream(gateway.address("public"), &gateway.ca(), "localhost", b"http/1.1").await.unwrap();
    for _ in 0..16 {
        stream.write_all(b"GET /up/1m HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    }
    let mut client = gateway.h2().await;
    let begun = Instant::now();
    // The stalled connection, and ours.
    assert_eq!(gateway.figure("/edge/active").await, 2);
    while gateway.figure("/edge/active").await > 1 {
        let asked = Instant::now();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "a neighbour waited {:?}", asked.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(15), "the stalled reader is still there");
    }
    assert_eq!(gateway.figure("/edge/timeout_write").await, 1);
}

#[tokio::test]
async fn too_many_connections_from_one_address_are_closed_and_counted() {
    let origin = Origin::http().await;
    let config = with_keys(&config(&origin.url(), ""), "server", "max_connections_per_address = 20");
    let gateway = Gateway::start(&config).await;
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        let mut stream = TcpStream::connect(gateway.address("plain")).await.unwrap();
        let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut buffer = [0; 16];
        match stream.read(&mut buffer).await {
            Ok(count) if sent.is_ok() && count > 0 => held.push(stream),
            _ => refused += 1,
        }
    }
    assert_eq!((held.len(), refused), (20, 10));
    assert_eq!(gateway.figure("/edge/refused_address").await, 10);
    drop(held);
    let mut client = gateway.h1().await;
    assert_eq!(client.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn out_of_descriptors_accepting_pauses_and_goes_on() {
    const PAUSES: u64 = 10;
    let (_origin, gateway) = started("").await;
    let mut admin = Client::plain(gateway.address("admin")).await.unwrap();
    let token = format!("Bearer {}", gateway.token());
    let mut pauses = async || {
        let answer = admin.send("GET", "/status", &[("authorization", &token)], "").await.unwrap();
        answer.json()["edge"]["accept_pauses"].as_u64().unwrap()
    };
    assert_eq!(pauses().await, 0);
    let process = gateway.process().id();
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    let limit = |soft: String| {
        let limited =
            Command::new("prlimit").args(["--pid", &process.to_string(), &format!("--nofile={soft}:")]).status();
        assert!(limited.expect("prlimit is part of util-linux").success());
    };
    let before = String::from_utf8(
        Command::new("prlimit")
            .args(["--pid", &process.to_string(), "--nofile", "-o", "SOFT", "--noheadings"])
            .output()
            .unwrap()
            .stdout,
    );
    limit((open + 5).to_string());
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(TcpStream::connect(gateway.address("plain")).await.unwrap());
    }
    let begun = Instant::now();
    while pauses().await < PAUSES {
        assert!(begun.elapsed() < Duration::from_secs(20), "accepting does not pause");
    }
    // It waits, ever longer, and does not spin: the fifth pause of a worker comes when four are over, and there are two workers.
    assert!(begun.elapsed() >= Duration::from_millis(10 + 20 + 40 + 80), "{:?}", begun.elapsed());
    drop(held);
    let served = || async {
        Client::plain(gateway.address("plain")).await.unwrap().get("/").await.map_or(0, |answer| answer.status)
    };
    eventually("it goes on", served, |status| *status == 200).await;
    limit(before.unwrap().trim().to_owned());
    assert_eq!(gateway.h2().await.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn tls_1_2_is_served_where_it_is_not_refused() {
    let strict = "[listener.strict]\naddress = \"127.0.0.1:0\"\ntls_min_version = \"1.3\"\ntls = { self_signed = [\"localhost\"] }";
    let origin = Origin::http().await;
    let config = config(&origin.url(), "") + strict + "\n";
    let gateway = Gateway::start(&config).await;
    let curl = |listener: &str, version: &str| {
        let url = format!("https://localhost:{}/", gateway.address(listener).port());
        let ca = gateway.ca();
        let arguments = ["-sS", "--max-time", "20", "--tls-max", version, "--cacert", ca.to_str().unwrap(), &url];
        Command::new("curl").args(arguments).output().expect("curl is installed: run `make setup-test`")
    };
    for (listener, version, served) in
        [("public", "1.2", true), ("public", "1.3", true), ("strict", "1.2", false), ("strict", "1.3", true)]
    {
        let output = curl(listener, version);
        assert_eq!(
            output.status.success(),
            served,
            "{listener} {version}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(gateway.figure("/edge/handshake_incompatible").await, 1);
}

#[tokio::test]
async fn a_client_is_who_a_trusted_proxy_says_and_nobody_else() {
    let origin = Origin::http().await;
    let plain = config(&origin.url(), "");
    let behind = with_keys(&plain, "server", "trusted_proxies = [\"127.0.0.0/8\"]");
    for (config, believed) in [(plain, false), (behind, true)] {
        let gateway = Gateway::start(&config).await;
        let mut client = gateway.h1().await;
        let mut limited =
            async |said: &str| client.send("GET", "/limited", &[("x-forwarded-for", said)], "").await.unwrap().status;
        // Three are free for each address; what comes before the trusted proxy's own word is not believed.
        let mut statuses = Vec::new();
        for first in 1..=5 {
            statuses.push(limited(&format!("203.0.113.{first}, 198.51.100.7")).await);
        }
        assert_eq!(statuses, [200, 200, 200, 429, 429], "trusted: {believed}");
        assert_eq!(limited("198.51.100.8").await, if believed { 200 } else { 429 });
    }
}

#[tokio::test]
async fn limits_count_by_what_they_are_told_to() {
    let consumers = ["first", "second"].map(|name| consumer(name, "")).concat();
    let route = |name: &str, key: &str| {
        format!(
            "[limit.{name}]\nkey = \"{key}\"\nrate = \"1/m\"\nburst = 1\n[[route]]\npath = \"/{name}\"\nlimits = [\"{name}\"]\nrespond = {{ status = 200 }}\n"
        )
    };
    let routes =
        [("c", "consumer"), ("h", "header:x-tenant"), ("a", "all")].map(|(name, key)| route(name, key)).concat();
    let gateway = Gateway::start(&(config("http://127.0.0.1:1", "") + &consumers + &routes)).await;
    let mut client = gateway.h2().await;
    let mut ask =
        async |path: &str, header: (&str, &str)| client.send("GET", path, &[header], "").await.unwrap().status;
    // One is free for each that is counted by itself.
    for (path, one, other, counted_apart) in [
        ("/c", ("x-api-key", "key-first"), ("x-api-key", "key-second"), true),
        ("/h", ("x-tenant", "red"), ("x-tenant", "blue"), true),
        ("/a", ("x-tenant", "red"), ("x-tenant", "blue"), false),
    ] {
        let statuses = [ask(path, one).await, ask(path, one).await, ask(path, other).await];
        assert_eq!(statuses, [200, 429, if counted_apart { 200 } else { 429 }], "{path}");
    }
}
