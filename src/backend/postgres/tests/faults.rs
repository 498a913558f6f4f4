//! When callers leave, servers die and sockets break.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    backend::{
        BackendError, Work,
        postgres::{
            PostgresConnection, Running,
            running::Step,
            testkit::{Cluster, LIMITS, batch, create, leave, query, refusal, run, soon, statement},
        },
    },
    net,
    pool::backend::{Backend, Connection, Hygiene, Manager, Peek, Probe},
};

async fn terminate(cluster: &Cluster, process: i32) {
    let admin = cluster.admin().await;
    admin.execute("select pg_terminate_backend($1)", &[&process]).await.unwrap();
}

/// Waits until `process` runs a statement.
async fn runs(cluster: &Cluster, process: i32) {
    let admin = cluster.admin().await;
    let sql = "select 1 from pg_stat_activity where pid = $1 and state = 'active'";
    while admin.query(sql, &[&process]).await.unwrap().is_empty() {}
}

async fn await_word(conn: &mut PostgresConnection) {
    let until = soon();
    while conn.stream.peek_state() == net::Peek::Clean {
        assert!(Instant::now() < until);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_is_cancelled() {
    let cluster = Cluster::start();
    for mode in ["disable", "require"] {
        let mut conn = create(&cluster.pool(&format!("sslmode={mode}"), &json!({}))).await.unwrap();
        leave(&mut conn, "select pg_sleep(60)").await;
        assert_eq!((conn.hygiene(), conn.transaction()), (Hygiene::Busy, 3));
        timeout(Duration::from_secs(5), conn.recover()).await.unwrap().unwrap();
        assert_eq!(conn.hygiene(), Hygiene::Clean);
        assert_eq!(query(&mut conn, "select 1").await.unwrap().cell(), "1");
    }
}

#[tokio::test]
async fn a_statement_is_cancelled_although_its_line_is_cut() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    leave(&mut conn, "select pg_sleep(60)").await;
    runs(&cluster, conn.process()).await;
    let (stream, peer) = pair().await;
    // The server's process hears nothing of it.
    let _kept = std::mem::replace(&mut conn.stream, stream);
    reset(peer);
    assert!(conn.recover().await.is_err());
    assert_eq!(conn.hygiene(), Hygiene::Broken);
    let admin = cluster.admin().await;
    let active = "select 1 from pg_stat_activity where pid = $1 and state = 'active'";
    let until = soon();
    while !admin.query(active, &[&conn.process()]).await.unwrap().is_empty() {
        assert!(Instant::now() < until);
    }
}

#[tokio::test]
async fn a_late_cancel_never_hits_the_next_statement() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for n in 0..60 {
        // About as long as a cancel request takes to arrive, so that some come when the statement is over.
        leave(&mut conn, &format!("select pg_sleep({})", 0.005 + f64::from(n % 20) / 4000.0)).await;
        conn.recover().await.unwrap();
        assert_eq!(query(&mut conn, "select count(*) from generate_series(1, 20000)").await.unwrap().cell(), "20000");
    }
}

#[tokio::test]
async fn a_long_answer_that_nobody_reads_is_cancelled() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for sql in ["select generate_series(1, 100000000), repeat('x', 1000)", "select 1"] {
        let mut running =
            Running::begin(&mut conn, Arc::new(Work::Single(statement(sql, json!([])))), LIMITS).await.unwrap();
        assert_eq!(running.next(&mut conn).await.unwrap(), Step::Columns);
        drop(running);
        timeout(Duration::from_secs(5), conn.recover()).await.unwrap().unwrap();
        assert_eq!(conn.hygiene(), Hygiene::Clean);
    }
    assert_eq!(query(&mut conn, "select 1").await.unwrap().cell(), "1");
}

#[tokio::test]
async fn a_batch_that_nobody_waits_for_leaves_nothing_open() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (a int)").await.unwrap();
    let work = Work::Batch(batch(&["insert into t values (1)", "select pg_sleep(60)", "insert into t values (2)"]));
    drop(Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap());
    conn.recover().await.unwrap();
    assert_eq!(conn.hygiene(), Hygiene::Transaction);
    conn.probe(Probe::Rollback).await.unwrap();
    assert_eq!(query(&mut conn, "select count(*) from t").await.unwrap().cell(), "0");
}

