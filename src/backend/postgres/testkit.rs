//! A PostgreSQL server for one test: a copy of a template that is made once, with TLS and SCRAM passwords.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{Postgres, PostgresConnection, PostgresFailure, Running};
use crate::{
    backend::{BackendError, Batch, Cell, Column, Event, Limits, Statement, Work},
    pool::backend::Manager,
};

/// Change it when what the template holds changes.
const TEMPLATE: &str = "sluicegate-test-postgres-2";

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = off
autovacuum = off
jit = off
ssl = on
wal_level = minimal
max_wal_senders = 0
max_connections = 12
shared_buffers = 16MB
log_min_messages = log
";

const ROLES: &str = "CREATE ROLE app LOGIN PASSWORD 'secret'\nCREATE DATABASE app OWNER app STRATEGY file_copy\n";

/// A server that lives as long as this.
pub(crate) struct Cluster {
    server: Child,
    directory: TempDir,
    port: u16,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let template = template();
        for _ in 0..5 {
            let directory = tempfile::tempdir_in(template.parent().unwrap()).unwrap();
            sh(&format!("chmod 711 {0} && cp -a {1} {0}/data", directory.path().display(), template.display()));
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let data = directory.path().join("data");
            let mut server = postgres()
                .arg("-D")
                .arg(&data)
                .args(["-p", &port.to_string(), "-k"])
                .arg(&data)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(directory.path().join("log")).unwrap())
                .spawn()
                .unwrap();
            if await_ready(&mut server, &data) {
                return Self { server, directory, port };
            }
        }
        panic!("PostgreSQL did not start");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("data/server.crt")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Settings for a pool of role `app`; `query` ends the URL.
    pub(crate) fn pool(&self, query: &str, more: &Value) -> crate::config::model::Pool {
        self.pool_as("app:secret", query, more)
    }

    pub(crate) fn pool_as(&self, who: &str, query: &str, more: &Value) -> crate::config::model::Pool {
        let url = format!("postgres://{who}@127.0.0.1:{}/app?{query}", self.port);
        let mut pool = json!({"backend": "postgres", "url": url});
        pool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(pool).unwrap()
    }

    pub(crate) fn backend(&self) -> Postgres {
        Postgres::new(&self.pool("sslmode=disable", &json!({}))).unwrap()
    }

    pub(crate) async fn connect(&self) -> PostgresConnection {
        self.backend().create().await.unwrap()
    }

    /// A connection of the superuser, by `tokio-postgres`.
    pub(crate) async fn admin(&self) -> tokio_postgres::Client {
        let text = format!("host={} port={} user=postgres dbname=app", self.socket().display(), self.port);
        let (client, connection) = tokio_postgres::connect(&text, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // At once, but not so suddenly that it leaves shared memory behind.
        let process = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        let _ = rustix::process::kill_process(process, rustix::process::Signal::QUIT);
        let _ = self.server.wait();
        let _ = Command::new("rm").arg("-rf").arg(self.directory.path()).status();
    }
}

fn await_ready(server: &mut Child, data: &Path) -> bool {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::time::Instant::now() < deadline {
        let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
            return true;
        }
        if server.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// PostgreSQL does not run as root. The server dies with the thread that started it, whatever happens to the test.
fn postgres() -> Command {
    let root = rustix::process::getuid().is_root();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if root {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.arg(binary("postgres"));
    command
}

fn binary(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.exists()).max();
    newest.unwrap_or_else(|| PathBuf::from(name))
}

fn template() -> PathBuf {
    // A copy is 1300 files: in memory, where there is room for them.
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }.join(TEMPLATE);
    let ready = base.join("template");
    if !ready.exists() {
        make_template(&base, &ready);
    }
    ready
}

