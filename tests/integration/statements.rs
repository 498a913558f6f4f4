//! What is told of statements: figures by fingerprint, slow queries in the log, a trace's identity behind each.

use serde_json::{Value, json};

use crate::support::{
    client::Client,
    config::{self, BASE, consumer},
    gateway::Gateway,
    postgres::Postgres,
};

fn config(server: &Postgres, more: &str) -> String {
    let keys = format!("size = {{ max = 1 }}\nslow_query = \"200ms\"\n{more}");
    let (pool, consumer) = (config::pool("main", &server.url(), &keys), consumer("app", ""));
    format!(
        r#"{BASE}
{pool}
{consumer}
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "main" }}
access = ["app"]
[[route]]
path = "/traced"
query = {{ dialect = "json", pool = "main", trace_comment = true }}
access = ["app"]
"#
    )
}

async fn ask(client: &mut Client, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, Value) {
    let headers = [headers, &[("authorization", "Bearer key-app")]].concat();
    client.post(path, &headers, &body).await.unwrap().told()
}

fn row<'a>(pool: &'a Value, fingerprint: &str) -> &'a Value {
    let rows = pool["statements"]["top"].as_array().unwrap();
    rows.iter().find(|row| row["fingerprint"] == fingerprint).unwrap_or_else(|| panic!("no {fingerprint} in {rows:#?}"))
}

async fn pool(gateway: &Gateway) -> Value {
    let (status, text) = gateway.admin("GET", "/pools/main").await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn figures_are_kept_by_fingerprint_and_shown() {
    let server = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&server, "statements = 5")).await;
    let mut client = gateway.h2().await;
    for id in 0..7 {
        let sql = format!("select n from generate_series(1, 3) n where {id} = {id}");
        assert_eq!(ask(&mut client, "/query", &[], json!({ "sql": sql })).await.0, 200);
    }
    for _ in 0..2 {
        assert_eq!(ask(&mut client, "/query", &[], json!({"sql": "select 1 / 0"})).await.0, 400);
    }
    let batch = json!({"batch": [
        {"sql": "select pg_sleep(0.1)"}, {"sql": "select n from generate_series(1, 4) n"}, {"sql": "select 'x'::int"},
    ]});
    assert_eq!(ask(&mut client, "/query", &[], batch).await.1["sqlstate"], "22P02");
    let shown = pool(&gateway).await;
    let select = row(&shown, "select n from generate_series(?) n where ? = ?");
    assert_eq!((&select["calls"], &select["rows"], &select["errors"]), (&json!(7), &json!(21), &json!(0)), "{select}");
    let failed = row(&shown, "select ? / ?");
    assert_eq!(
        (&failed["calls"], &failed["errors"], &failed["last_sqlstate"]),
        (&json!(2), &json!(2), &json!("22012"))
    );
    let slept = row(&shown, "select pg_sleep(?)");
    assert!(slept["total_ms"].as_f64().unwrap() >= 30.0, "a third of the batch's time: {slept}");
    assert_eq!(row(&shown, "select n from generate_series(?) n")["rows"], 4);
    assert_eq!(row(&shown, "select ?::int")["last_sqlstate"], "22P02");
    let totals: Vec<f64> =
        shown["statements"]["top"].as_array().unwrap().iter().map(|row| row["total_ms"].as_f64().unwrap()).collect();
    assert!(totals.is_sorted_by(|a, b| a >= b), "{totals:?}");

    // One more than there is room for: the lightest goes, and is not lost.
    ask(&mut client, "/query", &[], json!({"sql": "select pg_sleep(0.05), 'new'"})).await;
    let shown = pool(&gateway).await;
    assert_eq!(shown["statements"]["top"].as_array().unwrap().len(), 5);
    assert_eq!(shown["statements"]["evicted"], 1);
    assert!(shown["statements"]["other"]["calls"].as_u64() > Some(0));
    row(&shown, "select pg_sleep(?), ?");
    assert_eq!(gateway.status().await.pointer("/pools/main/statements/evicted"), Some(&json!(1)));
    let (_, metrics) = gateway.admin("GET", "/metrics").await;
    assert!(!metrics.contains("generate_series"), "texts have no end, and are no labels");

    let listing = gateway.command(&["pool", "statements", "main"]);
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(
        listing.contains("TOTAL") && listing.contains("select pg_sleep(?)") && listing.contains("(all others)"),
        "{listing}"
    );

    // A reload keeps them, and fewer are kept where fewer are wanted.
    gateway.reconfigure(&config(&server, "statements = 2")).await;
    let shown = pool(&gateway).await;
    let top = shown["statements"]["top"].as_array().unwrap();
    let calls: u64 = top.iter().chain([&shown["statements"]["other"]]).map(|row| row["calls"].as_u64().unwrap()).sum();
    assert_eq!((top.len(), calls), (2, 7 + 2 + 3 + 1));
}