#[tokio::test]
async fn a_request_left_half_sent_is_never_finished() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (a text)").await.unwrap();
    let text = "x".repeat(30_000_000);
    let mut work = batch(&["insert into t values ('first')", "select pg_sleep(60)"]);
    work.statements.push(statement("insert into t values ($1)", json!([text])));
    drop(Running::begin(&mut conn, Arc::new(Work::Batch(work)), LIMITS).await.unwrap());
    assert_eq!(conn.hygiene(), Hygiene::Busy);
    assert!(conn.recover().await.is_err());
    assert_eq!(conn.hygiene(), Hygiene::Broken);
    let backend = cluster.backend();
    timeout(Duration::from_secs(5), backend.close(conn)).await.unwrap();
    let mut other = backend.create().await.unwrap();
    assert_eq!(query(&mut other, "select count(*) from t").await.unwrap().cell(), "0");
}

#[tokio::test]
async fn a_statement_being_prepared_when_its_caller_leaves_is_closed() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "select pg_sleep(0.2)").await.unwrap();
    leave(&mut conn, "select pg_sleep(0.2)").await;
    conn.recover().await.unwrap();
    assert_eq!(conn.statements(), 0);
    assert_eq!(query(&mut conn, "select count(*) from pg_prepared_statements").await.unwrap().cell(), "0");
}

#[tokio::test]
async fn a_session_ended_while_idle_is_seen_by_a_look() {
    let cluster = Cluster::start();
    for mode in ["disable", "require"] {
        let mut conn = create(&cluster.pool(&format!("sslmode={mode}"), &json!({}))).await.unwrap();
        query(&mut conn, "select 1").await.unwrap();
        assert_eq!(conn.peek(), Peek::Clean);
        terminate(&cluster, conn.process()).await;
        await_word(&mut conn).await;
        tokio::task::yield_now().await;
        assert_eq!(conn.peek(), Peek::Closed, "{mode}");
        assert_eq!(conn.hygiene(), Hygiene::Broken);
    }
}

#[tokio::test]
async fn news_from_the_server_is_no_reason_to_close() {
    let cluster = Cluster::start();
    let (mut conn, mut other) = (cluster.connect().await, cluster.connect().await);
    query(&mut conn, "listen x").await.unwrap();
    query(&mut other, "notify x").await.unwrap();
    await_word(&mut conn).await;
    tokio::task::yield_now().await;
    assert_eq!(conn.peek(), Peek::Pending);
    assert_eq!(conn.hygiene(), Hygiene::Session);
    assert_eq!(query(&mut conn, "select 1").await.unwrap().cell(), "1");
    assert_eq!(conn.peek(), Peek::Clean);

    // The server tells of a reload with the next statement, as if that had done it: one reset, and it is the new state.
    let admin = cluster.admin().await;
    admin.batch_execute("alter system set timezone = 'Japan'").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    while query(&mut other, "show timezone").await.unwrap().cell() != "Japan" {}
    assert_eq!(other.hygiene(), Hygiene::Session);
    cluster.backend().probe(&mut other, Probe::ResetSession).await.unwrap();
    query(&mut other, "set timezone = 'UTC'").await.unwrap();
    cluster.backend().probe(&mut other, Probe::ResetSession).await.unwrap();
    assert_eq!((query(&mut other, "show timezone").await.unwrap().cell(), other.hygiene()), ("Japan", Hygiene::Clean));
}

#[tokio::test]
async fn a_session_ended_is_seen_on_a_runtime_that_has_not_heard_of_it() {
    let cluster = Cluster::start();
    for mode in ["disable", "require"] {
        let mut conn = create(&cluster.pool(&format!("sslmode={mode}"), &json!({}))).await.unwrap();
        terminate(&cluster, conn.process()).await;
        await_word(&mut conn).await;
        let seen = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                conn.rehome().unwrap();
                conn.peek()
            })
        });
        assert_eq!(seen.join().unwrap(), Peek::Closed, "{mode}");
    }
}

