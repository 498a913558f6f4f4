//! Statements and batches: results, errors, prepared statements, refusals.

use std::sync::Arc;

use serde_json::json;

use crate::{
    backend::{
        BackendError, Batch, Isolation, Limits, Origin, Work,
        postgres::{
            Running,
            running::Step,
            testkit::{Cluster, LIMITS, batch, create, query, query_with, refusal, run, statement},
        },
    },
    pool::backend::{Connection, Hygiene, Probe},
};

#[tokio::test]
async fn what_is_wrong_with_parameters_is_told_in_the_same_words_however_often_a_text_came() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for sight in 1..=4 {
        let none = refusal(query(&mut conn, "select $1::int").await);
        assert_eq!(
            (none.sqlstate.as_deref(), none.message.as_str()),
            (Some("08P01"), "bind message supplies 0 parameters, but prepared statement \"\" requires 1"),
            "{sight}"
        );
        let nul = refusal(query_with(&mut conn, "select $1::text", json!(["a\0"])).await);
        assert_eq!(
            (nul.sqlstate.as_deref(), nul.message.as_str()),
            (Some("22021"), "invalid byte sequence for encoding \"UTF8\": 0x00"),
            "{sight}"
        );
    }
    let raised = "do $$ begin raise exception 'sg1 and \"sg2\"' using errcode = '08P01'; end $$";
    assert_eq!(refusal(query(&mut conn, raised).await).message, "sg1 and \"sg2\"", "others' words are theirs");
}

#[tokio::test]
async fn tags_and_counts_come_as_the_server_gives_them() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for (sql, command, count) in [
        ("create table t (id int primary key, v text)", "CREATE TABLE", None),
        ("insert into t select n, 'x' from generate_series(1, 5) n", "INSERT", Some(5)),
        ("update t set v = 'y' where id > 3", "UPDATE", Some(2)),
        ("select * from t where false", "SELECT", Some(0)),
        ("delete from t where id = 1 returning id", "DELETE", Some(1)),
        ("create table u as select * from t", "SELECT", Some(4)),
        ("", "", None),
        ("-- nothing", "", None),
    ] {
        let answer = query(&mut conn, sql).await.unwrap();
        assert_eq!((answer.command.as_str(), answer.row_count), (command, count), "{sql}");
        assert_eq!(conn.hygiene(), Hygiene::Clean, "{sql}");
    }
    let answer = query(&mut conn, "select id, v from t order by id").await.unwrap();
    assert_eq!(answer.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "v"]);
    assert_eq!(answer.rows.len(), 4);
}

#[tokio::test]
async fn a_read_is_refused_every_way_to_write() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (id int)").await.unwrap();
    query(&mut conn, "create procedure p() language plpgsql as $$ begin commit; insert into t values (1); end $$")
        .await
        .unwrap();
    let loosened = "select set_config('transaction_read_only', 'off', false)";
    query(&mut conn, "create function f() returns void language plpgsql as $$ begin perform set_config('transaction_read_only', 'off', true); insert into t values (1); end $$").await.unwrap();
    for (sql, sqlstate) in [
        ("insert into t values (1)", "25006"),
        ("with x as (insert into t values (1) returning id) select * from x", "25006"),
        ("create table u ()", "25006"),
        ("do $$ begin set transaction_read_only = off; insert into t values (1); end $$", "25001"),
        ("do $$ begin commit; insert into t values (1); end $$", "2D000"),
        ("call p()", "2D000"),
        ("select f()", "25001"),
        (loosened, "25001"),
    ] {
        for _ in 0..3 {
            let error = refusal(run(&mut conn, Work::Read(statement(sql, json!([])))).await);
            assert_eq!(error.sqlstate.as_deref(), Some(sqlstate), "{sql}");
            assert_eq!(error.statement, None, "{sql}");
            conn.probe(Probe::Rollback).await.unwrap();
        }
    }
    for sql in ["set transaction_read_only = off", "set default_transaction_read_only = off", "select id from t"] {
        let outcome = run(&mut conn, Work::Read(statement(sql, json!([])))).await;
        assert!(outcome.is_ok_and(|answers| answers.len() == 1 && answers[0].rows.is_empty()), "{sql}");
        assert_eq!(conn.hygiene() == Hygiene::Clean, sql.starts_with("select"), "{sql}");
        conn.probe(Probe::ResetSession).await.unwrap();
    }
    for sql in ["begin", "commit", "rollback", "set transaction read write", "copy t to stdout"] {
        let outcome = run(&mut conn, Work::Read(statement(sql, json!([])))).await;
        assert!(matches!(outcome, Err(BackendError::Unsupported(_))), "{sql}: {outcome:?}");
        assert_eq!(conn.hygiene(), Hygiene::Clean, "nothing was sent");
    }
    let answer = query(&mut conn, "select count(*)::int from t").await.unwrap();
    assert_eq!(answer.rows[0][0].as_deref(), Some("0"));
}

