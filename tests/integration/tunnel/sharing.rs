//! What tunnels share with each other and with the rest: connections, the pool's waiters, names at the server.

use std::future::Future;

use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

use super::{KEY, at_rest, by_transaction, config, with};
use crate::support::{
    PATIENCE,
    gateway::Gateway,
    postgres::Postgres,
    sha256,
    tunnel::{Raw, message, open, query, start_up},
};

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(name: &str) -> Vec<u8> {
    message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes())
}

/// Shows who it is, and waits for what comes of it.
async fn ask_in(gateway: &Gateway, database: &str) -> Raw {
    let mut raw = Raw::open(gateway).await;
    raw.say(&start_up(&[("user", "app"), ("database", database)])).await;
    raw.say(&message(b'p', format!("{KEY}\0").as_bytes())).await;
    raw
}

async fn begun(gateway: &Gateway) -> Raw {
    let mut raw = ask_in(gateway, "postgres").await;
    raw.begun().await;
    raw
}

/// The body of the next message of this type.
async fn body(raw: &mut Raw, wanted: u8) -> Vec<u8> {
    while let Some((tag, body)) = raw.hear().await.unwrap() {
        assert_ne!(tag, b'E', "{}", String::from_utf8_lossy(&body));
        if tag == wanted {
            return body;
        }
    }
    panic!("it closed with {:?}", raw.closed);
}

#[tokio::test]
async fn statements_whose_names_the_server_would_cut_to_the_same_stay_apart() {
    let (_postgres, gateway) = by_transaction().await;
    let mut raw = begun(&gateway).await;
    let long = |end: &str| format!("{}{end}", "n".repeat(61));
    let names = [long("a"), long("b"), long(""), format!("#{}", &sha256(&long("a"))[..32]), "#".to_owned()];
    let (run, sync) = (message(b'E', &[0; 5]), message(b'S', b""));
    for (number, name) in names.iter().enumerate() {
        raw.say(&[parse(name, &format!("select 'text {number}'")), sync.clone()].concat()).await;
        assert_eq!(raw.until(b'Z').await, "1Z");
    }
    // Within a transaction all of them are there at once; the second time none is prepared anew.
    raw.say(&query("begin")).await;
    raw.until(b'Z').await;
    for round in 0..2 {
        for (number, name) in names.iter().enumerate() {
            raw.say(&[bind(name), run.clone(), sync.clone()].concat()).await;
            let row = String::from_utf8(body(&mut raw, b'D').await).unwrap();
            assert!(row.ends_with(&format!("text {number}")), "{round} {name}: {row}");
            raw.until(b'Z').await;
        }
    }
}

#[tokio::test]
async fn what_a_function_call_leaves_behind_is_undone_with_its_transaction() {
    let (postgres, gateway) = by_transaction().await;
    let admin = postgres.admin().await;
    let function = "select 'pg_catalog.pg_advisory_lock(bigint)'::regprocedure::oid::int";
    let function: i32 = admin.query_one(function, &[]).await.unwrap().get(0);
    let argument = [&8_u32.to_be_bytes()[..], &9_i64.to_be_bytes()].concat();
    // The function, one format (binary), one argument, and the result's format.
    let call = [&function.to_be_bytes()[..], &[0, 1, 0, 1, 0, 1], &argument, &[0, 1]].concat();
    let mut raw = begun(&gateway).await;
    raw.say(&message(b'F', &call)).await;
    assert_eq!(raw.until(b'Z').await, "VZ");
    let mut other = begun(&gateway).await;
    other.say(&query("select count(*) || ' locks' from pg_locks where locktype = 'advisory'")).await;
    let found = String::from_utf8(body(&mut other, b'D').await).unwrap();
    assert!(found.ends_with("0 locks"), "{found}: one is left to others");
}

