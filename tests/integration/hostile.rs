//! Plugins that loop, trap, grow, lie: service goes on, the cap holds as the server counts it, and the counters tell.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::support::{eventually, gateway::Gateway, load::Load, nginx::Nginx, postgres::Postgres, testing_plugin};

const MAX: i64 = 6;

fn config(postgres: &Postgres, nginx: &Nginx, plugin: &str, mode: &str) -> String {
    format!(
        r#"
[server]
workers = 2
[listener.public]
address = "127.0.0.1:0"
tls = {{ self_signed = ["localhost"] }}
[admin]
address = "127.0.0.1:0"
[plugin.hostile]
path = "{plugin}"
config = {{ mode = "{mode}" }}
[pool.main]
backend = "postgres"
url = "{}"
size = {{ min = 1, max = {MAX} }}
sizing = {{ plugin = "hostile", fallback = "fixed" }}
eviction = {{ plugin = "hostile", fallback = "lifetime" }}
validation = {{ plugin = "hostile", fallback = "bypass-window" }}
sizing_interval = "100ms"
sweep_interval = "100ms"
[upstream.web]
endpoints = ["{}"]
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "main" }}
access = "open"
[[route]]
path = "/files"
proxy = {{ upstream = "web", strip_prefix = true }}
"#,
        postgres.url(),
        nginx.url()
    )
}

/// Every mode under load; `faults` names the kind that the counters must show, or none where the answers are merely bad.
async fn survive(mode: &str, faults: Option<&str>) {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let plugin = testing_plugin("hostile");
    let gateway = Gateway::start(&config(&postgres, &nginx, plugin.to_str().unwrap(), mode)).await;
    let admin = postgres.admin().await;
    let load = Load::start(&gateway, 16).await;
    let mut most = 0;
    for _ in 0..40 {
        load.advance(20).await;
        most = most.max(postgres.sessions(&admin).await);
    }
    let counted = |plugin: &Value| faults.is_none_or(|kind| plugin["faults"][kind].as_u64() > Some(0));
    let plugin = gateway.status_until("/plugins/hostile", counted).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{mode}: {:#?}", report.failures);
    assert!(report.requests > 800);
    assert!((1..=MAX).contains(&most), "{mode}: {most} sessions at the server, {MAX} allowed");
    assert!(plugin["calls"].as_u64().unwrap() > 0, "{mode}: {plugin}");
}

macro_rules! modes {
    ($($name:ident: $mode:literal, $faults:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        async fn $name() {
            survive($mode, $faults).await;
        }
    )*};
}

modes! {
    a_policy_that_loops_is_stopped: "loop", Some("deadline");
    a_policy_that_traps_is_answered_for: "trap", Some("trap");
    a_policy_that_eats_memory_is_stopped: "memory", Some("memory");
    a_policy_that_wants_every_connection_gets_the_maximum: "max", None;
    a_policy_that_wants_none_gets_the_minimum: "zero", None;
    a_policy_that_answers_not_a_number_is_answered_for: "nan", Some("invalid");
    a_policy_that_cannot_decide_does_not_churn_connections: "oscillate", None;
    a_policy_that_closes_everything_leaves_the_minimum: "close-all", None;
    a_policy_that_trusts_nothing_does_not_stop_service: "discard", None;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broken_replacement_is_refused_and_the_old_policy_serves_on() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("policy.wasm");
    fs::copy(testing_plugin("hostile"), &path).unwrap();
    let mut gateway = Gateway::start(&config(&postgres, &nginx, path.to_str().unwrap(), "none")).await;
    let first = gateway.status().await["plugins"]["hostile"]["sha256"].clone();
    let broken: [(&str, Vec<u8>, &str); 5] = [
        ("not a component", b"not wasm at all".to_vec(), "not a WebAssembly component"),
        ("wrong interface", fs::read(testing_plugin("wrong-interface")).unwrap(), "export"),
        ("imports something", fs::read(testing_plugin("imports-something")).unwrap(), "import"),
        ("traps at once", fs::read(testing_plugin("traps-at-once")).unwrap(), "trap"),
        ("too large", vec![0; 2 << 20], "max_size"),
    ];
    for (name, bytes, reason) in broken {
        fs::write(dir.path().join("new"), bytes).unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let told = |error: &Value| error.as_str().is_some_and(|text| text.contains(reason));
        gateway.status_until("/plugins/hostile/last_error", told).await;
        let mut client = gateway.h1().await;
        assert_eq!(client.query("select 1::int", json!([])).await.unwrap().status, 200, "{name}");
        assert_eq!(gateway.status().await["plugins"]["hostile"]["sha256"], first, "{name}: the old one serves on");
    }
    gateway.logged("refused").await;
    // The first version comes back as if nothing had been.
    fs::copy(testing_plugin("hostile"), dir.path().join("new")).unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    gateway.status_until("/plugins/hostile/last_error", Value::is_null).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broken_plugin_at_first_start_is_refused_unless_it_is_not_required() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let broken = testing_plugin("traps-at-once");
    let config = config(&postgres, &nginx, broken.to_str().unwrap(), "none");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), &config).unwrap();
    let output = crate::support::gateway::run(dir.path(), &["serve", "--config", "c.toml"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("plugin.hostile") && text.contains("trap"), "{text}");

    let config = config.replace("config = { mode", "required = false\nconfig = { mode");
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.h2().await.query("select 1::int", json!([])).await.unwrap().status, 200);
    assert_eq!(gateway.status().await["health"], "degraded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_decision_is_shown_with_who_made_it() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let plugin = testing_plugin("steady-3");
    let config = config(&postgres, &nginx, plugin.to_str().unwrap(), "none")
        .replace("config = { mode = \"none\" }\n", "")
        .replace("eviction = { plugin = \"hostile\", fallback = \"lifetime\" }\n", "")
        .replace("validation = { plugin = \"hostile\", fallback = \"bypass-window\" }\n", "");
    let gateway = Gateway::start(&config).await;
    let admin = postgres.admin().await;
    let sessions = || async { postgres.sessions(&admin).await };
    eventually("the target is seen at the server", sessions, |seen| *seen == 3).await;
    let pool = gateway.status_until("/pools/main/target", |target| *target == 3).await;
    assert_eq!(pool, 3);
    tokio::time::timeout(Duration::from_secs(5), gateway.status()).await.unwrap();
}