#[tokio::test]
async fn a_prepared_read_outlives_a_change_of_its_table() {
    let cluster = Cluster::start();
    let (mut conn, mut other) = (cluster.connect().await, cluster.connect().await);
    query(&mut conn, "create table t (a int)").await.unwrap();
    let mut columns = Vec::new();
    for change in ["select", "select", "select", "alter table t add b text", "select", "alter table t drop b"] {
        query(&mut other, change).await.unwrap();
        let answers = run(&mut conn, Work::Read(statement("select * from t", json!([])))).await.unwrap();
        columns.push(answers[0].columns.len());
        assert_eq!(conn.hygiene(), Hygiene::Clean, "the failed attempt left nothing open");
    }
    assert_eq!(columns, [1, 1, 1, 2, 2, 1]);
}

#[tokio::test]
async fn an_error_has_all_its_fields_and_the_connection_goes_on() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (id int constraint positive check (id > 0))").await.unwrap();

    let error = refusal(query(&mut conn, "insert into t values (-1)").await);
    assert_eq!(error.sqlstate.as_deref(), Some("23514"));
    assert_eq!(error.severity.as_deref(), Some("ERROR"));
    assert_eq!((error.schema.as_deref(), error.table.as_deref()), (Some("public"), Some("t")));
    assert_eq!(error.constraint.as_deref(), Some("positive"));
    assert_eq!(error.detail.as_deref(), Some("Failing row contains (-1)."));
    assert!(error.file.is_some() && error.line.is_some() && error.routine.is_some());

    let error = refusal(query(&mut conn, "select 1, nope from t").await);
    assert_eq!((error.sqlstate.as_deref(), error.position), (Some("42703"), Some(11)));

    let raise = "do $$ begin raise exception 'no' using hint = 'try', detail = 'why', errcode = 'ZZ001', column = 'c', \
                 datatype = 'd'; end $$";
    let error = refusal(query(&mut conn, raise).await);
    assert_eq!((error.sqlstate.as_deref(), error.message.as_str()), (Some("ZZ001"), "no"));
    assert_eq!((error.hint.as_deref(), error.detail.as_deref()), (Some("try"), Some("why")));
    assert_eq!((error.column.as_deref(), error.data_type.as_deref()), (Some("c"), Some("d")));
    assert!(error.context.unwrap().contains("PL/pgSQL"));

    let error = refusal(query(&mut conn, "do $$ begin execute 'select nope'; end $$").await);
    assert_eq!((error.internal_query.as_deref(), error.internal_position), (Some("select nope"), Some(8)));

    let error = refusal(query(&mut conn, "select 1; select 2").await);
    assert_eq!(error.message, "cannot insert multiple commands into a prepared statement");
    let error = refusal(query(&mut conn, "select $1::int").await);
    assert_eq!(error.message, "bind message supplies 0 parameters, but prepared statement \"\" requires 1");
    assert_eq!(query(&mut conn, "select 1").await.unwrap().cell(), "1");
}

