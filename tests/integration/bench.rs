//! `sluicegate bench`: load on a pool without a gateway, against a real database, and its reports side by side.

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;

use crate::support::{
    Process,
    activity::{count, table},
    component, eventually, free_port,
    gateway::run,
    mortal,
    postgres::{PASSWORD, Postgres},
};

/// A pool with a plugin for its size.
fn configure(dir: &Path, port: u16) {
    let url = Postgres::url_at(port);
    let config = format!(
        r#"
[listener.public]
address = "127.0.0.1:0"
[plugin.utilisation]
path = "{}"
[pool.main]
backend = "postgres"
url = "{url}"
size = {{ min = 1, max = 3 }}
sizing = {{ plugin = "utilisation", fallback = "fixed" }}
checkout_timeout = "500ms"
[[route]]
path = "/"
respond = {{ status = 200 }}
"#,
        component("utilisation").display()
    );
    fs::write(dir.join("gateway.toml"), config).unwrap();
}

/// `sluicegate bench pool` for a second; what it printed and what it saved.
fn measure(dir: &Path, size: &str, output: &str) -> (String, Value) {
    let words = ["bench", "pool", "main", "--config", "gateway.toml", "--clients", "6", "--duration", "1s"];
    let load = ["--reads", "select generate_series(1, 3)", "--writes", "insert into seen values (1)"];
    let done = run(dir, &[&words[..], &load, &["--write-share", "0.25", "--size", size, "--output", output]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report = serde_json::from_slice(&fs::read(dir.join(output)).unwrap()).unwrap();
    (String::from_utf8(done.stdout).unwrap(), report)
}

fn sum(reports: &[&Value], name: &str) -> i64 {
    reports.iter().map(|report| report[name].as_i64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reports_agree_with_what_the_database_saw() {
    let postgres = Postgres::start(0, &["log_connections=on"]).await;
    let admin = postgres.admin().await;
    table(&admin, "seen (n int)").await;
    let commits = "select xact_commit from pg_stat_database where datname = 'postgres'";
    let before = count(&admin, commits).await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), postgres.port);

    let ((said, small), (_, large)) =
        (measure(dir.path(), "1..1", "small.json"), measure(dir.path(), "4..4", "large.json"));
    assert!(said.contains("pool main (postgres), size 1..1") && said.contains("p99"), "{said}");
    let both = [&small, &large];
    for report in both {
        let (reads, writes) = (report["reads"].as_i64().unwrap(), report["writes"].as_i64().unwrap());
        assert!(reads > 0 && (reads / 3 - writes).abs() <= 6, "one in four writes: {reads}, {writes}");
        assert_eq!(report["rows"], 3 * reads);
        assert_eq!(report["latency"]["samples"], reads + writes);
        assert_eq!((&report["failed"], &report["unfinished"]), (&0.into(), &0.into()), "{}", report["errors"]);
        let taken = report["samples"].as_array().unwrap().len();
        assert!((3..=11).contains(&taken), "{taken} samples in a second");
        assert_eq!(report["policies"][0]["sha256"].as_str().unwrap().len(), 64);
        let by_plugin = |decided: &&Value| decided["hook"] == "sizing" && decided["by"] == "plugin";
        assert!(report["decisions"].as_array().unwrap().iter().any(|decided| by_plugin(&decided)));
        let text = report.to_string();
        assert!(!text.contains(PASSWORD), "{text}");
    }
    let most = |report: &Value| {
        report["samples"].as_array().unwrap().iter().map(|sample| sample["in_use"].as_u64().unwrap()).max()
    };
    assert!(most(&small) == Some(1) && most(&large) <= Some(4), "{:?} {:?}", most(&small), most(&large));

    assert_eq!(count(&admin, "select count(*) from seen").await, sum(&both, "writes"));
    assert_eq!(i64::try_from(postgres.logged(&["connection authorized: user=app"])).unwrap(), sum(&both, "creates"));
    let done = sum(&both, "reads") + sum(&both, "writes");
    eventually("commits", || count(&admin, commits), |now| now - before >= done).await;
    eventually("all are closed", || postgres.sessions(&admin), |sessions| *sessions == 0).await;

    let compared = run(dir.path(), &["bench", "compare", "small.json", "large.json", "--output", "page.html"]);
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    for text in ["<th scope=\"col\">small</th><th scope=\"col\">large</th>", "1..1", "4..4", "utilisation", "<path"] {
        assert!(page.contains(text), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_interrupted_run_has_a_report() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    table(&admin, "seen (n int)").await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), postgres.port);
    let mut command = mortal(env!("CARGO_BIN_EXE_sluicegate"), None);
    command.args(["bench", "pool", "main", "--config", "gateway.toml", "--duration", "1h", "--write-share", "1"]);
    command.args(["--writes", "insert into seen values (1)"]).current_dir(dir.path()).stdout(Stdio::null());
    let mut process = Process(command.spawn().unwrap());
    let written = || count(&admin, "select count(*) from seen");
    eventually("it writes", written, |rows| *rows > 0).await;
    process.signal("INT");
    assert!(process.0.wait().unwrap().success());
    let report: Value = serde_json::from_slice(&fs::read(dir.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["writes"], written().await);
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), free_port());
    fs::write(dir.path().join("foreign.json"), "{}").unwrap();
    let pool = ["bench", "pool", "--config", "gateway.toml"];
    for (words, code, why) in [
        (&[&pool[..], &["mian"]].concat()[..], 1, "no pool is called `mian`: there is main"),
        (&[&pool[..], &["main"]].concat(), 1, "no connection from pool main (creating): unreachable"),
        (&[&pool[..], &["main", "--output", "nowhere/report.json"]].concat(), 1, "nowhere/report.json"),
        (&[&pool[..], &["main", "--clients", "0"]].concat(), 2, "1..=10000"),
        (&[&pool[..], &["main", "--duration", "2h"]].concat(), 2, "between 100ms and 1h"),
        (&["bench", "compare", "foreign.json"], 1, "foreign.json: not a report"),
    ] {
        let output = run(dir.path(), words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && said.contains(why), "{words:?}: {said}");
    }
}
