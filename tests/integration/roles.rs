//! One pool in the configuration, one for each login role: what is granted in the database is what a consumer may do.

use serde_json::{Value, json};

use crate::support::{
    activity::count,
    config::{BASE, consumer, pool},
    eventually,
    gateway::Gateway,
    postgres::Postgres,
};

/// A server whose database has a table that `reader` may read and `writer` may change.
async fn two_roles() -> Postgres {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    let made =
        "create role reader login password 'r'; create role writer login password 'w'; create role guest login password 'g';
         create table public.note (id int primary key, text text); insert into note values (1, 'first');
         grant select on note to reader; grant all on note to writer;
         create function remember(text) returns text language sql as
         'select set_config($$app.secret$$, $1, false) || pg_try_advisory_lock(7)'";
    admin.batch_execute(made).await.unwrap();
    postgres
}

fn config(postgres: &Postgres) -> String {
    let url = format!("postgres://*@127.0.0.1:{}/postgres", postgres.port);
    let roles = r#"
per = "role"
size = { max = 1 }
roles = { reader = { password = "r" }, writer = { password = "w" }, guest = { password = "wrong" } }
"#;
    let consumers = [
        consumer("reader", ""),
        consumer("desk", "role = \"writer\""),
        consumer("import", "role = \"writer\""),
        consumer("guest", ""),
    ];
    let route = r#"
[[route]]
path = "/query"
query = { dialect = "json", pool = "main" }
access = ["reader", "desk", "import", "guest"]
"#;
    [BASE, &pool("main", &url, roles), &consumers.concat(), route].concat()
}

async fn ask(gateway: &Gateway, who: &str, sql: &str) -> (u16, Value) {
    let key = ("x-api-key", &*format!("key-{who}"));
    gateway.h1().await.post("/query", &[key], &json!({ "sql": sql })).await.unwrap().told()
}

async fn first(gateway: &Gateway, who: &str, sql: &str) -> Value {
    let (status, answer) = ask(gateway, who, sql).await;
    assert_eq!(status, 200, "{who}: {sql}: {answer}");
    answer["rows"][0][0].clone()
}

async fn pools(gateway: &Gateway) -> Vec<String> {
    gateway.status().await["pools"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_consumer_may_do_what_is_granted_to_its_role_and_nothing_leads_out_of_it() {
    let postgres = two_roles().await;
    let gateway = Gateway::start(&config(&postgres)).await;
    assert_eq!(pools(&gateway).await, [""; 0], "none before it is asked for");
    for (who, role) in [("reader", "reader"), ("desk", "writer"), ("import", "writer")] {
        assert_eq!(first(&gateway, who, "select session_user::text").await, role);
    }
    assert_eq!(pools(&gateway).await, ["main:reader", "main:writer"]);
    assert_eq!(first(&gateway, "reader", "select text from note").await, "first");
    for escape in [
        "update note set text = 'second'",
        "set role writer",
        "set session authorization writer",
        "do $$ begin perform set_config('role', 'writer', false); update note set text = 'second'; end $$",
        "select set_config('session_authorization', 'writer', false)",
    ] {
        let (status, answer) = ask(&gateway, "reader", escape).await;
        assert_eq!(status, 400, "{escape}: {answer}");
    }
    assert_eq!(ask(&gateway, "desk", "update note set text = 'second'").await.0, 200);
    assert_eq!(first(&gateway, "reader", "select text from note").await, "second");
    assert_eq!(first(&gateway, "reader", "select current_user::text").await, "reader");
    // A password that is wrong is the operator's mistake: there is no connection, and the caller is not told why.
    let (status, answer) = ask(&gateway, "guest", "select 1").await;
    assert_eq!(status, 503, "{answer}");
    assert!(!answer.to_string().contains("wrong"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_one_consumer_leaves_behind_the_other_of_the_same_role_does_not_meet() {
    let postgres = two_roles().await;
    let gateway = Gateway::start(&config(&postgres)).await;
    // Nothing in the text tells what the function does.
    assert_eq!(first(&gateway, "desk", "select remember('of desk')").await, "of desktrue");
    let backend = first(&gateway, "desk", "select pg_backend_pid()").await;
    assert_eq!(first(&gateway, "import", "select pg_backend_pid()").await, backend, "there is one connection");
    let left = "select coalesce(current_setting('app.secret', true), '') || \
                (select count(*) from pg_locks where locktype = 'advisory')::text";
    assert_eq!(first(&gateway, "import", left).await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn roles_come_and_go_with_the_configuration_and_pools_with_their_use() {
    let postgres = two_roles().await;
    let admin = postgres.admin().await;
    let text = config(&postgres);
    let gateway = Gateway::start(&text).await;
    assert_eq!(first(&gateway, "reader", "select 1").await, 1);
    let backend = first(&gateway, "desk", "select pg_backend_pid()").await;
    // Another password of a role is for new connections.
    admin.batch_execute("alter role writer password 'other'").await.unwrap();
    gateway.reconfigure(&text.replace("password = \"w\"", "password = \"other\"")).await;
    let again = || async { ask(&gateway, "desk", "select pg_backend_pid()").await };
    let (_, answer) =
        eventually("a new connection", again, |(status, answer)| *status == 200 && answer["rows"][0][0] != backend)
            .await;
    assert!(answer["rows"][0][0].is_number());
    assert_eq!(first(&gateway, "reader", "select 1").await, 1);
    // A consumer of another role from now on, and a role that is gone.
    let moved = text
        .replace("password = \"w\"", "password = \"other\"")
        .replace("reader = { password = \"r\" }, ", "")
        .replace("[consumer.reader]", "[consumer.reader]\nrole = \"writer\"");
    gateway.reconfigure(&moved).await;
    assert_eq!(first(&gateway, "reader", "select session_user::text").await, "writer");
    let of_reader = || count(&admin, "select count(*) from pg_stat_activity where usename = 'reader'");
    eventually("nobody is connected as the role that is gone", of_reader, |sessions| *sessions == 0).await;
    gateway.reconfigure(&moved.replace("max = 1 }", "max = 1 }\npool_idle_timeout = \"1s\"")).await;
    eventually("pools go that nobody asks for", || pools(&gateway), Vec::is_empty).await;
    eventually("and their connections", || postgres.sessions(&admin), |sessions| *sessions == 0).await;
}