/// Waits until one waits for a connection, asks whether it is alive, and leaves.
async fn waits_and_leaves(gateway: &Gateway, mut waiter: Raw) {
    gateway.status_until("/pools/main/waiters", |waiters| waiters == 1).await;
    waiter.socket.send(Message::Ping("still there?".into())).await.unwrap();
    let answered = async {
        loop {
            match waiter.socket.next().await {
                Some(Ok(Message::Pong(payload))) => break assert_eq!(&payload[..], b"still there?"),
                Some(Ok(Message::Binary(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("a ping is answered while it waits");
    drop(waiter);
    // Well before the route's deadline, which is 30 s.
    gateway.status_until("/pools/main/waiters", |waiters| waiters == 0).await;
    gateway.status_until("/tunnels", |count| count == 1).await;
}

#[tokio::test]
async fn whoever_waits_for_its_first_connection_is_heard_and_may_leave() {
    let (_postgres, gateway) = with("size = { max = 1 }\ncheckout_timeout = \"60s\"", ", tunnel = \"session\"").await;
    let _holder = begun(&gateway).await;
    waits_and_leaves(&gateway, ask_in(&gateway, "postgres").await).await;
}

#[tokio::test]
async fn whoever_waits_for_its_next_connection_is_heard_and_may_leave() {
    let (_postgres, gateway) =
        with("size = { max = 1 }\ncheckout_timeout = \"60s\"", ", tunnel = \"transaction\"").await;
    let (mut holder, mut waiter) = (begun(&gateway).await, begun(&gateway).await);
    holder.say(&query("begin")).await;
    holder.until(b'Z').await;
    waiter.say(&query("select 1")).await;
    waits_and_leaves(&gateway, waiter).await;
}

#[tokio::test]
async fn a_session_does_not_read_what_the_pool_has_yet_to_close() {
    let postgres = Postgres::start(0, &[]).await;
    let pool = "size = { max = 1 }\nstatement_cache = 1";
    let route = "[[route]]\nexact = \"/query\"\nquery = { dialect = \"json\", pool = \"main\" }\naccess = \"open\"\n";
    let config = config(&postgres, pool, ", tunnel = \"session\"", "") + route;
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.h1().await;
    // The second text pushes the first out, and then cannot be prepared: nothing is known, and the first is still there.
    for (sql, status) in [("select 'a secret'", 200), ("select nonsense", 400)] {
        for _ in 0..2 {
            assert_eq!(client.query(sql, serde_json::json!([])).await.unwrap().status, status);
        }
    }
    at_rest(&gateway).await;
    let mut raw = begun(&gateway).await;
    raw.say(&query("select name, statement from pg_prepared_statements")).await;
    assert_eq!(raw.until(b'Z').await, "TCZ", "no row");
}

#[tokio::test]
async fn why_there_is_no_database_is_told_as_postgres_would() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    for name in ["a", "b"] {
        admin.batch_execute(&format!("create database tenant_{name}")).await.unwrap();
    }
    let pool = "per = \"database\"\nmax_pools = 1\nsize = { max = 2 }";
    let text = config(&postgres, pool, ", tunnel = \"session\"", "");
    let text = text.replace(&postgres.url(), &postgres.url().replace("/postgres", "/tenant_*"));
    let gateway = Gateway::start(&text).await;
    let mut first = ask_in(&gateway, "a").await;
    first.begun().await;
    let mut second = ask_in(&gateway, "b").await;
    assert_eq!((second.error().await.as_str(), second.end().await), ("57P03", Some(1011)), "another time");
    let mut none = ask_in(&gateway, "no name").await;
    assert_eq!((none.error().await.as_str(), none.end().await), ("3D000", Some(1008)));

    let spare = format!("[pool.spare]\nbackend = \"postgres\"\nurl = \"{}\"\n", postgres.url());
    let text = config(&postgres, "", "", "pools = [\"spare\"]") + &spare;
    let gateway = Gateway::start(&text).await;
    let mut raw = ask_in(&gateway, "postgres").await;
    assert_eq!((raw.error().await.as_str(), raw.end().await), ("42501", Some(1008)));
}

#[tokio::test]
async fn an_endpoint_has_tunnels_as_its_own_pool_allows() {
    let postgres = Postgres::start(0, &[]).await;
    let shared =
        format!("[pool.shared]\nbackend = \"postgres\"\nbehind_pgbouncer = true\nurl = \"{}\"\n", postgres.url());
    for main in ["main", "shared"] {
        let text = config(&postgres, "", ", endpoints = { own = \"main\", pooled = \"shared\" }", "") + &shared;
        let text = text.replace("pool = \"main\"", &format!("pool = \"{main}\""));
        let gateway = Gateway::start(&text).await;
        assert!(open(&gateway, "/v1?address=own.example.com:5432").await.is_ok(), "{main}");
        assert_eq!(status(open(&gateway, "/v1?address=pooled.example.com:5432")).await, 403, "{main}");
    }
}

/// Of a request that becomes no tunnel.
async fn status<T>(opening: impl Future<Output = anyhow::Result<T>>) -> u16 {
    match opening.await.err().expect("it is refused").downcast().unwrap() {
        tungstenite::Error::Http(response) => response.status().as_u16(),
        other => panic!("{other}"),
    }
}
