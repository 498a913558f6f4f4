//! The clients that people have: curl, h2load, and a database under pgbench's tables.

use std::{collections::BTreeMap, fs, process::Command};

use serde_json::Value;

use crate::support::{
    config::{BASE, QUERY_ROUTE, pool, with_keys},
    gateway::Gateway,
    nginx::Nginx,
    postgres::Postgres,
};

fn config(postgres: &Postgres, nginx: &Nginx) -> String {
    let base = with_keys(BASE, "server", "max_connections_per_address = 5000");
    let pool = pool("main", &postgres.url(), "size = { min = 2, max = 8 }\nqueue = 20000");
    let files = with_keys(&nginx.files(), "upstream.web", "max_connections = 256\nqueue = 1000");
    format!(
        r#"{base}
[listener.plain]
address = "127.0.0.1:0"
https_redirect = {{ port = 8443 }}
{pool}
{files}
{QUERY_ROUTE}
[[route]]
path = "/"
respond = {{ status = 200, body = "ok" }}
"#
    )
}

fn curl(gateway: &Gateway, args: &[&str]) -> String {
    let ca = gateway.ca();
    let output =
        Command::new("curl").args(["-sS", "--max-time", "20", "--cacert", ca.to_str().unwrap()]).args(args).output();
    let output = output.expect("curl is installed: run `make setup-test`");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What h2load counted.
#[derive(Debug)]
struct Counted {
    succeeded: u64,
    failed: u64,
    /// 2xx.
    ok: u64,
    /// 5xx.
    refused: u64,
    summary: String,
}

fn h2load(args: &[&str]) -> Counted {
    // Bounded, as every load is.
    let output = Command::new("timeout").args(["120", "h2load"]).args(args).output();
    let output = output.expect("h2load is installed: run `make setup-test`");
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    let before = |word: &str| {
        let at = summary.find(word).unwrap_or_else(|| panic!("no {word} in {summary}"));
        summary[..at].trim_end().rsplit([' ', ',']).next().unwrap().parse().unwrap()
    };
    let (succeeded, failed) = (before(" succeeded"), before(" failed"));
    let (ok, refused) = (before(" 2xx"), before(" 5xx"));
    Counted { succeeded, failed, ok, refused, summary }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn curl_and_h2load_query_and_fetch_over_both_versions_of_http() {
    let (postgres, nginx) = (Postgres::start(10, &[]).await, Nginx::start("one").await);
    let gateway = Gateway::start(&config(&postgres, &nginx)).await;
    let base = format!("https://localhost:{}", gateway.address("public").port());
    let (query, file) = (format!("{base}/query"), format!("{base}/files/1k"));
    let body = r#"{"sql":"select abalance, (select count(*)::int from pgbench_branches) from pgbench_accounts where aid = $1","params":[1000000]}"#;
    for version in ["--http1.1", "--http2"] {
        let ask = [version, "-H", "content-type: application/json", "-d", body, &query];
        let answer = curl(&gateway, &ask);
        assert!(answer.contains(r#""rows":[[0,10]]"#), "{version}: {answer}");
        let write_out =
            [version, "-o", "/dev/null", "-w", "%{http_version} %{size_download}", &format!("{base}/files/1m")];
        let got = curl(&gateway, &write_out);
        assert_eq!(got, if version == "--http2" { "2 1048576" } else { "1.1 1048576" });
    }
    let plain = format!("http://localhost:{}/a?b=c", gateway.address("plain").port());
    let redirected = curl(&gateway, &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &plain]);
    assert_eq!(redirected, "308 https://localhost:8443/a?b=c");

    let data = gateway.ca().with_file_name("body.json");
    fs::write(&data, body).unwrap();
    let post = ["-d", data.to_str().unwrap(), "-H", "content-type: application/json", &query];
    for version in [&["--h1"][..], &[]] {
        for what in [&post[..], &[&file]] {
            let counted = h2load(&[&["-n", "2000", "-c", "16", "-m", "4"], version, what].concat());
            assert_eq!((counted.succeeded, counted.failed, counted.ok), (2_000, 0, 2_000), "{}", counted.summary);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ten_thousand_streams_at_a_time_are_answered_or_refused_as_stated() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let mut gateway = Gateway::start(&config(&postgres, &nginx)).await;
    let base = format!("https://localhost:{}", gateway.address("public").port());
    let flood = ["-n", "30000", "-c", "100", "-m", "100"];

    let counted = h2load(&[&flood[..], &[&format!("{base}/")]].concat());
    assert_eq!((counted.succeeded, counted.failed, counted.ok), (30_000, 0, 30_000), "{}", counted.summary);

    // 10,000 at a time on 256 connections and a queue of 1,000: an answer or a 503, nothing else.
    let file = format!("{base}/files/1k");
    let counted = h2load(&[&flood[..], &[&file]].concat());
    assert_eq!(counted.ok + counted.refused, 30_000, "{}", counted.summary);
    assert!(counted.ok > 1_000 && counted.refused > 0, "{}", counted.summary);
    // nginx counts the connection that a test looks with, too.
    assert!((200..=257).contains(&nginx.peak()), "{} connections at nginx", nginx.peak());

    // And when the flood is over, everything is answered again.
    let after = h2load(&["-n", "2000", "-c", "10", "-m", "10", &file]);
    assert_eq!((after.failed, after.ok), (0, 2_000), "{}", after.summary);

    // Each refusal says which it is.
    let lost = gateway.figure("/access_log/dropped").await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let mut outcomes = BTreeMap::new();
    for line in gateway.access_log().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["path"] == "/files/1k" {
            let reason = line["reason"].as_str().unwrap_or_default().to_owned();
            *outcomes.entry((line["status"].as_u64().unwrap(), reason)).or_insert(0) += 1;
        }
    }
    let stated = |(status, reason): &(u64, String)| match status {
        200 => reason.is_empty(),
        503 => ["upstream_queue_full", "upstream_queue_timeout"].contains(&reason.as_str()),
        _ => false,
    };
    assert!(outcomes.keys().all(stated), "{outcomes:?}");
    assert_eq!(outcomes.values().sum::<u64>() + lost, 32_000, "{outcomes:?}, and {lost} lines lost");
}
