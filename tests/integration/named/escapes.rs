//! Ways out of a named query, each of which leads nowhere: parameters are never SQL, and what a statement does to role and
//! claims ends with it.

use serde_json::json;

use super::{config, get, post, server};
use crate::support::gateway::Gateway;

const QUERIES: &str = r#"
[named.find]
sql = "select name from users where name = $1"
params = [{ name = "name", type = "text" }]
role = "web_anon"
read_only = true
[named.find_all]
sql = "select name from users where id = any($1) order by id"
params = [{ name = "ids", type = "int8[]" }]
role = "web_anon"
read_only = true
[named.run]
sql = "select run_it($1)"
params = [{ name = "text", type = "text" }]
role = "web_anon"
claims = true
read_only = true
[named.out]
sql = "select let_out()"
role = "web_anon"
[named.do]
sql = "do $$ begin perform set_config('role', 'boss', true); perform set_config('request.jwt.claims', '{}', true); end $$"
role = "web_anon"
[named.boss]
sql = "select text from secret"
role = "boss"
[named.loosen]
sql = "select set_config('transaction_read_only', 'off', true)"
read_only = true
[[route]]
path = "/query"
query = { dialect = "json", pool = "main", named = ["find", "find_all", "run", "out", "do", "whoami", "plain", "peek", "loosen"], raw = false }
access = ["app", "other"]
[[route]]
path = "/mixed"
query = { dialect = "json", pool = "main", named = "*" }
access = ["app"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_parameter_is_never_sql() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, QUERIES)).await;
    let mut client = gateway.h1().await;
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    for text in [
        "' or '1'='1",
        "'; drop table users; --",
        "x'; do $$ begin set local role boss; end $$; select text from secret; --",
        "$1",
        "\\'; reset role; --",
        "Ada' union select text from secret --",
        "1; commit; set role boss",
        "E'\\x27'",
    ] {
        let (status, answer) = post(&mut client, "/query", json!({"name": "find", "params": {"name": text}})).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([])), "{text}: {answer}");
        let answer = get(&mut client, &format!("/query/find?name={}", encode(text))).await;
        assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([])), "{text}");
        let (status, answer) = post(&mut client, "/query", json!({"name": "find_all", "params": [[text]]})).await;
        assert_eq!(status, 400, "{answer}");
    }
    let (_, answer) = post(&mut client, "/query", json!({"name": "find_all", "params": {"ids": [2, 1]}})).await;
    assert_eq!(answer["rows"], json!([["Ada"], ["Grace"]]), "the table is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_statement_does_to_role_and_claims_ends_with_it() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, QUERIES)).await;
    let mut client = gateway.h1().await;
    // The function makes itself boss for the session; nobody after it is, on the same connections.
    for _ in 0..6 {
        let (status, answer) = post(&mut client, "/query", json!({"name": "out"})).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([["boss"]])), "it was let out: {answer}");
        let (_, answer) = post(&mut client, "/query", json!({"name": "whoami"})).await;
        assert_eq!(answer["rows"], json!([["web_anon", "{}", "2s"]]));
        let (_, answer) = post(&mut client, "/query", json!({"name": "plain"})).await;
        assert_eq!(answer["rows"][0][0], "app");
        assert_ne!(answer["rows"][0][1], "{\"sub\":\"boss\"}");
    }
    // Nor is the one behind it in its own transaction, which runs as it was composed.
    for first in ["out", "do"] {
        let batch = json!({"batch": [{"name": first}, {"name": "peek"}]});
        let (status, answer) = post(&mut client, "/query", batch).await;
        assert_eq!((status, &answer["sqlstate"], &answer["statement"]), (400, &json!("42501"), &json!(1)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_function_runs_of_a_callers_text_cannot_leave_the_transaction_or_write() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, QUERIES)).await;
    let mut client = gateway.h1().await;
    for (text, sqlstate) in [
        ("select text from secret", "42501"),
        ("commit", "0A000"),
        ("set transaction read write", "25001"),
        ("insert into secret values ('x') returning text", "25006"),
    ] {
        let (status, answer) = post(&mut client, "/query", json!({"name": "run", "params": [text]})).await;
        assert_eq!((status, &answer["sqlstate"]), (400, &json!(sqlstate)), "{text}: {answer}");
    }
    let (status, answer) = post(&mut client, "/query", json!({"name": "loosen"})).await;
    assert_eq!((status, &answer["sqlstate"]), (400, &json!("25001")), "{answer}");
    let (_, answer) = post(&mut client, "/query", json!({"name": "whoami"})).await;
    assert_eq!(answer["rows"][0][0], "web_anon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_transaction_has_one_role_and_sql_of_a_callers_own_has_none() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, QUERIES)).await;
    let mut client = gateway.h1().await;
    for (batch, detail) in [
        (json!([{"name": "boss"}, {"sql": "select 1"}]), "`boss` and SQL run under different roles"),
        (json!([{"sql": "select 1"}, {"name": "whoami"}]), "SQL and `whoami` run under different roles"),
        (json!([{"name": "boss"}, {"name": "peek"}]), "`boss` and `peek` run under different roles"),
        (json!([{"name": "peek"}, {"name": "whoami"}]), "`peek` and `whoami` run under different roles"),
    ] {
        let (status, answer) = post(&mut client, "/mixed", json!({ "batch": batch })).await;
        assert_eq!(status, 400, "{batch}");
        assert!(answer["detail"].as_str().unwrap().starts_with(detail), "{answer}");
    }
    let batch = json!({"batch": [{"name": "plain"}, {"sql": "select current_user::text"}, {"name": "plain"}]});
    let (status, answer) = post(&mut client, "/mixed", batch).await;
    assert_eq!((status, &answer["results"][1]["rows"]), (200, &json!([["app"]])), "{answer}");
    let batch = json!({"batch": [{"name": "find", "params": ["Ada"]}, {"name": "find_all", "params": [[2]]}]});
    let (_, answer) = post(&mut client, "/mixed", batch).await;
    assert_eq!(answer["results"][0]["rows"], json!([["Ada"]]));
    assert_eq!(answer["results"][1]["rows"], json!([["Grace"]]));
    let answer = get(&mut client, "/mixed/boss").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
}
