//! The clients that people have: curl, h2load, and a database under pgbench's tables.

use std::process::{Command, Output};

use crate::support::{gateway::Gateway, nginx::Nginx, postgres::Postgres};

fn config(postgres: &Postgres, nginx: &Nginx) -> String {
    format!(
        r#"
[server]
workers = 2
max_connections_per_address = 5000
[listener.public]
address = "127.0.0.1:0"
tls = {{ self_signed = ["localhost"] }}
[listener.plain]
address = "127.0.0.1:0"
https_redirect = {{ port = 8443 }}
[admin]
address = "127.0.0.1:0"
[pool.main]
backend = "postgres"
url = "{}"
size = {{ min = 2, max = 8 }}
queue = 20000
[upstream.web]
endpoints = ["{}"]
max_connections = 256
queue = 1000
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "main" }}
access = "open"
[[route]]
path = "/files"
proxy = {{ upstream = "web", strip_prefix = true }}
[[route]]
path = "/"
respond = {{ status = 200, body = "ok" }}
"#,
        postgres.url(),
        nginx.url()
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

/// Figures out of h2load's summary: succeeded, failed, 2xx, 5xx.
fn h2load(args: &[&str]) -> ([u64; 4], Output) {
    let output = Command::new("h2load").args(args).output().expect("h2load is installed: run `make setup-test`");
    let text = String::from_utf8_lossy(&output.stdout);
    let before = |word: &str| {
        let at = text.find(word).unwrap_or_else(|| panic!("no {word} in {text}"));
        text[..at].trim_end().rsplit([' ', ',']).next().unwrap().parse().unwrap()
    };
    ([before(" succeeded"), before(" failed"), before(" 2xx"), before(" 5xx")], output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn curl_queries_and_fetches_over_both_versions_of_http() {
    let (postgres, nginx) = (Postgres::start(10, &[]).await, Nginx::start("one").await);
    let gateway = Gateway::start(&config(&postgres, &nginx)).await;
    let base = format!("https://localhost:{}", gateway.address("public").port());
    let body = r#"{"sql":"select abalance from pgbench_accounts where aid = $1","params":[4711]}"#;
    for version in ["--http1.1", "--http2"] {
        let query = [version, "-H", "content-type: application/json", "-d", body, &format!("{base}/query")];
        assert!(curl(&gateway, &query).contains(r#""rows":[[0]]"#), "{version}");
        let write_out =
            [version, "-o", "/dev/null", "-w", "%{http_version} %{size_download}", &format!("{base}/files/1m")];
        let got = curl(&gateway, &write_out);
        assert_eq!(got, if version == "--http2" { "2 1048576" } else { "1.1 1048576" });
    }
    let plain = format!("http://localhost:{}/a?b=c", gateway.address("plain").port());
    let redirected = curl(&gateway, &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &plain]);
    assert_eq!(redirected, "308 https://localhost:8443/a?b=c");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ten_thousand_streams_at_a_time_are_answered_or_refused_as_stated() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let gateway = Gateway::start(&config(&postgres, &nginx)).await;
    let base = format!("https://localhost:{}", gateway.address("public").port());

    let ([succeeded, failed, ok, _], output) = h2load(&["-n", "30000", "-c", "100", "-m", "100", &format!("{base}/")]);
    assert_eq!((succeeded, failed, ok), (30_000, 0, 30_000), "{}", String::from_utf8_lossy(&output.stdout));

    // 10,000 at a time on 256 connections and a queue of 1,000: an answer or a 503, nothing else.
    let ([_, _, ok, refused], output) = h2load(&["-n", "30000", "-c", "100", "-m", "100", &format!("{base}/files/1k")]);
    assert_eq!(ok + refused, 30_000, "{}", String::from_utf8_lossy(&output.stdout));
    assert!(ok > 1_000, "{ok} answered, {refused} refused");
    let upstream = &gateway.status().await["upstreams"]["web"];
    assert!(upstream["peak"].as_u64().unwrap_or(0) <= 256, "{upstream}");

    // And when the flood is over, everything is answered again.
    let ([_, failed, ok, _], _) = h2load(&["-n", "2000", "-c", "10", "-m", "10", &format!("{base}/files/1k")]);
    assert_eq!((failed, ok), (0, 2_000));
}
