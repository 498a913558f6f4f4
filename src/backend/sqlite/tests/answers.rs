//! What comes back.

use serde_json::{Value, json};

use super::{Answer, File, LIMITS, MANY, ask, batch, count, refusal, run, single, soon, statement};
use crate::{
    backend::{
        BackendError, Event, Limits, Work,
        sqlite::{Execution, chunk::CHUNK, execution::DEPTH},
    },
    pool::{Connection, Hygiene},
};

#[tokio::test]
async fn a_new_file_is_made_with_its_directory_and_answers() {
    let file = File::new();
    let mut conn = file.connect().await;
    let made = ask(&mut conn, single("create table t(id integer primary key, name text not null, x)")).await.unwrap();
    assert_eq!((made[0].command.as_str(), made[0].row_count), ("CREATE TABLE", None));
    let insert = statement("insert into t values (?1, ?2, ?3), (?4, ?2, null)", json!([1, "ä\"\u{0}", 1.5, 2]));
    let inserted = ask(&mut conn, Work::Single(insert)).await.unwrap();
    assert_eq!((inserted[0].command.as_str(), inserted[0].row_count), ("INSERT", Some(2)));
    let read = ask(&mut conn, single("select id, name, x, x'00ff' as b from t order by id")).await.unwrap();
    let columns = [("id", Some("INTEGER")), ("name", Some("TEXT")), ("x", None), ("b", None)];
    assert_eq!(read[0].columns, columns.map(|(name, kind)| (name.to_owned(), kind.map(str::to_owned))));
    assert_eq!(read[0].rows[0], [json!(1), json!("ä\"\u{0}"), json!(1.5), json!({ "blob": [0, 255] })]);
    assert_eq!(read[0].rows[1][2], Value::Null);
    assert_eq!((read[0].command.as_str(), read[0].row_count), ("SELECT", Some(2)));
    assert_eq!(conn.hygiene(), Hygiene::Clean);
    assert_eq!(conn.statements(), 3);
}

#[tokio::test]
async fn parameters_become_sqlites_values() {
    let file = File::new();
    let mut conn = file.connect().await;
    let params = json!([null, true, i64::MAX, u64::MAX, 0.5, "x", [1, "a"], { "b": null }]);
    let sql = "select typeof(?1), ?2, ?3, ?4, typeof(?4), ?5, ?6, ?7, ?8";
    let answers = ask(&mut conn, Work::Single(statement(sql, params))).await.unwrap();
    let expected =
        json!(["null", 1, i64::MAX, 1.844_674_407_370_955_2e19, "real", 0.5, "x", "[1,\"a\"]", "{\"b\":null}"]);
    assert_eq!(json!(answers[0].rows[0]), expected);
    let error = refusal(&mut conn, Work::Single(statement("select ?1, ?2", json!([1])))).await;
    assert_eq!(error.sqlstate.as_deref(), Some("08P01"));
    assert!(error.message.contains("1 parameter was given") && error.message.contains("requires 2"));
}

#[tokio::test]
async fn one_statement_at_a_time() {
    let file = File::new();
    let mut conn = file.connect().await;
    let error = refusal(&mut conn, single("select 1; select 2")).await;
    assert_eq!((error.sqlstate.as_deref(), error.position), (Some("42601"), Some(11)));
    // rusqlite looks for more statements by recursion: this would be the end of the stack.
    let error = refusal(&mut conn, single(&"select 1;".repeat(100_000))).await;
    assert_eq!(error.sqlstate.as_deref(), Some("42601"));
    run(&mut conn, &format!("select 1{}", ";".repeat(100_000))).await;
    run(&mut conn, &format!("{}select 1", ";".repeat(100_000))).await;
    run(&mut conn, "create table t(a)").await;
    run(&mut conn, "create trigger g after insert on t begin select 1; select 2; end").await;
    let trigger =
        format!("create trigger h after insert on t begin {} end; select 1; select 2", "select 1;".repeat(200));
    assert_eq!(refusal(&mut conn, single(&trigger)).await.sqlstate.as_deref(), Some("42601"));
    let empty = ask(&mut conn, single(" ; -- nothing")).await.unwrap();
    assert_eq!(empty, [Answer::default()]);
}

#[tokio::test]
async fn errors_say_where() {
    let file = File::new();
    let mut conn = file.connect().await;
    let error = refusal(&mut conn, single("  select nowhere")).await;
    assert_eq!((error.sqlstate.as_deref(), error.position), (Some("42703"), Some(10)));
    let error = refusal(&mut conn, batch(&["select 1", "selec"])).await;
    assert_eq!((error.sqlstate.as_deref(), error.position, error.statement), (Some("42601"), Some(1), Some(1)));
    run(&mut conn, "create table t(a unique)").await;
    let error = refusal(&mut conn, batch(&["insert into t values (1)", "insert into t values (1)"])).await;
    assert_eq!(
        (error.sqlstate.as_deref(), error.table.as_deref(), error.statement),
        (Some("23505"), Some("t"), Some(1))
    );
    assert_eq!(error.detail.as_deref(), Some("SQLITE_CONSTRAINT_UNIQUE"));
    assert_eq!(count(&mut conn, "t").await, 0);
}

#[tokio::test]
async fn a_long_answer_comes_in_small_chunks() {
    let file = File::new();
    let mut conn = file.connect().await;
    let mut execution = Execution::start(&mut conn, single(MANY), soon(), LIMITS);
    let mut rows = 0;
    while let Some(event) = execution.next().await.unwrap() {
        rows += usize::from(matches!(event, Event::Row(_)));
        assert!(execution.chunks.len() <= DEPTH);
        assert!(execution.reader.held() < 2 * CHUNK, "{}", execution.reader.held());
    }
    assert_eq!(rows, 300_000);
}

#[tokio::test]
async fn a_row_has_a_bound() {
    let file = File::new();
    let mut conn = file.connect().await;
    let work = single("select zeroblob(400), zeroblob(400), zeroblob(400)");
    let mut execution = Execution::start(&mut conn, work, soon(), Limits { row: 1000, ..Limits::default() });
    assert!(matches!(execution.next().await, Ok(Some(Event::Columns(_)))));
    assert!(matches!(execution.next().await, Err(BackendError::TooLarge { limit: 1000 })));
}

#[tokio::test]
async fn a_changed_schema_shows_in_cached_statements() {
    let file = File::new();
    let (mut conn, mut other) = (file.connect().await, file.connect().await);
    run(&mut conn, "create table t(a)").await;
    run(&mut conn, "insert into t values (1)").await;
    for extra in ["b", "c"] {
        assert!(ask(&mut conn, single("select * from t")).await.is_ok());
        run(&mut other, &format!("alter table t add column {extra} text default 'x'")).await;
        let answers = ask(&mut conn, single("select * from t")).await.unwrap();
        assert_eq!(answers[0].columns.len(), answers[0].rows[0].len());
        assert_eq!(answers[0].columns.last().map(|(name, _)| name.as_str()), Some(extra));
    }
}
