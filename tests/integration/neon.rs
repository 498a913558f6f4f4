//! The `neon` dialect over HTTPS and PostgreSQL, as its drivers speak it.

use std::{process::Command, time::Duration};

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{
    activity::{count, running},
    client::{Answer, Client},
    config::{BASE, also_named, consumer, pool},
    eventually,
    gateway::Gateway,
    postgres::{PASSWORD, Postgres},
    sha256,
};

/// What the drivers always send.
const RAW: [(&str, &str); 3] =
    [("neon-raw-text-output", "true"), ("neon-array-mode", "true"), ("content-type", "text/plain;charset=UTF-8")];

const URL: &str = "postgresql://app:any@db.example.com/postgres?application_name=pkg%3Anpm";

fn config(url: &str, query: &str, access: &str) -> String {
    format!(
        r#"{BASE}
{}
[[route]]
path = "/"
query = {{ dialect = "neon", pool = "main"{query} }}
access = {access}
"#,
        pool("main", url, "size = { max = 2 }")
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

/// The connection string of a consumer's, who calls himself by his name.
fn url_of(name: &str) -> String {
    format!("postgresql://{name}:key-{name}@db.example.com/postgres")
}

/// As a consumer's driver asks.
async fn ask_as(gateway: &Gateway, name: &str, body: Value) -> (u16, Value) {
    send(gateway, &url_of(name), &RAW, &body).await.told()
}

/// As a driver asks; the answer's status and body.
async fn ask(gateway: &Gateway, body: Value) -> (u16, Value) {
    send(gateway, URL, &RAW, &body).await.told()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn values_have_their_types_unless_text_is_asked_for() {
    let (_server, gateway) = open().await;
    let sql = "select 1::int2 a, 2::int4 b, 3::int8 c, 1.50::numeric d, 1.5::float4 e, 'NaN'::float8 f, '-Infinity'::float8 g,
               true h, 'x\"y' i, '{\"k\": [1]}'::jsonb j, '[0:1]={1,2}'::int4[] k, '{{a,NULL},{\"b c\",d}}'::text[] l, 26::oid m,
               '2026-01-02'::date n, null::int o, '{1.5,NaN}'::float8[] p, '{t,f}'::bool[] q, '{\"[1]\"}'::json[] r, '{7}'::oid[] s,
               '{9}'::int8[] t, 'postgres=r/postgres'::aclitem u";
    let typed = send(&gateway, URL, &[], &json!({"query": sql})).await.json();
    let expected = json!([{
        "a": 1, "b": 2, "c": "3", "d": "1.50", "e": 1.5, "f": "NaN", "g": "-Infinity", "h": true, "i": "x\"y", "j": {"k": [1]},
        "k": [1, 2], "l": [["a", null], ["b c", "d"]], "m": "26", "n": "2026-01-02", "o": null, "p": [1.5, "NaN"],
        "q": [true, false], "r": [[1]], "s": ["7"], "t": ["9"], "u": "postgres=r/postgres",
    }]);
    assert_eq!((&typed["rows"], &typed["rowAsArray"]), (&expected, &json!(false)), "{typed}");
    let raw = send(&gateway, URL, &RAW, &json!({"query": sql})).await.json();
    let expected = json!([[
        "1",
        "2",
        "3",
        "1.50",
        "1.5",
        "NaN",
        "-Infinity",
        "t",
        "x\"y",
        "{\"k\": [1]}",
        "[0:1]={1,2}",
        "{{a,NULL},{\"b c\",d}}",
        "26",
        "2026-01-02",
        null,
        "{1.5,NaN}",
        "{t,f}",
        "{[1]}",
        "{7}",
        "{9}",
        "postgres=r/postgres",
    ]]);
    assert_eq!(raw["rows"], expected, "{raw}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn parameters_become_postgresqls_text() {
    let (_server, gateway) = open().await;
    for (cast, param, text) in [
        ("text", json!(null), json!(null)),
        ("text", json!("it's"), json!("it's")),
        ("int", json!(42), json!("42")),
        ("bool", json!(true), json!("t")),
        ("numeric", json!(1.5), json!("1.5")),
        ("jsonb", json!({"a": [1, null]}), json!("{\"a\": [1, null]}")),
        ("int[]", json!([[1, null], [3, 4]]), json!("{{1,NULL},{3,4}}")),
        (
            "text[]",
            json!(["x\"y\\", "NULL", null, "a,b", "l\nf"]),
            json!("{\"x\\\"y\\\\\",\"NULL\",NULL,\"a,b\",\"l\nf\"}"),
        ),
        ("jsonb[]", json!([{"a": "\""}]), json!("{\"{\\\"a\\\": \\\"\\\\\\\"\\\"}\"}")),
        ("bytea", json!("\\x6869"), json!("\\x6869")),
    ] {
        let (status, answer) = ask(&gateway, json!({"query": format!("select $1::{cast}"), "params": [param]})).await;
        assert_eq!((status, &answer["rows"][0][0]), (200, &text), "{cast} {param}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_query_is_told_so() {
    let (_server, gateway) = open().await;
    let good = [("neon-connection-string", URL)];
    for (method, path, headers, body, message) in [
        ("GET", "/sql", &good[..], "", "query is not supported"),
        ("POST", "/", &good, "{}", "query is not supported"),
        ("POST", "/sql/", &good, "{}", "query is not supported"),
        ("POST", "/other/sql", &good, "{}", "query is not supported"),
        ("POST", "/sql", &[], "{}", "invalid header: neon-connection-string"),
        ("POST", "/sql", &[("neon-connection-string", "mysql://a:b@h/db")], "{}", "incorrect scheme"),
        ("POST", "/sql", &good, "{", "could not parse the HTTP request body: EOF"),
        ("POST", "/sql", &good, r#"{"queries": [{"query": "select 1"}], "query": 7}"#, "could not parse"),
        (
            "POST",
            "/sql",
            &[good[0], ("neon-batch-isolation-level", "Chaos")],
            r#"{"query": ""}"#,
            "invalid isolation level",
        ),
        (
            "POST",
            "/sql",
            &[("neon-connection-string", "postgres://a:b@h/nope")],
            r#"{"query": ""}"#,
            "database \"nope\" does not exist",
        ),
    ] {
        let answer = gateway.h1().await.send(method, path, headers, body).await.unwrap();
        let said = answer.json();
        assert_eq!(answer.status, 400, "{method} {path} {body}: {said}");
        assert!(said["message"].as_str().unwrap().starts_with(message), "{method} {path} {body}: {said}");
        assert!(said.as_object().unwrap().len() == 17 && said["line"].is_null(), "{said}");
    }
    let (status, empty) = ask(&gateway, json!({"query": ""})).await;
    let expected = json!({"fields": [], "rows": [], "command": "", "rowCount": null, "rowAsArray": true});
    assert_eq!((status, empty), (200, expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_password_is_a_key_of_the_gateways_own() {
    let server = Postgres::start(0, &[]).await;
    let consumers = [consumer("app", ""), consumer("desk", "role = \"clerk\""), consumer("other", "")].concat();
    let text = config(&server.url(), "", "[\"app\", \"desk\"]") + &consumers;
    let mut gateway = Gateway::start(&text).await;
    let body = json!({"query": "select current_user"});
    let key = "key-app";
    let bearer = [RAW[0], RAW[1], ("authorization", "Bearer key-app")];
    let at = |credentials: &str| format!("postgres://{credentials}@h.example.com/postgres");
    for (credentials, headers) in [
        ("app:key-app", &RAW),
        ("whoever:key-app", &RAW),
        ("app:%6Bey-app", &RAW),
        ("app", &bearer),
        ("app:ignored", &bearer),
        ("desk:key-desk", &RAW),
        ("clerk:key-desk", &RAW),
    ] {
        let answer = send(&gateway, &at(credentials), headers, &body).await;
        assert_eq!(
            (answer.status, &answer.json()["rows"]),
            (200, &json!([["app"]])),
            "{credentials}: {}",
            answer.text()
        );
    }
    let wrong = format!("app:{PASSWORD}");
    for (credentials, message) in [
        ("app:wrong", "password authentication failed for user 'app'"),
        (wrong.as_str(), "password authentication failed for user 'app'"),
        ("app:key-app%20", "password authentication failed for user 'app'"),
        ("app:KEY-APP", "password authentication failed for user 'app'"),
        ("someone:key-desk", "password authentication failed for user 'someone'"),
        ("app", "missing authentication credentials: required password"),
        ("app:", "missing authentication credentials: required password"),
    ] {
        let answer = send(&gateway, &at(credentials), &RAW, &body).await;
        let said = answer.json();
        assert_eq!(
            (answer.status, &said["message"], &said["code"]),
            (400, &json!(message), &Value::Null),
            "{credentials}"
        );
    }
    // Known, but not let in here: not the password's fault.
    let answer = send(&gateway, &at("other:key-other"), &RAW, &body).await;
    assert_eq!((answer.status, &answer.json()["message"]), (403, &json!("this consumer may not call here")));
    let gone = text.replace(&sha256(key), &sha256("another"));
    gateway.reconfigure(&gone).await;
    assert_eq!(send(&gateway, &at("app:key-app"), &RAW, &body).await.status, 400, "a key that is taken out");
    assert_eq!(send(&gateway, &at("app:another"), &RAW, &body).await.status, 200);
    gateway.terminate().await;
    let logs = gateway.log_lines().concat() + &gateway.access_log() + &server.log();
    assert!(!logs.contains("key-app") && !logs.contains("key-desk"), "a key is in a log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_host_chooses_the_pool_and_nothing_in_the_application_changes() {
    let server = Postgres::start(0, &[]).await;
    let admin = server.admin().await;
    admin.batch_execute("create database reports").await.unwrap();
    let reports = format!("postgres://app:{PASSWORD}@127.0.0.1:{}/reports", server.port);
    let text = config(&server.url(), ", endpoints = { db1 = \"main\", db2 = \"reports\" }", "[\"app\", \"half\"]");
    let text =
        also_named(&text, "*.gw.example.com").replace("path = \"/\"", "path = \"/\"\nhost = [\"*.gw.example.com\"]");
    let more =
        [pool("reports", &reports, "size = { max = 1 }"), consumer("app", ""), consumer("half", "pools = [\"main\"]")];
    let gateway = Gateway::start(&(text + &more.concat())).await;
    // As a driver does: it takes the connection string's host, puts `api` in the place of its first label, and sends to /sql there.
    let asked = async |name: &str, host: &str, database: &str| {
        let url = format!("postgres://{name}:key-{name}@{host}/{database}");
        let (_, domain) = host.split_once('.').unwrap();
        let mut client =
            Client::tls(gateway.address("public"), &gateway.ca(), &format!("api.{domain}"), true).await.unwrap();
        let headers: Vec<_> = RAW.into_iter().chain([("neon-connection-string", url.as_str())]).collect();
        let body = json!({"query": "select current_database()"}).to_string();
        let answer = client.send("POST", "/sql", &headers, body).await.unwrap();
        let said = answer.json();
        (answer.status, if answer.status == 200 { said["rows"][0][0].clone() } else { said })
    };
    assert_eq!(asked("app", "db1.gw.example.com", "postgres").await, (200, json!("postgres")));
    assert_eq!(asked("app", "DB2.gw.example.com", "reports").await, (200, json!("reports")));
    for (name, host, database, code, message) in [
        ("app", "db3.gw.example.com", "reports", "08004", "endpoint \"db3\" does not exist"),
        ("app", "db1.gw.example.com", "reports", "3D000", "database \"reports\" does not exist"),
        ("half", "db2.gw.example.com", "reports", "42501", "permission denied for database \"reports\""),
    ] {
        let (status, said) = asked(name, host, database).await;
        assert_eq!((status, &said["code"], &said["message"]), (400, &json!(code), &json!(message)), "{said}");
        assert_eq!(said["severity"], "FATAL");
    }
    assert_eq!(asked("half", "db1.gw.example.com", "postgres").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_leads_out_of_a_batch_nor_out_of_what_is_read_only() {
    let server = Postgres::start(0, &[]).await;
    let consumers = [consumer("app", ""), consumer("reader", "read_only = true")].concat();
    let gateway = Gateway::start(&(config(&server.url(), "", "[\"app\", \"reader\"]") + &consumers)).await;
    let made = "create table t (id int)";
    assert_eq!(ask_as(&gateway, "app", json!({"query": made})).await.0, 200);
    let count =
        async || ask_as(&gateway, "app", json!({"query": "select count(*) from t"})).await.1["rows"][0][0].clone();
    let read_only: Vec<_> = RAW.into_iter().chain([("neon-batch-read-only", "true")]).collect();
    let insert = json!({"query": "insert into t values (1)"});
    for (escape, code) in [
        ("set transaction read write", "0A000"),
        ("/* a */ SET TRANSACTION READ WRITE", "0A000"),
        ("set session characteristics as transaction read write", "25006"),
        ("set transaction_read_only = off", "25001"),
        ("select set_config('transaction_read_only', 'off', true)", "25001"),
        ("do $$ begin set transaction read write; end $$", "25001"),
        ("do $$ begin commit; insert into t values (1); end $$", "2D000"),
        ("commit", "0A000"),
        (";;-- x\nCOMMIT", "0A000"),
        ("rollback", "0A000"),
        ("begin", "0A000"),
        ("prepare transaction 'x'", "0A000"),
        ("select 1", "25006"),
    ] {
        let batch = json!({"queries": [{"query": escape}, insert]});
        let answer = send(&gateway, &url_of("app"), &read_only, &batch).await;
        let said = answer.json();
        assert_eq!((answer.status, &said["code"]), (400, &json!(code)), "{escape}: {said}");
        assert_eq!(count().await, "0", "{escape}");
    }
    // A consumer who may only read does so whatever the headers say, alone and in a batch.
    for body in [
        insert.clone(),
        json!({"queries": [insert]}),
        json!({"queries": [{"query": "select set_config('transaction_read_only', 'off', true)"}, insert]}),
        json!({"query": "with x as (insert into t values (1) returning id) select * from x"}),
        json!({"query": "begin read write"}),
    ] {
        let (status, said) = ask_as(&gateway, "reader", body.clone()).await;
        assert_eq!(status, 400, "{body}: {said}");
        assert_eq!(count().await, "0", "{body}");
    }
    assert_eq!(ask_as(&gateway, "reader", json!({"query": "select count(*) from t"})).await.0, 200);
    // Neither a second statement, nor the server's files and programs.
    for (sql, code) in [
        ("insert into t values (1); commit", "42601"),
        ("select 1; drop table t", "42601"),
        ("copy t from program 'echo 1'", "42501"),
        ("copy t to program 'cat'", "42501"),
        ("copy t from '/etc/hostname'", "42501"),
        ("copy t from stdin", "0A000"),
        ("copy t to stdout", "0A000"),
    ] {
        let (status, said) = ask_as(&gateway, "app", json!({"query": sql})).await;
        assert_eq!((status, &said["code"]), (400, &json!(code)), "{sql}: {said}");
    }
    for stopped in ["commit", "insert into t values ('x')"] {
        let batch = json!({"queries": [insert, {"query": stopped}]});
        assert_eq!(ask_as(&gateway, "app", batch).await.0, 400);
    }
    assert_eq!(count().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_function_leaves_behind_the_next_consumer_does_not_meet() {
    let server = Postgres::start(0, &[]).await;
    let admin = server.admin().await;
    let made = "create table public.kept (id int); grant all on public.kept to app; create role clerk; grant clerk to app; create function public.litter() returns void language plpgsql as $$ begin
                    perform set_config('app.tenant', 'first', false);
                    execute 'set role clerk';
                    execute 'create temp table mine as select 1';
                    perform pg_advisory_lock(7);
                    execute 'listen gossip';
                end $$; grant temporary on database postgres to clerk";
    admin.batch_execute(made).await.unwrap();
    // The pool is reached by way of its label alone.
    let more = [pool("other", &server.url(), ""), consumer("first", ""), consumer("second", "")];
    let text = config(&server.url(), ", endpoints = { db = \"main\" }", "[\"first\", \"second\"]")
        .replace("max = 2", "max = 1")
        .replace("pool = \"main\"", "pool = \"other\"")
        + &more.concat();
    let gateway = Gateway::start(&text).await;
    let pid = json!({"query": "select pg_backend_pid()"});
    let first = ask_as(&gateway, "first", pid.clone()).await.1["rows"].clone();
    for litter in [
        json!({"query": "select litter()"}),
        json!({"queries": [{"query": "select litter()"}]}),
        json!({"query": "begin"}),
        json!({"query": "select set_config('role', 'clerk', false)"}),
    ] {
        let (status, said) = ask_as(&gateway, "first", litter.clone()).await;
        assert_eq!(status, 200, "{litter}: {said}");
        let look = "select current_setting('app.tenant', true), current_user, to_regclass('pg_temp.mine'), \
                    (select count(*) from pg_locks where locktype = 'advisory'), (select count(*) from pg_listening_channels())";
        let (status, seen) = ask_as(&gateway, "second", json!({"query": look})).await;
        assert_eq!(status, 200, "{litter}: {seen}");
        let setting = seen["rows"][0][0].clone();
        assert!(setting.is_null() || setting == "", "{litter}: {setting}");
        assert_eq!(
            seen["rows"][0].as_array().unwrap()[1..],
            [json!("app"), Value::Null, json!("0"), json!("0")],
            "{litter}"
        );
        // No transaction is left open either.
        assert_eq!(ask_as(&gateway, "second", json!({"query": "insert into kept values (1)"})).await.0, 200);
        let kept = "with gone as (delete from kept returning 1) select count(*) from gone";
        assert_eq!(count(&admin, kept).await, 1, "{litter}");
    }
    assert_eq!(ask_as(&gateway, "second", pid).await.1["rows"], first, "it is the same session, cleaned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bounds_are_the_lesser_of_the_routes_and_the_consumers() {
    let server = Postgres::start(0, &[]).await;
    let consumers = [
        consumer("wide", "max_rows = 1000000\nmax_response = \"1GiB\""),
        consumer("narrow", "max_rows = 5\nmax_response = \"2KiB\""),
    ];
    let json = "[[route]]\nexact = \"/query\"\nquery = { dialect = \"json\", pool = \"main\", max_rows = 10 }\naccess = [\"wide\", \"narrow\"]\n";
    let text = config(
        &server.url(),
        ", max_rows = 10, max_response = \"100KiB\", max_batch = 2",
        "[\"wide\", \"narrow\"]\nmax_body = \"4KiB\"",
    );
    let gateway = Gateway::start(&(text + json + &consumers.concat())).await;
    let rows = |count: u32| json!({"query": format!("select n from generate_series(1, {count}) n")});
    let long = |bytes: u32| json!({"query": format!("select repeat('x', {bytes})")});
    for (who, body, status) in [
        ("wide", rows(10), 200),
        ("wide", rows(11), 507),
        ("wide", long(90_000), 200),
        ("wide", long(200_000), 507),
        ("narrow", rows(5), 200),
        ("narrow", rows(6), 507),
        ("narrow", long(1_000), 200),
        ("narrow", long(3_000), 507),
        ("wide", json!({"query": "select 1", "params": ["x".repeat(5_000)]}), 413),
        ("wide", json!({"queries": [{"query": ""}, {"query": ""}, {"query": ""}]}), 400),
    ] {
        let (answered, said) = ask_as(&gateway, who, body).await;
        assert_eq!(answered, status, "{who}: {said}");
        assert!(status == 200 || said["message"].is_string(), "{said}");
    }
    for (who, count, status) in [("wide", 10, 200), ("wide", 11, 507), ("narrow", 5, 200), ("narrow", 6, 507)] {
        let body = json!({"sql": format!("select n from generate_series(1, {count}) n")});
        let key = ("x-api-key", &*format!("key-{who}"));
        let answer = gateway.h1().await.post("/query", &[key], &body).await.unwrap();
        assert_eq!(answer.status, status, "{who} {count}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_answer_streams_and_breaks_off_where_it_goes_wrong() {
    let server = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&server.url(), ", max_rows = 100000000", "\"open\"")).await;
    let fine =
        send(&gateway, URL, &RAW, &json!({"query": "select n, repeat('é\"', 20) from generate_series(1, 40000) n"}))
            .await;
    let rows = fine.json()["rows"].as_array().unwrap().clone();
    assert_eq!((rows.len(), &rows[39_999]), (40_000, &json!(["40000", "é\"".repeat(20)])));
    let fails =
        json!({"query": "select 1 / (40000 - n), repeat('x', 100) from generate_series(1, 50000) n"}).to_string();
    let headers: Vec<_> = RAW.into_iter().chain([("neon-connection-string", URL)]).collect();
    let response = gateway.h2().await.open("POST", "/sql", &headers, fails).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err(), "the driver must see that this is not all");
    // Who leaves stops the statement, and the connection serves the next.
    let endless = json!({"query": "select generate_series(1, 100000000), repeat('x', 1000) /* endless */"}).to_string();
    let mut client = gateway.h2().await;
    let mut body = client.open("POST", "/sql", &headers, endless).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop((body, client));
    let admin = server.admin().await;
    eventually("the statement is cancelled", || running(&admin, "%endless%"), |count| *count == 0).await;
    assert_eq!(ask(&gateway, json!({"query": "select 1"})).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pages_may_call_where_the_route_lets_them() {
    let server = Postgres::start(0, &[]).await;
    let cors = "\"open\"\ncors = { origins = [\"https://app.example.com\"] }";
    let gateway = Gateway::start(&config(&server.url(), "", cors)).await;
    let origin = ("origin", "https://app.example.com");
    let asks = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "neon-connection-string"),
    ];
    let preflight = gateway.h2().await.send("OPTIONS", "/sql", &asks, "").await.unwrap();
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, origin.1));
    let may_set = preflight.header("access-control-allow-headers").to_owned();
    for header in ["neon-connection-string", "neon-raw-text-output", "neon-array-mode", "content-type", "authorization"]
    {
        assert!(may_set.split(", ").any(|name| name == header), "{header} of {may_set}");
    }
    let headers: Vec<_> = RAW.into_iter().chain([origin]).collect();
    for (body, status) in [(json!({"query": "select 1"}), 200), (json!({"query": "select 1/0"}), 400)] {
        let answer = send(&gateway, URL, &headers, &body).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, origin.1));
        assert!(answer.header("access-control-expose-headers").contains("neon-request-id"));
    }
    let foreign: Vec<_> = RAW.into_iter().chain([("origin", "https://evil.example.com")]).collect();
    let answer = send(&gateway, URL, &foreign, &json!({"query": "create table evil ()"})).await;
    assert_eq!(
        (answer.status, &answer.json()["message"]),
        (403, &json!("pages of this origin may not call this route"))
    );
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let (_, evil) = ask(&gateway, json!({"query": "select to_regclass('evil')"})).await;
    assert_eq!(evil["rows"], json!([[null]]));
    let options = gateway.h1().await.send("OPTIONS", "/sql", &[], "").await.unwrap();
    assert_eq!((options.status, options.header("allow")), (200, "OPTIONS, POST"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn curl_asks_over_both_versions_of_http_and_each_answer_has_a_number() {
    let (_server, gateway) = open().await;
    let (ca, url) = (gateway.ca(), format!("https://localhost:{}/sql", gateway.address("public").port()));
    let header = format!("Neon-Connection-String: {URL}");
    let mut numbers = Vec::new();
    for version in ["--http1.1", "--http2"] {
        let output = Command::new("curl")
            .args(["-sS", "-i", version, "--max-time", "20", "--cacert", ca.to_str().unwrap(), "-H", &header])
            .args(["--data-binary", r#"{"query":"select 1 as one"}"#, &url])
            .output()
            .expect("curl is installed: run `make setup-test`");
        let text = String::from_utf8(output.stdout).unwrap().to_ascii_lowercase();
        assert!(
            text.contains(" 200")
                && text.ends_with(r#""rows":[{"one":1}],"command":"select","rowcount":1,"rowasarray":false}"#),
            "{text}"
        );
        let number = text.lines().find_map(|line| line.strip_prefix("neon-request-id: ")).unwrap().trim().to_owned();
        let shape: String = number.chars().map(|c| if c == '-' { '-' } else { 'x' }).collect();
        assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
        numbers.push(number);
    }
    assert_ne!(numbers[0], numbers[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_befalls_the_gateway_has_its_status_and_the_drivers_shape() {
    let mut server = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&server.url(), "", "\"open\"\ndeadline = \"1s\"")).await;
    let begun = std::time::Instant::now();
    let (status, said) = ask(&gateway, json!({"query": "select pg_sleep(30)"})).await;
    assert_eq!((status, said["message"].is_string()), (504, true), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(4));
    server.stop();
    let answer = send(&gateway, URL, &RAW, &json!({"query": "select 1"})).await;
    let said = answer.json();
    assert!(matches!(answer.status, 502..=504), "{}: {said}", answer.status);
    let answer = send(&gateway, URL, &RAW, &json!({"query": "select 1"})).await;
    let said = answer.json();
    assert_eq!((answer.status, said.as_object().unwrap().len()), (503, 17), "{said}");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
}
