//! Slow clients, idle clients, clients that do not listen.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    http2,
    support::{Bell, Client, Edge, PATIENCE, count, hello, listener, millis, read, run, status},
};
use crate::{
    config::{model::Listener, value::Size},
    edge::{Body, Request, Response},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn pause(n: u64) {
    tokio::time::sleep(Duration::from_millis(n)).await;
}

/// A listener with one short deadline and long others.
fn short(set: impl FnOnce(&mut Listener)) -> Listener {
    let mut config = listener();
    set(&mut config);
    config
}

#[test]
fn a_connection_must_bring_a_request() {
    run(async {
        let config = short(|config| config.header_timeout = millis(60));
        let plain = Edge::plain(&config, hello);
        assert_eq!(plain.connect().await.rest().await, "");
        let tls = Edge::tls(&config, hello);
        for protocol in ["http/1.1", "h2"] {
            let started = Instant::now();
            tls.connect_tls("localhost", protocol).await.unwrap().gone().await;
            assert!(started.elapsed() >= Duration::from_millis(60), "{protocol}");
        }
        tls.until("both timed out", |figures| figures.timeout_first_request == 2).await;
        assert_eq!(read(&plain.counters.timeout_first_request), 1);
    });
}

#[test]
fn a_head_must_end() {
    run(async {
        let config = short(|config| config.header_timeout = millis(300));
        for edge in [Edge::plain(&config, hello), Edge::tls(&config, hello)] {
            // The first head, a byte at a time.
            let mut client = edge.http1().await;
            let started = Instant::now();
            let drip = async |client: &mut Client| {
                for byte in GET.bytes().take(8) {
                    client.write([byte]).await;
                    pause(5).await;
                }
            };
            drip(&mut client).await;
            let all = client.rest().await;
            assert_eq!(status(&all), 408, "{all}");
            assert!(started.elapsed() < Duration::from_secs(2));

            // A later head: its time begins with its first byte, not with the connection.
            let mut client = edge.http1().await;
            assert_eq!(status(&client.ask(GET).await), 200);
            pause(350).await;
            assert_eq!(status(&client.ask(GET).await), 200);
            client.write("GET / HT").await;
            assert_eq!(status(&client.rest().await), 408);
            assert_eq!(read(&edge.counters.timeout_header), 2);
        }
    });
}

#[test]
fn an_idle_connection_is_closed_gently() {
    run(async {
        let config = short(|config| config.idle_timeout = millis(1_000));
        let edge = Edge::plain(&config, hello);
        let mut client = edge.connect().await;
        for _ in 0..3 {
            assert_eq!(status(&client.ask(GET).await), 200);
            pause(150).await;
        }
        let started = Instant::now();
        assert_eq!(client.rest().await, "");
        assert!(started.elapsed() < Duration::from_secs(2));

        let edge = Edge::tls(&config, hello);
        let mut client = edge.http2().await;
        client.get("https://localhost/").await.unwrap().into_body().collect().await.unwrap();
        assert!(client.ended.await.unwrap().is_ok(), "GOAWAY, not a broken connection");
        assert_eq!(read(&edge.counters.timeout_idle), 1);
    });
}

#[test]
fn a_request_in_work_is_not_idle() {
    run(async {
        let slow = |_: Request| async {
            pause(700).await;
            Response::new(Body::full("done"))
        };
        let config = short(|config| {
            config.idle_timeout = millis(200);
            config.header_timeout = millis(200);
            config.progress_timeout = millis(200);
        });
        let edge = Edge::plain(&config, slow);
        assert!(edge.connect().await.ask(GET).await.ends_with("done"));
        let edge = Edge::tls(&config, slow);
        assert_eq!(edge.http2().await.get("https://localhost/").await.unwrap().status(), 200);
    });
}

#[test]
fn an_old_connection_is_asked_to_leave() {
    run(async {
        let config = short(|config| config.max_age = millis(100));
        let edge = Edge::plain(&config, hello);
        let mut idle = edge.connect().await;
        assert_eq!(status(&idle.ask(GET).await), 200);
        assert_eq!(idle.rest().await, "");
        edge.until("it was its age", |figures| figures.timeout_age == 1).await;

        let slow = |_: Request| async {
            pause(900).await;
            Response::new(Body::full("done"))
        };
        let edge = Edge::plain(&config, slow);
        let mut busy = edge.connect().await;
        let answer = busy.ask(GET).await;
        assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
    });
}

#[test]
fn a_request_body_must_keep_its_pace() {
    run(async {
        let config = short(|config| {
            config.progress_timeout = millis(400);
            config.min_body_rate = Size(250);
        });
        let edge = Edge::plain(&config, count);
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n";

        // 100 bytes a window are asked for. One byte now and then is not enough...
        let mut client = edge.connect().await;
        client.write(head).await;
        for _ in 0..8 {
            client.write("x").await;
            pause(10).await;
        }
        assert_eq!(status(&client.rest().await), 408);
        assert_eq!(read(&edge.counters.timeout_request_body), 1);

        // ... but an upload that moves may take longer than any window.
        let mut client = edge.connect().await;
        client.write(head).await;
        for _ in 0..10 {
            client.write([b'x'; 100]).await;
            pause(60).await;
        }
        assert!(client.answer().await.ends_with("1000 bytes"));

        // On HTTP/2 one slow stream fails, and the others live.
        let edge = Edge::tls(&config, count);
        let mut client = edge.http2().await;
        let (_sender, silent) = Body::channel(1);
        let answer = client.send(http::Request::post("https://localhost/"), silent).await.unwrap();
        assert_eq!(answer.status(), 408);
        assert_eq!(client.get("https://localhost/").await.unwrap().status(), 200);
    });
}

#[test]
fn a_reader_that_is_busy_elsewhere_does_not_blame_the_client() {
    run(async {
        let lazy = |request: Request| async move {
            let mut body = request.into_body();
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return crate::edge::problem(http::StatusCode::REQUEST_TIMEOUT, "", "") };
                bytes += frame.into_data().unwrap().len();
                pause(500).await;
            }
            Response::new(Body::full(format!("{bytes} bytes")))
        };
        let config = short(|config| config.progress_timeout = millis(400));
        let edge = Edge::plain(&config, lazy);
        let mut client = edge.connect().await;
        client.write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n12").await;
        pause(520).await;
        client.write("34").await;
        pause(520).await;
        client.write("56").await;
        assert!(client.answer().await.ends_with("6 bytes"));
    });
}

