//! Connecting, and what a session leaves behind.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    backend::{
        BackendError, Work,
        postgres::{
            Postgres, PostgresConnection,
            testkit::{Cluster, batch, create, query, refusal, run},
        },
    },
    net::Host,
    pool::backend::{Backend, Connection, Failure, FailureClass, Hygiene, Manager, Peek, Probe},
};

async fn class(pool: &crate::config::model::Pool) -> (FailureClass, Option<String>) {
    let Err(failure) = create(pool).await else { panic!("it connected") };
    let public = failure.public();
    assert!(!public.contains("app") && !public.contains("127.0.0.1"), "{public}");
    (failure.class(), failure.sqlstate().map(str::to_owned))
}

#[tokio::test]
async fn tls_is_as_sslmode_says_and_scram_is_bound_to_it() {
    let cluster = Cluster::start();
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let ca = json!({"tls": {"ca": cluster.certificate(), "server_name": "localhost"}});
    let wrong_name = json!({"tls": {"ca": cluster.certificate(), "server_name": "elsewhere"}});
    for (mode, tls, expected) in [
        ("disable", json!({}), "f"),
        ("prefer", json!({}), "t"),
        ("require&channel_binding=require", json!({}), "t"),
        ("verify-ca&channel_binding=require", wrong_name.clone(), "t"),
        ("verify-full&channel_binding=require", ca, "t"),
    ] {
        let mut conn = create(&cluster.pool(&format!("sslmode={mode}"), &tls)).await.unwrap();
        for _ in 0..3 {
            assert_eq!(query(&mut conn, encrypted).await.unwrap().cell(), expected, "{mode}");
        }
    }
    for (mode, tls, expected) in [
        ("verify-full", json!({}), FailureClass::Other),
        ("verify-full", wrong_name, FailureClass::Other),
        ("disable&channel_binding=require", json!({}), FailureClass::Authentication),
    ] {
        assert_eq!(class(&cluster.pool(&format!("sslmode={mode}"), &tls)).await.0, expected, "{mode}");
    }
    let admin = cluster.admin().await;
    admin.batch_execute("alter system set ssl = off").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    // The reload reaches new sessions when the postmaster has seen it.
    while create(&cluster.pool("sslmode=require", &json!({}))).await.is_ok() {}
    assert_eq!(class(&cluster.pool("sslmode=require", &json!({}))).await.0, FailureClass::Other);
    let mut conn = create(&cluster.pool("sslmode=prefer", &json!({}))).await.unwrap();
    assert_eq!(query(&mut conn, encrypted).await.unwrap().cell(), "f");
}

#[tokio::test]
async fn failures_to_connect_have_their_class() {
    let cluster = Cluster::start();
    let wrong = cluster.pool_as("app:wrong", "sslmode=disable", &json!({}));
    assert_eq!(class(&wrong).await, (FailureClass::Authentication, Some("28P01".to_owned())));
    assert_eq!(class(&cluster.pool_as("app", "sslmode=disable", &json!({}))).await.0, FailureClass::Authentication);

    let backend = cluster.backend();
    let mut held = Vec::new();
    let full = loop {
        match backend.create().await {
            Ok(conn) => held.push(conn),
            Err(failure) => break failure,
        }
    };
    assert_eq!((full.class(), full.sqlstate()), (FailureClass::ServerFull, Some("53300")));
    drop(held);

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://app@{}/app", silent.local_addr().unwrap());
    let pool = |url: &str| {
        serde_json::from_value(json!({"backend": "postgres", "url": url, "connect_timeout": "100ms"})).unwrap()
    };
    assert_eq!(class(&pool(&url)).await.0, FailureClass::Timeout);
    drop(silent);
    assert_eq!(class(&pool(&url)).await.0, FailureClass::Unreachable);
    assert_eq!(class(&pool("postgres://app@no-such-host.invalid/app")).await.0, FailureClass::Unreachable);
}

#[tokio::test]
async fn a_host_that_says_nothing_is_passed_over() {
    let cluster = Cluster::start();
    // The kernel accepts for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = |ports: &[u16]| {
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let url = format!("postgres://app:secret@{}/app?sslmode=disable", hosts.join(","));
        serde_json::from_value(json!({"backend": "postgres", "url": url, "connect_timeout": "2s"})).unwrap()
    };
    let silent = silent.local_addr().unwrap().port();
    let mut conn = create(&pool(&[silent, cluster.port()])).await.unwrap();
    assert_eq!(query(&mut conn, "select 1").await.unwrap().cell(), "1");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(class(&pool(&[silent, closed])).await.0, FailureClass::Timeout, "one of them may still answer");
}