#[tokio::test]
async fn a_text_seen_twice_is_prepared_and_the_least_used_is_closed() {
    let cluster = Cluster::start();
    let mut conn = create(&cluster.pool("sslmode=disable", &json!({"statement_cache": 3}))).await.unwrap();
    let names = "select count(*), min(name) like 'sg%' from pg_prepared_statements";
    let plain = query(&mut conn, names).await.unwrap();
    assert_eq!(plain.rows[0][0].as_deref(), Some("0"), "what runs once leaves nothing");
    for _ in 0..3 {
        for n in 0..10 {
            for _ in 0..2 {
                let answer = query_with(&mut conn, &format!("select $1::int + {n}"), json!([1])).await.unwrap();
                assert_eq!(answer.cell(), (n + 1).to_string());
            }
        }
    }
    let cached = query(&mut conn, names).await.unwrap();
    let count: u32 = cached.rows[0][0].as_deref().unwrap().parse().unwrap();
    // One that was pushed out may wait for the next request to be closed.
    assert!((1..=4).contains(&count), "{count}");
    assert_eq!(cached.rows[0][1].as_deref(), Some("t"));
    assert!(conn.statements() <= 3);
}

#[tokio::test]
async fn a_prepared_statement_that_failed_to_parse_is_not_kept() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for _ in 0..3 {
        assert_eq!(refusal(query(&mut conn, "select * from later").await).sqlstate.as_deref(), Some("42P01"));
    }
    assert_eq!(conn.statements(), 0);
    query(&mut conn, "create table later (a int)").await.unwrap();
    for _ in 0..3 {
        assert_eq!(query(&mut conn, "select * from later").await.unwrap().columns.len(), 1);
    }
    assert_eq!(conn.statements(), 1);
}

#[tokio::test]
async fn a_changed_table_is_noticed_and_the_statement_prepared_anew() {
    let cluster = Cluster::start();
    let (mut conn, mut other) = (cluster.connect().await, cluster.connect().await);
    query(&mut conn, "create table t (a int)").await.unwrap();
    query(&mut conn, "insert into t values (7)").await.unwrap();
    for _ in 0..3 {
        assert_eq!(query(&mut conn, "select * from t").await.unwrap().cell(), "7");
    }
    query(&mut other, "alter table t add b text default 'new'").await.unwrap();
    let answer = query(&mut conn, "select * from t").await.unwrap();
    assert_eq!((answer.columns.len(), answer.rows[0].len()), (2, 2));

    // Somebody dropped it by hand.
    query(&mut conn, "deallocate all").await.unwrap();
    assert_eq!(query(&mut conn, "select * from t").await.unwrap().columns.len(), 2);

    // Within a batch there is no second try, but the next batch works.
    query(&mut other, "alter table t drop b").await.unwrap();
    let again = || Work::Batch(batch(&["insert into t values (8)", "select * from t"]));
    let error = refusal(run(&mut conn, again()).await);
    assert_eq!((error.sqlstate.as_deref(), error.statement), (Some("0A000"), Some(1)));
    conn.probe(Probe::Rollback).await.unwrap();
    let answers = run(&mut conn, again()).await.unwrap();
    assert_eq!((answers[1].columns.len(), answers[1].rows.len()), (1, 2));
}

