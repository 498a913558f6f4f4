//! Ending well.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use http_body_util::BodyExt;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, time::timeout};

use super::support::{Edge, PATIENCE, Stuck, hello, listener, run, status};
use crate::edge::{Body, Request, Response};

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Answers when told to.
fn held() -> (watch::Sender<bool>, impl Fn(Request) -> LocalBoxFuture<'static, Response> + Clone) {
    let (go, gate) = watch::channel(false);
    let handler = move |request: Request| {
        let mut gate = gate.clone();
        Box::pin(async move {
            if request.uri().path() == "/held" {
                gate.wait_for(|open| *open).await.unwrap();
            }
            Response::new(Body::full(request.uri().path().to_owned()))
        }) as LocalBoxFuture<'static, Response>
    };
    (go, handler)
}

async fn finished(edge: &Edge) {
    timeout(PATIENCE, edge.drain.finished()).await.expect("the drain hangs");
}

#[test]
fn http1_finishes_what_it_has_and_closes() {
    run(async {
        let (go, handler) = held();
        let edge = Edge::plain(&listener(), handler);
        let mut idle = edge.connect().await;
        assert_eq!(status(&idle.ask(GET).await), 200);
        let mut busy = edge.connect().await;
        assert_eq!(status(&busy.ask(GET).await), 200);
        busy.write("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        edge.until("both are there", |figures| figures.active == 2).await;
        // The held request has begun when its head was read, which the server does in one go.
        tokio::task::yield_now().await;

        edge.drain.start();
        assert_eq!(idle.rest().await, "");
        assert!(TcpStream::connect(edge.address).await.is_err(), "the socket is closed");
        assert_eq!(edge.drain.held(), 1);
        go.send(true).unwrap();
        let answer = busy.answer().await;
        assert!(answer.contains("connection: close") && answer.ends_with("/held"), "{answer}");
        assert_eq!(busy.rest().await, "");
        finished(&edge).await;
    });
}

#[test]
fn http2_says_goaway_and_serves_what_came_before_the_client_knew() {
    run(async {
        let (go, handler) = held();
        let edge = Edge::tls(&listener(), handler);
        let mut client = edge.http2().await;
        client.sender.ready().await.unwrap();
        let mut second = client.sender.clone();
        let held = tokio::task::spawn_local(async move {
            let answer = client.get("https://localhost/held").await.unwrap();
            (answer.into_body().collect().await.unwrap().to_bytes(), client.ended)
        });
        edge.until("it is there", |figures| figures.active == 1).await;
        let empty = || BodyExt::boxed_unsync(Body::empty());
        let get = |path: &str| http::Request::get(format!("https://localhost{path}")).body(empty()).unwrap();
        second.send_request(get("/first")).await.unwrap();

        edge.drain.start();
        // Between the two GOAWAYs: sent at once, before the client can have read the first.
        let between = second.send_request(get("/between"));
        assert_eq!(between.await.unwrap().into_body().collect().await.unwrap().to_bytes(), "/between");
        go.send(true).unwrap();
        let (body, ended) = held.await.unwrap();
        assert_eq!(body, "/held");
        assert!(ended.await.unwrap().is_ok());
        finished(&edge).await;
    });
}

#[test]
fn what_waits_in_the_queue_is_served() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        // The accept loop does not run between these and the start: one task at a time.
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let mut client = std::net::TcpStream::connect(edge.address).unwrap();
                std::io::Write::write_all(&mut client, GET.as_bytes()).unwrap();
                client.set_nonblocking(true).unwrap();
                TcpStream::from_std(client).unwrap()
            })
            .collect();
        edge.drain.start();
        for mut client in clients {
            let mut all = String::new();
            client.read_to_string(&mut all).await.unwrap();
            assert!(status(&all) == 200 && all.contains("connection: close"), "{all}");
        }
        finished(&edge).await;
    });
}

#[test]
fn a_fresh_connection_has_a_moment_for_its_first_request() {
    run(async {
        for tls in [false, true] {
            let edge = if tls { Edge::tls(&listener(), hello) } else { Edge::plain(&listener(), hello) };
            let mut late = edge.http1().await;
            let mut silent = edge.http1().await;
            edge.until("both are there", |figures| figures.active == 2).await;
            edge.drain.start();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(status(&late.ask(GET).await), 200);
            silent.gone().await;
            finished(&edge).await;
        }
    });
}

#[test]
fn a_drain_without_connections_is_done_at_once() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        tokio::task::yield_now().await;
        edge.drain.start();
        finished(&edge).await;
    });
}

#[test]
fn dropping_everything_is_the_hard_stop() {
    let (stuck, began, dropped) = Stuck::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let mut client = local.block_on(&runtime, async {
        let handler = move |_: Request| {
            let stuck = stuck.clone();
            async move { stuck.hang().await }
        };
        let edge = Edge::plain(&listener(), handler);
        let mut client = edge.connect().await;
        client.write(GET).await;
        began.await.unwrap();
        client
    });
    drop(local);
    runtime.block_on(async {
        dropped.await.unwrap();
        client.gone().await;
    });
}
