//! The drivers people have (`tests/drivers/`, Node), over TLS against the gateway and straight to a real server with SCRAM.
//!
//! A test a file there; what it shows is said in the file. Its output is shown when it fails.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::support::{
    config::{BASE, also_named, consumer, pool},
    gateway::Gateway,
    postgres::{PASSWORD, Postgres},
};

/// The consumer's key, in the place of the password in an application's `DATABASE_URL`.
const KEY: &str = "key-application";

/// Four times what the slowest file takes.
const PATIENCE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn every_type_and_value_is_what_pg_gets_over_tcp() {
    passes("types.test.mjs").await;
}

#[tokio::test]
async fn every_error_is_what_pg_gets_over_tcp() {
    passes("errors.test.mjs").await;
}

#[tokio::test]
async fn the_driver_over_http_does_what_an_application_wants() {
    passes("http.test.mjs").await;
}

#[tokio::test]
async fn the_driver_over_a_websocket_has_a_session() {
    passes("tunnel.test.mjs").await;
}

#[tokio::test]
async fn an_application_needs_no_changed_line_behind_a_wildcard_name() {
    passes("wildcard.test.mjs").await;
}

#[tokio::test]
async fn drizzle_sees_the_same_over_tcp_http_and_websocket() {
    passes("drizzle.test.mjs").await;
}

#[tokio::test]
async fn kysely_sees_the_same_over_tcp_http_and_websocket() {
    passes("kysely.test.mjs").await;
}

fn config(server: &Postgres) -> String {
    let tables = [
        also_named(BASE, "*.gw.test"),
        pool("main", &server.url(), "size = { min = 1, max = 8 }"),
        pool("reports", &server.url().replace("app:", "viewer:"), "size = { max = 2 }"),
        consumer("application", ""),
    ];
    let route = r#"
[[route]]
path = "/"
query = { dialect = "neon", pool = "main", endpoints = { db1 = "main", db2 = "reports" }, tunnel = "session" }
access = ["application"]
max_body = "16MiB"
cors = { origins = ["https://app.example.com"] }
"#;
    tables.concat() + route
}

/// Runs a file of `tests/drivers/` against a server and a gateway of its own; panics with its output unless all of it passes.
async fn passes(file: &str) {
    let server = Postgres::start(0, &[]).await;
    let setup = format!("grant create on database postgres to app; create role viewer login password '{PASSWORD}'");
    server.admin().await.batch_execute(&setup).await.unwrap();
    let gateway = Gateway::start(&config(&server)).await;
    let port = gateway.address("public").port();

    let mut node = Command::new("setpriv");
    node.args(["--pdeathsig", "KILL"]).arg(node_binary()).args(["--test-reporter=spec", "--test-force-exit", file]);
    node.current_dir(drivers()).stdin(Stdio::null()).kill_on_drop(true);
    node.env("SERVER_URL", server.url());
    node.env("ADMIN_URL", format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/postgres", server.port));
    node.env("GATEWAY_URL", format!("postgres://app:{KEY}@db1.gw.test/postgres?sslmode=require"));
    node.env("GATEWAY_PORT", port.to_string()).env("NODE_EXTRA_CA_CERTS", gateway.ca());
    let done = tokio::time::timeout(PATIENCE, node.output()).await.expect("it ends").expect("Node starts");
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    let log = gateway.log_lines().join("\n");
    assert!(done.status.success(), "{file}: {}\n{said}\n{errors}\nThe gateway's log:\n{log}", done.status);
    let passed = said.lines().find_map(|line| line.trim().strip_prefix("ℹ pass ")?.parse::<u32>().ok());
    assert!(passed > Some(0), "{file}: no test ran\n{said}\n{errors}");
}

fn drivers() -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
    assert!(directory.join("node_modules").exists(), "the drivers are not installed: run `make setup-test`");
    directory
}

/// The machine's Node, or the one that `tests/setup.sh` put beside the drivers because the machine's is too old.
fn node_binary() -> PathBuf {
    let own = drivers().join("node_modules/node/bin/node");
    if own.exists() { own } else { "node".into() }
}
