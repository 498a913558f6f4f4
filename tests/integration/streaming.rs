//! Answers of every shape and coding: to clients who take them, who ask for another one, who stop reading, who leave.

use std::{io::Write, process::Command};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::{
    activity::{busy, count},
    client::{Client, JSON},
    config::{BASE, pool, with_keys},
    eventually,
    gateway::Gateway,
    postgres::Postgres,
};

const ROWS: &str =
    "select n, 'row ' || n as t, case when n % 2 = 0 then null else '' end as e from generate_series(1, 20000) n";

async fn start() -> (Postgres, Gateway) {
    let server = Postgres::start(0, &[]).await;
    let base = with_keys(BASE, "listener.public", "progress_timeout = \"5m\"");
    let pool = pool("main", &server.url(), "size = { min = 1, max = 16 }\nstatement_timeout = \"5m\"");
    let large = [
        ("/query", "json", "5m"),
        ("/short", "json", "15s"),
        ("/neon/query", "neon", "5m"),
        ("/neon/short", "neon", "15s"),
    ]
    .map(|(path, dialect, deadline)| {
        format!(
            r#"[[route]]
path = "{path}"
query = {{ dialect = "{dialect}", pool = "main", max_rows = 1000000000, max_response = "8GiB" }}
deadline = "{deadline}"
access = "open"
"#
        )
    })
    .concat();
    let config = format!(
        r#"{base}
{pool}
{large}
[[route]]
path = "/plain"
query = {{ dialect = "json", pool = "main", compress = false }}
access = "open"
"#
    );
    (server, Gateway::start(&config).await)
}

/// What curl got: the head's lines, and the body.
fn curl(gateway: &Gateway, args: &[&str], sql: &str) -> (String, Vec<u8>) {
    let (ca, url) = (gateway.ca(), format!("https://localhost:{}/query", gateway.address("public").port()));
    let mut child = Command::new("curl")
        .args(["-sS", "--max-time", "60", "--cacert", ca.to_str().unwrap(), "-D", "/dev/stderr"])
        .args(["-H", "content-type: application/json", "--data-binary", "@-", &url])
        .args(args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("curl is installed: run `make setup-test`");
    child.stdin.take().unwrap().write_all(json!({ "sql": sql }).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stderr).to_lowercase(), output.stdout)
}

#[tokio::test]
async fn curl_reads_compressed_answers_as_it_reads_plain_ones() {
    let (_server, gateway) = start().await;
    for accept in ["application/json", "application/x-ndjson", "text/csv"] {
        let accept = format!("accept: {accept}");
        let (head, plain) = curl(&gateway, &["-H", &accept], ROWS);
        assert!(!head.contains("content-encoding") && plain.len() > 300_000, "{head}");
        assert!(head.contains("vary: accept\r\n") && head.contains("vary: accept-encoding\r\n"), "{head}");
        for version in ["--http1.1", "--http2"] {
            for coding in ["gzip", "zstd"] {
                let asks = format!("accept-encoding: {coding}");
                let args =
                    ["--compressed", version, "-H", &accept, "-H", &asks, "-w", "%{stderr}size %{size_download}"];
                let (head, body) = curl(&gateway, &args, ROWS);
                assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{head}");
                assert!(body == plain, "{accept} {coding} {version}: {} and {} bytes", body.len(), plain.len());
                let size: usize = head.rsplit("size ").next().unwrap().trim().parse().unwrap();
                assert!(size * 3 < plain.len(), "{coding}: {size} bytes of {}", plain.len());
            }
        }
    }
    let (head, _) = curl(&gateway, &["--compressed"], "select 1");
    assert!(!head.contains("content-encoding"), "a short answer is left alone: {head}");
}