#[tokio::test]
async fn what_was_never_sent_says_so() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let (stream, peer) = pair().await;
    conn.stream = stream;
    reset(peer);
    let outcome = query(&mut conn, "select 1").await;
    assert!(matches!(outcome, Err(BackendError::Lost { sent: false, outcome_unknown: false, .. })), "{outcome:?}");
    assert_eq!(conn.hygiene(), Hygiene::Broken);
}

#[tokio::test]
async fn a_server_that_takes_nothing_costs_its_connection_in_bounded_time() {
    let cluster = Cluster::start();
    let mut conn = create(&cluster.pool("sslmode=disable", &json!({ "tcp_user_timeout": "1s" }))).await.unwrap();
    let frozen = rustix::process::Pid::from_raw(conn.process()).unwrap();
    rustix::process::kill_process(frozen, rustix::process::Signal::STOP).unwrap();
    // More than the buffers of both sides hold: the server's kernel answers, but takes no more.
    let work = Work::Single(statement("select length($1::text)", json!(["x".repeat(64 << 20)])));
    let mut outcome = timeout(Duration::from_secs(20), Running::begin(&mut conn, Arc::new(work), LIMITS)).await;
    if let Ok(Ok(running)) = &mut outcome {
        outcome = timeout(Duration::from_secs(20), running.next(&mut conn)).await.map(|step| Err(step.unwrap_err()));
    }
    rustix::process::kill_process(frozen, rustix::process::Signal::CONT).unwrap();
    assert!(matches!(outcome, Ok(Err(BackendError::Lost { sent: true, .. }))), "{outcome:?}");
}

#[tokio::test]
async fn a_connection_works_on_another_runtime() {
    let cluster = Cluster::start();
    let mut conn = create(&cluster.pool("sslmode=require", &json!({}))).await.unwrap();
    query(&mut conn, "select 1").await.unwrap();
    let cell = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            conn.rehome().unwrap();
            query(&mut conn, "select 2").await.unwrap().cell().to_owned()
        })
    });
    assert_eq!(cell.join().unwrap(), "2");
}