#[tokio::test]
async fn the_next_host_is_tried_and_sockets_work() {
    let cluster = Cluster::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let pool = |url: String| serde_json::from_value(json!({"backend": "postgres", "url": url})).unwrap();
    let hosts = format!("127.0.0.1:{closed},127.0.0.1:{}", cluster.port());
    for attributes in ["any", "read-write"] {
        let url = format!("postgres://app:secret@{hosts}/app?target_session_attrs={attributes}");
        assert_eq!(query(&mut create(&pool(url)).await.unwrap(), "select 1").await.unwrap().cell(), "1");
    }
    let url = format!("postgres://app:secret@{hosts}/app?target_session_attrs=read-only");
    assert_eq!(class(&pool(url)).await.0, FailureClass::Unavailable);
    let socket = cluster.socket().display().to_string().replace('/', "%2F");
    let mut conn = create(&pool(format!("postgres://app@{socket}:{}/app", cluster.port()))).await.unwrap();
    assert!(matches!(conn.place.host(), Host::Unix(_)));
    assert_eq!(query(&mut conn, "select inet_client_addr() is null").await.unwrap().cell(), "t");
    crate::backend::postgres::testkit::leave(&mut conn, "select pg_sleep(60)").await;
    conn.recover().await.unwrap();
}

#[tokio::test]
async fn settings_travel_with_the_start_up_and_outlive_a_reset() {
    let cluster = Cluster::start();
    cluster
        .admin()
        .await
        .batch_execute("alter role app set datestyle = 'German'; alter role app set bytea_output = 'escape'")
        .await
        .unwrap();
    let more = json!({"statement_timeout": "200ms", "idle_in_transaction_timeout": "3s", "application_name": "gate"});
    let mut conn = create(&cluster.pool("sslmode=disable&options=-c%20work_mem%3D5MB", &more)).await.unwrap();
    for _ in 0..2 {
        for (name, value) in [
            ("statement_timeout", "200ms"),
            ("idle_in_transaction_session_timeout", "3s"),
            ("application_name", "gate"),
            ("work_mem", "5MB"),
            ("datestyle", "ISO, MDY"),
            ("bytea_output", "hex"),
            ("client_encoding", "UTF8"),
        ] {
            assert_eq!(query(&mut conn, &format!("show {name}")).await.unwrap().cell(), value, "{name}");
            query(&mut conn, &format!("set {name} to default")).await.unwrap();
        }
        conn.probe(Probe::ResetSession).await.unwrap();
    }
    let error = refusal(query(&mut conn, "select pg_sleep(60)").await);
    assert_eq!(error.sqlstate.as_deref(), Some("57014"));
    assert_eq!(conn.hygiene(), Hygiene::Clean);
}

/// What a session holds that it did not hold at first.
async fn leftovers(conn: &mut PostgresConnection) -> Vec<Option<String>> {
    let sql = "select current_user, current_setting('work_mem'), current_setting('timezone'), \
               (select count(*)::text from pg_class where relpersistence = 't'), \
               (select count(*)::text from pg_locks where locktype = 'advi' || 'sory'), \
               (select count(*)::text from pg_listening_channels()), \
               (select count(*)::text from pg_cursors where name <> ''), \
               (select count(*)::text from pg_prepared_statements where from_sql)";
    query(conn, sql).await.unwrap().rows.remove(0)
}

