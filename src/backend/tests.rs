//! Databases through their door: pool, deadline, log.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    BackendError, Batch, Cell, Database, Event, Execution, Kind, Limits, Term, Work,
    postgres::{
        Postgres,
        testkit::{Cluster, batch, leave, statement},
    },
    sqlite::Sqlite,
};
use crate::{
    config::model,
    policy::{Eviction, NativeEviction, NativeSizing, NativeValidation, Sizing, Validation},
    pool::{Backend, Holder, Policies, Pool, PoolSettings},
};

fn pool<B: Backend>(config: &model::Pool, backend: B) -> Arc<Pool<B>> {
    validated(config, backend, NativeValidation::BypassWindow)
}

fn validated<B: Backend>(config: &model::Pool, backend: B, validation: NativeValidation) -> Arc<Pool<B>> {
    let policies = Policies {
        sizing: Sizing::Native(NativeSizing::Fixed),
        eviction: Eviction::Native(NativeEviction::Lifetime),
        validation: Validation::Native(validation),
    };
    let settings = PoolSettings::from_config(config, 1);
    Pool::new("main", settings, backend, policies, tokio::runtime::Handle::current(), None)
}

/// A database with one connection, so that whatever the last caller left meets the next.
fn postgres(cluster: &Cluster, more: Value) -> Database {
    let mut settings = json!({"size": {"max": 1}});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config = cluster.pool("sslmode=disable", &settings);
    Database::new(Kind::Postgres(pool(&config, Postgres::new(&config).unwrap())), &config)
}

fn sqlite(directory: &Path) -> Database {
    let url = format!("sqlite:{}", directory.join("test.db").display());
    let config: model::Pool = serde_json::from_value(json!({"backend": "sqlite", "url": url})).unwrap();
    let backend = Sqlite::new(&url, &config.sqlite).unwrap();
    Database::new(Kind::Sqlite(pool(&config, backend)), Duration::ZERO)
}

async fn start(database: &Database, work: Work, within: Duration) -> Result<Execution, BackendError> {
    let limits = Limits { row: 1 << 20, ..Limits::default() };
    let holder = Holder { route: "/query".into(), request: 1, ..Holder::default() };
    database.start(work, Instant::now() + within, holder, limits).await
}

const AMPLE: Duration = Duration::from_secs(10);

/// The first cell of the last row.
async fn last(mut execution: Execution) -> Result<String, BackendError> {
    let mut last = String::new();
    while let Some(event) = execution.next().await? {
        if let Event::Row(row) = event {
            let mut cells = Vec::new();
            row.cells(&mut |cell| {
                cells.push(match cell {
                    Cell::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                    other => format!("{other:?}"),
                });
            });
            last = cells.swap_remove(0);
        }
    }
    Ok(last)
}

async fn ask(database: &Database, sql: &str) -> Result<String, BackendError> {
    last(start(database, Work::Single(statement(sql, json!([]))), AMPLE).await?).await
}

#[tokio::test]
async fn a_session_that_is_dropped_while_it_is_being_set_up_owes_nothing_to_the_next() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    let wishes = [("search_path".to_owned(), "nowhere".to_owned())];
    for patience in 0..80 {
        for term in [Term::Transaction, Term::Lasting] {
            let holder = Holder::default();
            let mut session = Box::pin(database.session(&wishes, term, Instant::now() + AMPLE, holder));
            for _ in 0..patience {
                if futures_util::poll!(&mut session).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(session);
            for answer in ["41", "42"] {
                assert_eq!(ask(&database, &format!("select {answer}")).await.unwrap(), answer, "{patience}");
            }
        }
    }
}

