//! Reads on streaming standbys: which they reach, which are put out of rotation, and what a failover does to them.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    activity::count,
    client::{Answer, Client},
    config::{BASE, QUERY_ROUTE, pool},
    eventually,
    gateway::Gateway,
    postgres::{PASSWORD, Postgres},
    standby::{caught_up, standby_of},
};

/// A primary with a table, its standbys, and a gateway whose pool `main` has them as its replicas.
struct Site {
    primary: Postgres,
    standbys: Vec<Postgres>,
    gateway: Gateway,
}

/// Settings of a test's gateway, with what serves most.
struct Keys {
    /// Of `[pool.main.replicas]`.
    replicas: &'static str,
    /// Of each pool of a replica.
    pool: &'static str,
    /// Of the primary's pool; a URL that names all servers, if it is to follow the one that takes writes.
    follows: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self { replicas: "max_lag = \"1s\"", pool: "size = { max = 4 }", follows: false }
    }
}

const NAMES: [&str; 2] = ["replica-a", "replica-b"];

impl Site {
    async fn new(standbys: usize, keys: &Keys) -> Self {
        // Every statement stands in the log: where it ran is counted at the servers.
        let settings = ["log_statement=all", "wal_keep_size=256MB", "synchronous_commit=remote_apply"];
        let primary = Postgres::start(0, &settings).await;
        let admin = primary.admin().await;
        admin.batch_execute("create table t (id int); grant all on t to app; insert into t values (1)").await.unwrap();
        let standbys = join_all((0..standbys).map(|_| standby_of(&primary))).await;
        let gateway = Gateway::start(&config(&primary, &standbys, &NAMES[..standbys.len()], keys)).await;
        let site = Self { primary, standbys, gateway };
        site.all_in().await;
        site
    }

    async fn all_in(&self) {
        for index in 0..self.standbys.len() {
            self.replica_until(index, |replica| replica["in_rotation"] == true).await;
        }
    }

    async fn replica(&self, index: usize) -> Value {
        self.gateway.status().await["pools"]["main"]["replicas"]["pools"][index].clone()
    }

    async fn replica_until(&self, index: usize, enough: impl Fn(&Value) -> bool) -> Value {
        self.gateway.status_until(&format!("/pools/main/replicas/pools/{index}"), enough).await
    }

    async fn fallbacks(&self) -> u64 {
        self.gateway.figure("/pools/main/replicas/fallbacks").await
    }

    /// Statements with `marker` that ran on the primary, and on each standby.
    fn ran(&self, marker: &str) -> (usize, Vec<usize>) {
        let count = |server: &Postgres| {
            let log = server.log();
            log.lines().filter(|line| line.contains(marker) && line.contains("execute")).count()
        };
        (count(&self.primary), self.standbys.iter().map(count).collect())
    }

    /// Waits for so many of the checks' rounds at a replica.
    async fn rounds(&self, name: &str, rounds: u64) {
        let pointer = format!("/pools/{name}/counters/checkouts");
        let before = self.gateway.figure(&pointer).await;
        self.gateway.status_until(&pointer, |now| now.as_u64() >= Some(before + rounds)).await;
    }
}

fn config(primary: &Postgres, standbys: &[Postgres], names: &[&str], keys: &Keys) -> String {
    let mut hosts = vec![format!("127.0.0.1:{}", primary.port)];
    hosts.extend(standbys.iter().map(|standby| format!("127.0.0.1:{}", standby.port)));
    let url = if keys.follows {
        format!("postgres://app:{PASSWORD}@{}/postgres?target_session_attrs=read-write", hosts.join(","))
    } else {
        primary.url()
    };
    let quick = "backoff = { initial = \"50ms\", max = \"250ms\" }\nsweep_interval = \"100ms\"";
    let pool_of = |name: &str, url: &str, keys: &str| pool(name, url, &format!("{quick}\n{keys}"));
    let main = pool_of("main", &url, "size = { max = 8 }");
    let mut text = format!(
        r#"{BASE}
{main}
[pool.main.replicas]
pools = {names:?}
check_interval = "100ms"
{}
{QUERY_ROUTE}
deadline = "10s"
[[route]]
path = "/read"
query = {{ dialect = "json", pool = "main", read_only = true }}
access = "open"
deadline = "10s"
"#,
        keys.replicas
    );
    for (name, standby) in NAMES.iter().zip(standbys) {
        text += &pool_of(name, &standby.url(), keys.pool);
    }
    text
}

