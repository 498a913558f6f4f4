//! More callers than connections, slower answers, a server that is shared.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    activity::backends,
    component, eventually,
    faults::{Fault, FaultProxy},
    front::{ROLE_FULL, ask, config, gateway, works},
    gateway::Gateway,
    postgres::{Postgres, REFUSED_AS_FULL},
};

/// Callers who ask again as soon as they are answered.
struct Crowd {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: JoinSet<Vec<String>>,
}

impl Crowd {
    /// Four to a connection.
    async fn start(gateway: &Gateway, callers: usize, sql: &'static str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..callers / 4 {
            let client = gateway.h2().await;
            for _ in 0..4 {
                let (mut client, stop, answered) = (client.share(), stop.clone(), answered.clone());
                tasks.spawn(async move {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) && failures.len() < 5 {
                        match client.query(sql, json!([])).await {
                            Ok(answer) if answer.status == 200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            other => failures.push(format!("{other:?}")),
                        }
                    }
                    failures
                });
            }
        }
        Self { stop, answered, tasks }
    }

    /// Answers a second, over `span`.
    async fn rate(&self, span: Duration) -> f64 {
        let (before, begun) = (self.answered.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(span).await;
        (self.answered.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64()
    }

    /// What went wrong.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.concat()
    }
}

/// Callers who never pause.
const CALLERS: u64 = 48;