#[tokio::test]
async fn csv_is_what_the_database_says() {
    let (server, gateway) = start().await;
    let (head, csv) = curl(&gateway, &["-H", "accept: text/csv"], ROWS);
    assert!(head.contains("content-type: text/csv; charset=utf-8; header=present\r\n"), "{head}");
    let csv = String::from_utf8(csv).unwrap();
    let mut lines = csv.split("\r\n");
    assert_eq!(lines.next(), Some("n,t,e"));
    assert_eq!((lines.next(), lines.next()), (Some("1,row 1,\"\""), Some("2,row 2,")));
    assert_eq!(lines.count(), 20_000 - 2 + 1);
    let values = "select * from (values ('a,b', 1.50, null::text, '{1,NULL}'::int[]), (e'q\"\\nx', 'NaN', '', null), \
                  ('=1+1', -0.1, ' ', '{}'), ('\\', 1e20, 'é', '{2}')) as t(\"a,\", b, c, d)";
    // As the server's own CSV has it, but for the line's end.
    for sql in [values, "values ('\\.'), (null), ('')"] {
        let (_, ours) = curl(&gateway, &["-H", "accept: text/csv"], sql);
        let copy = format!("copy ({sql}) to stdout (format csv, header)");
        let psql = Command::new("psql").args([&server.url(), "-Atqc", &copy]).output().unwrap();
        assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
        assert_eq!(String::from_utf8(ours).unwrap().replace("\r\n", "\n"), String::from_utf8(psql.stdout).unwrap());
    }
}

