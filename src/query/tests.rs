//! The `json` dialect over scripted steps, and over SQLite.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Allowed, Wanted,
    document::Document,
    lines::Lines,
    named::Place,
    problem::Problem,
    stream::{self, Bounds, Steps},
};
use crate::{
    backend::{
        BackendError, Cell, Column, Columns, DatabaseError, Event, Limits, Origin, Row, Shape, Work,
        sqlite::{self, Sqlite, SqliteConn},
    },
    config::model::{Dialect, Query, SqliteTuning},
    edge::{Body, Request, RequestBody, Response},
    pool::Manager,
};

/// A scripted step.
enum Step {
    Columns(Columns),
    Row(Texts),
    /// So many more of the row before.
    Repeat(usize),
    Complete(&'static str, Option<u64>),
    Fail(BackendError),
    Hang,
}

struct Texts(Vec<Option<String>>);

impl Row for Texts {
    fn cells(&self, each: &mut dyn FnMut(Cell<'_>)) {
        for text in &self.0 {
            each(text.as_ref().map_or(Cell::Null, |text| Cell::Text(text.as_bytes())));
        }
    }
}

/// Plays a script, and tells how far it has come. Dropped, it counts up to [`GONE`].
struct Script {
    steps: VecDeque<Step>,
    current: Option<Step>,
    pulled: Arc<AtomicUsize>,
}

const GONE: usize = 1 << 40;

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> (Self, Arc<AtomicUsize>) {
        let pulled = Arc::new(AtomicUsize::new(0));
        (Self { steps: steps.into_iter().collect(), current: None, pulled: pulled.clone() }, pulled)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.pulled.fetch_add(GONE, Ordering::Relaxed);
    }
}

impl Steps for Script {
    async fn next(&mut self) -> Result<Option<Event<'_>>, BackendError> {
        self.pulled.fetch_add(1, Ordering::Relaxed);
        match self.steps.front_mut() {
            Some(Step::Repeat(left)) if *left > 0 => *left -= 1,
            Some(Step::Repeat(_)) => {
                self.steps.pop_front();
                self.current = self.steps.pop_front();
            }
            _ => self.current = self.steps.pop_front(),
        }
        match &mut self.current {
            Some(Step::Columns(columns)) => Ok(Some(Event::Columns(columns))),
            Some(Step::Row(row)) => Ok(Some(Event::Row(row))),
            Some(Step::Complete(command, row_count)) => Ok(Some(Event::Complete { command, row_count: *row_count })),
            Some(Step::Fail(error)) => Err(std::mem::replace(error, BackendError::Timeout)),
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Repeat(_)) | None => Ok(None),
        }
    }
}

/// The shapes of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Single,
    Batch,
    Lines,
}

async fn respond(steps: impl Steps, form: Form, bounds: Bounds) -> Result<Response, Problem> {
    let answered = match form {
        Form::Single => stream::respond(steps, Document::single(), bounds).await,
        Form::Batch => stream::respond(steps, Document::batch(), bounds).await,
        Form::Lines => stream::respond(steps, Lines::new(), bounds).await,
    };
    answered.map_err(Problem::from)
}