#[tokio::test]
async fn whatever_a_caller_leaves_the_next_one_does_not_meet() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    ask(&database, "create table t (a int)").await.unwrap();
    for sql in [
        "begin",
        "set search_path = nowhere",
        "select 1/0",
        "syntax error",
        "prepare t as select 1",
        "copy t from stdin",
    ] {
        for _ in 0..3 {
            let _ = ask(&database, sql).await;
            assert_eq!(ask(&database, "select count(*) from t").await.unwrap(), "0", "{sql}");
        }
    }
    let failing = Work::Batch(batch(&["insert into t values (1)", "select 1/0"]));
    assert!(last(start(&database, failing, AMPLE).await.unwrap()).await.is_err());
    let state = "select state || ' ' || (select count(*) from t) from pg_stat_activity where pid = pg_backend_pid()";
    assert_eq!(ask(&database, state).await.unwrap(), "active 0");
}

#[tokio::test]
async fn the_deadline_holds_and_the_connection_comes_back() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    for _ in 0..3 {
        let sleep = Work::Single(statement("select pg_sleep(60)", json!([])));
        ask(&database, "select 1").await.unwrap();
        let running = start(&database, sleep.clone(), Duration::from_millis(250)).await.unwrap();
        assert!(matches!(last(running).await, Err(BackendError::Timeout)));
        drop(start(&database, sleep, AMPLE).await.unwrap());
        assert_eq!(timeout(Duration::from_secs(5), ask(&database, "select 1")).await.unwrap().unwrap(), "1");
    }
}

#[tokio::test]
async fn whoever_holds_a_connection_too_long_loses_it() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({ "held_limit": "300ms" }));
    let admin = cluster.admin().await;
    let process = ask(&database, "select pg_backend_pid()").await.unwrap();
    assert!(matches!(ask(&database, "select pg_sleep(60)").await, Err(BackendError::Held)));
    none_is(&admin, "active").await;
    // One who does not even look: what it began is ended when it is let go of.
    let long = Work::Single(statement("select pg_sleep(60)", json!([])));
    let running = start(&database, long, AMPLE).await.unwrap();
    let ends = running.ends().unwrap();
    tokio::time::sleep_until(ends).await;
    drop(running);
    assert_ne!(ask(&database, "select pg_backend_pid()").await.unwrap(), process, "it was closed");
    none_is(&admin, "active").await;
    let counters = database.kind().status().counters;
    assert_eq!((counters.held_ended, counters.closes.held, counters.closes.unclean), (2, 2, 0));
}

#[tokio::test]
async fn a_deadline_before_the_limit_is_only_a_deadline() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({ "held_limit": "1h" }));
    let process = ask(&database, "select pg_backend_pid()").await.unwrap();
    let sleep = Work::Single(statement("select pg_sleep(60)", json!([])));
    let running = start(&database, sleep, Duration::from_millis(250)).await.unwrap();
    assert!(running.ends().is_none());
    assert!(matches!(last(running).await, Err(BackendError::Timeout)));
    assert_eq!(ask(&database, "select pg_backend_pid()").await.unwrap(), process, "it was kept");
    assert_eq!(database.kind().status().counters.held_ended, 0);
}

#[tokio::test]
async fn sqlite_is_let_go_of_in_time_too() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("test.db").display());
    let config = json!({ "backend": "sqlite", "url": url, "held_limit": "200ms" });
    let config: model::Pool = serde_json::from_value(config).unwrap();
    let pool = pool(&config, Sqlite::new(&url, &config.sqlite).unwrap());
    let database = Database::new(Kind::Sqlite(pool), Duration::ZERO);
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    assert!(matches!(ask(&database, endless).await, Err(BackendError::Held)));
    assert_eq!(ask(&database, "select 1").await.unwrap(), "Integer(1)");
    assert_eq!(database.kind().status().counters.held_ended, 1);
}