async fn post(client: &mut Client, path: &str, body: Value) -> Answer {
    client.post(path, &[], &body).await.expect("an answer")
}

async fn read(client: &mut Client, sql: &str) -> (u16, Value) {
    post(client, "/query", json!({"sql": sql, "read_only": true})).await.told()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reads_land_on_the_replicas_and_everything_else_on_the_primary() {
    let site = Site::new(2, &Keys::default()).await;
    let mut client = site.gateway.h1().await;
    for _ in 0..40 {
        assert_eq!(read(&mut client, "select id from t /* a read */").await.0, 200);
        assert_eq!(post(&mut client, "/read", json!({"sql": "select id from t /* a route */"})).await.status, 200);
        let batch = json!({"batch": [{"sql": "select id from t /* a batch */"}], "read_only": true});
        assert_eq!(post(&mut client, "/query", batch).await.status, 200);
        let plain = post(&mut client, "/query", json!({"sql": "select id from t /* plain */"})).await;
        assert_eq!(plain.json()["rows"], json!([[1]]));
    }
    for marker in ["/* a read */", "/* a route */", "/* a batch */"] {
        let (primary, standbys) = site.ran(marker);
        assert_eq!((primary, standbys.iter().sum::<usize>()), (0, 40), "{marker}");
        assert!(standbys.iter().all(|ran| *ran >= 4), "each has its share of {marker}: {standbys:?}");
    }
    assert_eq!(site.ran("/* plain */"), (40, vec![0, 0]), "what does not say that it reads may write");
    let serializable =
        json!({"batch": [{"sql": "select 1 /* ser */"}], "read_only": true, "isolation": "serializable"});
    assert_eq!(post(&mut client, "/query", serializable).await.status, 200);
    assert_eq!(site.ran("/* ser */").0, 1, "a standby has no serializable transactions");
    let (reads, fallbacks) = (site.replica(0).await["reads"].as_u64(), site.fallbacks().await);
    assert_eq!((reads.map(|reads| reads + 40 > 44), fallbacks), (Some(true), 0));
    let metrics = site.gateway.admin("GET", "/metrics").await.1;
    for line in [
        "sluicegate_replica_in_rotation{db_client_connection_pool_name=\"main\",replica=\"replica-a\"} 1",
        "sluicegate_replica_lag_seconds{db_client_connection_pool_name=\"main\",replica=\"replica-b\"} 0",
        "sluicegate_replica_fallbacks_total{db_client_connection_pool_name=\"main\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_write_that_calls_itself_a_read_is_refused_wherever_it_lands() {
    let site = Site::new(1, &Keys::default()).await;
    let mut client = site.gateway.h1().await;
    let wrong = json!({"sql": "insert into t values (2)", "read_only": true});
    let on_standby = post(&mut client, "/query", wrong.clone()).await;
    assert_eq!((on_standby.status, &on_standby.json()["sqlstate"]), (400, &json!("25006")));
    let without = config(&site.primary, &site.standbys, &[], &Keys::default());
    site.gateway.reconfigure(&without).await;
    for (path, body) in [("/query", wrong), ("/read", json!({"sql": "insert into t values (2)"}))] {
        let on_primary = post(&mut client, path, body).await;
        assert_eq!((on_primary.status, &on_primary.json()["sqlstate"]), (400, &json!("25006")), "{path}");
    }
    assert_eq!(read(&mut client, "select count(*)::int from t").await.1["rows"], json!([[1]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_replica_that_falls_behind_is_put_out_and_comes_back_and_an_idle_primary_puts_out_nobody() {
    let mut site = Site::new(2, &Keys::default()).await;
    let (primary, standby) = (site.primary.admin().await, site.standbys[0].admin().await);
    // Two seconds without a write: more than the lag allowed, by the clock of the last transaction.
    site.rounds(NAMES[0], 20).await;
    assert_eq!(site.replica(0).await["ejections"], 0, "{}", site.gateway.status().await["pools"]["main"]["replicas"]);

    standby.execute("select pg_wal_replay_pause()", &[]).await.unwrap();
    primary.execute("insert into t values (2)", &[]).await.unwrap();
    let out = site.replica_until(0, |replica| replica["in_rotation"] == false).await;
    assert_eq!(out["why"], "too far behind");
    // Told in whole milliseconds.
    assert!(out["lag_s"].as_f64().is_some_and(|lag| lag >= 1.0), "{out}");
    let mut client = site.gateway.h1().await;
    for _ in 0..20 {
        assert_eq!(read(&mut client, "select max(id)::int from t /* late */").await.1["rows"], json!([[2]]));
    }
    assert_eq!(site.ran("/* late */"), (0, vec![0, 20]));
    assert_eq!(site.gateway.status().await["health"], "degraded");

    standby.execute("select pg_wal_replay_resume()", &[]).await.unwrap();
    let back = site.replica_until(0, |replica| replica["in_rotation"] == true).await;
    assert_eq!(back["ejections"], 1);
    site.gateway.logged("replica back in rotation").await;
    for text in ["replica out of rotation", "replica back in rotation"] {
        let lines = site.gateway.log_lines().into_iter().filter(|line| line.contains(text)).count();
        assert_eq!(lines, 1, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_replica_whose_receiver_is_cut_off_is_seen_to_fall_behind() {
    let site = Site::new(1, &Keys::default()).await;
    let (primary, standby) = (site.primary.admin().await, site.standbys[0].admin().await);
    standby.execute("alter system set primary_conninfo = ''", &[]).await.unwrap();
    standby.execute("select pg_reload_conf()", &[]).await.unwrap();
    let receiving = || async { standby.query("select from pg_stat_wal_receiver", &[]).await.unwrap().len() };
    eventually("the receiver has ended", receiving, |receiving| *receiving == 0).await;
    primary.execute("insert into t values (2)", &[]).await.unwrap();
    let out = site.replica_until(0, |replica| replica["in_rotation"] == false).await;
    assert_eq!(out["why"], "too far behind", "it has replayed all that it received");
}

/// Reads at one replica after the other until told to stop; answers that were not 200.
struct Readers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Readers {
    async fn start(gateway: &Gateway, count: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..count {
            let (mut client, stop, done) = (gateway.h1().await, stop.clone(), done.clone());
            let end = Instant::now() + 3 * PATIENCE;
            tasks.push(tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    let (status, answer) = read(&mut client, "select count(*), pg_sleep(0.005)::text from t").await;
                    if status != 200 {
                        failures.push(format!("{status} {answer}"));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            }));
        }
        Self { stop, done, tasks }
    }

    /// Waits for so many more reads.
    async fn advance(&self, reads: u64) {
        let until = self.done.load(Ordering::Relaxed) + reads;
        eventually("reads go on", || async { self.done.load(Ordering::Relaxed) }, |done| *done >= until).await;
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        join_all(self.tasks).await.into_iter().flat_map(Result::unwrap).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_killed_standby_costs_no_read_and_gets_its_share_when_it_is_back() {
    let mut site = Site::new(2, &Keys::default()).await;
    let readers = Readers::start(&site.gateway, 8).await;
    readers.advance(300).await;
    site.standbys[0].stop();
    site.replica_until(0, |replica| replica["in_rotation"] == false).await;
    readers.advance(300).await;
    let reads = |replica: Value| replica["reads"].as_u64().unwrap();
    let before = reads(site.replica(0).await);
    site.standbys[0].start_again().await;
    site.replica_until(0, |replica| replica["in_rotation"] == true).await;
    readers.advance(300).await;
    assert!(reads(site.replica(0).await) > before, "it is used again");
    let failures = readers.stop().await;
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_standby_that_freezes_is_put_out_and_what_ran_on_it_is_run_elsewhere() {
    let site = Site::new(2, &Keys::default()).await;
    let readers = Readers::start(&site.gateway, 8).await;
    readers.advance(300).await;
    site.standbys[0].signal_all("STOP");
    let out = site.replica_until(0, |replica| replica["in_rotation"] == false).await;
    assert_eq!(out["why"], "does not answer");
    readers.advance(300).await;
    let failures = readers.stop().await;
    site.standbys[0].signal_all("CONT");
    assert!(failures.is_empty(), "{failures:#?}");
    site.replica_until(0, |replica| replica["in_rotation"] == true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_any_standby_reads_go_to_the_primary_or_are_refused_as_configured() {
    let mut site = Site::new(2, &Keys::default()).await;
    let readers = Readers::start(&site.gateway, 4).await;
    readers.advance(100).await;
    site.standbys.iter_mut().for_each(Postgres::stop);
    for index in 0..2 {
        site.replica_until(index, |replica| replica["in_rotation"] == false).await;
    }
    readers.advance(100).await;
    let failures = readers.stop().await;
    assert!(failures.is_empty(), "{failures:#?}");
    let mut client = site.gateway.h1().await;
    assert_eq!(read(&mut client, "select 1 /* fallen back */").await.0, 200);
    assert!(site.ran("/* fallen back */").0 == 1 && site.fallbacks().await > 0);

    let strict = Keys { replicas: "max_lag = \"1s\"\nfallback = false", ..Keys::default() };
    site.gateway.reconfigure(&config(&site.primary, &site.standbys, &NAMES, &strict)).await;
    let refused = post(&mut client, "/read", json!({"sql": "select 1 /* refused */"})).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert_eq!(refused.json()["reason"], "no-replica", "{}", refused.text());
    assert_eq!(site.ran("/* refused */").0, 0);
    assert_eq!(
        post(&mut client, "/query", json!({"sql": "select 1"})).await.status,
        200,
        "the primary serves the rest"
    );
    site.standbys[1].start_again().await;
    site.replica_until(1, |replica| replica["in_rotation"] == true).await;
    assert_eq!(read(&mut client, "select 1").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_replica_whose_pool_is_exhausted_stays_in_rotation() {
    let pool = "size = { max = 1 }\ncheckout_timeout = \"300ms\"";
    let site = Site::new(1, &Keys { pool, ..Keys::default() }).await;
    let mut held = site.gateway.h1().await;
    let hold = tokio::spawn(async move { read(&mut held, "select pg_sleep(4)::text").await.0 });
    site.gateway.status_until("/pools/replica-a/in_use", |in_use| *in_use == 1).await;
    // Each of the checks waits in vain.
    site.gateway.status_until("/pools/replica-a/counters/timeouts", |timeouts| timeouts.as_u64() >= Some(5)).await;
    let mut client = site.gateway.h1().await;
    let (status, answer) = read(&mut client, "select 1 /* too many */").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["reason"] == "slow" || answer["reason"] == "saturated", "{answer}");
    assert_eq!(site.ran("/* too many */").0, 0, "what the replicas cannot bear is not for the primary");
    assert_eq!(hold.await.unwrap(), 200);
    let replica = site.replica(0).await;
    assert_eq!((&replica["ejections"], &replica["in_rotation"]), (&json!(0), &json!(true)), "{replica}");
    assert_eq!(read(&mut client, "select 1").await.0, 200);
    assert_eq!(site.fallbacks().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_promotion_writes_go_to_the_new_primary_and_none_was_done_twice() {
    let mut site = Site::new(2, &Keys { follows: true, ..Keys::default() }).await;
    // The standby that will be promoted has all that was acknowledged.
    let admin = site.primary.admin().await;
    admin.execute("alter system set synchronous_standby_names = '2 (*)'", &[]).await.unwrap();
    admin.execute("select pg_reload_conf()", &[]).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = {
        let mut writers = Vec::new();
        for writer in 0..4_u32 {
            let (mut client, stop, end) = (site.gateway.h1().await, stop.clone(), Instant::now() + 3 * PATIENCE);
            writers.push(tokio::spawn(async move {
                let mut answers = BTreeMap::new();
                for number in 0..10_000_u32 {
                    if stop.load(Ordering::Relaxed) || Instant::now() > end {
                        break;
                    }
                    let id = writer * 10_000 + number + 100;
                    let body = json!({"sql": "insert into t values ($1)", "params": [id]});
                    answers.insert(id, post(&mut client, "/query", body).await.status);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                answers
            }));
        }
        writers
    };
    let rows = "select count(*) from t";
    let written = || count(&admin, rows);
    eventually("writes go on", written, |rows| *rows > 100).await;
    site.primary.stop();
    let promoted = site.standbys[0].admin().await;
    promoted.execute("select pg_promote(true, 20)", &[]).await.unwrap();
    let since = Instant::now();
    let before = count(&promoted, rows).await;
    let written = || count(&promoted, rows);
    eventually("writes go to the new primary", written, |rows| *rows > before + 50).await;
    // Pauses of at most 250 ms between attempts, and two hosts to try: fourfold.
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    stop.store(true, Ordering::Relaxed);
    let answers: Vec<(u32, u16)> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();

    let twice = "select count(*) from (select id from t group by id having count(*) > 1) twice";
    assert_eq!(count(&promoted, twice).await, 0, "no write was done twice");
    let done: Vec<u32> = answers.iter().filter(|(_, status)| *status == 200).map(|(id, _)| *id).collect();
    let kept = format!("select count(*) from t where id in ({})", join(&done));
    let kept = count(&promoted, &kept).await;
    assert_eq!(usize::try_from(kept).unwrap(), done.len(), "what was acknowledged is there");
    let out = site.replica_until(0, |replica| replica["in_rotation"] == false).await;
    assert_eq!(out["why"], "not in recovery");
    let mut client = site.gateway.h1().await;
    assert_eq!(read(&mut client, "select 1").await.0, 200, "reads go on");
}

fn join(ids: &[u32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn replicas_come_and_go_by_reload_without_a_connection_closed_or_a_task_left() {
    let mut site = Site::new(2, &Keys::default()).await;
    let mut client = site.gateway.h1().await;
    let warm = async |client: &mut Client, rounds: u32| {
        for _ in 0..rounds {
            assert_eq!(read(client, "select id from t").await.0, 200);
        }
    };
    warm(&mut client, 40).await;
    let closes =
        async |site: &Site, name: &str| site.gateway.status().await["pools"][name]["counters"]["closes"].clone();
    // Connects may still be under way: so many when nothing has changed for a while.
    let (last, same) = (Cell::new(0), Cell::new(0));
    let at_rest = || async {
        let now = site.gateway.figure("/census/tasks").await;
        same.set(if last.replace(now) == now { same.get() + 1 } else { 0 });
        same.get()
    };
    eventually("the tasks are as many as they stay", at_rest, |same| *same >= 100).await;
    let before = last.get();
    let closed = (closes(&site, "main").await, closes(&site, NAMES[0]).await, closes(&site, NAMES[1]).await);
    for _ in 0..6 {
        let earlier = site.replica(0).await["reads"].as_u64().unwrap();
        let one = config(&site.primary, &site.standbys, &NAMES[..1], &Keys::default());
        site.gateway.reconfigure(&one).await;
        warm(&mut client, 10).await;
        let kept = site.replica(0).await;
        assert_eq!(kept["reads"].as_u64(), Some(earlier + 10), "counts go on: {kept}");
        assert_eq!(site.replica(1).await, Value::Null);
        let none = config(&site.primary, &site.standbys, &[], &Keys::default());
        site.gateway.reconfigure(&none).await;
        assert_eq!(site.gateway.status().await["pools"]["main"]["replicas"], Value::Null);
        // Nobody checks any more: the bell of a task that was left would ring.
        let look = || async { site.gateway.figure("/census/tasks").await };
        eventually("the checking task is gone", look, |tasks| *tasks < before).await;
        site.gateway.reconfigure(&config(&site.primary, &site.standbys, &NAMES, &Keys::default())).await;
        site.all_in().await;
        warm(&mut client, 10).await;
    }
    let look = || async { site.gateway.figure("/census/tasks").await };
    eventually("as many tasks as before", look, |tasks| *tasks == before).await;
    let now = (closes(&site, "main").await, closes(&site, NAMES[0]).await, closes(&site, NAMES[1]).await);
    assert_eq!(now, closed, "no connection was touched");
    assert!(site.gateway.terminate().await.success());
    let put_out = site.gateway.log_lines().into_iter().filter(|line| line.contains("replica out")).count();
    assert_eq!(put_out, 0, "nor does the end put anybody out");
    caught_up(&site.primary, &site.standbys[0]).await;
}