#[tokio::test]
async fn a_session_ended_while_a_statement_runs_did_not_commit_it() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let work = Work::Single(statement("select pg_sleep(60)", json!([])));
    let mut running = Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap();
    runs(&cluster, conn.process()).await;
    terminate(&cluster, conn.process()).await;
    let outcome = running.next(&mut conn).await;
    let Err(BackendError::Lost { sent: true, outcome_unknown: false, reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("57P01"), "{reason}");
    assert_eq!(conn.hygiene(), Hygiene::Broken);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_last_word_leaves_the_outcome_unknown() {
    let cluster = Cluster::start();
    for (read_only, unknown) in [(false, true), (true, false)] {
        let mut conn = cluster.connect().await;
        let mut work = batch(&["select pg_sleep(60)"]);
        work.read_only = read_only;
        let mut running = Running::begin(&mut conn, Arc::new(Work::Batch(work)), LIMITS).await.unwrap();
        runs(&cluster, conn.process()).await;
        // The server's process hears nothing of it: to us, the line is cut.
        conn.stream = pair().await.0;
        let outcome = running.next(&mut conn).await;
        assert!(
            matches!(&outcome, Err(BackendError::Lost { sent: true, outcome_unknown, .. }) if *outcome_unknown == unknown),
            "{outcome:?}"
        );
        assert_eq!(conn.hygiene(), Hygiene::Broken);
    }
}

#[tokio::test]
async fn a_commit_that_is_out_without_the_sync_behind_it_leaves_the_outcome_unknown() {
    let cluster = Cluster::start();
    for (unsent, unknown) in [(&b"S\0\0\0\x04"[..], true), (b"\0S\0\0\0\x04", false)] {
        let mut conn = cluster.connect().await;
        let work = Work::Batch(batch(&["select pg_sleep(60)"]));
        let mut running = Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap();
        conn.outbox.extend_from_slice(unsent);
        conn.go_mute().await;
        let outcome = running.next(&mut conn).await;
        assert!(
            matches!(&outcome, Err(BackendError::Lost { sent: true, outcome_unknown, .. }) if *outcome_unknown == unknown),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn code_that_commits_by_itself_may_have_done_so_when_its_session_is_ended() {
    let cluster = Cluster::start();
    let mut admin = cluster.connect().await;
    query(&mut admin, "create procedure p() language plpgsql as 'begin commit; perform pg_sleep(60); end'")
        .await
        .unwrap();
    for sql in ["call p()", "do 'begin commit; perform pg_sleep(60); end'"] {
        let mut conn = cluster.connect().await;
        let work = Work::Single(statement(sql, json!([])));
        let mut running = Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap();
        runs(&cluster, conn.process()).await;
        terminate(&cluster, conn.process()).await;
        let outcome = running.next(&mut conn).await;
        assert!(matches!(outcome, Err(BackendError::Lost { outcome_unknown: true, .. })), "{sql}: {outcome:?}");
    }
}

/// A stream of ours, and what is at its other end.
async fn pair() -> (net::Stream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (stream.into(), listener.accept().await.unwrap().0)
}

/// With nothing to linger for, a close is a reset.
fn reset(peer: tokio::net::TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_costs_its_connection_alone() {
    let cluster = Cluster::start();
    for noise in [
        &b"Z\0\0\0\x05I"[..],
        b"Z\0\0\0\x04",
        b"D\0\0\0\x04",
        b"D\0\0\0\x06\0\x01",
        b"D\xff\xff\xff\xff",
        b"\0\0\0\0\0\0",
        b"T\0\0\0\x06\0\x09",
        b"C\0\0\0\x0dSELECT 1\0",
        b"C\0\0\0\x0dSELECT 1\0C\0\0\0\x0dSELECT 1\0",
        b"W\0\0\0\x04",
    ] {
        let mut conn = cluster.connect().await;
        let (stream, mut server) = pair().await;
        conn.stream = stream;
        tokio::io::AsyncWriteExt::write_all(&mut server, noise).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut server).await.unwrap();
        let outcome = query(&mut conn, "select 1").await;
        assert!(matches!(outcome, Err(BackendError::Lost { sent: true, .. })), "{noise:?}: {outcome:?}");
        assert_eq!(conn.hygiene(), Hygiene::Broken);
    }
}

#[tokio::test]
async fn an_idle_transaction_that_the_server_ends_breaks_the_connection() {
    let cluster = Cluster::start();
    let more = json!({"idle_in_transaction_timeout": "50ms"});
    let mut conn = create(&cluster.pool("sslmode=disable", &more)).await.unwrap();
    query(&mut conn, "begin").await.unwrap();
    await_word(&mut conn).await;
    let error = refusal(query(&mut conn, "select 1").await);
    assert_eq!((error.sqlstate.as_deref(), error.severity.as_deref()), (Some("25P03"), Some("FATAL")));
    assert_eq!(conn.hygiene(), Hygiene::Broken);
}

#[tokio::test]
async fn a_step_that_is_given_up_can_be_taken_again() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let work = Work::Single(statement("select n from (select 1 n, pg_sleep(0.2)) x", json!([])));
    let mut running = Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap();
    let mut tries = 0;
    let first = loop {
        match timeout(Duration::from_millis(20), running.next(&mut conn)).await {
            Ok(step) => break step.unwrap(),
            Err(_) => tries += 1,
        }
    };
    assert!(tries > 0);
    assert_eq!(first, Step::Columns);
    assert_eq!(running.next(&mut conn).await.unwrap(), Step::Row);
    assert_eq!(running.next(&mut conn).await.unwrap(), Step::Complete);
    assert_eq!(running.next(&mut conn).await.unwrap(), Step::Done);
    assert!(running.round_trip().unwrap() >= Duration::from_millis(1));
    assert!(run(&mut conn, Work::Batch(batch(&["select 1"]))).await.is_ok());
}