#[tokio::test]
async fn a_batch_is_one_transaction() {
    let cluster = Cluster::start();
    let (mut conn, mut other) = (cluster.connect().await, cluster.connect().await);
    let answers = run(
        &mut conn,
        Work::Batch(batch(&[
            "create table t (id int primary key)",
            "insert into t values (1)",
            "select count(*) from t",
        ])),
    );
    let answers = answers.await.unwrap();
    assert_eq!(
        answers.iter().map(|answer| answer.command.as_str()).collect::<Vec<_>>(),
        ["CREATE TABLE", "INSERT", "SELECT"]
    );
    assert_eq!(query(&mut other, "select count(*) from t").await.unwrap().cell(), "1");
    assert_eq!(conn.hygiene(), Hygiene::Clean);

    let failing = batch(&["insert into t values (2)", "insert into t values (1)", "insert into t values (3)"]);
    let error = refusal(run(&mut conn, Work::Batch(failing)).await);
    assert_eq!((error.sqlstate.as_deref(), error.statement), (Some("23505"), Some(1)));
    assert_eq!(conn.hygiene(), Hygiene::Transaction);
    conn.probe(Probe::Rollback).await.unwrap();
    assert_eq!(conn.hygiene(), Hygiene::Clean);
    assert_eq!(query(&mut other, "select count(*) from t").await.unwrap().cell(), "1");

    assert!(run(&mut conn, Work::Batch(batch(&[]))).await.unwrap().is_empty());
}

#[tokio::test]
async fn success_is_told_only_when_it_is_committed() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let table = "create table t (id int unique deferrable initially deferred)";
    query(&mut conn, table).await.unwrap();
    query(&mut conn, "insert into t values (1)").await.unwrap();
    for work in [
        Work::Single(statement("insert into t values (1) returning id", json!([]))),
        Work::Batch(batch(&["insert into t values (1) returning id"])),
    ] {
        let mut running = Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap();
        assert_eq!(running.next(&mut conn).await.unwrap(), Step::Columns);
        assert_eq!(running.next(&mut conn).await.unwrap(), Step::Row);
        let error = refusal(running.next(&mut conn).await);
        assert_eq!((error.sqlstate.as_deref(), error.statement), (Some("23505"), None));
        assert_eq!(conn.hygiene(), Hygiene::Clean, "a failed COMMIT ends the transaction");
    }
}

#[tokio::test]
async fn columns_say_where_they_come_from() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (id int, dropped int, price numeric(10, 2), code varchar(7))").await.unwrap();
    query(&mut conn, "alter table t drop column dropped").await.unwrap();
    let table: u32 = query(&mut conn, "select 't'::regclass::oid").await.unwrap().cell().parse().unwrap();
    let from = |type_id, column_id, size, modifier| Origin {
        type_id,
        table_id: if column_id == 0 { 0 } else { table },
        column_id,
        size,
        modifier,
    };
    let expected = [
        from(23, 1, 4, -1),
        from(1700, 3, -1, (10 << 16 | 2) + 4),
        from(1043, 4, -1, 7 + 4),
        from(27, -1, 6, -1),
        from(20, 0, 8, -1),
    ];
    // As the server tells it, and twice as it is remembered.
    for _ in 0..4 {
        let answer = query(&mut conn, "select id, price, code, ctid, 1::int8 from t").await.unwrap();
        assert_eq!(answer.columns.iter().map(|column| column.origin).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn isolation_and_read_only_hold() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (id int)").await.unwrap();
    for (isolation, name) in [
        (Isolation::ReadUncommitted, "read uncommitted"),
        (Isolation::ReadCommitted, "read committed"),
        (Isolation::RepeatableRead, "repeatable read"),
        (Isolation::Serializable, "serializable"),
    ] {
        let work = Batch { isolation: Some(isolation), ..batch(&["show transaction_isolation"]) };
        assert_eq!(run(&mut conn, Work::Batch(work)).await.unwrap()[0].cell(), name);
    }
    for deferrable in [true, false] {
        let isolation = Some(Isolation::Serializable);
        let work = Batch { isolation, read_only: true, deferrable, ..batch(&["show transaction_deferrable"]) };
        let shown = if deferrable { "on" } else { "off" };
        assert_eq!(run(&mut conn, Work::Batch(work)).await.unwrap()[0].cell(), shown);
    }
    for escape in [
        "insert into t values (1)",
        "set transaction_read_only = off",
        "select set_config('transaction_read_only', 'off', true)",
        "do $$ begin set transaction read write; end $$",
    ] {
        let work = Batch { read_only: true, ..batch(&[escape, "insert into t values (1)"]) };
        let error = refusal(run(&mut conn, Work::Batch(work)).await);
        assert!(error.sqlstate.as_deref().is_some_and(|state| state.starts_with("25")), "{escape}: {error:?}");
        conn.probe(Probe::Rollback).await.unwrap();
    }
    let work = Batch { read_only: true, ..batch(&["select count(*) from t"]) };
    assert_eq!(run(&mut conn, Work::Batch(work)).await.unwrap()[0].cell(), "0");
}

#[tokio::test]
async fn what_would_break_a_batch_is_refused_before_it_is_sent() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (id int)").await.unwrap();
    for sql in [
        "commit",
        ";/* x */ ROLLBACK",
        "-- x\rcommit",
        "set local transaction read write",
        "copy t from stdin",
        "\0",
        "copy t to STDOUT",
    ] {
        for _ in 0..3 {
            let outcome = run(&mut conn, Work::Batch(batch(&["insert into t values (1)", sql]))).await;
            assert!(matches!(outcome, Err(BackendError::Unsupported(_))), "{sql}: {outcome:?}");
        }
    }
    let many = vec![json!(1); 65_536];
    let outcome = query_with(&mut conn, "select 1", json!(many)).await;
    assert!(matches!(outcome, Err(BackendError::Unsupported(_))), "{outcome:?}");
    assert_eq!(conn.hygiene(), Hygiene::Clean);
    assert_eq!(query(&mut conn, "select count(*) from t").await.unwrap().cell(), "0");
}