fn columns(columns: &[(&str, Option<&'static str>, Shape)]) -> Step {
    let column = |(name, type_name, shape): &(&str, Option<&'static str>, Shape)| Column {
        name: (*name).to_owned(),
        type_name: type_name.map(Into::into),
        shape: shape.clone(),
        origin: Origin::default(),
    };
    Step::Columns(columns.iter().map(column).collect())
}

fn row(texts: &[Option<&str>]) -> Step {
    Step::Row(Texts(texts.iter().map(|text| text.map(str::to_owned)).collect()))
}

/// A result of rows of some 1000 bytes.
fn many(rows: usize, then: Vec<Step>) -> Vec<Step> {
    let long = "x".repeat(990);
    let mut steps = vec![columns(&[("a", None, Shape::Text)]), row(&[Some(&long)]), Step::Repeat(rows - 1)];
    steps.extend(then);
    steps
}

fn refused() -> BackendError {
    let sqlstate = Some("22012".into());
    BackendError::Database(Box::new(DatabaseError {
        sqlstate,
        message: "division by zero".into(),
        ..Default::default()
    }))
}

fn bounds() -> Bounds {
    Bounds { rows: 1_000_000, bytes: 64 << 20, deadline: Instant::now() + Duration::from_secs(20) }
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn written(steps: Vec<Step>, form: Form) -> String {
    text(respond(Script::new(steps).0, form, bounds()).await.unwrap()).await
}

fn two_results() -> Vec<Step> {
    let shapes = [("id", Some("integer"), Shape::Number), ("n\"", None, Shape::Array(Box::new(Shape::Text), b','))];
    vec![
        columns(&shapes),
        row(&[Some("1"), Some("{a,NULL}")]),
        row(&[None, None]),
        Step::Complete("SELECT", Some(2)),
        columns(&[]),
        Step::Complete("CREATE TABLE", None),
    ]
}

#[tokio::test]
async fn answers_have_their_shape() {
    let single = written(two_results().into_iter().take(4).collect(), Form::Single).await;
    let expected = concat!(
        r#"{"columns":[{"name":"id","type":"integer"},{"name":"n\"","type":null}],"rows":[[1,["a",null]],[null,null]],"#,
        r#""command":"SELECT","row_count":2}"#
    );
    assert_eq!(single, expected);
    let other = r#"{"columns":[],"rows":[],"command":"CREATE TABLE","row_count":null}"#;
    assert_eq!(written(two_results(), Form::Batch).await, format!("{{\"results\":[{expected},{other}]}}"));
    assert_eq!(written(Vec::new(), Form::Batch).await, r#"{"results":[]}"#);
    let lines = concat!(
        r#"{"columns":[{"name":"id","type":"integer"},{"name":"n\"","type":null}]}"#,
        "\n[1,[\"a\",null]]\n[null,null]\n",
        r#"{"command":"SELECT","row_count":2}"#,
        "\n{\"columns\":[]}\n",
        r#"{"command":"CREATE TABLE","row_count":null}"#,
        "\n"
    );
    assert_eq!(written(two_results(), Form::Lines).await, lines);
}

#[tokio::test]
async fn a_short_answer_has_a_length_and_its_errors_a_status() {
    let (script, _) = Script::new(two_results());
    let response = respond(script, Form::Batch, bounds()).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert!(http_body::Body::size_hint(response.body()).exact().is_some());
    for form in [Form::Single, Form::Lines] {
        let (script, _) = Script::new(many(200, vec![Step::Fail(refused())]));
        let problem = respond(script, form, bounds()).await.err().unwrap();
        assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        assert_eq!(problem.into_object()["message"], "division by zero");
    }
}

#[tokio::test]
async fn a_long_answer_is_made_as_it_is_taken() {
    let (script, pulled) = Script::new(many(5_000, vec![Step::Complete("SELECT", Some(5_000))]));
    let response = respond(script, Form::Single, bounds()).await.unwrap();
    let mut body = response.into_body();
    let (mut whole, mut largest) = (Vec::new(), 0);
    assert!(pulled.load(Ordering::Relaxed) < 300, "256 KiB are held back");
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        largest = largest.max(data.len());
        whole.extend_from_slice(&data);
        let pulled = pulled.load(Ordering::Relaxed) % GONE;
        assert!(pulled <= whole.len() / 990 + 10, "nothing is read ahead: {pulled} of {}", whole.len());
    }
    assert!(largest < 300_000);
    let answer: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!((answer["rows"].as_array().unwrap().len(), &answer["row_count"]), (5_000, &json!(5_000)));
}

#[tokio::test]
async fn an_error_behind_the_head_breaks_json_off_and_ends_lines() {
    let steps = || many(1_000, vec![Step::Fail(refused())]);
    let response = respond(Script::new(steps()).0, Form::Single, bounds()).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    let response = respond(Script::new(steps()).0, Form::Lines, bounds()).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let lines = text(response).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1 + 1_000 + 1);
    assert_eq!(lines[1_001]["error"]["sqlstate"], "22012");
    assert_eq!(lines[1_001]["error"]["status"], 400);
}

#[tokio::test]
async fn answers_are_bounded() {
    let done = || vec![Step::Complete("SELECT", None)];
    for (rows, bytes, fits) in [(10, 20_000, true), (9, 20_000, false), (10, 9_000, false)] {
        let bounds = Bounds { rows, bytes, ..bounds() };
        let outcome = respond(Script::new(many(10, done())).0, Form::Single, bounds).await;
        match outcome {
            Ok(_) => assert!(fits),
            Err(problem) => assert!(!fits && problem.status == StatusCode::INSUFFICIENT_STORAGE),
        }
    }
    for (rows, bytes, got) in [(700, 64 << 20, 700), (100_000, 500_000, 502)] {
        let bounds = Bounds { rows, bytes, ..bounds() };
        let cut = respond(Script::new(many(1_000, done())).0, Form::Single, bounds).await.unwrap();
        assert!(cut.into_body().collect().await.is_err());
        let cut = text(respond(Script::new(many(1_000, done())).0, Form::Lines, bounds).await.unwrap()).await;
        assert_eq!(cut.lines().count(), 1 + got + 1);
        let last: Value = serde_json::from_str(cut.lines().last().unwrap()).unwrap();
        assert_eq!(last["error"]["status"], 507);
    }
}

#[tokio::test]
async fn a_client_who_leaves_takes_the_execution_along() {
    let (script, pulled) = Script::new(many(5_000, Vec::new()));
    let response = respond(script, Form::Single, bounds()).await.unwrap();
    assert!(pulled.load(Ordering::Relaxed) < GONE);
    drop(response);
    assert!(pulled.load(Ordering::Relaxed) >= GONE);
}

#[tokio::test(start_paused = true)]
async fn a_client_who_does_not_read_cannot_hold_the_execution() {
    for (form, rows) in [(Form::Lines, 5_000), (Form::Single, 5_000), (Form::Single, 300), (Form::Lines, 300)] {
        let (script, pulled) = Script::new(many(rows, vec![Step::Hang]));
        let deadline = Instant::now() + Duration::from_millis(20);
        let response = respond(script, form, Bounds { deadline, ..bounds() }).await.unwrap();
        let mut body = response.into_body();
        let mut last = None;
        if rows == 300 {
            // Waits for a step that never comes, and must be woken.
            while let Some(frame) = body.frame().await {
                last = Some(frame);
            }
        } else {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        assert!(pulled.load(Ordering::Relaxed) >= GONE);
        if rows == 5_000 {
            last = body.frame().await;
            assert!(body.frame().await.is_none());
        }
        match (form, last.unwrap()) {
            // Behind the lines that were complete by then.
            (Form::Lines, Ok(frame)) => {
                let lines = frame.into_data().unwrap();
                let last = lines[..lines.len() - 1].rsplit(|byte| *byte == b'\n').next().unwrap();
                assert_eq!(serde_json::from_slice::<Value>(last).unwrap()["error"]["status"], 504);
            }
            (_, frame) => assert!(frame.is_err()),
        }
    }
}

// === over SQLite ===

impl Steps for sqlite::Execution<Box<SqliteConn>> {
    fn next(&mut self) -> impl Future<Output = Result<Option<Event<'_>>, BackendError>> + Send {
        Self::next(self)
    }
}

struct Gateway {
    backend: Sqlite,
    settings: Query,
    _dir: tempfile::TempDir,
}

impl Gateway {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("test.db").display());
        let settings = Query {
            dialect: Dialect::Json,
            pool: "test".into(),
            endpoints: BTreeMap::new(),
            database: None,
            max_rows: 1_000_000,
            max_response: "64MiB".parse().unwrap(),
            max_batch: 3,
            read_only: false,
            compress: true,
            trace_comment: false,
            ..serde_json::from_value(json!({"dialect": "json", "pool": "test"})).unwrap()
        };
        Self { backend: Sqlite::new(&url, &SqliteTuning::default()).unwrap(), settings, _dir: dir }
    }

    async fn send(&self, request: Request) -> Response {
        let deadline = Instant::now() + Duration::from_secs(20);
        let start = |work: Work, deadline: Instant| async move {
            let conn = self.backend.create().await.unwrap();
            Ok(sqlite::Execution::start(Box::new(conn), work, deadline, Limits { row: 64 << 20, ..Limits::default() }))
        };
        let place = Place::alone();
        let charge = |_: u32, _: &HeaderMap| Ok(());
        let wanted = Wanted::default();
        let allowed = Allowed::of(&self.settings, None, &place, deadline);
        let asking = super::json::Asking { allowed: &allowed, place: &place, wanted: &wanted, charge: &charge };
        super::json::answer(request, asking, start).await
    }

    async fn ask(&self, body: Value) -> (StatusCode, Value) {
        let response = self.send(request(body)).await;
        let status = response.status();
        (status, serde_json::from_str(&text(response).await).unwrap())
    }
}