async fn send(client: &mut Client, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, String, Value) {
    let answer = client.post(path, headers, &body).await.unwrap();
    let kind = answer.header("content-type").to_owned();
    (answer.status, kind, serde_json::from_slice(&answer.body).unwrap_or_default())
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_before_it_runs() {
    let (server, gateway) = start().await;
    let admin = server.admin().await;
    admin.batch_execute("create table public.t (n int); grant all on t to public").await.unwrap();
    let insert = json!({ "sql": "insert into t values (1)" });
    let batch = json!({ "batch": [insert] });
    for mut client in [gateway.h1().await, gateway.h2().await] {
        for (path, header, body) in [
            ("/query", ("accept", "text/html"), &insert),
            ("/query", ("accept", "application/json;q=0"), &insert),
            ("/query", ("accept", "text/csv"), &batch),
            ("/query", ("accept-encoding", "br, identity;q=0"), &insert),
            ("/plain", ("accept-encoding", "gzip, identity;q=0"), &insert),
        ] {
            let (status, kind, problem) = send(&mut client, path, &[header], body.clone()).await;
            assert_eq!((status, kind.as_str()), (406, "application/problem+json"), "{header:?}: {problem}");
        }
        let liked = [("accept", "text/csv, application/json;q=0.1")];
        assert_eq!(
            send(&mut client, "/query", &liked, json!({"batch": [{"sql": "select 1"}]})).await.1,
            "application/json"
        );
        let plain = [("accept-encoding", "gzip")];
        let answer = client.post("/plain", &plain, &json!({ "sql": ROWS })).await.unwrap();
        assert_eq!((answer.status, answer.header("content-encoding"), answer.header("vary")), (200, "", "accept"));
    }
    assert_eq!(count(&admin, "select count(*) from t").await, 0);
}

/// More than a gigabyte in any shape, and not much less when it is compressed.
const GIGABYTE: &str = "select n, (select string_agg(md5(n || '-' || i), '') from generate_series(1, 64) i) as t \
                        from generate_series(1, 1000000) n";

/// What a client may ask for: the dialect, the shape, the coding.
const WAYS: [(&str, &str, &str); 7] = [
    ("json", "application/json", "identity"),
    ("json", "application/x-ndjson", "identity"),
    ("json", "text/csv", "identity"),
    ("json", "application/json", "gzip"),
    ("json", "application/x-ndjson", "zstd"),
    ("neon", "*/*", "identity"),
    ("neon", "*/*", "gzip"),
];

/// Connections of the pool, of which that many are in use.
const CONNECTIONS: usize = 16;

/// Over this the gateway holds more of an answer than its buffers, its connection's, and a coder.
const MOST_HELD_KIB: u64 = 4 << 10;

/// Answers under way in every shape and coding, over HTTP/1.1 and HTTP/2, of which a megabyte is read.
async fn begin_all(gateway: &Gateway, path: &str) -> Vec<(Client, Incoming)> {
    let mut open = Vec::new();
    for (dialect, accept, coding) in WAYS {
        for h2 in [false, true] {
            let mut client = if h2 { gateway.h2().await } else { gateway.h1().await };
            let mut headers = vec![JSON, ("accept", accept), ("accept-encoding", coding)];
            let (path, body) = if dialect == "neon" {
                headers.push(("neon-connection-string", "postgresql://app:any@db.example.com/postgres"));
                (format!("/neon{path}/sql"), json!({ "query": GIGABYTE }))
            } else {
                (path.to_owned(), json!({ "sql": GIGABYTE }))
            };
            let response = client.open("POST", &path, &headers, body.to_string()).await.unwrap();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            let mut read = 0;
            while read < 1 << 20 {
                read += body.frame().await.unwrap().unwrap().data_ref().map_or(0, bytes::Bytes::len);
            }
            open.push((client, body));
        }
    }
    open
}

/// What the gateway has grown to when nothing moves any more.
async fn grown(gateway: &Gateway) -> u64 {
    let mut last = 0;
    for _ in 0..200 {
        let (cpu, rss) = (gateway.cpu_seconds(), gateway.rss_kib());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        last = last.max(rss);
        if gateway.cpu_seconds() - cpu < 0.005 && rss == gateway.rss_kib() {
            break;
        }
    }
    last
}

/// Everything is as before the answers: no statement runs, no connection is out, and each of them serves.
async fn all_is_clean(gateway: &Gateway, admin: &tokio_postgres::Client) {
    eventually("no statement runs", || busy(admin), |running| *running == 0).await;
    gateway.status_until("/pools/main/in_use", |held| *held == 0).await;
    for _ in 0..CONNECTIONS {
        let answer = gateway.h1().await.query("select 'clean'", json!([])).await.unwrap();
        assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([["clean"]])));
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_gigabyte_takes_its_statement_along() {
    let (server, gateway) = start().await;
    let admin = server.admin().await;
    gateway.h1().await.query("select 1", json!([])).await.unwrap();
    let before = gateway.rss_kib();
    let open = begin_all(&gateway, "/query").await;
    let count = open.len() as u64;
    let held = grown(&gateway).await.saturating_sub(before);
    println!("{count} answers of 1 GB each that nobody reads hold {held} KiB, {} KiB each", held / count);
    assert_eq!(busy(&admin).await, i64::try_from(count).unwrap(), "each has its statement");
    assert!(held < count * MOST_HELD_KIB, "{held} KiB");
    drop(open);
    all_is_clean(&gateway, &admin).await;
    assert!(server.logged(&["canceling statement due to user request"]) >= 2 * WAYS.len());
}

#[tokio::test]
async fn a_client_that_stops_reading_a_gigabyte_is_waited_for_no_longer_than_its_deadline() {
    let (server, gateway) = start().await;
    let admin = server.admin().await;
    let open = begin_all(&gateway, "/short").await;
    all_is_clean(&gateway, &admin).await;
    for (index, (_client, mut body)) in open.into_iter().enumerate() {
        let (mut whole, mut broke_off) = (0, false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => whole += frame.data_ref().map_or(0, bytes::Bytes::len),
                Err(_) => broke_off = true,
            }
            if broke_off {
                break;
            }
        }
        let (dialect, accept, coding) = WAYS[index / 2];
        // Lines say why there are no more. (Over HTTP/2 a body that nobody takes may have been reset by then.)
        let (lines, h2) = (accept.contains("ndjson"), index % 2 == 1);
        assert!(
            broke_off != lines || (lines && h2),
            "{dialect} {accept} {coding}, HTTP/2: {h2}, broke off: {broke_off}"
        );
        assert!(whole < 64 << 20, "{dialect} {accept} {coding}: {whole} bytes were on their way");
    }
}