#[tokio::test]
async fn what_controls_a_transaction_never_has_a_name_to_be_reached_by() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    for _ in 0..4 {
        for sql in ["commit", "rollback", "set work_mem = '1MB'", "copy (select 1) to stdout"] {
            let _ = query(&mut conn, sql).await;
        }
    }
    assert_eq!(query(&mut conn, "select count(*) from pg_prepared_statements").await.unwrap().cell(), "0");
}

#[tokio::test]
async fn the_same_text_many_times_in_a_batch_is_parsed_twice() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (id int)").await.unwrap();
    let insert = "insert into t values ($1) returning id";
    let statements = (0..1000).map(|n| statement(insert, json!([n]))).collect();
    let work = Batch { statements, ..Batch::default() };
    let answers = run(&mut conn, Work::Batch(work)).await.unwrap();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!((answer.cell(), answer.columns.len()), (n.to_string().as_str(), 1));
    }
    assert_eq!(conn.statements(), 1);
    assert_eq!(query(&mut conn, "select count(*) from t").await.unwrap().cell(), "1000");
}

#[tokio::test]
async fn long_requests_and_long_replies_do_not_wait_for_each_other() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let text = "x".repeat(100_000);
    let statements = (0..100).map(|_| statement("select repeat($1, 5)", json!([text]))).collect();
    let work = Batch { statements, ..Batch::default() };
    let answers = run(&mut conn, Work::Batch(work)).await.unwrap();
    assert!(answers.iter().all(|answer| answer.cell().len() == 500_000));
}

#[tokio::test]
async fn a_large_answer_is_read_at_the_consumers_pace() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let work = Work::Single(statement("select generate_series(1, 100000), repeat('x', 500)", json!([])));
    let mut running = Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap();
    let (mut rows, mut most) = (0, 0);
    while let step @ (Step::Columns | Step::Row | Step::Complete) = running.next(&mut conn).await.unwrap() {
        rows += u32::from(step == Step::Row);
        most = most.max(conn.inbox.len());
    }
    assert_eq!(rows, 100_000);
    assert!(most <= 128 << 10, "{most} bytes were held");
    assert_eq!(conn.inbox.capacity(), 0, "and none are kept");
}

