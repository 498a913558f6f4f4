//! A gateway in front of one PostgreSQL pool, `/query` open to all, and how to ask it.

use serde_json::{Value, json};

use super::{
    config::{BASE, QUERY_ROUTE, pool},
    eventually,
    gateway::Gateway,
    postgres::{Postgres, REFUSED_AS_FULL},
};

/// Connections that the pool was refused because the server was full.
pub const SERVER_FULL: &str = "/pools/main/counters/create_failures/server_full";

/// Connections that it was refused because the role had all it may.
pub const ROLE_FULL: &str = "/pools/main/counters/create_failures/account_full";

/// Longest a request may take there.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(4);

/// A gateway over a pool at `url` with more keys for it.
pub async fn gateway(url: &str, keys: &str) -> Gateway {
    Gateway::start(&config(url, keys)).await
}

/// Its configuration.
pub fn config(url: &str, keys: &str) -> String {
    let pool = pool("main", url, &format!("sweep_interval = \"100ms\"\nsizing_interval = \"100ms\"\n{keys}"));
    format!(
        r#"{BASE}
ready_requires = ["main"]
{pool}
{QUERY_ROUTE}
deadline = "4s"
"#
    )
}

/// Status of one query on a connection of its own.
pub async fn ask(gateway: &Gateway, sql: &str) -> (u16, Value) {
    gateway.h1().await.query(sql, json!([])).await.expect("an answer").told()
}

/// A batch, which is one transaction.
pub async fn batch(gateway: &Gateway, statements: &[&str]) -> (u16, Value) {
    let statements: Vec<Value> = statements.iter().map(|sql| json!({ "sql": sql })).collect();
    let batch = json!({ "batch": statements });
    gateway.h1().await.post("/query", &[], &batch).await.expect("an answer").told()
}

/// Waits until queries are answered.
pub async fn works(gateway: &Gateway) {
    eventually("queries work", || ask(gateway, "select 1::int"), |(status, _)| *status == 200).await;
}

/// The server never had to refuse a session beyond what it grants.
pub async fn never_asked_for_more(gateway: &Gateway, postgres: &Postgres) {
    assert_eq!((gateway.figure(SERVER_FULL).await, gateway.figure(ROLE_FULL).await), (0, 0));
    assert_eq!(postgres.logged(&REFUSED_AS_FULL), 0, "{}", postgres.log());
}