/// Answers without end.
async fn flood(_: Request) -> Response {
    let (mut sender, body) = Body::channel(1);
    let piece = Bytes::from(vec![0; 65_536]);
    tokio::task::spawn_local(async move { while sender.send(piece.clone()).await.is_ok() {} });
    Response::new(body)
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    run(async {
        let config = short(|config| config.progress_timeout = millis(300));
        for edge in [Edge::plain(&config, flood), Edge::tls(&config, flood)] {
            let mut client = edge.http1().await;
            client.write(GET).await;
            edge.until("it is cut", |figures| figures.timeout_write == 1 && figures.active == 0).await;
        }
    });
}

#[test]
fn reading_slowly_is_not_the_same_as_not_reading() {
    run(async {
        let config = short(|config| config.progress_timeout = millis(1_000));
        let read_slowly = |edge: Edge| async move {
            let mut client = edge.http1().await;
            client.write(GET).await;
            let mut scrap = vec![0; 512 * 1024];
            for _ in 0..26 {
                assert!(client.0.read(&mut scrap).await.unwrap() > 0);
                pause(50).await;
            }
            assert_eq!(read(&edge.counters.active), 1);
        };
        tokio::join!(read_slowly(Edge::plain(&config, flood)), read_slowly(Edge::tls(&config, flood)));
    });
}

