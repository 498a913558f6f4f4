//! PostgreSQL's own protocol through WebSockets, to a real server with SCRAM.

mod sharing;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future::join_all, stream};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls, error::SqlState};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    PATIENCE,
    activity::{busy, count, running, table},
    config::{BASE, consumer, pool, with_keys},
    eventually,
    gateway::Gateway,
    postgres::Postgres,
    sha256,
    tunnel::{
        Raw, bind, client, execute, joined, login, message, open, open_from, parse, query, session, session_of,
        start_up, sync, terminate,
    },
};

const KEY: &str = "key-app";

/// Of the pool, of the route's query, and of the consumer `app`, whose key is [`KEY`].
fn config(postgres: &Postgres, of_pool: &str, of_query: &str, of_app: &str) -> String {
    let base = with_keys(BASE, "server", "drain_deadline = \"300ms\"\ndrain_delay = \"0s\"");
    let pool = pool("main", &postgres.url(), of_pool);
    let consumers = consumer("app", of_app) + &consumer("other", "");
    format!(
        r#"{base}
[listener.plain]
address = "127.0.0.1:0"
{pool}
{consumers}
[[route]]
path = "/"
query = {{ dialect = "neon", pool = "main"{of_query} }}
access = ["app", "other"]
"#
    )
}

async fn by_session() -> (Postgres, Gateway) {
    with("size = { max = 3 }", ", tunnel = \"session\"").await
}

async fn with(pool: &str, query: &str) -> (Postgres, Gateway) {
    let postgres = Postgres::start(1, &[]).await;
    let gateway = Gateway::start(&config(&postgres, pool, query, "")).await;
    (postgres, gateway)
}

/// Waits until every connection of the pool lies idle.
async fn at_rest(gateway: &Gateway) {
    gateway.status_until("/pools/main/in_use", |count| count == 0).await;
    gateway.status_until("/tunnels", |count| count == 0).await;
}

#[tokio::test]
async fn start_up_password_and_query_may_come_at_once() {
    let (_postgres, gateway) = by_session().await;
    let mut raw =
        Raw::pipelined(&gateway, KEY, "select 'through', current_setting('server_version_num')::int > 0").await;
    let begun = raw.begun().await;
    assert!(begun.starts_with("RRS") && begun.ends_with("SKZ"), "{begun}");
    assert_eq!(raw.until(b'Z').await, "TDCZ");
    raw.say(&terminate()).await;
    assert_eq!(raw.end().await, Some(1000));
    at_rest(&gateway).await;
}

#[tokio::test]
async fn a_driver_has_a_whole_session() {
    let (_postgres, gateway) = by_session().await;
    let mut client = client(&gateway, KEY).await.unwrap();
    client.batch_execute("create temp table t (id int primary key, v text, n numeric)").await.unwrap();
    let insert = client.prepare("insert into t values ($1, $2, $3::text::numeric)").await.unwrap();
    for id in 0..3_i32 {
        assert_eq!(client.execute(&insert, &[&id, &format!("ü{id}"), &"NaN"]).await.unwrap(), 1);
    }
    let rows =
        client.query("select id, v, n::text from t where id = any($1) order by id", &[&vec![0, 2]]).await.unwrap();
    assert_eq!((rows.len(), rows[1].get::<_, String>(1)), (2, "ü2".to_owned()));

    let transaction = client.transaction().await.unwrap();
    transaction.execute("delete from t", &[]).await.unwrap();
    let refused = transaction.query("select 1/0", &[]).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::DIVISION_BY_ZERO));
    let aborted = transaction.query("select 1", &[]).await.unwrap_err();
    assert_eq!(aborted.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    transaction.rollback().await.unwrap();
    assert_eq!(count(&client, "select count(*) from t").await, 3);

    // Our own names are not met, whatever the pool has prepared.
    let known = client.query("select name from pg_prepared_statements where name like 'sg%'", &[]).await.unwrap();
    assert!(known.is_empty());
    let long = "x".repeat(3 << 20);
    let echoed: String = client.query_one("select $1::text", &[&long]).await.unwrap().get(0);
    assert_eq!(echoed.len(), long.len());
}