#[tokio::test]
async fn a_frozen_server_is_found_by_the_pools_own_probe() {
    let cluster = Cluster::start();
    let settings = json!({ "size": { "min": 1, "max": 1 }, "keepalive": "1s", "sweep_interval": "100ms" });
    let database = postgres(&cluster, settings);
    let Kind::Postgres(pool) = database.kind() else { panic!("it is PostgreSQL") };
    let driver = tokio::spawn(Arc::clone(pool).drive());
    let process = ask(&database, "select pg_backend_pid()").await.unwrap();
    let until = Instant::now() + AMPLE;
    while pool.status().counters.probes < 2 {
        assert!(Instant::now() < until, "it is not asked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ask(&database, "select pg_backend_pid()").await.unwrap(), process, "it has proved good");
    let frozen = Pid::from_raw(process.parse().unwrap()).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    while pool.status().counters.closes.broken == 0 {
        assert!(Instant::now() < until, "nobody has noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kill_process(frozen, Signal::CONT).unwrap();
    driver.abort();
    assert_ne!(ask(&database, "select pg_backend_pid()").await.unwrap(), process);
}

#[tokio::test]
async fn a_dead_connection_is_not_the_callers_business() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    let admin = cluster.admin().await;
    for _ in 0..5 {
        let process: i32 = ask(&database, "select pg_backend_pid()").await.unwrap().parse().unwrap();
        let dead = "select pg_terminate_backend($1, 5000)";
        assert!(admin.query_one(dead, &[&process]).await.unwrap().get::<_, bool>(0));
        assert_eq!(ask(&database, "select 1").await.unwrap(), "1");
    }
}

#[tokio::test]
async fn a_dead_connection_is_noticed_on_another_worker_too() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    let admin = cluster.admin().await;
    for _ in 0..5 {
        let process: i32 = ask(&database, "select pg_backend_pid()").await.unwrap().parse().unwrap();
        admin.execute("select pg_terminate_backend($1, 5000)", &[&process]).await.unwrap();
        let elsewhere = database.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask(&elsewhere, "select 1"))
        });
        assert_eq!(answer.await.unwrap().unwrap(), "1");
    }
}

/// Runs `sql` on a worker of its own, up to its end or for as long as it takes to send it, and leaves it when that worker is
/// no more.
fn leave_with_a_worker(database: &Database, sql: &'static str, to_the_end: bool) {
    let database = database.clone();
    let worker = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let execution = runtime.block_on(async {
            let work = Work::Single(statement(sql, json!([])));
            let mut execution = start(&database, work, AMPLE).await.unwrap();
            while to_the_end && execution.next().await.unwrap().is_some() {}
            execution
        });
        drop(runtime);
        drop(execution);
    };
    std::thread::spawn(worker).join().unwrap();
}

/// Waits until no session of the pool's role is in `state` at the server.
async fn none_is(admin: &tokio_postgres::Client, state: &str) {
    let sql = "select 1 from pg_stat_activity where usename = 'app' and state = $1";
    let until = Instant::now() + AMPLE;
    while !admin.query(sql, &[&state]).await.unwrap().is_empty() {
        assert!(Instant::now() < until, "a session is still {state}");
    }
}

#[tokio::test]
async fn what_a_worker_leaves_when_it_stops_is_stopped_and_cleaned() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    let admin = cluster.admin().await;
    let process = ask(&database, "select pg_backend_pid()").await.unwrap();
    for (sql, to_the_end, state) in [("select pg_sleep(60)", false, "active"), ("begin", true, "idle in transaction")] {
        leave_with_a_worker(&database, sql, to_the_end);
        none_is(&admin, state).await;
        assert_eq!(ask(&database, "select pg_backend_pid()").await.unwrap(), process, "{sql}: it was kept");
    }
}

#[tokio::test]
async fn what_a_worker_was_cleaning_when_it_stopped_does_not_run_on() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    let admin = cluster.admin().await;
    let elsewhere = database.clone();
    let worker = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let work = Work::Single(statement("select pg_sleep(60)", json!([])));
        runtime.block_on(async { drop(start(&elsewhere, work, AMPLE).await.unwrap()) });
    };
    std::thread::spawn(worker).join().unwrap();
    none_is(&admin, "active").await;
    assert_eq!(ask(&database, "select 1").await.unwrap(), "1");
}