#[test]
fn an_http2_client_that_gives_no_window_is_let_go() {
    run(async {
        let config = short(|config| config.progress_timeout = millis(150));
        let edge = Edge::tls(&config, flood);
        let mut client = edge.http2().await;
        let started = Instant::now();
        let answer = client.get("https://localhost/").await.unwrap();
        // The answer's body is not read, so its window closes.
        edge.until("it is cut", |figures| figures.timeout_window == 1 && figures.active == 0).await;
        assert!(started.elapsed() < Duration::from_secs(5), "not by another deadline's timer");
        drop(answer);

        // While anything is in work for the client, one stalled answer is its own affair.
        let mixed = |request: Request| async move {
            if request.uri().path() == "/slow" {
                pause(500).await;
                return Response::new(Body::full("done"));
            }
            flood(request).await
        };
        let edge = Edge::tls(&config, mixed);
        let mut client = edge.http2().await;
        let _stalled = client.get("https://localhost/").await.unwrap();
        let slow = client.get("https://localhost/slow").await.unwrap();
        assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "done");
    });
}

#[test]
fn an_http2_stream_that_moves_shields_none_that_stalls() {
    run(async {
        let (bell, dropped) = Bell::new();
        let bell = std::rc::Rc::new(std::cell::RefCell::new(Some(bell)));
        let mixed = move |request: Request| {
            let bell = bell.borrow_mut().take();
            async move {
                if request.uri().path() == "/open" {
                    return std::future::pending().await;
                }
                let (mut sender, body) = Body::channel(1);
                let piece = Bytes::from(vec![0; 65_536]);
                tokio::task::spawn_local(async move {
                    let _bell = bell;
                    while sender.send(piece.clone()).await.is_ok() {}
                });
                Response::new(body)
            }
        };
        let config = short(|config| config.progress_timeout = millis(150));
        let edge = Edge::tls(&config, mixed);
        let mut client = edge.http2().await;
        let stalled = client.get("https://localhost/").await.unwrap();
        client.sender.ready().await.unwrap();
        let open = http::Request::get("https://localhost/open").body(BodyExt::boxed_unsync(Body::empty())).unwrap();
        let open = tokio::task::spawn_local(client.sender.send_request(open));
        tokio::time::timeout(PATIENCE, dropped).await.expect("the stalled answer lives on").unwrap();
        assert!(stalled.into_body().collect().await.is_err(), "reset, not ended");
        assert!(!open.is_finished(), "no other stream is touched");
        assert_eq!((read(&edge.counters.timeout_window), read(&edge.counters.active)), (1, 1));
    });
}

/// An answer lies in HTTP/2's send buffer, where no window lets it out: no request is open any more, and still the
/// connection must end, even if the client pings to look alive.
#[test]
fn answers_that_nobody_takes_do_not_hold_a_connection() {
    run(async {
        let config = short(|config| {
            config.progress_timeout = millis(200);
            config.idle_timeout = millis(200);
        });
        let big = |_: Request| async { Response::new(Body::full(vec![0; 100_000])) };
        let edge = Edge::plain(&config, big);
        let mut client = edge.connect().await;
        client.write(http2::PREFACE).await;
        client.write(http2::settings(http2::INITIAL_WINDOW_SIZE, 10)).await;
        client.write(http2::get(1)).await;
        let pings = async {
            let ping = http2::ping();
            while client.0.write_all(&ping).await.is_ok() {
                pause(20).await;
            }
        };
        let ended = edge.until("it is cut", |figures| figures.timeout_closing == 1 && figures.active == 0);
        tokio::join!(pings, ended);
        assert_eq!(read(&edge.counters.timeout_idle), 1, "it was asked first");
    });
}

#[test]
fn a_silent_http2_client_is_found_by_ping() {
    run(async {
        let config = short(|config| {
            config.http2.ping_interval = millis(50);
            config.http2.ping_timeout = millis(50);
        });
        let stuck = |_: Request| std::future::pending::<Response>();
        let edge = Edge::plain(&config, stuck);
        let mut client = edge.connect().await;
        client.write(http2::PREFACE).await;
        client.write(http2::SETTINGS).await;
        client.write(http2::get(1)).await;
        client.gone().await;
        edge.until("it is gone", |figures| figures.active == 0).await;
    });
}