#[tokio::test]
async fn notifications_come_while_nobody_asks() {
    let (_postgres, gateway) = by_session().await;
    let (listener, mut connection) = session(&gateway, KEY).await.unwrap();
    let (heard, mut notifications) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = heard.send(notification.payload().to_owned());
            }
        }
    });
    listener.batch_execute("listen news").await.unwrap();
    let speaker = client(&gateway, KEY).await.unwrap();
    for word in ["one", "two"] {
        speaker.execute("select pg_notify('news', $1)", &[&word]).await.unwrap();
        let heard = tokio::time::timeout(PATIENCE, notifications.recv()).await.unwrap();
        assert_eq!(heard.as_deref(), Some(word));
    }
}

#[tokio::test]
async fn copy_goes_both_ways_and_may_fail() {
    let (_postgres, gateway) = by_session().await;
    let client = client(&gateway, KEY).await.unwrap();
    client.batch_execute("create temp table t (id int primary key, v text)").await.unwrap();
    for round in 0..2 {
        let sink = client.copy_in("copy t from stdin").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for id in 0..20_000 {
            sink.send(Bytes::from(format!("{}\tvalue {id}\n", id + round * 20_000))).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 20_000);
    }
    let sink = client.copy_in("copy t from stdin").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"1\ttwice\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap_err().code(), Some(&SqlState::UNIQUE_VIOLATION));
    let out: Vec<Bytes> = client.copy_out("copy t to stdout").await.unwrap().try_collect().await.unwrap();
    let lines = out.concat().split(|byte| *byte == b'\n').count() - 1;
    assert_eq!(lines, 40_000);
    drop(client);
    at_rest(&gateway).await;
}

#[tokio::test]
async fn a_cancel_request_stops_what_its_session_runs_and_nothing_else() {
    let (postgres, gateway) = by_session().await;
    let (one, other) = (client(&gateway, KEY).await.unwrap(), client(&gateway, KEY).await.unwrap());
    let cancel = one.cancel_token();
    let slow = tokio::spawn(async move { (one.batch_execute("select pg_sleep(60)").await, one) });
    let beside = tokio::spawn(async move { other.batch_execute("select pg_sleep(2)").await });
    let admin = postgres.admin().await;
    eventually("both run", || running(&admin, "select pg_sleep%"), |count| *count == 2).await;
    let stream = joined(open(&gateway, "/v2").await.unwrap());
    cancel.cancel_query_raw(stream, NoTls).await.unwrap();
    let (stopped, one) = slow.await.unwrap();
    assert_eq!(stopped.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    // The session goes on, and a request with nothing to cancel does nothing.
    let stream = joined(open(&gateway, "/v2").await.unwrap());
    cancel.cancel_query_raw(stream, NoTls).await.unwrap();
    one.batch_execute("select 1").await.unwrap();
    beside.await.unwrap().unwrap();
    // A key that nobody has is not answered, as PostgreSQL does not.
    let mut raw = Raw::open(&gateway).await;
    raw.say(&[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 1]).await;
    assert_eq!(raw.end().await, Some(1000));
}

#[tokio::test]
async fn who_may_not_come_in_is_told_why() {
    let (postgres, gateway) = by_session().await;
    let refused = |outcome: anyhow::Result<_>| {
        let error = outcome.expect_err("it is refused");
        error.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code().cloned()).expect("an SQLSTATE")
    };
    assert_eq!(refused(client(&gateway, "no-key").await), SqlState::INVALID_PASSWORD);
    let mut raw = Raw::pipelined(&gateway, "no-key", "select 1").await;
    assert_eq!(raw.error().await, "28P01");
    assert_eq!(raw.end().await, Some(1008));

    for (setting, code) in [
        ("-c session_preload_libraries=x", SqlState::INSUFFICIENT_PRIVILEGE),
        ("-c statement_timeout=never", SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let mut config = login("app", KEY);
        config.options(setting);
        assert_eq!(refused(session_of(&gateway, &config).await.map(drop).map(|()| unreachable!())), code, "{setting}");
    }
    let mut raw = Raw::open(&gateway).await;
    raw.say(&start_up(&[("user", "app"), ("replication", "database")])).await;
    assert_eq!(raw.error().await, "0A000");
    let mut raw = Raw::open(&gateway).await;
    raw.say(&[0, 0, 0, 8, 4, 210, 22, 47]).await;
    assert_eq!(raw.socket.next().await.unwrap().unwrap(), Message::binary(&b"N"[..]), "no encryption within");
    raw.socket.send(Message::text("select 1")).await.unwrap();
    assert_eq!(raw.end().await, Some(1003));

    let status = |outcome: anyhow::Result<_>| match outcome.err().unwrap().downcast().unwrap() {
        tokio_tungstenite::tungstenite::Error::Http(response) => response.status().as_u16(),
        other => panic!("{other}"),
    };
    for path in ["/v1?address=10.0.0.1:5432", "/v1?address=db.internal:5432", "/v1?address=127.0.0.1%3a22"] {
        assert_eq!(status(open(&gateway, path).await.map(drop)), 403, "{path}");
    }
    assert_eq!(status(open_from(&gateway, "/v2", Some("https://evil.example.com")).await.map(drop)), 403);
    assert!(open(&gateway, "/v1?address=localhost:5432").await.is_ok(), "its own name");
    assert!(
        open_from(&gateway, "/", Some(&format!("https://localhost:{}", gateway.address("public").port())))
            .await
            .is_ok()
    );

    let admin = postgres.admin().await;
    assert!(postgres.sessions(&admin).await <= 3);
    at_rest(&gateway).await;
}

#[tokio::test]
async fn a_consumer_with_a_role_comes_under_that_name_or_its_own() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = Gateway::start(&config(&postgres, "size = { max = 3 }", "", "role = \"clerk\"")).await;
    for (user, enters) in [("app", true), ("clerk", true), ("other", false), ("postgres", false)] {
        let mut raw = Raw::open(&gateway).await;
        raw.enter(user, KEY).await;
        if enters {
            raw.begun().await;
        } else {
            assert_eq!(raw.error().await, "28P01", "{user}");
        }
    }
}