#[tokio::test]
async fn a_worker_that_stops_during_a_probe_tells_nothing_of_the_database() {
    let cluster = Cluster::start();
    let config = cluster.pool("sslmode=disable", &json!({"size": {"max": 1}}));
    let pool = validated(&config, Postgres::new(&config).unwrap(), NativeValidation::Always);
    let lease = pool.checkout(Instant::now() + AMPLE, Holder::default()).await.unwrap();
    let frozen = Pid::from_raw(lease.process()).unwrap();
    drop(lease);
    kill_process(frozen, Signal::STOP).unwrap();
    let waiting = Arc::clone(&pool);
    let worker = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let checkout = async move { waiting.checkout(Instant::now() + AMPLE, Holder::default()).await.is_ok() };
        let mut checkout = Box::pin(checkout);
        let unfinished = runtime.block_on(async { timeout(Duration::from_millis(10), &mut checkout).await.is_err() });
        drop(runtime);
        drop(checkout);
        unfinished
    };
    assert!(std::thread::spawn(worker).join().unwrap());
    kill_process(frozen, Signal::CONT).unwrap();
    drop(pool.checkout(Instant::now() + AMPLE, Holder::default()).await.unwrap());
    let counters = pool.status().counters;
    assert_eq!((counters.closes.abandoned, counters.validations_failed), (1, 0));
}

#[tokio::test]
async fn a_connection_that_is_given_up_takes_its_statement_with_it() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    let admin = cluster.admin().await;
    let Kind::Postgres(pool) = database.kind() else { panic!("it is PostgreSQL") };
    let mut lease = pool.checkout(Instant::now() + AMPLE, Holder::default()).await.unwrap();
    leave(&mut lease, "select pg_sleep(60)").await;
    lease.discard();
    assert_eq!(ask(&database, "select 1").await.unwrap(), "1");
    none_is(&admin, "active").await;
}

#[tokio::test]
async fn dead_connections_do_not_prolong_the_checkout() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({"checkout_timeout": "2s"}));
    let Kind::Postgres(pool) = database.kind() else { panic!("it is PostgreSQL") };
    let mut lease = pool.checkout(Instant::now() + AMPLE, Holder::default()).await.unwrap();
    let frozen = Pid::from_raw(lease.process()).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    lease.go_mute().await;
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(ask(&database, "select 1"), async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(lease);
    });
    let took = begun.elapsed();
    kill_process(frozen, Signal::CONT).unwrap();
    assert!(matches!(answer, Err(BackendError::Checkout(_))), "{answer:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn only_a_server_that_takes_no_writes_is_held_against_its_connections() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({}));
    let errors = || match database.kind() {
        Kind::Postgres(pool) => pool.status().counters.errors,
        Kind::Sqlite(_) => panic!("it is PostgreSQL"),
    };
    ask(&database, "create table t (a int)").await.unwrap();
    let wanted = Work::Batch(Batch { read_only: true, ..batch(&["insert into t values (1)"]) });
    let refused = last(start(&database, wanted, AMPLE).await.unwrap()).await;
    assert!(matches!(refused, Err(BackendError::Database(_))), "{refused:?}");
    assert_eq!(errors(), 0, "the caller asked for it");

    let admin = cluster.admin().await;
    admin.batch_execute("alter role app set default_transaction_read_only = on").await.unwrap();
    let process: i32 = ask(&database, "select pg_backend_pid()").await.unwrap().parse().unwrap();
    admin.execute("select pg_terminate_backend($1, 5000)", &[&process]).await.unwrap();
    let refused = ask(&database, "insert into t values (1)").await;
    assert!(matches!(refused, Err(BackendError::ReadOnly(_))), "{refused:?}");
    assert_eq!(errors(), 1);
}