/// A policy that sizes by latency, with the line to the database 300 ms longer for a while. The target stays within `bound`.
async fn latency(policy: &str, bound: u64) {
    const MAX: u64 = 160;
    let postgres = Postgres::start(0, &["max_connections=200"]).await;
    let proxy = FaultProxy::start(postgres.port).await;
    let keys = format!("size = {{ min = 1, max = {MAX} }}\nsizing = {{ plugin = \"sizing\", fallback = \"fixed\" }}");
    let plugin = format!("[plugin.sizing]\npath = \"{}\"\n", component(policy).display());
    let config = config(&Postgres::url_at(proxy.address.port()), &keys)
        .replace("sizing_interval = \"100ms\"", "sizing_interval = \"500ms\"");
    let gateway = Gateway::start(&(config + &plugin)).await;
    let admin = postgres.admin().await;
    let crowd = Crowd::start(&gateway, CALLERS as usize, "select 1::int").await;
    let target = || gateway.figure("/pools/main/target");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = target().await;
    // Less than this is not to be had over the long line.
    let trip = Duration::from_millis(300);
    let took = async || {
        let begun = Instant::now();
        assert_eq!(ask(&gateway, "select 1::int").await.0, 200);
        begun.elapsed()
    };

    proxy.set(Fault::Delay(trip / 2));
    let (mut most, mut sessions) = (0, 0);
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        most = most.max(target().await);
        sessions = sessions.max(postgres.sessions(&admin).await);
    }
    assert!(took().await >= trip, "the line is long");
    proxy.set(Fault::Pass);
    let back = Instant::now();
    while took().await >= trip {
        assert!(back.elapsed() < Duration::from_secs(10), "{policy}: not back within ten seconds");
    }
    println!(
        "{policy}: target {before}, at most {most} while slow, {sessions} sessions; back after {:?}",
        back.elapsed()
    );
    let failures = crowd.stop().await;
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(most <= bound, "{policy}: the target grew from {before} to {most} because answers were slow");
    assert!(sessions <= CALLERS.cast_signed() + 2, "{sessions} sessions at the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_line_does_not_make_gradient2_grow_and_is_forgotten_within_ten_seconds() {
    // By Little's law the callers can use a hundred times what they did: whoever follows that comes to all 48.
    latency("gradient2", CALLERS * 2 / 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_line_does_not_make_vegas_grow_beyond_twice_what_is_used_and_is_forgotten_within_ten_seconds() {
    // It measures its shortest round trip anew now and then, and takes a line that is long for a while for the usual one.
    latency("vegas", CALLERS * 2 + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_queries_on_all_connections_but_one_leave_it_to_the_others_and_are_named_in_the_log() {
    let postgres = Postgres::start(0, &[]).await;
    let keys = "size = { min = 3, max = 3 }\nqueue = 4\nheld_warning = \"500ms\"";
    let mut gateway = gateway(&postgres.url(), keys).await;
    gateway.status_until("/pools/main/idle", |idle| *idle == 3).await;
    let slow = join_all((0..2).map(|_| ask(&gateway, "select pg_sleep(3)")));
    let others = async {
        gateway.status_until("/pools/main/in_use", |in_use| *in_use == 2).await;
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(ask(&gateway, "select 1::int").await.0, 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        // The last one, too, and four that wait: who comes now is refused at once, with the reason.
        let third = join_all((0..5).map(|_| ask(&gateway, "select pg_sleep(0.5)")));
        let refused = async {
            gateway.status_until("/pools/main/waiters", |waiters| *waiters == 4).await;
            let begun = Instant::now();
            let (status, answer) = ask(&gateway, "select 1::int").await;
            assert_eq!((status, answer["reason"].as_str()), (503, Some("queue-full")), "{answer}");
            assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        };
        let (waited, ()) = tokio::join!(third, refused);
        assert!(waited.iter().all(|(status, _)| *status == 200), "{waited:?}");
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert!(slow.iter().all(|(status, _)| *status == 200), "{slow:?}");
    gateway.logged("connection held for long came back").await;
    works(&gateway).await;
    let lines = gateway.log_lines();
    let said: Vec<&String> = lines.iter().filter(|line| line.contains("\"connection held for long\"")).collect();
    assert!((2..=4).contains(&said.len()), "once each: {said:#?}");
    assert!(said.iter().all(|line| line.contains("/query") && line.contains("held_ms")), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn callers_who_wait_in_vain_are_not_held_against_the_database() {
    let postgres = Postgres::start(0, &[]).await;
    let gateway = gateway(&postgres.url(), "size = { min = 2, max = 2 }\ncheckout_timeout = \"300ms\"").await;
    gateway.status_until("/pools/main/idle", |idle| *idle == 2).await;
    let admin = postgres.admin().await;
    let before = backends(&admin).await;
    let mut in_vain = 0;
    for (status, answer) in join_all((0..30).map(|_| ask(&gateway, "select pg_sleep(1)"))).await {
        match status {
            200 => {}
            503 => {
                let reason = answer["reason"].as_str().unwrap();
                assert!(["saturated", "slow", "leaked"].contains(&reason), "{answer}");
                in_vain += 1;
            }
            _ => panic!("{status} {answer}"),
        }
    }
    assert!(in_vain >= 20, "{in_vain} of 30 waited in vain");
    let (status, answer) = ask(&gateway, "select 1::int").await;
    assert_eq!(status, 200, "{answer}");
    let pool = gateway.status().await["pools"]["main"].clone();
    assert_eq!((&pool["breaker"]["state"], &pool["counters"]["breaker_trips"]), (&json!("closed"), &json!(0)));
    let none = |value: &Value| value.as_object().unwrap().values().all(|count| *count == 0);
    assert!(none(&pool["counters"]["create_failures"]) && none(&pool["counters"]["closes"]), "{}", pool["counters"]);
    assert_eq!(backends(&admin).await, before, "the same two sessions");
    assert_eq!(gateway.admin("GET", "/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_gateways_on_a_server_that_has_not_room_for_both_share_it_without_a_failed_request() {
    const ROOM: i64 = 6;
    let postgres = Postgres::start(0, &[]).await;
    let admin = postgres.admin().await;
    postgres.grant_sessions(&admin, ROOM).await;
    let keys = "size = { max = 5 }\nparallel_creates = 4";
    let (one, other) = (gateway(&postgres.url(), keys).await, gateway(&postgres.url(), keys).await);
    let crowds = [
        Crowd::start(&one, 16, "select pg_sleep(0.02)").await,
        Crowd::start(&other, 16, "select pg_sleep(0.02)").await,
    ];
    let sessions = || async { postgres.sessions(&admin).await };
    eventually("all the room is used", sessions, |seen| *seen == ROOM).await;
    let before: Vec<f64> = join_all(crowds.iter().map(|crowd| crowd.rate(Duration::from_secs(5)))).await;
    assert!(before.iter().all(|rate| *rate > 5.0), "both are served: {before:?}");
    for crowd in crowds {
        let failures = crowd.stop().await;
        assert!(failures.is_empty(), "{failures:#?}");
    }
    let (counted, logged) =
        (one.figure(ROLE_FULL).await + other.figure(ROLE_FULL).await, postgres.logged(&REFUSED_AS_FULL));
    assert!(
        (1..40).contains(&counted) && (1..40).contains(&logged),
        "{counted} attempts beyond the room, {logged} in its log"
    );
    for gateway in [&one, &other] {
        assert_eq!(gateway.status().await["pools"]["main"]["breaker"]["state"], "closed");
    }
}
