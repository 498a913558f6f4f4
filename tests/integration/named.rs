//! Queries by name: the caller sends no SQL, and what is set for them holds.

mod allowed;
mod claims;
mod escapes;
mod kept;

use serde_json::{Value, json};

use crate::support::{
    client::{Answer, Client},
    gateway::Gateway,
    postgres::Postgres,
    sha256,
};

/// A server with a table that `web_anon` may read in part, one that only `boss` may read, and functions that try things.
async fn server() -> Postgres {
    let postgres = Postgres::start(0, &[]).await;
    let made = "create role web_anon nologin; create role boss nologin; grant web_anon, boss to app;
         create table public.users (id int8 primary key, name text); insert into users values (1, 'Ada'), (2, 'Grace');
         create table public.secret (text text); insert into secret values ('hidden');
         grant select on users to web_anon; grant select, insert on secret, users to boss; grant all on users to app;
         create sequence calls; grant usage on sequence calls to public;
         create function let_out() returns text language plpgsql as $$
         begin
           perform set_config('role', 'boss', false); perform set_config('request.jwt.claims', '{\"sub\":\"boss\"}', false);
           return current_user;
         end $$;
         create function run_it(text) returns text language plpgsql as $$ declare found text; begin execute $1 into found; return found; end $$";
    postgres.admin().await.batch_execute(made).await.unwrap();
    postgres
}

fn config(postgres: &Postgres, more: &str) -> String {
    let key = sha256("key-app");
    let other = sha256("key-other");
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
url = "{}"
size = {{ max = 4 }}
[consumer.app]
key_sha256 = ["{key}"]
[consumer.other]
key_sha256 = ["{other}"]
[named.get_user]
sql = "select id, name from users where id = $1"
params = [{{ name = "id", type = "int8" }}]
role = "web_anon"
read_only = true
[named.whoami]
sql = "select current_user::text, current_setting('request.jwt.claims', true), current_setting('statement_timeout')"
role = "web_anon"
claims = true
timeout = "2s"
[named.plain]
sql = "select current_user::text, current_setting('request.jwt.claims', true)"
[named.peek]
sql = "select text from secret"
role = "web_anon"
[named.rename]
sql = "update users set name = $2 where id = $1 returning name"
params = [{{ name = "id", type = "int8" }}, {{ name = "name", type = "text", max_length = 20 }}]
{more}
"#,
        postgres.url()
    )
}

const ROUTE: &str = r#"
[[route]]
path = "/query"
query = { dialect = "json", pool = "main", named = ["get_user", "whoami", "plain", "rename"], raw = false }
access = ["app", "other"]
[[route]]
path = "/raw"
query = { dialect = "json", pool = "main", named = "*" }
access = ["app"]
"#;

const KEY: [(&str, &str); 2] = [("x-api-key", "key-app"), ("content-type", "application/json")];

async fn post(client: &mut Client, path: &str, body: Value) -> (u16, Value) {
    let answer = client.send("POST", path, &KEY, body.to_string()).await.unwrap();
    (answer.status, answer.json())
}

async fn get(client: &mut Client, path: &str) -> Answer {
    client.send("GET", path, &KEY[..1], "").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_query_by_name_runs_as_its_role_and_is_answered_as_a_single_one() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, ROUTE)).await;
    for mut client in [gateway.h1().await, gateway.h2().await] {
        for params in [json!({"id": 1}), json!([1]), json!({"id": "1"})] {
            let (status, answer) = post(&mut client, "/query", json!({"name": "get_user", "params": params})).await;
            assert_eq!((status, &answer["rows"]), (200, &json!([["1", "Ada"]])), "{answer}");
            assert_eq!(answer["columns"][1], json!({"name": "name", "type": "text"}));
            assert_eq!((&answer["command"], &answer["row_count"]), (&json!("SELECT"), &json!(1)));
        }
        for _ in 0..4 {
            let (_, answer) = post(&mut client, "/query", json!({"name": "whoami"})).await;
            assert_eq!(answer["rows"], json!([["web_anon", "{}", "2s"]]));
            let (_, answer) = post(&mut client, "/query", json!({"name": "plain"})).await;
            assert_eq!(answer["rows"][0][0], "app", "nothing is left behind");
        }
        let answer = get(&mut client, "/query/get_user?id=2").await;
        assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([["2", "Grace"]])));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_route_does_not_serve_is_refused_and_not_told() {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, ROUTE)).await;
    let mut client = gateway.h1().await;
    for (body, status) in [
        (json!({"sql": "select 1"}), 403),
        (json!({"batch": [{"name": "plain"}, {"sql": "select 1"}]}), 403),
        (json!({"name": "peek"}), 404),
        (json!({"name": "nothing"}), 404),
        (json!({"name": "../raw/peek"}), 404),
        (json!({"name": ""}), 404),
        (json!({"name": "get_user"}), 400),
        (json!({"name": "get_user", "params": {"id": 1, "role": "boss"}}), 400),
        (json!({"name": "get_user", "params": [1], "role": "boss"}), 400),
    ] {
        let (told, answer) = post(&mut client, "/query", body.clone()).await;
        assert_eq!(told, status, "{body}: {answer}");
    }
    let (_, of_another) = post(&mut client, "/query", json!({"name": "peek"})).await;
    let (_, of_nobody) = post(&mut client, "/query", json!({"name": "peak"})).await;
    assert_eq!(of_another["detail"].to_string().replace("peek", "peak"), of_nobody["detail"].to_string());
    for (path, status) in [
        ("/query/peek", 404),
        ("/query/../raw/peek", 405),
        ("/query/%2e%2e/raw/peek", 405),
        ("/query/x/get_user?id=1", 404),
        ("/query/", 404),
        ("/query", 404),
        ("/query/rename?id=1&name=x", 405),
        ("/query/get_user", 400),
        ("/query/get_user?id=1&id=2", 400),
        ("/query/get_user?id=1&idd=2", 400),
        ("/query/get_user?id=%zz", 400),
    ] {
        let answer = get(&mut client, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
    let near = get(&mut client, "/query/get_user?di=1").await.json();
    assert_eq!(near["detail"], "`get_user` has no parameter `di`; did you mean `id`?");
    let (status, answer) = post(&mut client, "/raw", json!({"name": "peek"})).await;
    assert_eq!((status, &answer["sqlstate"]), (400, &json!("42501")), "its role may not read the table: {answer}");
}