#[tokio::test]
async fn a_slow_query_is_told_in_its_parts_and_without_what_was_put_into_it() {
    let server = Postgres::start(0, &[]).await;
    let mut gateway = Gateway::start(&config(&server, "")).await;
    let mut client = gateway.h1().await;
    let slow = |name: &str| json!({"sql": format!("select pg_sleep(0.25), '{name}', $1::text"), "params": [format!("p-{name}")]});
    ask(&mut client, "/query", &[], slow("private")).await;
    let line: Value = serde_json::from_str(&gateway.logged("slow query").await).unwrap();
    for (field, expected) in [
        ("pool", json!("main")),
        ("route", json!("/query")),
        ("consumer", json!("app")),
        ("rows", json!(1)),
        ("end", json!("done")),
        ("statement", json!("select pg_sleep(?), ?::text")),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    let number = |field: &str| line[field].as_u64().unwrap_or_else(|| panic!("no {field} in {line}"));
    assert!(number("execution_ms") >= 250 && number("took_ms") >= number("execution_ms"), "{line}");
    assert!(line["checkout_ms"].is_u64() && line.get("sqlstate").is_none(), "{line}");
    ask(&mut client, "/query", &[], json!({"sql": "select pg_sleep(0.25), 1 / (random() * 0)::int"})).await;
    let line: Value = serde_json::from_str(&gateway.logged("\"end\":\"failed\"").await).unwrap();
    assert_eq!(line["sqlstate"], "22012", "{line}");
    let log = gateway.log_lines().concat();
    assert!(!log.contains("private") && !log.contains("p-private"));

    gateway.reconfigure(&config(&server, "log_literals = true\nlog_parameters = true")).await;
    ask(&mut client, "/query", &[], slow("told")).await;
    let line: Value = serde_json::from_str(&gateway.logged("p-told").await).unwrap();
    assert_eq!(
        (&line["text"], &line["params"]),
        (&json!("select pg_sleep(0.25), 'told', $1::text"), &json!("[\"p-told\"]"))
    );
}

#[tokio::test]
async fn a_flood_of_slow_queries_does_not_flood_the_log() {
    let server = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&server, "").replace("200ms", "1ms")).await;
    let mut client = gateway.h1().await;
    let begun = std::time::Instant::now();
    for _ in 0..300 {
        ask(&mut client, "/query", &[], json!({"sql": "select pg_sleep(0.002)"})).await;
    }
    let most = 10 + begun.elapsed().as_secs() + 1;
    let told = gateway.log_lines().iter().filter(|line| line.contains("slow query")).count() as u64;
    assert!((10..=most).contains(&told), "{told} lines, at most {most}");
}

#[tokio::test]
async fn a_traces_identity_stands_behind_each_statement_and_pollutes_nothing() {
    let server = Postgres::start(0, &["log_statement=all"]).await;
    let gateway = Gateway::start(&config(&server, "")).await;
    let mut client = gateway.h2().await;
    let id = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{id}-b7ad6b7169203331-01");
    let traced = [("traceparent", parent.as_str())];
    for _ in 0..5 {
        let (status, answer) = ask(&mut client, "/traced", &traced, json!({"sql": "select 'here' -- mine"})).await;
        assert_eq!((status, &answer["rows"]), (200, &json!([["here"]])), "{answer}");
    }
    let batch = json!({"batch": [{"sql": "select 'first'"}, {"sql": "select $1::int", "params": [2]}]});
    assert_eq!(ask(&mut client, "/traced", &traced, batch).await.0, 200);
    assert!(server.logged(&[&format!("/*traceparent='00-{id}-"), "select 'here'"]) > 0 || server.log().contains(id));
    let comments = server.log().matches(&format!("/*traceparent='00-{id}-")).count();
    assert!(comments >= 7, "{comments} of 7 statements");
    // An open string is no place for a comment: the server sees the text as it came.
    let (status, problem) = ask(&mut client, "/traced", &traced, json!({"sql": "select 'open"})).await;
    assert_eq!((status, &problem["sqlstate"]), (400, &json!("42601")));
    // One connection, and no statement has a name on it.
    let count = "select count(*)::int from pg_prepared_statements";
    assert_eq!(ask(&mut client, "/query", &[], json!({ "sql": count })).await.1["rows"], json!([[0]]));
    let shown = pool(&gateway).await;
    assert_eq!(row(&shown, "select ?")["calls"], 7, "five alone, one in the batch, and the open one");
    // Without the key nothing is added.
    let before = server.log().matches("traceparent").count();
    ask(&mut client, "/query", &traced, json!({"sql": "select 'plain'"})).await;
    assert_eq!(server.log().matches("traceparent").count(), before);
}