fn request(body: Value) -> Request {
    let mut request = http::Request::new(RequestBody::full(Bytes::from(body.to_string())));
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

#[tokio::test]
async fn a_table_is_made_filled_and_read() {
    let gateway = Gateway::new();
    let (status, made) = gateway.ask(json!({ "sql": "create table t(id integer primary key, name text)" })).await;
    assert_eq!((status, &made["command"]), (StatusCode::OK, &json!("CREATE TABLE")));
    let insert = json!({ "sql": "insert into t(name) values (?1), (?2) returning id", "params": ["a", null] });
    let (_, inserted) = gateway.ask(insert).await;
    let expected = json!({
        "columns": [{ "name": "id", "type": "INTEGER" }], "rows": [[1], [2]], "command": "INSERT", "row_count": 2
    });
    assert_eq!(inserted, expected);
    let batch = json!({ "batch": [{ "sql": "delete from t" }, { "sql": "select count(*) as n from t" }] });
    let (_, results) = gateway.ask(batch).await;
    assert_eq!(results["results"][0]["row_count"], 2);
    assert_eq!(results["results"][1]["rows"], json!([[0]]));
}

#[tokio::test]
async fn errors_are_problems() {
    let gateway = Gateway::new();
    let (status, problem) = gateway.ask(json!({ "sql": "select nowhere" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((&problem["sqlstate"], &problem["position"]), (&json!("42703"), &json!(8)));
    let (status, _) =
        gateway.ask(json!({ "batch": [{ "sql": "" }, { "sql": "" }, { "sql": "" }, { "sql": "" }] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let response = gateway.send(request(json!({ "sql": 1 }))).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let mut form = request(json!({ "sql": "select 1" }));
    form.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(gateway.send(form).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut get = request(json!({}));
    *get.method_mut() = Method::GET;
    assert_eq!(gateway.send(get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_million_cells_come_through() {
    let gateway = Gateway::new();
    let sql = "with recursive c(x) as (select 1 union all select x + 1 from c where x < 100000)
        select x, x * 1.5, 'text ' || x, null, x'0a', x + 9007199254740000, x, x, x, x from c";
    let mut lines = request(json!({ "sql": sql }));
    lines.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/x-ndjson"));
    let response = gateway.send(lines).await;
    let mut body: Body = response.into_body();
    let (mut count, mut rest) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        count += memchr::memchr_iter(b'\n', &rest[..end]).count();
        if count > 100_001 {
            let last = rest[..end - 1].rsplit(|byte| *byte == b'\n').next().unwrap();
            assert_eq!(
                serde_json::from_slice::<Value>(last).unwrap(),
                json!({ "command": "SELECT", "row_count": 100_000 })
            );
        }
        rest.drain(..end);
    }
    assert_eq!((count, rest.len()), (100_002, 0));
}