#[tokio::test]
async fn settings_come_with_the_start_up_and_go_with_the_session() {
    let (postgres, gateway) = with("size = { min = 1, max = 1 }", "").await;
    postgres.admin().await.batch_execute("grant pg_monitor to app").await.unwrap();
    let mut config = login("app", KEY);
    config.application_name("mine").options("-c TimeZone=Asia/Tokyo");
    let (first, connection) = session_of(&gateway, &config).await.unwrap();
    let driven = tokio::spawn(connection);
    let setting = "select current_setting('application_name') || current_setting('TimeZone')";
    assert_eq!(first.query_one(setting, &[]).await.unwrap().get::<_, String>(0), "mineAsia/Tokyo");
    first
        .batch_execute(
            "set search_path = x; listen c; create temp table t(); select pg_advisory_lock(3); prepare p as select 1;
             declare h cursor with hold for select 1; set role pg_monitor; reset role; set statement_timeout = 0",
        )
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let process: i32 = first.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    drop(first);
    driven.await.unwrap().unwrap();
    let mut raw = Raw::pipelined(&gateway, KEY, "select 1").await;
    assert!(raw.begun().await.ends_with("KZ"));
    raw.until(b'Z').await;
    raw.say(&terminate()).await;
    raw.end().await;
    let second = client(&gateway, KEY).await.unwrap();
    let left =
        "select pg_backend_pid(), current_setting('application_name'), current_setting('TimeZone') <> 'Asia/Tokyo',
                (select count(*) from pg_listening_channels()) + (select count(*) from pg_cursors where name = 'h')
                + (select count(*) from pg_locks where locktype = 'advisory')
                + (select count(*) from pg_class where relname = 't' and relpersistence = 't')
                + (select count(*) from pg_prepared_statements where name = 'p')";
    let row = second.query_one(left, &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), process, "the very same connection");
    assert_eq!(
        (row.get::<_, String>(1).as_str(), row.get::<_, bool>(2), row.get::<_, i64>(3)),
        ("sluicegate", true, 0)
    );
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_nothing_running() {
    let (postgres, gateway) = with("size = { max = 2 }", "").await;
    let admin = postgres.admin().await;
    table(&admin, "kept (id int)").await;
    let left = "select count(*) from pg_stat_activity where usename = 'app' and (state <> 'idle' or wait_event = 'ClientRead' and state like 'idle in%')";
    let settled = || count(&admin, left);
    let half = |whole: Vec<u8>| whole[..whole.len() - 3].to_vec();
    let scenes: Vec<(&str, Vec<u8>)> = vec![
        ("in a statement", query("select pg_sleep(60)")),
        ("in a transaction", query("begin; insert into kept values (1)")),
        ("in a failed one", query("begin; insert into kept values (1); select 1/0")),
        ("in a message", half(query("insert into kept values (1)"))),
        ("without a Sync", [parse("", "insert into kept values (1)"), bind(""), execute()].concat()),
        ("in a copy", [query("copy kept from stdin"), message(b'd', b"1\n")].concat()),
        ("behind an error", [parse("", "no sql"), message(b'H', b"")].concat()),
        ("in a long answer", query("select repeat('x', 1000) from generate_series(1, 1000000)")),
    ];
    for (scene, bytes) in scenes {
        let mut raw = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
        raw.say(&bytes).await;
        if scene == "in a statement" || scene == "in a long answer" {
            eventually(scene, settled, |busy| *busy > 0).await;
        }
        drop(raw);
        at_rest(&gateway).await;
        eventually(scene, settled, |busy| *busy == 0).await;
        assert_eq!(count(&admin, "select count(*) from kept").await, 0, "{scene}");
        let next = client(&gateway, KEY).await.unwrap();
        assert_eq!(next.query_one("select 41 + 1", &[]).await.unwrap().get::<_, i32>(0), 42, "{scene}");
    }
    at_rest(&gateway).await;
    assert!(postgres.sessions(&admin).await <= 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_database_and_not_the_gateway() {
    let (postgres, gateway) = by_session().await;
    let mut raw = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
    let before = gateway.rss_kib();
    raw.say(&query("select repeat('x', 10000) from generate_series(1, 100000)")).await;
    let admin = postgres.admin().await;
    let waits = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite' and usename = 'app'";
    let waiting = || count(&admin, waits);
    eventually("the database waits for the client", waiting, |count| *count == 1).await;
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "a gigabyte that nobody reads takes {grown} KiB");
    let (mut bytes, mut rows) = (0_u64, 0);
    while let Some((tag, body)) = raw.hear().await.unwrap() {
        bytes += body.len() as u64;
        rows += u32::from(tag == b'D');
        if rows == 20_000 {
            break;
        }
    }
    assert!(bytes > 200_000_000);
    let most = gateway.rss_kib().saturating_sub(before);
    assert!(most < 32 << 10, "passing it on takes {most} KiB");
    println!("not reading: {grown} KiB more, reading: {most} KiB more");
    drop(raw);
    at_rest(&gateway).await;
    eventually("it is cancelled", waiting, |count| *count == 0).await;
}

#[tokio::test]
async fn a_client_that_only_asks_is_bounded_too() {
    let (_postgres, gateway) = by_session().await;
    let mut raw = Raw::pipelined(&gateway, KEY, "select 1").await;
    raw.begun().await;
    let before = gateway.rss_kib();
    let piece = Bytes::from([sync(), query("select repeat('x', 5000)")].concat().repeat(300));
    // Nothing is read: at some point nothing more is taken either.
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(500), raw.socket.send(Message::Binary(piece.clone())))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 20_000, "it takes everything");
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB after {sent} pieces");
    drop(raw);
    at_rest(&gateway).await;
}