#[tokio::test]
async fn a_row_beyond_the_limit_is_not_held_and_the_connection_recovers() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    let sql = "select repeat('x', n) from unnest(array[10, 50000000, 10]) n";
    let limits = Limits { row: 100_000, ..Limits::default() };
    let work = Arc::new(Work::Single(statement(sql, json!([]))));
    let mut running = Running::begin(&mut conn, work, limits).await.unwrap();
    assert_eq!(running.next(&mut conn).await.unwrap(), Step::Columns);
    assert_eq!(running.next(&mut conn).await.unwrap(), Step::Row);
    let outcome = running.next(&mut conn).await;
    assert!(matches!(outcome, Err(BackendError::TooLarge { limit: 100_000 })), "{outcome:?}");
    assert!(conn.inbox.len() <= 128 << 10);
    assert_eq!(conn.hygiene(), Hygiene::Busy);
    conn.recover().await.unwrap();
    assert_eq!(query(&mut conn, "select 1").await.unwrap().cell(), "1");
}

#[tokio::test]
async fn notices_pass_by() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create function f() returns int language plpgsql as $$ begin raise notice 'a'; raise warning 'b'; return 1; end $$")
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(query(&mut conn, "select f() from generate_series(1, 3)").await.unwrap().rows.len(), 3);
    }
}

#[tokio::test]
async fn copy_is_refused_both_ways_and_the_connection_goes_on() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (a text)").await.unwrap();
    query(&mut conn, "insert into t select repeat('x', 1000) from generate_series(1, 5000)").await.unwrap();
    for _ in 0..3 {
        for sql in ["copy t from stdin", "copy t to stdout", "copy (select repeat('y', 2000000)) to stdout"] {
            let outcome = query(&mut conn, sql).await;
            assert!(matches!(outcome, Err(BackendError::Unsupported(_))), "{sql}: {outcome:?}");
            assert_eq!(conn.hygiene(), Hygiene::Clean);
        }
    }
    assert_eq!(query(&mut conn, "select count(*) from t").await.unwrap().cell(), "5000");
    // Left in the middle of it.
    for sql in ["copy t from stdin", "copy t to stdout"] {
        crate::backend::postgres::testkit::leave(&mut conn, sql).await;
        conn.recover().await.unwrap();
    }
    assert_eq!(query(&mut conn, "select count(*) from t").await.unwrap().cell(), "5000");
}