/// Made aside and put in place by renaming, so that tests that start together do not see half of one.
fn make_template(base: &Path, ready: &Path) {
    fs::create_dir_all(base).unwrap();
    sh(&format!("chmod 1777 {}", base.display()));
    let making = base.join(format!("making-{}", std::process::id()));
    let user = if rustix::process::getuid().is_root() { "runuser -u postgres -- " } else { "" };
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir_in(base).unwrap();
    sh(&format!("chmod 755 {}", files.path().display()));
    for (name, content) in [
        ("password", "secret\n"),
        ("conf", SETTINGS),
        ("roles", ROLES),
        ("crt", key.cert.pem().as_str()),
        ("key", key.signing_key.serialize_pem().as_str()),
    ] {
        fs::File::create(files.path().join(name)).unwrap().write_all(content.as_bytes()).unwrap();
    }
    let script = format!(
        "set -e; cd {files}; {initdb} -D {making} -U postgres -E UTF8 --locale=C -N --wal-segsize=1 --pwfile=password \
         --auth-local=trust --auth-host=scram-sha-256 >log 2>&1; cat conf >>{making}/postgresql.conf; \
         cp crt {making}/server.crt; cp key {making}/server.key; chmod 600 {making}/server.key; \
         {postgres} --single -D {making} postgres <roles >>log 2>&1",
        files = files.path().display(),
        making = making.display(),
        initdb = binary("initdb").display(),
        postgres = binary("postgres").display(),
    );
    fs::File::create(files.path().join("log")).unwrap();
    sh(&format!("chmod 666 {}", files.path().join("log").display()));
    sh(&format!("{user}sh -c '{script}'"));
    if fs::rename(&making, ready).is_err() {
        sh(&format!("rm -rf {}", making.display()));
    }
}

fn sh(script: &str) {
    let status = Command::new("sh").arg("-c").arg(script).status().unwrap();
    assert!(status.success(), "{script}");
}

// === running ===

/// What a statement gave.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
    pub(crate) command: String,
    pub(crate) row_count: Option<u64>,
}

impl Answer {
    /// The only cell.
    pub(crate) fn cell(&self) -> &str {
        assert_eq!((self.rows.len(), self.rows[0].len()), (1, 1));
        self.rows[0][0].as_deref().unwrap()
    }
}

pub(crate) const LIMITS: Limits = Limits { row: 1 << 20, trace: None };

pub(crate) fn statement(sql: &str, params: Value) -> Statement {
    let Value::Array(params) = params else { panic!("parameters are an array") };
    Statement { sql: sql.to_owned(), params: params.into_iter().map(Into::into).collect() }
}

pub(crate) fn batch(statements: &[&str]) -> Batch {
    let statements = statements.iter().map(|sql| statement(sql, json!([]))).collect();
    Batch { statements, ..Batch::default() }
}

/// Runs `work` to its end.
pub(crate) async fn run(conn: &mut PostgresConnection, work: Work) -> Result<Vec<Answer>, BackendError> {
    let mut running = Running::begin(conn, Arc::new(work), LIMITS).await?;
    let mut answers: Vec<Answer> = Vec::new();
    loop {
        let step = running.next(conn).await?;
        match running.event(conn, step) {
            None => return Ok(answers),
            Some(Event::Columns(columns)) => {
                answers.push(Answer { columns: columns.to_vec(), ..Answer::default() });
            }
            Some(Event::Row(row)) => {
                let mut cells = Vec::new();
                row.cells(&mut |cell| match cell {
                    Cell::Null => cells.push(None),
                    Cell::Text(text) => cells.push(Some(String::from_utf8(text.to_vec()).unwrap())),
                    other => panic!("{other:?}"),
                });
                answers.last_mut().unwrap().rows.push(cells);
            }
            Some(Event::Complete { command, row_count }) => {
                let answer = answers.last_mut().unwrap();
                (answer.command, answer.row_count) = (command.to_owned(), row_count);
            }
        }
    }
}

/// Runs one statement without parameters.
pub(crate) async fn query(conn: &mut PostgresConnection, sql: &str) -> Result<Answer, BackendError> {
    query_with(conn, sql, json!([])).await
}

pub(crate) async fn query_with(
    conn: &mut PostgresConnection,
    sql: &str,
    params: Value,
) -> Result<Answer, BackendError> {
    Ok(run(conn, Work::Single(statement(sql, params))).await?.remove(0))
}

/// The database's error, which there must be.
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, BackendError>) -> crate::backend::DatabaseError {
    match outcome {
        Err(BackendError::Database(error)) => *error,
        other => panic!("{other:?}"),
    }
}

/// Begins a statement and leaves it running.
pub(crate) async fn leave(conn: &mut PostgresConnection, sql: &str) {
    let work = Arc::new(Work::Single(statement(sql, json!([]))));
    drop(Running::begin(conn, work, LIMITS).await.unwrap());
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub(crate) async fn create(pool: &crate::config::model::Pool) -> Result<PostgresConnection, PostgresFailure> {
    Postgres::new(pool).unwrap().create().await
}
