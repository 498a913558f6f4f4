//! The machine itself: a process that stands still, a file that is locked, a disk that is full.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    activity::running,
    eventually,
    front::{ask, config, gateway},
    gateway::Gateway,
    postgres::Postgres,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_that_stood_still_gives_up_a_connection_a_sweep_and_not_all_at_once() {
    const IDLE: i64 = 10;
    let postgres = Postgres::start(0, &["log_disconnections=on"]).await;
    // Sweeps far enough apart to be told apart on a busy machine.
    let config = config(&postgres.url(), &format!("size = {{ max = {IDLE} }}\nidle_timeout = \"2s\""))
        .replace("sweep_interval = \"100ms\"", "sweep_interval = \"2s\"");
    let gateway = Gateway::start(&config).await;
    let admin = postgres.admin().await;
    let fill = || async {
        join_all((0..IDLE).map(|_| ask(&gateway, "select pg_sleep(0.5)"))).await;
        postgres.sessions(&admin).await
    };
    eventually("all are open", fill, |seen| *seen == IDLE).await;
    let under_way = async {
        let (status, answer) = ask(&gateway, "select 7::int from pg_sleep(1)").await;
        assert_eq!((status, &answer["rows"]), (200, &json!([[7]])), "what was under way is answered: {answer}");
    };
    let still = async {
        eventually("it runs", || running(&admin, "select 7%"), |seen| *seen == 1).await;
        gateway.process().signal("STOP");
        // Longer than connections may lie unused.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        gateway.process().signal("CONT");
    };
    tokio::join!(under_way, still);
    let resumed = Instant::now();
    for _ in 0..20 {
        let (status, answer) = ask(&gateway, "select 1::int").await;
        assert_eq!(status, 200, "{answer}");
    }
    let left = postgres.sessions(&admin).await;
    let sweeps = 1 + resumed.elapsed().as_millis() as i64 / 2_000;
    assert!(left >= IDLE - 1 - sweeps, "{left} of {IDLE} are left after {sweeps} sweeps");
    assert_eq!(gateway.status().await["pools"]["main"]["breaker"]["state"], "closed");
    // And those that are not needed leave in the end.
    let sessions = || async { postgres.sessions(&admin).await };
    eventually("one after another", sessions, |seen| *seen < left.min(IDLE - 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_locked_sqlite_file_is_waited_for_then_told_and_readers_do_not_notice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let keys = "sqlite = { busy_timeout = \"1s\" }\nsize = { max = 4 }";
    let gateway = gateway(&format!("sqlite:{}", path.display()), keys).await;
    assert_eq!(ask(&gateway, "create table seen (n integer)").await.0, 200);
    let other = rusqlite::Connection::open(&path).unwrap();

    // Another process writes for a moment: our writer waits.
    other.execute_batch("begin immediate; insert into seen values (1)").unwrap();
    let write = ask(&gateway, "insert into seen values (2)");
    let commit = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        other.execute_batch("commit").unwrap();
    };
    let ((status, answer), ()) = tokio::join!(write, commit);
    assert_eq!(status, 200, "{answer}");

    // It does not let go: writers are told so within the time they have, one after the other; readers go on.
    other.execute_batch("begin immediate").unwrap();
    let begun = Instant::now();
    let writes = join_all((0..3).map(|_| ask(&gateway, "insert into seen values (3)")));
    let reads = async {
        for _ in 0..20 {
            let (status, answer) = ask(&gateway, "select count(*) from seen").await;
            assert_eq!((status, &answer["rows"]), (200, &json!([[2]])), "{answer}");
        }
        begun.elapsed()
    };
    let (writes, reading) = tokio::join!(writes, reads);
    for (status, answer) in writes {
        let told = (answer["sqlstate"].as_str(), answer["retryable"].as_bool());
        assert!(status == 504 || (status, told) == (503, (Some("55P03"), Some(true))), "{status} {answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(reading < Duration::from_secs(4), "{reading:?} for 20 reads beside a lock");
    other.execute_batch("rollback").unwrap();
    assert_eq!(ask(&gateway, "insert into seen values (4)").await.0, 200);
    assert_eq!(
        ask(&gateway, "select group_concat(n, ',') from (select n from seen order by n)").await.1["rows"],
        json!([["1,2,4"]])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_disk_is_told_as_such_and_what_was_written_before_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("small")).unwrap();
    fs::write(dir.path().join("gateway.toml"), config("sqlite:small/test.db", "size = { max = 2 }")).unwrap();
    let mount = "mount -t tmpfs -o size=1m none small && exec \"$0\" \"$@\"";
    let gateway = Gateway::start_by(dir, &["unshare", "--mount", "sh", "-c", mount]).await;
    assert_eq!(ask(&gateway, "create table seen (t text)").await.0, 200);
    let write = || ask(&gateway, "insert into seen values (printf('%.*c', 100000, 'x'))");
    let written = async |(status, answer): (u16, Value)| {
        assert!(status == 200 || answer["sqlstate"] == "53100", "{status} {answer}");
        status == 200
    };
    let mut rows = 0;
    while written(write().await).await {
        rows += 1;
        assert!(rows < 20, "a disk of 1 MiB takes no end of rows");
    }
    let (status, answer) = write().await;
    assert_eq!((status, answer["sqlstate"].as_str()), (503, Some("53100")), "{answer}");
    let (status, answer) = ask(&gateway, "select count(*) from seen").await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[rows]])), "{answer}");
}