/// A named query as it is composed: one statement with what holds for it.
fn settled(sql: &str, params: serde_json::Value, read_only: bool, settings: &[(&'static str, &str)]) -> Work {
    let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect();
    let statements = vec![statement(sql, params)];
    Work::Batch(Batch { statements, read_only, settings, single: true, ..Batch::default() })
}

#[tokio::test]
async fn settings_hold_for_their_transaction_only_and_cost_no_round_trip() {
    let cluster = Cluster::start();
    cluster.admin().await.batch_execute("create role anon nologin; grant anon to app").await.unwrap();
    let mut conn = cluster.connect().await;
    let sql = "select current_user || ' ' || current_setting('request.jwt.claims') || $1";
    let claims = r#"{"sub":"o'brien"}"#;
    for read_only in [false, true] {
        for _ in 0..3 {
            let work = settled(sql, json!(["!"]), read_only, &[("role", "anon"), ("request.jwt.claims", claims)]);
            let mut running = Running::begin(&mut conn, Arc::new(work), LIMITS).await.unwrap();
            let (sent, pending) = (conn.sent, conn.pending);
            assert!(conn.outbox.is_empty(), "all is sent before anything is read");
            let mut cells = Vec::new();
            while let step @ (Step::Columns | Step::Row | Step::Complete) = running.next(&mut conn).await.unwrap() {
                if let Some(crate::backend::Event::Row(row)) = running.event(&conn, step) {
                    row.cells(&mut |cell| cells.push(format!("{cell:?}")));
                }
            }
            assert_eq!((conn.sent, pending, conn.pending), (sent, 1, 0), "one Sync, and nothing more went out");
            let expected = format!("anon {claims}!");
            assert_eq!(cells, [format!("{:?}", crate::backend::Cell::Text(expected.as_bytes()))]);
            assert_eq!(conn.hygiene(), Hygiene::Clean);
            let after = "select current_user || coalesce(current_setting('request.jwt.claims', true), '')";
            assert_eq!(query(&mut conn, after).await.unwrap().cell(), "app");
        }
    }
}

#[tokio::test]
async fn a_statement_with_settings_fails_as_a_single_one_and_leaves_none_behind() {
    let cluster = Cluster::start();
    cluster.admin().await.batch_execute("create role anon nologin; grant anon to app").await.unwrap();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (a int)").await.unwrap();
    let left = "select current_user || ' ' || current_setting('statement_timeout')";
    let before = query(&mut conn, left).await.unwrap().cell().to_owned();
    let anon = [("role", "anon"), ("statement_timeout", "100ms")];

    let error = refusal(run(&mut conn, settled("select * from t", json!([]), true, &anon)).await);
    assert_eq!((error.sqlstate.as_deref(), error.statement), (Some("42501"), None));
    conn.probe(Probe::Rollback).await.unwrap();
    let error = refusal(run(&mut conn, settled("select pg_sleep(60)", json!([]), false, &anon)).await);
    assert_eq!(error.sqlstate.as_deref(), Some("57014"), "the timeout holds for the statement behind it");
    conn.probe(Probe::Rollback).await.unwrap();
    let error = refusal(run(&mut conn, settled("select 1", json!([]), false, &[("role", "postgres")])).await);
    assert_eq!(error.sqlstate.as_deref(), Some("42501"), "a role that the login role is no member of");
    conn.probe(Probe::Rollback).await.unwrap();
    let nul = settled("select 1", json!([]), false, &[("a.b", "\0")]);
    assert!(matches!(run(&mut conn, nul).await, Err(BackendError::Unsupported(_))));
    assert_eq!(conn.hygiene(), Hygiene::Clean, "nothing was sent");
    assert_eq!(query(&mut conn, left).await.unwrap().cell(), before);
}

#[tokio::test]
async fn no_statement_with_settings_makes_its_transaction_writable() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (id int)").await.unwrap();
    for sql in [
        "do $$ begin set transaction_read_only = off; insert into t values (1); end $$",
        "select set_config('transaction_read_only', 'off', true)",
    ] {
        let error = refusal(run(&mut conn, settled(sql, json!([]), true, &[("a.b", "c")])).await);
        assert_eq!(error.sqlstate.as_deref(), Some("25001"), "{sql}");
        conn.probe(Probe::Rollback).await.unwrap();
    }
    for sql in ["commit", "set transaction read write"] {
        let outcome = run(&mut conn, settled(sql, json!([]), true, &[("a.b", "c")])).await;
        assert!(matches!(outcome, Err(BackendError::Unsupported(_))), "{sql}: {outcome:?}");
    }
    assert_eq!(query(&mut conn, "select count(*) from t").await.unwrap().cell(), "0");
}

#[tokio::test]
async fn a_prepared_statement_with_settings_outlives_a_change_of_its_table() {
    let cluster = Cluster::start();
    let (mut conn, mut other) = (cluster.connect().await, cluster.connect().await);
    query(&mut conn, "create table t (a int)").await.unwrap();
    let mut columns = Vec::new();
    for change in ["select", "select", "select", "alter table t add b text", "select", "alter table t drop b"] {
        query(&mut other, change).await.unwrap();
        let answers = run(&mut conn, settled("select * from t", json!([]), false, &[("a.b", "c")])).await.unwrap();
        columns.push(answers[0].columns.len());
        assert_eq!(conn.hygiene(), Hygiene::Clean, "the failed attempt left nothing open");
    }
    assert_eq!(columns, [1, 1, 1, 2, 2, 1]);
}
