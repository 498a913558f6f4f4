//! Queries over HTTPS, in the `json` dialect, over PostgreSQL and SQLite.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{
    client::{Client, JSON},
    config::{BASE, pool},
    faults::{Fault, FaultProxy},
    gateway::Gateway,
    postgres::Postgres,
};

/// Asks for an answer by lines.
const LINES: (&str, &str) = ("accept", "application/x-ndjson");

fn config(pool: &str) -> String {
    format!(
        r#"{BASE}
{pool}
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "main", max_rows = 200000, max_response = "8MiB" }}
access = "open"
"#
    )
}

async fn sqlite() -> Gateway {
    Gateway::start(&config(&pool("main", "sqlite:var/test.db", "size = { max = 4 }"))).await
}

async fn postgres() -> (Postgres, Gateway) {
    let server = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&pool("main", &server.url(), "size = { min = 1, max = 4 }"))).await;
    (server, gateway)
}

async fn ask(client: &mut Client, body: Value) -> (u16, Value) {
    client.post("/query", &[], &body).await.unwrap().told()
}

#[tokio::test]
async fn sqlite_answers_in_the_documented_shape() {
    let gateway = sqlite().await;
    for mut client in [gateway.h1().await, gateway.h2().await] {
        let (status, _) =
            ask(&mut client, json!({"sql": "create table if not exists t (id integer primary key, v text, b blob)"}))
                .await;
        assert_eq!(status, 200);
        let insert = json!({"sql": "insert into t (v, b) values (?1, x'00ff')", "params": ["é \"quoted\""]});
        assert_eq!(ask(&mut client, insert).await.1["row_count"], 1);
    }
    let (status, answer) = ask(&mut gateway.h1().await, json!({"sql": "select id, v, b, 1.5 as r, null as n, 9007199254740993 as big from t where id = ?1", "params": [1]})).await;
    assert_eq!(status, 200);
    let columns: Vec<&str> =
        answer["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["id", "v", "b", "r", "n", "big"]);
    assert_eq!(answer["rows"], json!([[1, "é \"quoted\"", "\\x00ff", 1.5, null, "9007199254740993"]]));
    assert_eq!(answer["row_count"], 1);
}

#[tokio::test]
async fn postgres_answers_in_the_documented_shape() {
    let (_server, gateway) = postgres().await;
    let sql = "select 1::int4 a, 2::int8 b, 1.50::numeric c, true d, 'x\"y' e, '{\"k\":[1]}'::jsonb f, '\\x00ff'::bytea g, \
               '{1,NULL,3}'::int4[] h, 'NaN'::float8 i, 1.5::float4 j, null::text k, '2026-01-02'::date l, $1::text m";
    let expected = json!([[1, "2", "1.50", true, "x\"y", {"k": [1]}, "\\x00ff", [1, null, 3], "NaN", 1.5, null, "2026-01-02", "p"]]);
    for mut client in [gateway.h1().await, gateway.h2().await] {
        for _ in 0..3 {
            // Cold, then prepared, then cached.
            let (status, answer) = ask(&mut client, json!({"sql": sql, "params": ["p"]})).await;
            assert_eq!((status, &answer["rows"]), (200, &expected), "{answer}");
            assert_eq!(answer["columns"][0], json!({"name": "a", "type": "integer"}));
            assert_eq!((answer["command"].as_str(), answer["row_count"].as_u64()), (Some("SELECT"), Some(1)));
        }
    }
}

#[tokio::test]
async fn a_batch_is_one_transaction() {
    let (_server, gateway) = postgres().await;
    let mut client = gateway.h2().await;
    let batch = json!({"batch": [
        {"sql": "create table t (id int primary key)"},
        {"sql": "insert into t values ($1), ($2)", "params": [1, 2]},
        {"sql": "select count(*)::int from t"},
    ], "isolation": "serializable"});
    let (status, answer) = ask(&mut client, batch).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["results"][1]["row_count"], 2);
    assert_eq!(answer["results"][2]["rows"], json!([[2]]));
    let failing = json!({"batch": [{"sql": "insert into t values (3)"}, {"sql": "insert into t values (1)"}]});
    let (status, answer) = ask(&mut client, failing).await;
    assert_eq!((status, answer["sqlstate"].as_str()), (400, Some("23505")), "{answer}");
    let (_, answer) = ask(&mut client, json!({"sql": "select count(*)::int from t"})).await;
    assert_eq!(answer["rows"], json!([[2]]), "the failed batch left nothing");
    let read_only = json!({"batch": [{"sql": "insert into t values (4)"}], "read_only": true});
    assert_eq!(ask(&mut client, read_only).await.1["sqlstate"], "25006");
}

