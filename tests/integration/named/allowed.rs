//! SQL of callers' own, by its text: learnt, written, enforced, changed by hand.

use std::{fs, path::PathBuf};

use serde_json::json;

use super::{config, post, server};
use crate::support::{eventually, gateway::Gateway};

fn route(mode: &str) -> String {
    format!(
        r#"
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "main", named = ["plain"], allow = {{ mode = "{mode}", file = "var/queries.txt" }} }}
access = ["app"]
"#
    )
}

fn file(gateway: &Gateway) -> PathBuf {
    gateway.config_path().parent().unwrap().join("var/queries.txt")
}

async fn status(gateway: &Gateway, sql: &str) -> u16 {
    post(&mut gateway.h1().await, "/query", json!({"sql": sql, "params": [1]})).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_learnt_is_what_passes() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, &route("learn"))).await;
    for sql in
        ["select name from users where id = $1", "select  name\nfrom users where id = $1 -- again", "select $1::int"]
    {
        assert_eq!(status(&gateway, sql).await, 200, "{sql}");
    }
    let learnt = || async { fs::read_to_string(file(&gateway)).unwrap_or_default() };
    let content = eventually("it is written", learnt, |content| content.lines().count() == 2).await;
    let first: serde_json::Value = serde_json::from_str(content.lines().next().unwrap()).unwrap();
    assert_eq!(first["consumer"], "app");
    assert!(first["first_seen"].as_str().unwrap().ends_with('Z'));
    gateway.reconfigure(&config(&postgres, &route("enforce"))).await;
    for (sql, expected) in [
        ("select name from users where id = $1", 200),
        ("/* by hand */ select name from users where id = $1", 200),
        ("select name from users where id = $1 or true", 403),
        ("select name from users where id = $1 /* /* */ or true -- */", 403),
        ("select text from secret", 403),
    ] {
        assert_eq!(status(&gateway, sql).await, expected, "{sql}");
    }
    let mut client = gateway.h1().await;
    let batch = json!({"batch": [{"sql": "select $1::int", "params": [1]}, {"sql": "select 2"}]});
    let (refused, answer) = post(&mut client, "/query", batch).await;
    assert_eq!((refused, &answer["title"]), (403, &json!("SQL refused")));
    assert_eq!(post(&mut client, "/query", json!({"name": "plain"})).await.0, 200, "a named query needs no list");
    // By hand, while it is enforced; then by hand and wrong.
    fs::write(file(&gateway), "{\"sql\":\"select $1::int8\"}\n").unwrap();
    eventually("it is read", || status(&gateway, "select $1::int8"), |status| *status == 200).await;
    assert_eq!(status(&gateway, "select name from users where id = $1").await, 403);
    fs::write(file(&gateway), "select 1\n").unwrap();
    let mut gateway = gateway;
    gateway.logged("allow-list not read").await;
    assert_eq!(status(&gateway, "select $1::int8").await, 200, "the last good one holds");
    let list = gateway.status().await["named"]["allow"]["var/queries.txt"].clone();
    assert_eq!((&list["texts"], &list["learnt"]), (&json!(1), &json!(0)), "counted by mode");
    assert!(list["refused"].as_u64() >= Some(4), "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn to_enforce_a_list_it_must_be_there() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, &route("learn"))).await;
    fs::write(gateway.config_path(), config(&postgres, &route("enforce"))).unwrap();
    let mut gateway = gateway;
    // Nothing was learnt, and nothing written: what serves goes on.
    let directory = gateway.config_path().parent().unwrap().to_owned();
    let checked = crate::support::gateway::run(&directory, &["check", "--config", "gateway.toml"]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(!checked.status.success() && told.contains("query.allow.file: var/queries.txt: cannot be read"), "{told}");
    gateway.logged("configuration refused").await;
    assert_eq!(status(&gateway, "select $1::int").await, 200);
}