/// Has the idle connection of `database` take nothing any more; whose process is frozen.
async fn mute(database: &Database) -> Pid {
    ask(database, "select 1").await.unwrap();
    let Kind::Postgres(pool) = database.kind() else { panic!("it is PostgreSQL") };
    let mut lease = pool.checkout(Instant::now() + AMPLE, Holder::default()).await.unwrap();
    let frozen = Pid::from_raw(lease.process()).unwrap();
    kill_process(frozen, Signal::STOP).unwrap();
    lease.go_mute().await;
    frozen
}

#[tokio::test]
async fn a_connection_that_takes_nothing_is_replaced_once() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({"size": {"max": 2}}));
    let frozen = mute(&database).await;
    let answer = ask(&database, "select pg_backend_pid()").await;
    kill_process(frozen, Signal::CONT).unwrap();
    assert_ne!(answer.unwrap(), frozen.as_raw_nonzero().to_string());
}

#[tokio::test]
async fn a_session_that_meets_a_dead_connection_keeps_to_the_retry_budget() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({"size": {"max": 2}}));
    let frozen = mute(&database).await;
    let session = database.session(&[], Term::Lasting, Instant::now() + AMPLE, Holder::default()).await;
    kill_process(frozen, Signal::CONT).unwrap();
    assert!(session.is_ok(), "another connection has it");
    let Kind::Postgres(pool) = database.kind() else { panic!("it is PostgreSQL") };
    let counters = pool.status().counters;
    assert_eq!((counters.retries, counters.retries_sent, counters.retries_failed), (1, 1, 0));
}

#[tokio::test]
async fn no_server_is_an_error_that_says_so() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://app:secret@{closed}/app");
    let config: model::Pool =
        serde_json::from_value(json!({"backend": "postgres", "url": url, "checkout_timeout": "200ms"})).unwrap();
    let database = Database::new(Kind::Postgres(pool(&config, Postgres::new(&config).unwrap())), Duration::ZERO);
    let Err(BackendError::Checkout(error)) = ask(&database, "select 1").await else { panic!("it answered") };
    assert!(error.public().contains("cannot be reached"), "{}", error.public());
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn both_kinds_give_the_same_events() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    for database in [postgres(&cluster, json!({})), sqlite(directory.path())] {
        let statements = ["create table t (a text)", "insert into t values ('x'), ('y')", "select a from t order by a"];
        let mut execution = start(&database, Work::Batch(batch(&statements)), AMPLE).await.unwrap();
        let mut told = Vec::new();
        while let Some(event) = execution.next().await.unwrap() {
            told.push(match event {
                Event::Columns(columns) => format!("columns {}", columns.len()),
                Event::Row(_) => "row".to_owned(),
                Event::Complete { command, row_count } => format!("{command} {row_count:?}"),
            });
        }
        let expected = [
            "columns 0",
            "CREATE TABLE None",
            "columns 0",
            "INSERT Some(2)",
            "columns 1",
            "row",
            "row",
            "SELECT Some(2)",
        ];
        assert_eq!(told, expected);
        drop(execution);
        let refused = Work::Batch(Batch { read_only: true, ..batch(&["insert into t values ('z')"]) });
        assert!(last(start(&database, refused, AMPLE).await.unwrap()).await.is_err());
        assert_eq!(database.name(), "main");
    }
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn buffer(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn slow_work_is_logged_without_its_literals() {
    let cluster = Cluster::start();
    let database = postgres(&cluster, json!({"slow_query": "50ms"}));
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    ask(&database, "select 'quick'").await.unwrap();
    ask(&database, "select pg_sleep(0.06), 'private'").await.unwrap();
    drop(start(&database, Work::Single(statement("select pg_sleep(60), 'secret'", json!([]))), AMPLE).await.unwrap());
    let text = String::from_utf8(lines.buffer().clone()).unwrap();
    assert!(text.contains("slow query") && text.contains("statement=\"select pg_sleep(?), ?\""), "{text}");
    assert!(text.contains("end=\"done\"") && !text.contains("abandoned"), "left at once is not slow: {text}");
    assert!(!text.contains("private") && !text.contains("secret") && !text.contains("quick"), "{text}");
}
