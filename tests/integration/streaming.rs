//! Answers of every shape and coding: to clients who take them, who ask for another one, who stop reading, who leave.

use std::{io::Write, process::Command};

use serde_json::{Value, json};

use crate::support::{client::Client, gateway::Gateway, postgres::Postgres};

const JSON: (&str, &str) = ("content-type", "application/json");
const ROWS: &str =
    "select n, 'row ' || n as t, case when n % 2 = 0 then null else '' end as e from generate_series(1, 20000) n";

async fn start(more: &str) -> (Postgres, Gateway) {
    let server = Postgres::start(0, &[]).await;
    let config = format!(
        r#"
[server]
workers = 2
[listener.public]
address = "127.0.0.1:0"
tls = {{ self_signed = ["localhost"] }}
[admin]
address = "127.0.0.1:0"
[pool.main]
backend = "postgres"
url = "{}"
size = {{ min = 1, max = 4 }}
{more}
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "main", max_rows = 1000000000, max_response = "8GiB" }}
access = "open"
[[route]]
path = "/plain"
query = {{ dialect = "json", pool = "main", compress = false }}
access = "open"
"#,
        server.url()
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
    let (_server, gateway) = start("").await;
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
    let (server, gateway) = start("").await;
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
    let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
    let answer = client.send("POST", path, &headers, body.to_string()).await.unwrap();
    let kind = answer.header("content-type").to_owned();
    (answer.status, kind, serde_json::from_slice(&answer.body).unwrap_or_default())
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_before_it_runs() {
    let (server, gateway) = start("").await;
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
        let answer =
            client.send("POST", "/plain", &[JSON, plain[0]], json!({ "sql": ROWS }).to_string()).await.unwrap();
        assert_eq!((answer.status, answer.header("content-encoding"), answer.header("vary")), (200, "", "accept"));
    }
    let count: i64 = admin.query_one("select count(*) from t", &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
}
