//! Passwords that change, primaries that are primaries no more.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    activity::{count, table},
    eventually,
    front::{config, gateway},
    gateway::Gateway,
    postgres::{PASSWORD, Postgres},
    standby::{caught_up, standby_of},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_password_changed_at_the_server_and_in_its_file_costs_no_request_and_few_refusals() {
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("password");
    fs::write(&secret, PASSWORD).unwrap();
    let url = postgres.url().replace(&format!(":{PASSWORD}@"), "@");
    let keys = format!("password = {{ file = \"{}\" }}\nsize = {{ min = 4, max = 8 }}", secret.display());
    let mut gateway = gateway(&url, &keys).await;
    let sessions = || async { postgres.sessions(&admin).await };
    eventually("warm", sessions, |seen| *seen == 4).await;
    let since = "select count(*) from pg_stat_activity where application_name = 'sluicegate' and backend_start > $1";
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (mut client, stop, answered) = (gateway.h2().await, stop.clone(), answered.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = client.query("select 1::int from pg_sleep(0.01)", json!([])).await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    admin.batch_execute("alter role app password 'another'").await.unwrap();
    let changed: std::time::SystemTime = admin.query_one("select now()", &[]).await.unwrap().get(0);
    // The pool wants more connections now, and the server refuses the password that it knows.
    assert_eq!(gateway.admin("POST", "/pools/main/resize?min=6").await.0, 200);
    gateway.logged("28P01").await;
    gateway.status_until("/pools/main/breaker/reason", |reason| *reason == "authentication").await;
    let before = answered.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(answered.load(Ordering::Relaxed) > before + 100, "those that are open go on serving");
    let refused = postgres.logged(&["password authentication failed"]);
    assert!((1..=6).contains(&refused), "{refused} attempts with a refused password in four seconds");

    // The file follows; nobody reloads by hand, and what was opened with the old password retires.
    fs::write(&secret, "another\n").unwrap();
    let renewed = || async { admin.query_one(since, &[&changed]).await.unwrap().get::<_, i64>(0) };
    eventually("all are opened with the new password", renewed, |seen| *seen >= 4).await;
    eventually(
        "and none with the old",
        || async { postgres.sessions(&admin).await - renewed().await },
        |old| *old == 0,
    )
    .await;
    gateway.status_until("/pools/main/breaker/state", |state| *state == "closed").await;
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    let after = postgres.logged(&["password authentication failed"]);
    assert!(after <= refused + 2, "{after} refusals in all");
    let told = gateway.log_lines().join("\n") + &gateway.status().await.to_string();
    assert!(!told.contains(PASSWORD) && !told.contains("another"), "a password is told");
}

/// What became of writes that went on all the while.
#[derive(Default)]
struct Written {
    acknowledged: Vec<i64>,
    /// Told that they were not done.
    refused: Vec<i64>,
    /// Told that nobody knows.
    unknown: Vec<i64>,
    strange: Vec<String>,
}

/// Writes a number at a time, each once, until it is stopped.
async fn write(gateway: &Gateway, first: i64, stop: Arc<AtomicBool>) -> Written {
    let (mut client, mut written) = (gateway.h2().await, Written::default());
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let answer =
            client.query("insert into seen values ($1::text::int)", json!([number.to_string()])).await.unwrap();
        let problem = if answer.status == 200 { json!({}) } else { answer.json() };
        match answer.status {
            200 => written.acknowledged.push(number),
            _ if problem["outcome"] == "unknown" => written.unknown.push(number),
            502 | 503 if problem["retryable"] == true => written.refused.push(number),
            _ => written.strange.push(answer.text()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_failover_writes_go_to_the_new_primary_and_each_is_done_once_or_not_at_all() {
    let old = Postgres::start(0, &[]).await;
    let old_admin = old.admin().await;
    table(&old_admin, "seen (n int)").await;
    let new = standby_of(&old).await;
    let new_admin = new.admin().await;
    let url = old
        .url()
        .replace(&format!("127.0.0.1:{}", old.port), &format!("127.0.0.1:{},127.0.0.1:{}", old.port, new.port));
    let keys = "size = { min = 3, max = 3 }\nbackoff = { max = \"1s\" }";
    let gateway = Gateway::start(&config(&(url + "?target_session_attrs=read-write"), keys)).await;
    eventually("warm", || async { old.sessions(&old_admin).await }, |seen| *seen == 3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let rows = "select count(*) from seen";
    let failover = async {
        eventually("writes arrive", || count(&old_admin, rows), |seen| *seen > 50).await;
        // The old primary takes no writes any more; what it took reaches the new one before that is promoted.
        old_admin.batch_execute("alter system set default_transaction_read_only = on").await.unwrap();
        old_admin.batch_execute("select pg_reload_conf()").await.unwrap();
        gateway.status_until("/pools/main/counters/errors", |errors| errors.as_u64() >= Some(1)).await;
        caught_up(&old, &new).await;
        new.promote();
        let promoted = Instant::now();
        let before = count(&new_admin, rows).await;
        eventually("writes arrive at the new primary", || count(&new_admin, rows), |seen| *seen > before + 50).await;
        assert!(promoted.elapsed() < Duration::from_secs(8), "{:?}", promoted.elapsed());
        stop.store(true, Ordering::Relaxed);
    };
    let writers = async {
        let (stop, gateway) = (&stop, &gateway);
        tokio::join!(write(gateway, 1_000_000, stop.clone()), write(gateway, 2_000_000, stop.clone()))
    };
    let ((one, other), ()) = tokio::join!(writers, failover);
    let there: Vec<i64> = new_admin
        .query("select n from seen order by n", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| i64::from(row.get::<_, i32>(0)))
        .collect();
    let mut once = there.clone();
    once.dedup();
    assert_eq!(there.len(), once.len(), "a write was done twice");
    let mut refused = 0;
    for written in [one, other] {
        assert!(written.strange.is_empty(), "{:#?}", written.strange);
        assert!(
            written.acknowledged.iter().all(|number| there.contains(number)),
            "a write that was acknowledged is lost"
        );
        assert!(!written.refused.iter().any(|number| there.contains(number)), "a write that was refused was done");
        refused += written.refused.len();
    }
    assert!(refused > 0, "nobody met the server that takes no writes");
    eventually("nothing is left on the old primary", || old.sessions(&old_admin), |seen| *seen == 0).await;
    eventually("all are on the new", || new.sessions(&new_admin), |seen| *seen == 3).await;
}
