//! Callers who leave, deadlines that pass, connections that end.

use std::time::Duration;

use tokio::time::Instant;

use super::{ENDLESS, File, LIMITS, MANY, ask, batch, count, refusal, run, single, soon};
use crate::{
    backend::{BackendError, Event, sqlite::Execution},
    pool::{Backend, Connection, Hygiene},
};

#[tokio::test]
async fn a_caller_who_leaves_stops_the_statement() {
    let file = File::new();
    let mut conn = file.connect().await;
    let mut execution = Execution::start(&mut conn, single(ENDLESS), soon(), LIMITS);
    assert!(futures_util::poll!(std::pin::pin!(execution.next())).is_pending());
    drop(execution);
    assert_eq!((conn.hygiene(), conn.transaction()), (Hygiene::Busy, 3));
    file.backend.recover(&mut conn).await.unwrap();
    assert_eq!((conn.hygiene(), conn.transaction()), (Hygiene::Clean, 0));
    run(&mut conn, "select 1").await;
}

#[tokio::test]
async fn a_caller_who_never_began_leaves_a_connection_that_can_be_used() {
    let file = File::new();
    let mut conn = file.connect().await;
    drop(Execution::start(&mut conn, single("create table t(a)"), soon(), LIMITS));
    file.backend.recover(&mut conn).await.unwrap();
    assert_eq!(refusal(&mut conn, single("select * from t")).await.sqlstate.as_deref(), Some("42P01"));
}

#[tokio::test]
async fn the_deadline_stops_a_statement() {
    let file = File::new();
    let mut conn = file.connect().await;
    for work in [single(ENDLESS), batch(&["create table t(a)", ENDLESS])] {
        let deadline = Instant::now() + Duration::from_millis(30);
        let mut execution = Execution::start(&mut conn, work, deadline, LIMITS);
        let error = loop {
            match execution.next().await {
                Ok(event) => assert!(event.is_some()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BackendError::Timeout), "{error:?}");
        drop(execution);
        assert_eq!(conn.hygiene(), Hygiene::Clean, "the outcome is known, so the run is over");
    }
    assert_eq!(refusal(&mut conn, single("select * from t")).await.sqlstate.as_deref(), Some("42P01"));
}

#[tokio::test]
async fn a_deadline_ends_a_stream_that_nobody_reads() {
    let file = File::new();
    let mut conn = file.connect().await;
    let mut execution = Execution::start(&mut conn, single(MANY), Instant::now() + Duration::from_millis(300), LIMITS);
    assert!(matches!(execution.next().await, Ok(Some(Event::Columns(_)))));
    tokio::time::sleep_until(execution.deadline).await;
    let error = loop {
        match execution.next().await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BackendError::Timeout), "{error:?}");
}

#[tokio::test]
async fn a_write_whose_rows_are_not_wanted_is_undone() {
    let file = File::new();
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    let many = "with recursive c(x) as (select 1 union all select x + 1 from c where x < 100000)
        insert into t select x from c returning a, 'some more text to fill the chunks with'";
    let mut execution = Execution::start(&mut conn, single(many), soon(), LIMITS);
    assert!(matches!(execution.next().await, Ok(Some(Event::Columns(_)))));
    drop(execution);
    file.backend.recover(&mut conn).await.unwrap();
    assert_eq!(count(&mut conn, "t").await, 0);
    let all = ask(&mut conn, single(many)).await.unwrap();
    assert_eq!((all[0].rows.len(), all[0].row_count, all[0].command.as_str()), (100_000, Some(100_000), "INSERT"));
    assert_eq!(count(&mut conn, "t").await, 100_000);
}

#[tokio::test]
async fn closing_waits_until_the_file_is_closed() {
    let file = File::new();
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    let log = file.dir.path().join("new/test.db-wal");
    assert!(log.exists());
    let mut execution = Execution::start(&mut conn, single(ENDLESS), soon(), LIMITS);
    assert!(futures_util::poll!(std::pin::pin!(execution.next())).is_pending());
    drop(execution);
    file.backend.close(conn).await;
    assert!(!log.exists(), "the last connection writes the log back");
}

#[test]
fn a_connection_may_be_dropped_where_there_is_no_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (file, first) = (File::new(), runtime());
    let conn = first.block_on(file.connect());
    let other = first.block_on(file.connect());
    drop(conn);
    drop(first);
    drop(other);
}
