//! A handler whose client leaves is dropped, and so is an answer nobody reads.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::{sync::oneshot, time::timeout};

use super::support::{Bell, Edge, Stuck, listener, millis, run};
use crate::edge::{Body, Request, Response};

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// How long a handler may live on after its client.
const SOON: Duration = Duration::from_secs(1);

fn stuck() -> (impl Fn(Request) -> LocalBoxFuture<'static, Response> + Clone, [oneshot::Receiver<()>; 2]) {
    let (stuck, began, dropped) = Stuck::new();
    let handler = move |_: Request| {
        let stuck = stuck.clone();
        Box::pin(async move { stuck.hang().await }) as LocalBoxFuture<'static, Response>
    };
    (handler, [began, dropped])
}

#[test]
fn a_closed_connection_drops_the_handler() {
    run(async {
        for tls in [false, true] {
            let (handler, [began, dropped]) = stuck();
            let edge = if tls { Edge::tls(&listener(), handler) } else { Edge::plain(&listener(), handler) };
            let mut client = edge.http1().await;
            client.write(GET).await;
            began.await.unwrap();
            drop(client);
            timeout(SOON, dropped).await.expect("the handler lives on").unwrap();
            edge.until("the connection is given back", |figures| figures.active == 0).await;
        }
    });
}

#[test]
fn a_reset_stream_drops_the_handler_and_no_other() {
    run(async {
        let (handler, [began, dropped]) = stuck();
        let handler = move |request: Request| {
            let handler = handler.clone();
            async move {
                match request.uri().path() {
                    "/stuck" => handler(request).await,
                    _ => Response::new(Body::full("fine")),
                }
            }
        };
        let edge = Edge::tls(&listener(), handler);
        let mut client = edge.http2().await;
        client.sender.ready().await.unwrap();
        let mut other = client.sender.clone();
        let asked = tokio::task::spawn_local(async move { client.get("https://localhost/stuck").await.map(drop) });
        began.await.unwrap();
        asked.abort();
        timeout(SOON, dropped).await.expect("the handler lives on").unwrap();
        let request =
            http::Request::get("https://localhost/").body(http_body_util::BodyExt::boxed_unsync(Body::empty()));
        assert_eq!(other.send_request(request.unwrap()).await.unwrap().status(), 200);
    });
}

#[test]
fn a_lost_http2_connection_drops_all_its_handlers() {
    run(async {
        let (handler, [began, dropped]) = stuck();
        let edge = Edge::plain(&listener(), handler);
        let mut client = edge.connect().await;
        client.write(super::http2::PREFACE).await;
        client.write(super::http2::SETTINGS).await;
        client.write(super::http2::get(1)).await;
        began.await.unwrap();
        drop(client);
        timeout(SOON, dropped).await.expect("the handler lives on").unwrap();
    });
}

#[test]
fn a_connection_that_we_cut_drops_its_handlers() {
    run(async {
        let (handler, [began, dropped]) = stuck();
        let mixed = move |request: Request| {
            let handler = handler.clone();
            async move {
                if request.uri().path() == "/1" {
                    return handler(request).await;
                }
                Response::new(Body::full("x"))
            }
        };
        let mut config = listener();
        config.http2.ping_interval = millis(50);
        config.http2.ping_timeout = millis(50);
        let edge = Edge::plain(&config, mixed);
        let mut client = edge.connect().await;
        client.write(super::http2::PREFACE).await;
        client.write(super::http2::SETTINGS).await;
        client.write(super::http2::get(1)).await;
        began.await.unwrap();
        timeout(Duration::from_secs(3), dropped).await.expect("the handler lives on").unwrap();
    });
}

#[test]
fn an_answer_that_nobody_reads_any_more_is_dropped() {
    run(async {
        for tls in [false, true] {
            let (bell, dropped) = Bell::new();
            let bell = std::rc::Rc::new(std::cell::RefCell::new(Some(bell)));
            let drip = move |_: Request| {
                let bell = bell.borrow_mut().take();
                async move {
                    let (mut sender, body) = Body::channel(1);
                    tokio::task::spawn_local(async move {
                        let _bell = bell;
                        sender.send(Bytes::from_static(b"first")).await.unwrap();
                        sender.closed().await;
                    });
                    Response::new(body)
                }
            };
            let edge = if tls { Edge::tls(&listener(), drip) } else { Edge::plain(&listener(), drip) };
            if tls {
                let mut client = edge.http2().await;
                drop(client.get("https://localhost/").await.unwrap());
                timeout(SOON, dropped).await.expect("the answer lives on").unwrap();
            } else {
                let mut client = edge.connect().await;
                client.ask(GET).await;
                drop(client);
                timeout(SOON, dropped).await.expect("the answer lives on").unwrap();
            }
        }
    });
}