#[tokio::test]
async fn the_end_of_either_side_is_told_to_the_other() {
    let (postgres, mut gateway) = by_session().await;
    let admin = postgres.admin().await;
    let mut raw = Raw::pipelined(&gateway, KEY, "select pg_backend_pid()").await.answered().await;
    admin.batch_execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'").await.unwrap();
    assert_eq!(raw.error().await, "57P01", "the server's own words");
    assert_eq!(raw.end().await, Some(1011));
    at_rest(&gateway).await;

    let mut revoked = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
    let mut kept = Raw::pipelined(&gateway, "key-other", "select 1").await.answered().await;
    let config = std::fs::read_to_string(gateway.config_path()).unwrap();
    gateway.reconfigure(&config.replace(&sha256(KEY), &sha256("key-new"))).await;
    assert_eq!(revoked.error().await, "57P01");
    assert_eq!(revoked.end().await, Some(1008));
    kept.say(&query("select 2")).await;
    assert_eq!(kept.until(b'Z').await, "TDCZ", "another's session goes on");

    gateway.process().signal("TERM");
    assert_eq!(kept.error().await, "57P01");
    assert_eq!(kept.end().await, Some(1001));
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn silence_and_age_end_a_tunnel() {
    let (postgres, gateway) = with("size = { max = 3 }", ", tunnel_idle = \"400ms\", tunnel_lifetime = \"3s\"").await;
    let begun = Instant::now();
    let mut idle = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
    assert_eq!(idle.error().await, "57P05");
    assert_eq!(idle.end().await, Some(1001));
    assert!(begun.elapsed() >= Duration::from_millis(400));

    let begun = Instant::now();
    let mut busy = Raw::pipelined(&gateway, KEY, "select 1").await;
    busy.begun().await;
    let ended = loop {
        let _ = busy.socket.send(Message::Binary(query("select 1").into())).await;
        match busy.hear().await.unwrap() {
            Some((b'E', body)) => break String::from_utf8_lossy(&body).into_owned(),
            Some(_) => {
                busy.until(b'Z').await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None => panic!("closed without a word"),
        }
    };
    assert!(ended.contains("57P01") && ended.contains("lifetime"), "{ended}");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    drop(postgres);
}

#[tokio::test]
async fn a_thousand_sessions_leave_the_pool_as_it_was() {
    let (postgres, gateway) = with("size = { min = 2, max = 8 }\ncheckout_timeout = \"20s\"", "").await;
    let admin = postgres.admin().await;
    let one = |number: u32| {
        let gateway = &gateway;
        async move {
            let mut raw = Raw::open_plain(gateway).await.begin(KEY, "select 1").await.answered().await;
            match number % 8 {
                0..4 => raw.say(&terminate()).await,
                4 => raw.say(&query("begin")).await,
                5 => raw.say(&query("select pg_sleep(9)")).await,
                _ => {}
            }
        }
    };
    for round in 0..125 {
        join_all((0..8).map(|number| one(round * 8 + number))).await;
    }
    at_rest(&gateway).await;
    let sessions = postgres.sessions(&admin).await;
    assert!((2..=8).contains(&sessions), "{sessions}");
    assert_eq!(busy(&admin).await, 0);
    let unclean = gateway.figure("/pools/main/counters/closes/unclean").await;
    assert!(unclean <= 100, "one that leaves in the middle may cost its connection, others do not: {unclean}");
    let opened = gateway.figure("/pools/main/size").await;
    assert_eq!(i64::try_from(opened), Ok(sessions), "counted as they are");
}

/// For one consumer alone: where there are two, every session is reset, whatever was seen of it.
async fn by_transaction() -> (Postgres, Gateway) {
    let postgres = Postgres::start(1, &[]).await;
    let pool = "size = { max = 1 }\ncheckout_timeout = \"3s\"";
    let text = config(&postgres, pool, ", tunnel = \"transaction\"", "");
    let gateway = Gateway::start(&text.replace("[\"app\", \"other\"]", "[\"app\"]")).await;
    (postgres, gateway)
}

#[tokio::test]
async fn many_clients_share_one_connection_by_the_transaction() {
    let (postgres, gateway) = by_transaction().await;
    let admin = postgres.admin().await;
    admin
        .batch_execute("create table counted (n int); insert into counted values (0); grant all on counted to app")
        .await
        .unwrap();
    let mut clients =
        join_all((0..4).map(|_| client(&gateway, KEY))).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let work = clients.iter_mut().enumerate().map(|(number, client)| async move {
        let one = client.prepare("select $1::int + n from counted").await.unwrap();
        for round in 0..25_i32 {
            let transaction = client.transaction().await.unwrap();
            transaction.execute("update counted set n = n + 1", &[]).await.unwrap();
            transaction.query_one(&one, &[&round]).await.unwrap();
            if round % 5 == 0 {
                assert!(transaction.query("select 1/0", &[]).await.is_err());
                transaction.rollback().await.unwrap();
            } else {
                transaction.commit().await.unwrap();
            }
            // Prepared once, on whichever connection it is now; and a name of one's own is nobody else's.
            let offset = i32::try_from(number).unwrap();
            let found = client.query_one("select $1::int", &[&offset]).await.unwrap();
            assert_eq!(found.get::<_, i32>(0), offset);
        }
    });
    join_all(work).await;
    let counted: i32 = admin.query_one("select n from counted", &[]).await.unwrap().get(0);
    assert_eq!(counted, 4 * 20);
    assert_eq!(postgres.sessions(&admin).await, 1);
    drop(clients);
    at_rest(&gateway).await;
}

#[tokio::test]
async fn what_would_outlast_a_transaction_is_refused_or_undone() {
    let (_postgres, gateway) = by_transaction().await;
    let (mut one, other) = (client(&gateway, KEY).await.unwrap(), client(&gateway, KEY).await.unwrap());
    for sql in [
        "listen news",
        "set work_mem = '9MB'",
        "/* a */ set role pg_monitor",
        "reset all",
        "prepare p as select 1",
        "discard all",
    ] {
        let simple = one.batch_execute(sql).await.unwrap_err();
        assert_eq!(simple.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{sql}");
        let extended = one.execute(sql, &[]).await.unwrap_err();
        assert_eq!(extended.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{sql}");
        assert!(extended.to_string().contains("db error") && one.batch_execute("select 1").await.is_ok());
    }
    let transaction = one.transaction().await.unwrap();
    transaction
        .batch_execute(
            "set local work_mem = '9MB'; create temp table t () on commit drop; declare c cursor for select 1",
        )
        .await
        .unwrap();
    let refused = transaction.batch_execute("set work_mem = '9MB'").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    assert!(
        transaction.batch_execute("select 1").await.is_err(),
        "the transaction has failed, as it would at the server"
    );
    transaction.rollback().await.unwrap();
    // What is not seen at a text's beginning is undone.
    one.batch_execute("select 1; set work_mem = '9MB'; select pg_advisory_lock(5); create temp table left_behind ()")
        .await
        .unwrap();
    let look = "select current_setting('work_mem') = '9MB', (select count(*) from pg_locks where locktype = 'advisory'),
                (select count(*) from pg_class where relname = 'left_behind'), (select count(*) from pg_prepared_statements)";
    for client in [&other, &one] {
        let row = client.query_one(look, &[]).await.unwrap();
        assert_eq!((row.get::<_, bool>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (false, 0, 0));
        assert_eq!(row.get::<_, i64>(3), 1, "its own");
    }
}

#[tokio::test]
async fn without_a_connection_a_transaction_fails_and_the_tunnel_stays() {
    let (_postgres, gateway) = by_transaction().await;
    let holder = Raw::pipelined(&gateway, KEY, "begin").await;
    let waiter = Raw::pipelined(&gateway, KEY, "select 1").await;
    let (mut holder, mut waiter) = (holder.answered().await, waiter.answered().await);
    waiter.say(&query("select 1")).await;
    assert_eq!(waiter.error().await, "53300");
    waiter.until(b'Z').await;
    let extended = [parse("", "select 1"), bind(""), execute(), sync()].concat();
    waiter.say(&extended).await;
    assert_eq!(waiter.error().await, "53300");
    assert_eq!(waiter.until(b'Z').await, "Z", "all up to the Sync is passed over");
    waiter.say(&sync()).await;
    assert_eq!(waiter.until(b'Z').await, "Z", "without a connection");
    holder.say(&query("commit")).await;
    assert_eq!(holder.until(b'Z').await, "CZ");
    waiter.say(&extended).await;
    assert_eq!(waiter.until(b'Z').await, "12DCZ");

    let (_postgres, gateway) = with("size = { max = 1 }\ncheckout_timeout = \"3s\"", "").await;
    let _holder = client(&gateway, KEY).await.unwrap();
    let mut late = Raw::pipelined(&gateway, KEY, "select 1").await;
    assert_eq!(late.error().await, "53300");
    assert_eq!(late.end().await, Some(1011));
}

#[tokio::test]
async fn a_transaction_that_cannot_begin_takes_what_follows_with_it() {
    let (postgres, gateway) =
        with("size = { max = 1 }\ncheckout_timeout = \"1500ms\"", ", tunnel = \"transaction\"").await;
    let admin = postgres.admin().await;
    table(&admin, "t (n int)").await;
    let (one, begin) = (parse("one", "select 1"), parse("go", "/* x */ start transaction"));
    let insert = query("insert into t values (1)");
    let pipelines = [
        [query("begin"), insert.clone()].concat(),
        [query("select 1; begin"), insert.clone()].concat(),
        [bind("go"), execute(), sync(), insert.clone()].concat(),
        [bind("one"), execute(), bind("go"), execute(), sync(), insert.clone()].concat(),
        [parse("", "begin"), bind(""), execute(), sync(), insert.clone()].concat(),
    ];
    for pipeline in pipelines {
        let mut waiter = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
        waiter.say(&[&one[..], &begin, &sync()].concat()).await;
        waiter.until(b'Z').await;
        let mut holder = Raw::pipelined(&gateway, KEY, "begin").await.answered().await;
        waiter.say(&pipeline).await;
        assert_eq!((waiter.error().await.as_str(), waiter.end().await), ("53300", Some(1011)));
        holder.say(&[query("commit"), terminate()].concat()).await;
        assert_eq!(holder.end().await, Some(1000));
    }
    assert_eq!(count(&admin, "select count(*) from t").await, 0, "nothing was committed by itself");
}

#[tokio::test]
async fn what_is_prepared_anew_is_known_for_what_it_is() {
    let (postgres, gateway) = by_transaction().await;
    let (other, admin) = (client(&gateway, KEY).await.unwrap(), postgres.admin().await);
    // Asked by the pool's own connection it would not be known: a text that names such locks has them undone.
    let locks = || count(&admin, "select count(*) from pg_locks where locktype = 'advisory'");

    let mut raw = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
    raw.say(&[parse("", "select pg_advisory_lock(7)"), sync()].concat()).await;
    assert_eq!(raw.until(b'Z').await, "1Z");
    raw.say(&[bind(""), execute(), sync()].concat()).await;
    assert_eq!(raw.until(b'Z').await, "2DCZ");
    eventually("a lock is left to nobody", locks, |count| *count == 0).await;

    let far = format!("select 1; /* {} */ select pg_advisory_lock(8)", "x".repeat(70_000));
    other.batch_execute(&far).await.unwrap();
    eventually("nor one that is far down in a text", locks, |count| *count == 0).await;

    // What was sent behind a failure was not done: neither was the preparation that the client does not see.
    raw.say(&[parse("two", "select 2"), sync()].concat()).await;
    raw.until(b'Z').await;
    raw.say(&query("begin; savepoint a")).await;
    raw.until(b'Z').await;
    raw.say(&[parse("", "nonsense"), bind("two"), execute(), sync()].concat()).await;
    assert_eq!(raw.until(b'Z').await, "EZ");
    raw.say(&[query("rollback to a"), bind("two"), execute(), sync()].concat()).await;
    assert_eq!((raw.until(b'Z').await.as_str(), raw.until(b'Z').await.as_str()), ("CZ", "2DCZ"));
    raw.say(&query("rollback")).await;
    raw.until(b'Z').await;

    raw.say(&message(b'B', &vec![b'x'; 70_000])).await;
    assert_eq!((raw.error().await.as_str(), raw.end().await), ("08P01", Some(1008)), "a name without an end");
}

#[tokio::test]
async fn a_session_meets_no_statement_of_the_one_before() {
    let (_postgres, gateway) = with("size = { max = 1 }\ncheckout_timeout = \"3s\"", ", tunnel = \"session\"").await;
    let mut one = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
    one.say(&[parse("", "select 'a secret'"), sync()].concat()).await;
    one.until(b'Z').await;
    one.say(&terminate()).await;
    assert_eq!(one.end().await, Some(1000));
    let mut next = Raw::open(&gateway).await;
    next.enter("app", KEY).await;
    next.begun().await;
    next.say(&[message(b'D', b"S\0"), sync()].concat()).await;
    assert_eq!(next.error().await, "26000");
}

#[tokio::test]
async fn what_was_asked_before_the_goodbye_is_done() {
    for mode in ["session", "transaction"] {
        let (postgres, gateway) = with("size = { max = 1 }", &format!(", tunnel = \"{mode}\"")).await;
        let admin = postgres.admin().await;
        table(&admin, "t (n int)").await;
        let mut raw = Raw::pipelined(&gateway, KEY, "select 1").await.answered().await;
        raw.say(&[query("insert into t select 1 from pg_sleep(0.2)"), terminate()].concat()).await;
        assert_eq!(raw.until(b'Z').await, "CZ", "{mode}");
        assert_eq!(raw.end().await, Some(1000), "{mode}");
        assert_eq!(count(&admin, "select count(*) from t").await, 1, "{mode}");
        at_rest(&gateway).await;
    }
}

#[tokio::test]
async fn a_cancel_request_never_hits_what_comes_behind_it() {
    let (_postgres, gateway) = by_session().await;
    let mut one = Raw::open(&gateway).await;
    one.enter("app", KEY).await;
    let key = loop {
        if let (b'K', key) = one.hear().await.unwrap().unwrap() {
            break key;
        }
    };
    one.until(b'Z').await;
    let request = [&[0, 0, 0, 16, 4, 210, 22, 46][..], &key].concat();
    let mut outcomes = [0; 2];
    for round in 0..40_u32 {
        // As long as it takes to ask, about: some are stopped and some are not.
        one.say(&query(&format!("select pg_sleep({})", f64::from(round % 8) / 1000.0))).await;
        let mut asker = Raw::open(&gateway).await;
        asker.say(&request).await;
        assert_eq!(asker.end().await, Some(1000));
        outcomes[usize::from(one.until(b'Z').await.contains('E'))] += 1;
        one.say(&query("select pg_sleep(0.002)")).await;
        assert_eq!(one.until(b'Z').await, "TDCZ", "{round}");
    }
    eprintln!("{} ended, {} were stopped", outcomes[0], outcomes[1]);
}

#[tokio::test]
async fn a_key_is_proved_without_being_sent() {
    let postgres = Postgres::start(0, &[]).await;
    let made = crate::support::gateway::run(std::env::temp_dir().as_path(), &["key", "new", "--scram"]);
    let made = String::from_utf8(made.stdout).unwrap();
    let key = made.lines().find_map(|line| line.strip_prefix("key  ")).unwrap().trim().to_owned();
    let scram = made.lines().find(|line| line.starts_with("scram = ")).unwrap();
    let config = config(&postgres, "size = { max = 3 }", ", tunnel_auth = \"scram\"", scram);
    let gateway = Gateway::start(&config).await;
    let (client, connection) = session_of(&gateway, &login("app", &key)).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("select 1").await.unwrap();
    for (user, password) in [("app", "wrong"), ("nobody", key.as_str()), ("other", "key-other"), ("app", KEY)] {
        let refused = session_of(&gateway, &login(user, password)).await.err().unwrap();
        let code = refused.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code().cloned());
        assert_eq!(code, Some(SqlState::INVALID_PASSWORD), "{user}: {refused:?}");
    }
    // In the clear as well: nothing is shown there that would let anybody in.
    let mut raw = Raw::open_plain(&gateway).await;
    raw.say(&start_up(&[("user", "app")])).await;
    let (_, asked) = raw.hear().await.unwrap().unwrap();
    assert_eq!(asked, b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let (mut before, after) = (client, config.replace(scram, ""));
    gateway.reconfigure(&after).await;
    let ended = before.transaction().await.err().and_then(|error| error.code().cloned());
    assert!(ended.is_none_or(|code| code == SqlState::ADMIN_SHUTDOWN), "it was revoked");
}