#[tokio::test]
async fn what_a_session_was_left_with_is_seen_and_undone() {
    let cluster = Cluster::start();
    cluster.admin().await.batch_execute("create role other; grant other to app").await.unwrap();
    let backend = cluster.backend();
    let mut conn = backend.create().await.unwrap();
    query(
        &mut conn,
        "create function hidden() returns text language sql as $$ select set_config('timezone', 'Japan', false) $$",
    )
    .await
    .unwrap();
    conn.probe(Probe::ResetSession).await.unwrap();
    let clean = leftovers(&mut conn).await;
    assert_eq!(conn.hygiene(), Hygiene::Clean);
    for sql in [
        "set work_mem = '9MB'",
        "select set_config('work_mem', '9MB', false)",
        "select hidden()",
        "set role other",
        "create temp table tt (a int)",
        "select pg_advisory_lock(1)",
        "listen x",
        "declare c cursor with hold for select 1",
        "prepare p as select 1",
        "do $$ begin execute 'prepare p as select 1'; end $$",
    ] {
        query(&mut conn, sql).await.unwrap();
        assert_eq!(conn.hygiene(), Hygiene::Session, "{sql}");
        backend.probe(&mut conn, Probe::ResetSession).await.unwrap();
        assert_eq!(conn.hygiene(), Hygiene::Clean, "{sql}");
        assert_eq!(leftovers(&mut conn).await, clean, "{sql}");
        assert_eq!(conn.hygiene(), Hygiene::Clean, "{sql}");
    }
    for sql in ["select 1", "set local work_mem = '9MB'", "select pg_sleep(0)", "create table if not exists t (a int)"]
    {
        query(&mut conn, sql).await.unwrap();
        assert_eq!(conn.hygiene(), Hygiene::Clean, "{sql}");
    }
}

