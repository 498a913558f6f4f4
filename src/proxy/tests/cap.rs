//! The cap on connections, the queue, and what lies idle.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::LocalSet,
    time::Instant,
};

use super::{
    front::{Forwarding, Front},
    origin::OK,
    *,
};
use crate::observe;

/// Answers when it is told to.
async fn gated(go: &Arc<Notify>) -> Origin {
    let go = go.clone();
    Origin::serve(move |mut socket, _| {
        let go = go.clone();
        async move {
            while socket.request().await.is_some() {
                go.notified().await;
                socket.send(OK).await;
            }
        }
    })
    .await
}

fn spawn_fetch(upstream: &Arc<Upstream>) -> tokio::task::JoinHandle<(StatusCode, Bytes, Outcome)> {
    let upstream = upstream.clone();
    tokio::spawn(async move { fetch(&upstream, get("/")).await })
}

fn waiting(upstream: &Arc<Upstream>) -> usize {
    upstream.status(Instant::now()).waiting
}

#[test]
fn a_thousand_requests_over_four_workers_never_pass_the_cap() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (origin, upstream) = runtime.block_on(async {
        let answered = AtomicUsize::new(0);
        let answered = Arc::new(answered);
        let origin = Origin::serve(move |mut socket, _| {
            let answered = answered.clone();
            async move {
                while socket.request().await.is_some() {
                    // Some answers end their connection, some in time, some without a word.
                    match answered.fetch_add(1, Ordering::SeqCst) % 10 {
                        3 => {
                            socket.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
                            return;
                        }
                        7 => {
                            socket.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok").await;
                            return;
                        }
                        _ => socket.send(OK).await,
                    }
                }
            }
        })
        .await;
        let upstream = upstream(&[&origin], "max_connections = 7\nqueue = 1000");
        (origin, upstream)
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = thread::spawn(move || runtime.block_on(async { _ = stopped.await }));
    // A connection is driven by the worker that opened it: none may leave while another uses what it opened.
    let together = Arc::new(tokio::sync::Barrier::new(4));
    let workers: Vec<_> = (0..4)
        .map(|index| {
            let (upstream, together) = (upstream.clone(), together.clone());
            thread::spawn(move || {
                observe::set_worker(index);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, async {
                    let requests: Vec<_> = (0..250)
                        .map(|_| {
                            let upstream = upstream.clone();
                            tokio::task::spawn_local(async move { fetch(&upstream, get("/")).await })
                        })
                        .collect();
                    for request in requests {
                        let (status, body, outcome) = request.await.unwrap();
                        assert_eq!((status, &*body, outcome.reason), (StatusCode::OK, &b"ok"[..], None));
                    }
                    together.wait().await;
                });
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let peak = origin.seen.peak.load(Ordering::SeqCst);
    assert_eq!(peak, 7, "the cap is used, and never passed, as the server counts");
    assert!(origin.requests().len() >= 1000);
    assert_eq!(waiting(&upstream), 0);
    stop.send(()).unwrap();
    server.join().unwrap();
}

#[tokio::test]
async fn an_idle_connection_of_another_worker_serves_at_the_cap() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "max_connections = 1\nqueue = 0");
    observe::set_worker(0);
    fetch(&upstream, get("/")).await;
    observe::set_worker(1);
    let (status, _, outcome) = fetch(&upstream, get("/")).await;
    assert_eq!((status, outcome.reused), (StatusCode::OK, true));
    observe::set_worker(0);
    assert!(fetch(&upstream, get("/")).await.2.reused, "it went back home");
    assert_eq!(origin.accepted(), 1);
    observe::set_worker(usize::MAX);
}

#[tokio::test]
async fn the_queue_is_bounded_in_length_and_time() {
    let go = Arc::new(Notify::new());
    let origin = gated(&go).await;
    let upstream = upstream(&[&origin], "max_connections = 1\nqueue = 1\nqueue_timeout = \"150ms\"");
    let first = spawn_fetch(&upstream);
    until("taken", || origin.requests().len() == 1).await;
    let begun = Instant::now();
    let late = spawn_fetch(&upstream);
    until("queued", || waiting(&upstream) == 1).await;

    let (response, outcome) = send(&upstream, get("/")).await;
    assert_eq!((response.status().as_u16(), outcome.reason), (503, Some("upstream_queue_full")));
    assert_eq!(response.headers()["retry-after"], "1");

    let (status, _, outcome) = late.await.unwrap();
    assert_eq!((status.as_u16(), outcome.reason), (503, Some("upstream_queue_timeout")));
    assert!((150..3_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(waiting(&upstream), 0);
    go.notify_one();
    assert_eq!(first.await.unwrap().0, StatusCode::OK);
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn an_upload_that_sends_nothing_keeps_no_connection_from_others() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "max_connections = 1\nqueue = 0");
    let (mut client, body) = streaming().await;
    let mut upload = Box::pin(send(&upstream, request(Method::POST, "/", body)));
    assert!(futures_util::poll!(&mut upload).is_pending());
    let (status, _, outcome) = fetch(&upstream, get("/")).await;
    assert_eq!((status, outcome.reason), (StatusCode::OK, None));
    client.send("x").await;
    client.finish().await;
    assert_eq!(upload.await.0.status(), StatusCode::OK);
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn an_upload_that_never_comes_is_told_so_and_costs_no_connection() {
    let origin = Origin::answering(OK).await;
    let forwarding = Forwarding { upstream: upstream(&[&origin], ""), tunnels: Arc::default(), identity: None };
    let front = Front::start_with(forwarding, "progress_timeout = \"100ms\"");
    let mut client = TcpStream::connect(front.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    within(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    assert_eq!(origin.accepted(), 0);
}

#[tokio::test]
async fn who_waits_is_served_in_order_and_by_hand_off() {
    let go = Arc::new(Notify::new());
    let origin = gated(&go).await;
    let upstream = upstream(&[&origin], "max_connections = 1");
    let mut tasks = Vec::new();
    for index in 0..5 {
        let upstream = upstream.clone();
        let queued = upstream.clone();
        tasks.push(tokio::spawn(async move { fetch(&upstream, get(&format!("/{index}"))).await }));
        until("queued", || origin.requests().len() + waiting(&queued) == index + 1).await;
    }
    // One in the middle leaves; nobody else notices.
    tasks[2].abort();
    until("left", || waiting(&upstream) == 3).await;
    for _ in 0..4 {
        go.notify_one();
        tokio::task::yield_now().await;
    }
    for (index, task) in tasks.into_iter().enumerate() {
        let joined = within(task).await;
        assert_eq!(joined.is_err(), index == 2);
        if index != 2 {
            go.notify_one();
        }
    }
    let paths: Vec<String> = origin.requests().iter().map(|one| one.head[4..6].to_owned()).collect();
    assert_eq!(paths, ["/0", "/1", "/3", "/4"]);
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_cuts_its_connection_and_frees_its_place() {
    let origin = Origin::serve(|mut socket, number| async move {
        socket.request().await;
        match number {
            // Never answers.
            0 => while socket.request().await.is_some() {},
            // Answers in part.
            1 => {
                socket.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
                while socket.request().await.is_some() {}
            }
            _ => socket.send(OK).await,
        }
    })
    .await;
    let upstream = upstream(&[&origin], "max_connections = 1");
    let leaving = spawn_fetch(&upstream);
    until("taken", || origin.requests().len() == 1).await;
    leaving.abort();
    until("cut while it waits for the head", || origin.open() == 0).await;

    let (response, _) = send(&upstream, get("/")).await;
    let mut body = response.into_body();
    assert_eq!(within(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
    drop(body);
    until("cut in the middle of the body", || origin.open() == 0).await;
    assert_eq!(fetch(&upstream, get("/")).await.0, StatusCode::OK);
    assert_eq!(origin.accepted(), 3);
}

#[tokio::test]
async fn what_a_client_leaves_counts_until_the_server_has_closed_it() {
    let origin = Origin::serve(|mut socket, _| async move {
        while socket.request().await.is_some() {}
        // In no hurry.
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let upstream = upstream(&[&origin], "max_connections = 1");
    for round in 1..=3 {
        let leaving = spawn_fetch(&upstream);
        until("taken", || origin.requests().len() == round).await;
        leaving.abort();
    }
    assert_eq!(origin.seen.peak.load(Ordering::SeqCst), 1, "as the server counts");
}

#[tokio::test]
async fn a_dial_that_nobody_waits_for_counts_until_the_server_has_closed_it() {
    let origin = Origin::serve(|mut socket, _| async move {
        while socket.request().await.is_some() {}
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let upstream = upstream(&[&origin], "max_connections = 1");
    // It dials when it is first looked at, and is left before it hears of the outcome.
    assert!(send(&upstream, get("/")).now_or_never().is_none());
    let second = spawn_fetch(&upstream);
    until("another is there", || origin.requests().len() == 1).await;
    second.abort();
    assert_eq!(origin.accepted(), 2);
    assert_eq!(origin.seen.peak.load(Ordering::SeqCst), 1, "as the server counts");
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "idle_timeout = \"30s\"");
    fetch(&upstream, get("/")).await;
    let now = Instant::now();
    upstream.sweep(now + Duration::from_secs(29));
    assert_eq!(upstream.status(now).idle, 1);
    upstream.sweep(now + Duration::from_secs(31));
    until("closed, and counted only when the server has closed too", || origin.open() == 0).await;
    until("no longer counted", || upstream.status(now).open == 0).await;
    assert_eq!(fetch(&upstream, get("/")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_reload_moves_the_cap_in_place() {
    let go = Arc::new(Notify::new());
    let origin = gated(&go).await;
    let settings = |cap: u32| {
        let text = format!("endpoints = [\"http://{}\"]\nmax_connections = {cap}", origin.address);
        toml_edit::de::from_str::<crate::config::model::Upstream>(&text).unwrap()
    };
    let upstream = Upstream::new("test", &settings(3)).unwrap();
    let tasks: Vec<_> = (0..3).map(|_| spawn_fetch(&upstream)).collect();
    until("taken", || origin.requests().len() == 3).await;
    assert!(upstream.is_same_service(&settings(1)));
    upstream.reconfigure(&settings(1));
    assert_eq!(origin.open(), 3, "nothing in use is taken away");
    for task in tasks {
        go.notify_one();
        assert_eq!(task.await.unwrap().0, StatusCode::OK);
    }
    upstream.sweep(Instant::now());
    until("what is idle goes", || origin.open() == 1).await;
    let mut other = settings(1);
    other.endpoints.push("http://elsewhere".to_owned());
    assert!(!upstream.is_same_service(&other));
}

#[tokio::test]
async fn an_endpoint_that_came_back_gets_its_share_at_the_cap() {
    let go = Arc::new(Notify::new());
    let (a, b) = (gated(&go).await, gated(&go).await);
    let upstream = upstream(&[&a, &b], "max_connections = 4");
    upstream.endpoints[1].fail(Instant::now(), Duration::from_mins(1));
    let tasks: Vec<_> = (0..4).map(|_| spawn_fetch(&upstream)).collect();
    until("all on the one that is left", || a.requests().len() == 4).await;
    for task in tasks {
        go.notify_one();
        task.await.unwrap();
    }
    upstream.endpoints[1].recover();
    for _ in 0..8 {
        go.notify_one();
        assert_eq!(fetch(&upstream, get("/")).await.0, StatusCode::OK);
    }
    let open: Vec<usize> = upstream.status(Instant::now()).endpoints.iter().map(|one| one.open).collect();
    // One step per turn of the poorer, until the shares differ by less than two.
    assert_eq!(open, [3, 1]);
    let tasks: Vec<_> = (0..2).map(|_| spawn_fetch(&upstream)).collect();
    go.notify_one();
    go.notify_one();
    for task in tasks {
        go.notify_one();
        task.await.unwrap();
    }
    assert!(b.accepted() >= 1 && upstream.status(Instant::now()).open <= 4);
}

#[tokio::test]
async fn an_upstream_that_is_let_go_closes_its_connections() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "");
    fetch(&upstream, get("/")).await;
    assert_eq!(origin.open(), 1);
    drop(upstream);
    until("closed", || origin.open() == 0).await;
}
