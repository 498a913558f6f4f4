//! SQLite against real files.

mod answers;
mod bounds;
mod leaving;
mod transactions;

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{Execution, Sqlite, SqliteConn};
use crate::{
    backend::{BackendError, Batch, Cell, DatabaseError, Event, Limits, Statement, Work},
    config::model::SqliteTuning,
    pool::Manager,
};

const LIMITS: Limits = Limits { row: 64 << 20, trace: None };

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
    Statement { sql: sql.to_owned(), params: params.into_iter().map(Into::into).collect() }
}

fn single(sql: &str) -> Work {
    Work::Single(statement(sql, json!([])))
}

fn batch(sqls: &[&str]) -> Work {
    let statements = sqls.iter().map(|sql| statement(sql, json!([]))).collect();
    Work::Batch(Batch { statements, ..Batch::default() })
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
