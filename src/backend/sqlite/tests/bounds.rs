//! What a caller cannot do, and files that change.

use super::{File, count, refusal, run, single};
use crate::{
    backend::sqlite::{Sqlite, SqliteFailure},
    config::model::SqliteTuning,
    pool::{Backend, Connection, Failure, FailureClass, Hygiene, Manager, Peek, Probe},
};

#[tokio::test]
async fn what_reaches_beyond_the_file_or_the_request_is_refused() {
    let file = File::new();
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    let stray = file.dir.path().join("stray.db");
    for sql in [
        &format!("attach '{}' as x", stray.display()),
        "attach ':memory:' as x",
        "detach main",
        &format!("vacuum into '{}'", stray.display()),
        "vacuum",
        "create temp table x(a)",
        "create table temp.x(a)",
        "create view temp.x as select 1",
        "create temp view x as select 1",
        "create temp trigger x after insert on t begin select 1; end",
        "create virtual table temp.x using fts5(a)",
        "select load_extension('x')",
        "pragma query_only = 0",
        "pragma journal_mode = delete",
        "pragma busy_timeout = 1",
        "pragma optimize",
        "pragma defer_foreign_keys = on",
        "select * from pragma_database_list",
    ] {
        for _ in 0..2 {
            let error = refusal(&mut conn, single(sql)).await;
            assert_eq!(error.sqlstate.as_deref(), Some("42501"), "{sql}: {error:?}");
            assert!(error.hint.is_some_and(|hint| hint.contains("refused")), "{sql}");
        }
    }
    assert!(!stray.exists());
    for sql in [
        "pragma writable_schema = on",
        "insert into sqlite_schema values ('a', 'b', 'c', 0, 'd')",
        "select * from sqlite_dbpage",
    ] {
        refusal(&mut conn, single(sql)).await;
    }
    for sql in [
        "pragma table_info(t)",
        "select * from pragma_table_info('t')",
        "create virtual table f using fts5(a)",
        "insert into f values ('some words')",
        "select * from f where f match 'words'",
        "pragma user_version = 3",
        "analyze",
        "reindex",
        "alter table t add column b",
        "alter table t rename column b to c",
        "explain query plan insert into t values (1, 2)",
    ] {
        run(&mut conn, sql).await;
    }
}

#[tokio::test]
async fn a_replaced_file_is_noticed() {
    let file = File::new();
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    for action in [Probe::Ping, Probe::Query, Probe::Rollback, Probe::ResetSession, Probe::ResetFully] {
        file.backend.probe(&mut conn, action).await.unwrap();
    }
    std::fs::rename(file.path(), file.dir.path().join("old.db")).unwrap();
    let error = file.backend.probe(&mut conn, Probe::Ping).await.unwrap_err();
    assert!(matches!(error, SqliteFailure::Replaced));
    assert_eq!((conn.hygiene(), conn.peek()), (Hygiene::Broken, Peek::Closed));
}

#[tokio::test]
async fn a_read_only_file_is_read() {
    let file = File::new();
    let mut conn = file.connect().await;
    run(&mut conn, "create table t(a)").await;
    let url = format!("sqlite:{}?mode=ro", file.path().display());
    let reader = Sqlite::new(&url, &SqliteTuning::default()).unwrap();
    let mut reading = reader.create().await.unwrap();
    assert_eq!(count(&mut reading, "t").await, 0);
    assert_eq!(refusal(&mut reading, single("insert into t values (1)")).await.sqlstate.as_deref(), Some("25006"));
    let missing = format!("sqlite:{}?mode=ro", file.dir.path().join("missing.db").display());
    let error = Sqlite::new(&missing, &SqliteTuning::default()).unwrap().create().await.err().unwrap();
    assert_eq!(error.class(), FailureClass::Missing);
    assert!(!error.public().contains("missing.db"));
}
