//! The server beside the gateway, by a superuser's connection: what it holds, and what the gateway's sessions do.

use tokio_postgres::Client;

use super::eventually;

/// The number that a statement answers with.
pub async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Makes a table that the application may write to: `table(&admin, "seen (n int)")`. What it holds is looked at beside the
/// gateway.
pub async fn table(admin: &Client, definition: &str) {
    let name = definition.split(' ').next().unwrap();
    admin.batch_execute(&format!("create table {definition}; grant all on {name} to app")).await.unwrap();
}

/// Sessions that run a statement like `pattern`.
pub async fn running(admin: &Client, pattern: &str) -> i64 {
    let sql = "select count(*) from pg_stat_activity where state = 'active' and query like $1";
    admin.query_one(sql, &[&pattern]).await.unwrap().get(0)
}

/// The application's sessions that are at work or in a transaction.
pub async fn busy(admin: &Client) -> i64 {
    count(admin, "select count(*) from pg_stat_activity where usename = 'app' and state <> 'idle'").await
}

/// The application's sessions that are neither at work nor out of a transaction.
pub async fn in_transaction(admin: &Client) -> i64 {
    count(admin, "select count(*) from pg_stat_activity where usename = 'app' and state like 'idle in%'").await
}

/// The process behind each session.
pub async fn backends(admin: &Client) -> Vec<i32> {
    let sql = "select pid from pg_stat_activity where application_name = 'sluicegate' order by pid";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Ends all sessions and waits until they are gone: one that is ending is not idle. Returns how many there were.
pub async fn end_all(admin: &Client) -> i64 {
    let kill =
        "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = 'sluicegate'";
    count(admin, kill).await
}

/// Ends the sessions that run a statement like `pattern`, once there is one.
pub async fn end_running(admin: &Client, pattern: &str) {
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where state = 'active' and query like $1";
    let ended = || async { admin.query(kill, &[&pattern]).await.unwrap().len() };
    eventually("there is one to end", ended, |ended| *ended > 0).await;
}
