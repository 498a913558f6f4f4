//! SQLite against real files.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{Execution, Sqlite, SqliteConn, SqliteFailure};
use crate::{
    backend::{BackendError, Batch, Cell, DatabaseError, Event, Limits, Statement, Work},
    config::{model::SqliteTuning, value::Span},
    pool::{Backend, Connection, Hygiene, Manager, Peek, Probe},
};

const LIMITS: Limits = Limits { row: 64 << 20 };

/// Counts for ever.
const ENDLESS: &str = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c";

/// Some 30 MB of rows.
const MANY: &str = "with recursive c(x) as (select 1 union all select x + 1 from c where x < 300000)
    select x, 'row number ' || x || ' of many, so that they do not fit in any buffer' as text, null from c";

struct File {
    dir: TempDir,
    backend: Sqlite,
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    columns: Vec<(String, Option<String>)>,
    rows: Vec<Vec<Value>>,
    command: String,
    row_count: Option<u64>,
}

impl File {
    fn new() -> Self {
        Self::with(SqliteTuning::default())
    }

    fn with(tuning: SqliteTuning) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("new/test.db").display());
        Self { dir, backend: Sqlite::new(&url, &tuning).unwrap() }
    }

    async fn connect(&self) -> SqliteConn {
        self.backend.create().await.unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("new/test.db")
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn statement(sql: &str, params: Value) -> Statement {
    let Value::Array(params) = params else { panic!("parameters are an array") };
    Statement { sql: sql.to_owned(), params }
}

fn single(sql: &str) -> Work {
    Work::Single(statement(sql, json!([])))
}

fn batch(sqls: &[&str]) -> Work {
    let statements = sqls.iter().map(|sql| statement(sql, json!([]))).collect();
    Work::Batch(Batch { statements, isolation: None, read_only: false })
}

fn plain(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => json!(number),
        Cell::Real(number) => json!(number),
        Cell::Text(text) => json!(String::from_utf8_lossy(text)),
        Cell::Blob(bytes) => json!({ "blob": bytes }),
    }
}

async fn ask(conn: &mut SqliteConn, work: Work) -> Result<Vec<Answer>, BackendError> {
    let mut execution = Execution::start(conn, work, soon(), LIMITS);
    let (mut answers, mut current) = (Vec::new(), Answer::default());
    while let Some(event) = execution.next().await? {
        match event {
            Event::Columns(columns) => {
                let told = |column: &crate::backend::Column| {
                    (column.name.clone(), column.type_name.as_ref().map(ToString::to_string))
                };
                current.columns = columns.iter().map(told).collect();
            }
            Event::Row(row) => {
                let mut cells = Vec::new();
                row.cells(&mut |cell| cells.push(plain(cell)));
                current.rows.push(cells);
            }
            Event::Complete { command, row_count } => {
                (current.command, current.row_count) = (command.to_owned(), row_count);
                answers.push(std::mem::take(&mut current));
            }
        }
    }
    Ok(answers)
}

async fn run(conn: &mut SqliteConn, sql: &str) {
    ask(conn, single(sql)).await.unwrap();
}

async fn count(conn: &mut SqliteConn, table: &str) -> i64 {
    let answers = ask(conn, single(&format!("select count(*) from {table}"))).await.unwrap();
    answers[0].rows[0][0].as_i64().unwrap()
}

async fn refusal(conn: &mut SqliteConn, work: Work) -> DatabaseError {
    match ask(conn, work.clone()).await {
        Err(BackendError::Database(error)) => *error,
        other => panic!("expected an error of the database for {work:?}, got {other:?}"),
    }
}

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
    assert!(error.message.contains("1 parameters were given") && error.message.contains("requires 2"));
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

async fn take_part(mut conn: SqliteConn, member: usize) {
    for turn in 0..40 {
        match (member, turn % 3) {
            (4.., _) => assert!(count(&mut conn, "t").await <= 160),
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
    assert_eq!(count(&mut conn, "t").await, 160);
}

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
async fn a_long_answer_comes_in_small_chunks() {
    let file = File::new();
    let mut conn = file.connect().await;
    let mut execution = Execution::start(&mut conn, single(MANY), soon(), LIMITS);
    let mut rows = 0;
    while let Some(event) = execution.next().await.unwrap() {
        rows += usize::from(matches!(event, Event::Row(_)));
        assert!(execution.chunks.len() <= super::execution::DEPTH);
        assert!(execution.reader.held() < 2 * super::chunk::CHUNK, "{}", execution.reader.held());
    }
    assert_eq!(rows, 300_000);
}

#[tokio::test]
async fn a_row_has_a_bound() {
    let file = File::new();
    let mut conn = file.connect().await;
    let work = single("select zeroblob(400), zeroblob(400), zeroblob(400)");
    let mut execution = Execution::start(&mut conn, work, soon(), Limits { row: 1000 });
    assert!(matches!(execution.next().await, Ok(Some(Event::Columns(_)))));
    assert!(matches!(execution.next().await, Err(BackendError::TooLarge { limit: 1000 })));
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
    let read_only = |sqls: &[&str]| match batch(sqls) {
        Work::Batch(batch) => Work::Batch(Batch { read_only: true, ..batch }),
        single @ Work::Single(_) => single,
    };
    let error = refusal(&mut conn, read_only(&["select 1", "insert into t values (1)"])).await;
    assert_eq!((error.sqlstate.as_deref(), error.statement), (Some("25006"), Some(1)));
    assert_eq!(refusal(&mut conn, read_only(&["pragma query_only = 0"])).await.sqlstate.as_deref(), Some("42501"));
    assert_eq!(ask(&mut conn, read_only(&["select 1", "select 2"])).await.unwrap().len(), 2);
    run(&mut conn, "insert into t values (1)").await;
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
    assert_eq!(crate::pool::Failure::class(&error), crate::pool::FailureClass::Unreachable);
    assert!(!crate::pool::Failure::public(&error).contains("missing.db"));
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
