//! The `neon` dialect over HTTPS and PostgreSQL, as its drivers speak it.

use serde_json::{Value, json};

use crate::support::{client::Answer, gateway::Gateway, postgres::Postgres};

/// What the drivers always send.
const RAW: [(&str, &str); 3] =
    [("neon-raw-text-output", "true"), ("neon-array-mode", "true"), ("content-type", "text/plain;charset=UTF-8")];

const URL: &str = "postgresql://app:any@db.example.com/postgres?application_name=pkg%3Anpm";

fn config(url: &str, query: &str, access: &str) -> String {
    format!(
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
url = "{url}"
size = {{ max = 2 }}
[[route]]
path = "/"
query = {{ dialect = "neon", pool = "main"{query} }}
access = {access}
"#
    )
}

async fn open() -> (Postgres, Gateway) {
    let server = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&server.url(), "", "\"open\"")).await;
    (server, gateway)
}

async fn send(gateway: &Gateway, url: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers: Vec<_> = headers.iter().copied().chain([("neon-connection-string", url)]).collect();
    gateway.h2().await.send("POST", "/sql", &headers, body.to_string()).await.unwrap()
}

/// As a driver asks; the answer's status and body.
async fn ask(gateway: &Gateway, body: Value) -> (u16, Value) {
    let answer = send(gateway, URL, &RAW, &body).await;
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_query_is_answered_to_the_letter() {
    let (_server, gateway) = open().await;
    let body = json!({"query": "select $1::int as a, $2 as b, null as n", "params": ["1", "x"]});
    // Cold, then prepared, then cached.
    for _ in 0..3 {
        let answer = send(&gateway, URL, &RAW, &body).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text());
        let field = r#","tableID":0,"columnID":0,"dataTypeSize":-1,"dataTypeModifier":-1,"format":"text"}"#;
        let expected = format!(
            "{}{}{field},{}{field}],{}",
            r#"{"fields":[{"name":"a","dataTypeID":23,"tableID":0,"columnID":0,"dataTypeSize":4,"dataTypeModifier":-1,"format":"text"},"#,
            r#"{"name":"b","dataTypeID":25"#,
            r#"{"name":"n","dataTypeID":25"#,
            r#""rows":[["1","x",null]],"command":"SELECT","rowCount":1,"rowAsArray":true}"#
        );
        assert_eq!(answer.text(), expected);
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "the route allows no other origin");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_error_has_every_field_that_postgresql_gave() {
    let (_server, gateway) = open().await;
    let (status, error) = ask(&gateway, json!({"query": "select 1/0"})).await;
    assert_eq!(status, 400);
    let null = Value::Null;
    let line = error["line"].clone();
    assert!(line.as_str().is_some_and(|line| line.parse::<u32>().is_ok()), "{error}");
    let expected = json!({
        "message": "division by zero", "code": "22012", "detail": null, "hint": null, "position": null, "internalPosition": null,
        "internalQuery": null, "severity": "ERROR", "where": null, "table": null, "column": null, "schema": null,
        "dataType": null, "constraint": null, "file": "int.c", "line": line, "routine": "int4div",
    });
    assert_eq!(error, expected);
    let (_, error) = ask(&gateway, json!({"query": "select $1::int"})).await;
    assert_eq!(error["code"], "08P01");
    assert_eq!(error["message"], "bind message supplies 0 parameters, but prepared statement \"\" requires 1");
    let (_, error) = ask(&gateway, json!({"query": "select 1; select 2"})).await;
    assert_eq!(error["message"], "cannot insert multiple commands into a prepared statement");
    let (_, error) = ask(&gateway, json!({"query": "select 1, nope"})).await;
    assert_eq!((&error["position"], &error["detail"]), (&json!("11"), &null));
    let (_, error) = ask(&gateway, json!({"query": "do $$ begin execute 'select nope'; end $$"})).await;
    assert_eq!((&error["internalPosition"], &error["internalQuery"]), (&json!("8"), &json!("select nope")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_batch_is_one_transaction_and_says_how_it_ran() {
    let (_server, gateway) = open().await;
    let batch = json!({"queries": [
        {"query": "create table t (id int primary key)"},
        {"query": "insert into t values ($1), ($2)", "params": ["1", "2"]},
        {"query": "select id, current_setting('transaction_isolation') as level from t where id > $1", "params": ["1"], "arrayMode": false},
    ]});
    let headers: Vec<_> = RAW.into_iter().chain([("neon-batch-isolation-level", "Serializable")]).collect();
    let answer = send(&gateway, URL, &headers, &batch).await;
    let body = answer.json();
    assert_eq!((answer.status, answer.header("neon-batch-isolation-level")), (200, "Serializable"), "{body}");
    assert_eq!(body["results"][0]["command"], "CREATE");
    assert_eq!(body["results"][0]["rowCount"], Value::Null);
    assert_eq!(body["results"][1]["rowCount"], 2);
    assert_eq!(body["results"][2]["rows"], json!([{"id": "2", "level": "serializable"}]));
    assert_eq!(body["results"][2]["rowAsArray"], false);
    let table = body["results"][2]["fields"][0]["tableID"].as_u64().unwrap();
    assert!(table >= 16_384 && body["results"][2]["fields"][0]["columnID"] == 1);
    let failing = json!({"queries": [{"query": "insert into t values (3)"}, {"query": "insert into t values (1)"}]});
    let (status, error) = ask(&gateway, failing).await;
    assert_eq!((status, &error["code"], &error["constraint"]), (400, &json!("23505"), &json!("t_pkey")));
    let (_, count) = ask(&gateway, json!({"query": "select count(*) from t"})).await;
    assert_eq!(count["rows"], json!([["2"]]), "the failed batch left nothing");
    assert_eq!(ask(&gateway, json!({"queries": []})).await, (200, json!({"results": []})));
}
