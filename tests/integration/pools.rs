//! An operator's word to a pool: `sluicegate pool …` against a running gateway and a real database.

use std::process::Output;

use serde_json::json;

use crate::support::{
    activity::backends,
    config::{self, BASE, QUERY_ROUTE},
    eventually,
    gateway::Gateway,
    load::Load,
    nginx::Nginx,
    postgres::Postgres,
};

async fn gateway(postgres: &Postgres, nginx: &Nginx) -> Gateway {
    let pool = config::pool("main", &postgres.url(), "size = { min = 2, max = 4 }\ncheckout_timeout = \"20s\"");
    Gateway::start(&[BASE, &pool, &nginx.files(), QUERY_ROUTE].concat()).await
}

/// `sluicegate pool` with `words`, beside that gateway.
fn pool(gateway: &Gateway, words: &[&str]) -> Output {
    gateway.command(&[&["pool"], words].concat())
}

/// The same where it must succeed; what it printed.
fn done(gateway: &Gateway, words: &[&str]) -> String {
    let output = pool(gateway, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// PgBouncer's way to restart a database under its clients: they wait, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_restarted_under_load_and_no_request_fails() {
    let (mut postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let mut gateway = gateway(&postgres, &nginx).await;
    let load = Load::start(&gateway, 8).await;
    load.advance(200).await;
    let said = done(&gateway, &["drain", "main", "--wait", "15s"]);
    assert!(said.starts_with("main: drained, 0 in use, 0 idle"), "{said}");
    let admin = postgres.admin().await;
    assert_eq!(postgres.sessions(&admin).await, 0);
    drop(admin);
    postgres.stop();
    postgres.start_again().await;
    assert!(done(&gateway, &["list"]).lines().any(|line| line.starts_with("main ") && line.contains("drained")));
    let said = done(&gateway, &["resume", "main"]);
    assert!(said.starts_with("main: open"), "{said}");
    load.advance(500).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    let line = gateway.logged("an operator's word").await;
    assert!(line.contains("Drain") && line.contains("127.0.0.1:"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pools_are_paused_resized_and_reconnected_by_a_word() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let gateway = gateway(&postgres, &nginx).await;
    let admin = postgres.admin().await;
    let sessions = || async { postgres.sessions(&admin).await };
    eventually("warm", sessions, |seen| *seen == 2).await;

    done(&gateway, &["pause", "main"]);
    let mut client = gateway.h2().await;
    let ask = async { client.query("select 1::int", json!([])).await.unwrap().status };
    let resume = async {
        gateway.status_until("/pools/main/waiters", |waiters| *waiters == 1).await;
        done(&gateway, &["resume", "main"]);
    };
    assert_eq!(tokio::join!(ask, resume).0, 200);

    done(&gateway, &["resize", "main", "--min", "4"]);
    eventually("four are kept", sessions, |seen| *seen == 4).await;
    done(&gateway, &["resize", "main", "--min", "0", "--max", "1"]);
    eventually("one is left", sessions, |seen| *seen == 1).await;

    let before = backends(&admin).await;
    done(&gateway, &["reconnect", "main"]);
    assert_eq!(client.query("select 1::int", json!([])).await.unwrap().status, 200);
    assert_ne!(backends(&admin).await, before);

    let mut busy = gateway.h2().await;
    let sleeps = busy.query("select 1::int from pg_sleep(2)", json!([]));
    let evict = async {
        gateway.status_until("/pools/main/holders/0/connection", |number| !number.is_null()).await;
        let failed = pool(&gateway, &["drain", "main", "--wait", "100ms"]);
        let said = String::from_utf8(failed.stderr).unwrap();
        assert!(!failed.status.success() && said.contains("still in use"), "{said}");
        done(&gateway, &["resume", "main"]);
        let holder = gateway.status().await["pools"]["main"]["holders"][0]["connection"].as_u64().unwrap();
        let said = done(&gateway, &["evict", "main", &holder.to_string()]);
        assert!(said.contains(&format!("connection {holder} held by")), "{said}");
    };
    let (answer, ()) = tokio::join!(sleeps, evict);
    assert_eq!(answer.unwrap().status, 200, "it is closed when it comes back");
    gateway.status_until("/pools/main/counters/closes/operator", |count| count.as_u64() >= Some(1)).await;

    std::fs::write(gateway.config_path().with_file_name("wrong.token"), "sg_wrong").unwrap();
    for (words, why) in [
        (&["pause", "mian"][..], "no pool is called `mian`"),
        (&["evict", "main", "999"], "there is no connection 999"),
        (&["resize", "main", "--min", "9"], "`max`"),
        (&["show", "main", "--token-file", "gateway.toml"], "is that the right file"),
        (&["show", "main", "--token-file", "wrong.token"], "that is not the admin token"),
    ] {
        let output = pool(&gateway, words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(why), "{words:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_alert_is_told_while_it_stands_and_when_it_ends() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let mut gateway = gateway(&postgres, &nginx).await;
    let config = std::fs::read_to_string(gateway.config_path()).unwrap();
    let config = config.replace("size = { min = 2, max = 4 }", "size = { max = 1 }");
    gateway.reconfigure(&(config + "[alert]\nafter = \"1s\"\nutilisation = 0.5\n")).await;
    let mut client = gateway.h2().await;
    let hold = client.query("select 1::int from pg_sleep(10)", json!([]));
    let told = async {
        let alert = gateway.status_until("/alerts/0", |alert| !alert.is_null()).await;
        assert_eq!((&alert["pool"], &alert["rule"]), (&json!("main"), &json!("utilisation")), "{alert}");
        let (_, metrics) = gateway.admin("GET", "/metrics").await;
        let line = r#"sluicegate_alert{db_client_connection_pool_name="main",rule="utilisation"}"#;
        assert!(metrics.contains(line), "{metrics}");
    };
    tokio::select! {
        () = told => {}
        answer = hold => panic!("nothing is told: {answer:?}"),
    }
    drop(client);
    gateway.status_until("/alerts", |alerts| alerts.as_array().is_some_and(Vec::is_empty)).await;
    let begun = gateway.logged("\"message\":\"alert\"").await;
    assert!(begun.contains("utilisation") && begun.contains("\"threshold\":0.5"), "{begun}");
    gateway.logged("alert ended").await;
}