#[tokio::test]
async fn a_reset_keeps_our_statements_and_a_full_one_drops_them() {
    let cluster = Cluster::start();
    let backend = cluster.backend();
    let mut conn = backend.create().await.unwrap();
    query(&mut conn, "select 1").await.unwrap();
    assert_eq!(conn.hygiene(), Hygiene::Clean, "tracked: no cause");
    let backend =
        Postgres::new(&cluster.pool("sslmode=disable", &json!({"reset": "always"}))).unwrap().replacing(&backend);
    assert_eq!(conn.hygiene(), Hygiene::Session, "from now on");
    let mut conn = backend.create().await.unwrap();
    assert_eq!(conn.hygiene(), Hygiene::Clean, "a new connection needs no reset");
    for (probe, kept) in [(Probe::ResetSession, 1), (Probe::ResetFully, 0)] {
        for _ in 0..3 {
            query(&mut conn, "select 1").await.unwrap();
        }
        assert_eq!(conn.hygiene(), Hygiene::Session);
        backend.probe(&mut conn, probe).await.unwrap();
        assert_eq!((conn.hygiene(), conn.statements()), (Hygiene::Clean, kept));
    }
    assert_eq!(query(&mut conn, "select 1").await.unwrap().cell(), "1");
    for probe in [Probe::Ping, Probe::Query, Probe::Rollback] {
        backend.probe(&mut conn, probe).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_caller_puts_in_the_place_of_a_prepared_statement_is_not_run_for_the_next() {
    let cluster = Cluster::start();
    cluster
        .admin()
        .await
        .batch_execute(
            "create function plant() returns void language plpgsql as $$ declare r record; begin
               for r in select name from pg_prepared_statements where not from_sql loop
                 execute 'deal' || 'locate ' || r.name;
                 execute 'pre' || 'pare ' || r.name || '(int) as select ' || quote_literal('forged');
               end loop; end $$",
        )
        .await
        .unwrap();
    let mut conn = create(&cluster.pool("sslmode=disable", &json!({"reset": "always"}))).await.unwrap();
    let victim = "select 'honest'";
    for plant in ["select plant()", "do $$ begin perform plant(); end $$"] {
        for _ in 0..3 {
            assert_eq!(query(&mut conn, victim).await.unwrap().cell(), "honest");
        }
        assert!(conn.statements() > 0);
        query(&mut conn, plant).await.unwrap();
        conn.probe(Probe::ResetSession).await.unwrap();
        assert_eq!((conn.hygiene(), conn.statements()), (Hygiene::Clean, 0), "{plant}");
        assert_eq!(query(&mut conn, victim).await.unwrap().cell(), "honest", "{plant}");
    }
}

#[tokio::test]
async fn a_role_set_at_start_up_outlives_every_reset() {
    let cluster = Cluster::start();
    cluster.admin().await.batch_execute("create role lesser; grant lesser to app").await.unwrap();
    let mut conn = create(&cluster.pool("sslmode=disable&options=-c%20role%3Dlesser", &json!({}))).await.unwrap();
    for probe in [Probe::ResetSession, Probe::ResetFully] {
        query(&mut conn, "set role none").await.unwrap();
        conn.probe(probe).await.unwrap();
        assert_eq!(query(&mut conn, "select current_user").await.unwrap().cell(), "lesser", "{probe:?}");
    }
}

#[tokio::test]
async fn an_open_transaction_is_rolled_back() {
    let cluster = Cluster::start();
    let mut conn = cluster.connect().await;
    query(&mut conn, "create table t (a int)").await.unwrap();
    query(&mut conn, "begin").await.unwrap();
    assert_eq!((conn.hygiene(), conn.transaction()), (Hygiene::Transaction, 1));
    query(&mut conn, "insert into t values (1)").await.unwrap();
    refusal(query(&mut conn, "select 1/0").await);
    assert_eq!((conn.hygiene(), conn.transaction()), (Hygiene::Transaction, 2));
    conn.probe(Probe::ResetSession).await.unwrap();
    assert_eq!((conn.hygiene(), conn.transaction()), (Hygiene::Clean, 0));
    assert_eq!(query(&mut conn, "select count(*) from t").await.unwrap().cell(), "0");
}

#[tokio::test]
async fn what_comes_behind_start_up_is_not_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://app@{}/app?sslmode=disable", listener.local_addr().unwrap());
    let quiet = json!({"connections": 9});
    let pool = serde_json::from_value(json!({"backend": "postgres", "url": url, "server": quiet})).unwrap();
    let server = async {
        let (mut server, _) = listener.accept().await.unwrap();
        let mut scrap = [0; 1024];
        assert!(server.read(&mut scrap).await.unwrap() > 8);
        let start = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0K\0\0\0\x0c\0\0\0\x2a\0\0\0\x01Z\0\0\0\x05I";
        // A parameter changes at once, twice, and half of the second change comes with the start-up.
        server.write_all(&[&start[..], b"S\0\0\0\x08a\0c\0S\0\0\0\x08a\0"].concat()).await.unwrap();
        server
    };
    let (conn, mut server) = tokio::join!(create(&pool), server);
    let mut conn = conn.unwrap();
    assert_eq!((conn.parameter("a"), conn.process()), (Some("b"), 42));
    assert_eq!((conn.peek(), conn.parameter("a")), (Peek::Pending, Some("c")));
    server.write_all(b"d\0").await.unwrap();
    while conn.parameter("a") == Some("c") {
        assert_ne!(conn.peek(), Peek::Closed);
        tokio::task::yield_now().await;
    }
    assert_eq!((conn.parameter("a"), conn.hygiene()), (Some("d"), Hygiene::Clean));
}

#[tokio::test]
async fn behind_a_pooler_nothing_needs_a_session() {
    let cluster = Cluster::start();
    let mut conn =
        create(&cluster.pool("sslmode=disable", &json!({"behind_pgbouncer": true, "reset": "always"}))).await.unwrap();
    for _ in 0..3 {
        assert_eq!(query(&mut conn, "select count(*) from pg_prepared_statements").await.unwrap().cell(), "0");
    }
    for sql in ["set work_mem = '1MB'", "listen x", "prepare p as select 1", "create temp table t (a int)"] {
        assert!(matches!(query(&mut conn, sql).await, Err(BackendError::Unsupported(_))), "{sql}");
    }
    let work = Work::Batch(batch(&["set local work_mem = '9MB'", "show work_mem"]));
    assert_eq!(run(&mut conn, work).await.unwrap()[1].cell(), "9MB");
    assert_eq!(conn.hygiene(), Hygiene::Clean);
}

#[tokio::test]
async fn settings_change_for_new_connections() {
    let cluster = Cluster::start();
    let backend = Postgres::new(&cluster.pool("sslmode=disable", &json!({"application_name": "one"}))).unwrap();
    let mut old = backend.create().await.unwrap();
    let backend = Postgres::new(&cluster.pool("sslmode=disable", &json!({"application_name": "two"})))
        .unwrap()
        .replacing(&backend);
    let mut new = backend.create().await.unwrap();
    assert_eq!(query(&mut old, "show application_name").await.unwrap().cell(), "one");
    assert_eq!(query(&mut new, "show application_name").await.unwrap().cell(), "two");
    assert!(backend.identity().ends_with("/app"));
    assert!(new.parameter("server_version").is_some() && new.process() > 0);
}

#[tokio::test]
async fn a_goodbye_waits_for_the_server_to_close() {
    let cluster = Cluster::start();
    let backend = cluster.backend();
    let admin = cluster.admin().await;
    let conn = backend.create().await.unwrap();
    let process = conn.process();
    backend.close(conn).await;
    let left = admin.query("select 1 from pg_stat_activity where pid = $1", &[&process]).await.unwrap();
    assert!(left.is_empty());
}
