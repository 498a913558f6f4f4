//! Transactions and writers.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{File, LIMITS, MANY, ask, batch, count, refusal, run, single, soon};
use crate::{
    backend::{
        BackendError, Event,
        sqlite::{Execution, SqliteConn},
    },
    config::{model::SqliteTuning, value::Span},
    pool::{Connection, Hygiene},
};

async fn take_part(mut conn: SqliteConn, member: usize) {
    for turn in 0..100 {
        match (member, turn % 3) {
            (4.., _) => assert!(count(&mut conn, "t").await <= 400),
            (_, 0) => run(&mut conn, "insert into t values (1)").await,
            (_, 1) => run(&mut conn, "insert into t values (1) returning a").await,
            _ => {
                let work = batch(&["select max(a) from t", "insert into t values (1)"]);
                assert_eq!(ask(&mut conn, work).await.unwrap().len(), 2);
            }
        }
    }
}

#[tokio::test]
async fn writers_take_turns_and_readers_never_wait() {
    // No patience with locks: whoever meets one fails.
    let file = File::with(SqliteTuning { busy_timeout: Span::millis(0), ..SqliteTuning::default() });
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    let members = futures_util::future::join_all((0..6).map(|_| file.connect())).await;
    let threads = members.into_iter().enumerate().map(|(member, conn)| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(take_part(conn, member));
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(count(&mut conn, "t").await, 400);
}

#[tokio::test]
async fn a_writer_waits_its_turn_within_its_deadline() {
    let file = File::new();
    let (mut first, mut second) = (file.connect().await, file.connect().await);
    run(&mut first, "create table t(a)").await;
    let many = format!("insert into t select x from ({MANY}) returning a, zeroblob(100)");
    let mut writing = Execution::start(&mut first, single(&many), soon(), LIMITS);
    assert!(matches!(writing.next().await, Ok(Some(Event::Columns(_)))));
    let insert = || single("insert into t values (1)");
    let mut late = Execution::start(&mut second, insert(), Instant::now() + Duration::from_millis(20), LIMITS);
    assert!(matches!(late.next().await, Err(BackendError::Timeout)));
    drop(late);
    assert_eq!(second.hygiene(), Hygiene::Clean);
    assert_eq!(count(&mut second, "t").await, 0, "readers do not wait");
    let mut patient = Execution::start(&mut second, insert(), soon(), LIMITS);
    assert!(futures_util::poll!(std::pin::pin!(patient.next())).is_pending());
    drop(writing);
    assert!(matches!(patient.next().await, Ok(Some(Event::Columns(_)))));
    while patient.next().await.unwrap().is_some() {}
    drop(patient);
    assert_eq!(count(&mut second, "t").await, 1);
}

#[tokio::test]
async fn another_process_holding_the_lock_is_told_so() {
    let file = File::with(SqliteTuning { busy_timeout: Span::millis(20), ..SqliteTuning::default() });
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    let other = rusqlite::Connection::open(file.path()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    for work in [single("insert into t values (1)"), batch(&["insert into t values (1)"])] {
        let error = refusal(&mut conn, work).await;
        assert_eq!((error.sqlstate.as_deref(), error.detail.as_deref()), (Some("55P03"), Some("SQLITE_BUSY")));
    }
    assert_eq!(count(&mut conn, "t").await, 0);
    other.execute_batch("commit").unwrap();
    run(&mut conn, "insert into t values (1)").await;
}

#[tokio::test]
async fn a_transaction_left_open_is_rolled_back() {
    let file = File::new();
    let (mut conn, mut other) = (file.connect().await, file.connect().await);
    run(&mut conn, "create table t(a)").await;
    for begin in ["begin", "begin immediate", "savepoint s"] {
        run(&mut conn, begin).await;
        assert_eq!((conn.hygiene(), conn.transaction()), (Hygiene::Clean, 0));
        run(&mut conn, "insert into t values (1)").await;
        run(&mut other, "insert into t values (1)").await;
    }
    assert_eq!(count(&mut other, "t").await, 6);
    assert!(refusal(&mut conn, single("commit")).await.message.contains("no transaction"));
}

#[tokio::test]
async fn a_batch_is_one_transaction() {
    let file = File::new();
    let mut conn = file.connect().await;
    let answers =
        ask(&mut conn, batch(&["create table t(a)", "insert into t values (1), (2)", "", "select * from t"])).await;
    let answers = answers.unwrap();
    let commands: Vec<_> = answers.iter().map(|answer| answer.command.as_str()).collect();
    assert_eq!(commands, ["CREATE TABLE", "INSERT", "", "SELECT"]);
    assert_eq!(answers[3].rows, [[json!(1)], [json!(2)]]);
    for control in ["commit", "/* x */ ROLLBACK", ";begin", "savepoint a", "end", "\u{feff}release a"] {
        let error = ask(&mut conn, batch(&["insert into t values (3)", control])).await.unwrap_err();
        assert!(matches!(error, BackendError::Unsupported(_)), "{control}: {error:?}");
    }
    let error =
        refusal(&mut conn, batch(&["insert into t values (4)", "insert or rollback into t select * from nowhere"]))
            .await;
    assert_eq!(error.statement, Some(1));
    run(&mut conn, "create unique index i on t(a)").await;
    let error = refusal(&mut conn, batch(&["insert into t values (5)", "insert or rollback into t values (5)"])).await;
    assert_eq!(error.sqlstate.as_deref(), Some("23505"));
    assert_eq!(count(&mut conn, "t").await, 2);
}

#[tokio::test]
async fn a_commit_that_fails_is_not_called_complete() {
    let file = File::new();
    let mut conn = file.connect().await;
    run(&mut conn, "create table p(id integer primary key)").await;
    run(&mut conn, "create table c(p references p deferrable initially deferred)").await;
    let mut execution = Execution::start(&mut conn, batch(&["insert into c values (1)", "select 1"]), soon(), LIMITS);
    let mut complete = 0;
    let error = loop {
        match execution.next().await {
            Ok(Some(Event::Complete { .. })) => complete += 1,
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(complete, 1);
    assert!(matches!(error, BackendError::Database(error) if error.sqlstate.as_deref() == Some("23503")));
    drop(execution);
    let error = refusal(&mut conn, single("insert into c values (1) returning p")).await;
    assert_eq!(error.sqlstate.as_deref(), Some("23503"));
    assert_eq!(count(&mut conn, "c").await, 0);
}

#[tokio::test]
async fn a_read_only_batch_cannot_write() {
    let file = File::new();
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    let read_only = |sqls: &[&str]| batch(sqls).read_only();
    let error = refusal(&mut conn, read_only(&["select 1", "insert into t values (1)"])).await;
    assert_eq!((error.sqlstate.as_deref(), error.statement), (Some("25006"), Some(1)));
    assert_eq!(refusal(&mut conn, read_only(&["pragma query_only = 0"])).await.sqlstate.as_deref(), Some("42501"));
    assert_eq!(ask(&mut conn, read_only(&["select 1", "select 2"])).await.unwrap().len(), 2);
    run(&mut conn, "insert into t values (1)").await;
}

#[tokio::test]
async fn a_read_cannot_write_nor_wait_for_its_turn_to() {
    let file = File::new();
    let (mut conn, mut writer) = (file.connect().await, file.connect().await);
    run(&mut conn, "create table t(a)").await;
    let holds = ask(
        &mut writer,
        batch(&[
            "insert into t values (1)",
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000000) select count(*) from n",
        ]),
    );
    let refused = async {
        for sql in
            ["insert into t values (2)", "insert into t values (2) returning a", "create table u(a)", "delete from t"]
        {
            assert_eq!(refusal(&mut conn, single(sql).read_only()).await.sqlstate.as_deref(), Some("25006"), "{sql}");
        }
        assert_eq!(
            refusal(&mut conn, single("pragma query_only = 0").read_only()).await.sqlstate.as_deref(),
            Some("42501")
        );
    };
    let (held, ()) = tokio::join!(holds, refused);
    held.unwrap();
    for sql in ["begin", "commit", "savepoint a"] {
        let outcome = ask(&mut conn, single(sql).read_only()).await;
        assert!(matches!(outcome, Err(BackendError::Unsupported(_))), "{sql}: {outcome:?}");
    }
    let answer = ask(&mut conn, single("select a from t").read_only()).await.unwrap();
    assert_eq!((answer.len(), answer[0].rows.clone()), (1, vec![vec![json!(1)]]));
    assert_eq!(ask(&mut conn, single("").read_only()).await.unwrap().len(), 1);
    run(&mut conn, "insert into t values (3)").await;
}