#[tokio::test]
async fn a_database_error_says_all_that_the_database_said() {
    let (_server, gateway) = postgres().await;
    let mut client = gateway.h1().await;
    let answer = client.query("select * frm t", json!([])).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (400, "application/problem+json"));
    let problem = answer.json();
    assert_eq!((problem["sqlstate"].as_str(), problem["position"].as_u64()), (Some("42601"), Some(10)), "{problem}");
    let hint = client.query("select lenght('x')", json!([])).await.unwrap().json();
    assert!(hint["hint"].is_string(), "{hint}");
    let count = client.query("select $1::int", json!([])).await.unwrap();
    assert_eq!((count.status, count.json()["sqlstate"].as_str()), (400, Some("08P01")));
    let two = client.query("select 1; select 2", json!([])).await.unwrap();
    assert_eq!(two.json()["sqlstate"], "42601");
}

#[tokio::test]
async fn what_is_not_a_query_is_refused_with_the_right_status() {
    let gateway = sqlite().await;
    let mut client = gateway.h1().await;
    let valid = r#"{"sql": "select 1"}"#;
    let cases: [(&str, &[(&str, &str)], &str, u16); 10] = [
        ("GET", &[], "", 405),
        ("POST", &[("content-type", "text/plain")], valid, 415),
        ("POST", &[], valid, 415),
        ("POST", &[JSON], "{\"sql\": ", 400),
        ("POST", &[JSON], "[]", 400),
        ("POST", &[JSON], r#"{"sql": "select 1", "parms": []}"#, 400),
        ("POST", &[JSON], r#"{"sql": "select 1", "batch": []}"#, 400),
        ("POST", &[JSON], r#"{"sql": "select 1", "params": {}}"#, 400),
        ("POST", &[JSON, ("origin", "https://elsewhere.example")], valid, 403),
        ("POST", &[JSON], r#"{"sql": "select ?1", "params": []}"#, 400),
    ];
    for (method, headers, body, status) in cases {
        let answer = client.send(method, "/query", headers, body).await.unwrap();
        assert_eq!(answer.status, status, "{method} {headers:?} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{body}");
    }
    let large = format!(r#"{{"sql": "select '{}'"}}"#, "x".repeat(2 << 20));
    assert_eq!(client.send("POST", "/query", &[JSON], large).await.unwrap().status, 413);
    let mut client = gateway.h2().await;
    assert_eq!(ask(&mut client, json!({"sql": "select 1"})).await.0, 200, "and the gateway goes on");
}

#[tokio::test]
async fn ndjson_streams_and_ends_with_a_last_line() {
    let (_server, gateway) = postgres().await;
    let mut client = gateway.h2().await;
    let body = json!({"sql": "select n, repeat('x', 20) from generate_series(1, 100000) n"});
    let answer = client.post("/query", &[LINES], &body).await.unwrap();
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((answer.header("content-type"), lines.len()), ("application/x-ndjson", 100_002));
    assert_eq!(lines[100_000], "[100000,\"xxxxxxxxxxxxxxxxxxxx\"]");
    assert_eq!(
        serde_json::from_str::<Value>(lines[100_001]).unwrap(),
        json!({"command": "SELECT", "row_count": 100_000})
    );
    // An error after rows were sent is the last line.
    let late = json!({"sql": "select repeat('x', 20), 10 / (50000 - n) from generate_series(1, 60000) n"});
    let text = client.post("/query", &[LINES], &late).await.unwrap().text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(last["error"].to_string().contains("22012"), "{last}");
}

#[tokio::test]
async fn an_answer_beyond_its_limits_is_refused_or_cut_never_passed_as_whole() {
    let (_server, gateway) = postgres().await;
    let mut client = gateway.h1().await;
    let large = "select repeat('x', 1000) from generate_series(1, 20000)";
    match client.query(large, json!([])).await {
        Ok(answer) => assert_eq!(answer.status, 507, "{}", answer.text()),
        Err(error) => assert!(format!("{error:#}").contains("broke off"), "{error:#}"),
    }
    let mut client = gateway.h1().await;
    match client.query("select n from generate_series(1, 250000) n", json!([])).await {
        Ok(answer) => assert_eq!(answer.status, 507, "{}", answer.text()),
        Err(error) => assert!(format!("{error:#}").contains("broke off"), "{error:#}"),
    }
    let mut client = gateway.h1().await;
    assert_eq!(client.query("select 1", json!([])).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_batch_costs_as_many_round_trips_as_one_statement() {
    let server = Postgres::start(0, &[]).await;
    let proxy = FaultProxy::start(server.port).await;
    let url = Postgres::url_at(proxy.address.port());
    let gateway = Gateway::start(&config(&pool("main", &url, "size = { min = 1, max = 1 }"))).await;
    let mut client = gateway.h2().await;
    let statements =
        |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"sql": format!("select {n}::int")})).collect() };
    let batch = |count: usize| json!({ "batch": statements(count) });
    // Whatever is found out once is found out.
    for count in [1, 12] {
        assert_eq!(ask(&mut client, batch(count)).await.0, 200);
    }
    let trip = Duration::from_millis(200);
    proxy.set(Fault::Delay(trip));
    let mut took = Vec::new();
    for count in [1, 12] {
        let begun = Instant::now();
        let (status, answer) = ask(&mut client, batch(count)).await;
        assert_eq!((status, answer["results"].as_array().map(Vec::len)), (200, Some(count)), "{answer}");
        took.push(begun.elapsed());
    }
    assert!(took[0] >= 2 * trip, "the delay works: {took:?}");
    assert!(took[1] < took[0] + trip, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_answer_passes_through_bounded_memory() {
    const MIB: usize = 1 << 20;
    let server = Postgres::start(0, &[]).await;
    let config = config(&pool("main", &server.url(), "size = { min = 1, max = 1 }"))
        .replace("max_response = \"8MiB\"", "max_response = \"1GiB\"");
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.h2().await;
    let sql = |rows: usize| json!({"sql": format!("select repeat('x', 10000) from generate_series(1, {rows})")});
    client.post("/query", &[LINES], &sql(100)).await.unwrap();
    let before = gateway.rss_kib();
    let answer = client.open("POST", "/query", &[JSON, LINES], sql(30_000).to_string()).await.unwrap();
    let mut body = answer.into_body();
    let (mut bytes, mut peak) = (0, 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().data_ref().map_or(0, Bytes::len);
        if bytes < 8 * MIB {
            // A slow reader at first: nothing may pile up behind it.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        peak = peak.max(gateway.rss_kib());
    }
    assert!(bytes > 300 * MIB - 15 * MIB, "{bytes} bytes");
    assert!(peak - before < 32 << 10, "{} KiB more at the peak", peak - before);
}

#[tokio::test]
async fn a_request_that_holds_its_connection_too_long_is_ended_although_nobody_reads() {
    let server = Postgres::start(0, &[]).await;
    let keys = "size = { max = 1 }\nsweep_interval = \"100ms\"\nheld_warning = \"300ms\"\nheld_limit = \"1s\"";
    let config = config(&pool("main", &server.url(), keys)).replace("tls = { self_signed = [\"localhost\"] }\n", "");
    let mut gateway = Gateway::start(&config).await;
    let sql = "select repeat('secret', 100000) from generate_series(1, 10)";
    let body = json!({ "sql": sql }).to_string();
    let head = format!(
        "POST /query HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    // A window of a few KiB, and nobody who reads.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut mute = socket.connect(gateway.address("public")).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut mute, head.as_bytes()).await.unwrap();
    gateway.status_until("/pools/main/counters/closes/held", |now| now.as_u64() == Some(1)).await;
    assert_eq!(gateway.figure("/pools/main/counters/held_ended").await, 1);
    assert_eq!(gateway.figure("/pools/main/in_use").await, 0);
    for message in ["\"connection held for long\"", "held beyond its limit", "held for long came back"] {
        let line = gateway.logged(message).await;
        assert!(line.contains("select repeat(?) from generate_series(?)") && line.contains("/query"), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
    let mut client = Client::plain(gateway.address("public")).await.unwrap();
    let (status, told) = ask(&mut client, json!({ "sql": "select pg_sleep(60)" })).await;
    assert_eq!((status, &told["reason"], &told["outcome"]), (504, &json!("held-limit"), &json!("unknown")), "{told}");
    assert_eq!(ask(&mut client, json!({ "sql": "select 1" })).await.0, 200);
    drop(mute);
}
