//! HTTP/2: limits, and the attacks they are for.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Client, Edge, PATIENCE, count, hello, listener, read, run};
use crate::edge::{Body, Context, Request, Response};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
pub(super) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) const INITIAL_WINDOW_SIZE: u8 = 4;

pub(super) fn settings(setting: u8, value: u8) -> Vec<u8> {
    frame(4, 0, 0, &[0, setting, 0, 0, 0, value])
}

pub(super) fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[0; 8])
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK: GET, http, path `/1`, authority `localhost`, none of it indexed.
fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    literal(&mut block, ":path", "/1");
    literal(&mut block, ":authority", "localhost");
    block
}

fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x10);
    for text in [name, value] {
        assert!(text.len() < 127);
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.bytes());
    }
}

pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head())
}

async fn raw(edge: &Edge) -> Client {
    let mut client = edge.connect().await;
    client.write(PREFACE).await;
    client.write(SETTINGS).await;
    client
}

/// Reads frames until the end; tells of the error code of the GOAWAY, if any.
async fn goaway(client: &mut Client) -> Option<u32> {
    let read = async {
        let mut code = None;
        loop {
            let mut header = [0; 9];
            if client.0.read_exact(&mut header).await.is_err() {
                return code;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
            if client.0.read_exact(&mut payload).await.is_err() {
                return code;
            }
            if header[3] == GOAWAY {
                code = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the connection stays open")
}

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// The frames up to the acknowledgement of a PING: kinds, and the payload of the last RST_STREAM.
async fn frames(client: &mut Client) -> (Vec<u8>, Option<Vec<u8>>) {
    client.write(&ping()).await;
    let (mut kinds, mut reset) = (Vec::new(), None);
    let read = async {
        loop {
            let mut header = [0; 9];
            client.0.read_exact(&mut header).await.expect("the connection stays");
            let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
            client.0.read_exact(&mut payload).await.unwrap();
            kinds.push(header[3]);
            match header[3] {
                PING => return,
                RST_STREAM => reset = Some(payload),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer to the PING");
    (kinds, reset)
}

/// curl 7.88 loses an answer that a reset follows while it is still sending.
#[test]
fn an_answer_before_the_end_of_its_request_is_followed_by_no_reset_unless_the_rest_is_long() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let mut client = raw(&edge).await;
        client.write(&frame(HEADERS, END_HEADERS, 1, &head())).await;
        let mut answered = false;
        while !answered {
            let (kinds, reset) = frames(&mut client).await;
            assert!(reset.is_none(), "{kinds:?}");
            answered = kinds.contains(&HEADERS);
        }
        assert!(frames(&mut client).await.1.is_none());
        client.write(&frame(DATA, END_STREAM, 1, b"late")).await;
        let (kinds, reset) = frames(&mut client).await;
        assert!(reset.is_none(), "{kinds:?}");
        // A body that goes on and on is not read for ever.
        client.write(&frame(HEADERS, END_HEADERS, 3, &head())).await;
        let mut reset = None;
        for _ in 0..300 {
            let window = frame(DATA, 0, 3, &[0; 16_000]);
            client.write(&window).await;
            reset = frames(&mut client).await.1;
            if reset.is_some() {
                break;
            }
        }
        assert_eq!(reset, Some(vec![0, 0, 0, 0]), "NO_ERROR");
    });
}

/// RFC 9113, section 6.8: the first names no stream, so that what is on its way is served; the second, a round trip later, does.
#[test]
fn a_drain_says_goaway_twice() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let mut client = raw(&edge).await;
        client.write(&get(1)).await;
        edge.until("it is answered", |figures| figures.active == 1).await;
        edge.drain.start();
        let mut said = Vec::new();
        let frames = async {
            let mut header = [0; 9];
            while client.0.read_exact(&mut header).await.is_ok() {
                let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
                client.0.read_exact(&mut payload).await.unwrap();
                match header[3..5] {
                    // What was sent with the second request passes the first GOAWAY on its way.
                    [PING, 0] => client.write(&[get(3), frame(PING, 1, 0, &payload)].concat()).await,
                    [GOAWAY, _] => said.push((payload[..4].to_vec(), payload[4..8].to_vec())),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, frames).await.expect("the connection ends");
        let no_error = vec![0; 4];
        assert_eq!(said, [(vec![0x7f, 0xff, 0xff, 0xff], no_error.clone()), (vec![0, 0, 0, 3], no_error)]);
    });
}

#[test]
fn requests_run_side_by_side() {
    run(async {
        let edge = Edge::tls(&listener(), count);
        let client = edge.http2().await;
        let asks = (0..50_usize).map(|n| {
            let mut sender = client.sender.clone();
            async move {
                let body = BodyExt::boxed_unsync(Body::full(vec![0; n * 1_000]));
                let request = http::Request::post("https://localhost/").body(body).unwrap();
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), format!("{} bytes", n * 1_000));
            }
        });
        futures_util::future::join_all(asks).await;
        assert_eq!(read(&edge.counters.accepted), 1);
    });
}

#[test]
fn a_handler_finds_the_host_and_one_cookie() {
    run(async {
        let look = |request: Request| async move {
            let headers = request.headers();
            let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
            let host = &Context::of(&request).unwrap().authority.host;
            Response::new(Body::full(format!("{:?} {host} {cookies:?} {}", headers["host"], request.uri())))
        };
        let edge = Edge::tls(&listener(), look);
        let request =
            http::Request::get("https://Localhost:8443/a//b?c").header("cookie", "a=1").header("cookie", "b=2");
        let answer = edge.http2().await.send(request, Body::empty()).await.unwrap();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, r#""Localhost:8443" localhost ["a=1; b=2"] /a/b?c"#);
    });
}

#[test]
fn answers_without_a_body_have_none() {
    run(async {
        let full = |_: Request| async { Response::new(Body::full("some text")) };
        let edge = Edge::tls(&listener(), full);
        let answer = edge.http2().await.send(http::Request::head("https://localhost/"), Body::empty()).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "9");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    });
}

#[test]
fn no_content_has_no_length() {
    run(async {
        let lengthy = |_: Request| async {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::NO_CONTENT;
            response.headers_mut().insert("content-length", 5.into());
            response
        };
        for edge in [Edge::tls(&listener(), lengthy), Edge::plain(&listener(), lengthy)] {
            let answer = edge.http2().await.get("https://localhost/").await.unwrap();
            assert_eq!(answer.status(), 204);
            assert!(!answer.headers().contains_key("content-length"));
            assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        }
    });
}

#[test]
fn an_answer_that_is_cut_short_resets_its_stream_only() {
    run(async {
        let half = |request: Request| async move {
            if request.uri().path() == "/whole" {
                return Response::new(Body::full("whole"));
            }
            let (mut sender, body) = Body::channel(1);
            tokio::task::spawn_local(async move {
                sender.send(Bytes::from_static(b"half")).await.unwrap();
                drop(sender);
            });
            Response::new(body)
        };
        let edge = Edge::tls(&listener(), half);
        let mut client = edge.http2().await;
        assert!(client.get("https://localhost/").await.unwrap().into_body().collect().await.is_err());
        let whole = client.get("https://localhost/whole").await.unwrap();
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "whole");
    });
}

#[test]
fn connect_is_not_offered() {
    run(async {
        let edge = Edge::tls(&listener(), hello);
        let mut client = edge.http2().await;
        let connect = http::Request::builder().method("CONNECT").uri("localhost:80");
        let answer = client.send(connect, Body::empty()).await.unwrap();
        assert_eq!(answer.status(), 405);
    });
}

/// CVE-2023-44487: streams that are opened and reset at once cost the server work and the client nothing.
#[test]
fn rapid_resets_end_the_connection() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let mut client = raw(&edge).await;
        let mut flood = Vec::new();
        for stream in (1..2_000).step_by(2) {
            flood.extend(get(stream));
            flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        let _ = client.0.write_all(&flood).await;
        assert_eq!(goaway(&mut client).await, Some(ENHANCE_YOUR_CALM));
        edge.until("the connection is given back", |figures| figures.active == 0).await;
    });
}

/// The same, but each stream is given up only when its request is being answered.
#[test]
fn answers_that_are_given_up_end_the_connection() {
    run(async {
        let began = Rc::new(Cell::new(0));
        let stuck = {
            let began = began.clone();
            move |_: Request| {
                began.set(began.get() + 1);
                std::future::pending::<Response>()
            }
        };
        let edge = Edge::plain(&listener(), stuck);
        let mut client = raw(&edge).await;
        edge.until("it is accepted", |figures| figures.active == 1).await;
        let mut streams = (1..).step_by(2);
        let mut give_up = async |count: u32| {
            for _ in 0..count {
                let (stream, before) = (streams.next().unwrap(), began.get());
                if client.0.write_all(&get(stream)).await.is_err() {
                    return;
                }
                let seen = async {
                    while began.get() == before && read(&edge.counters.active) == 1 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(PATIENCE, seen).await.expect("a request or an end");
                _ = client.0.write_all(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
            }
        };
        give_up(100).await;
        assert_eq!(read(&edge.counters.abandoned), 0);
        give_up(2).await;
        edge.until("it is asked to end", |figures| figures.abandoned == 1 && figures.active == 1).await;
        // Nothing ends without the client's help, and it goes on.
        give_up(200).await;
        edge.until("it is cut", |figures| figures.active == 0).await;
        assert!(began.get() < 250, "{}", began.get());
    });
}

/// CVE-2024-27316: header blocks without end.
#[test]
fn endless_continuations_end_the_connection() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let mut client = raw(&edge).await;
        let mut flood = frame(HEADERS, 0, 1, &head());
        for n in 0..10_000 {
            let mut block = Vec::new();
            literal(&mut block, &format!("x{n}"), "y");
            flood.extend(frame(CONTINUATION, 0, 1, &block));
        }
        let _ = client.0.write_all(&flood).await;
        assert!(goaway(&mut client).await.is_some());
        edge.until("the connection is given back", |figures| figures.active == 0).await;
    });
}

/// The half of CVE-2026-49975 and CVE-2026-47774 that is about headers: a byte of HPACK makes a header of any size.
#[test]
fn headers_are_limited_in_count_and_size_and_crumbs_count() {
    run(async {
        let edge = Edge::tls(&listener(), hello);
        let mut client = edge.http2().await;
        let with = |count: usize, name: &str| {
            (0..count).fold(http::Request::get("https://localhost/"), |request, n| {
                let name = if name.is_empty() { format!("x{n}") } else { name.to_owned() };
                request.header(name, "a=b")
            })
        };
        // `Host` is not counted: it comes as `:authority`.
        assert_eq!(client.send(with(100, ""), Body::empty()).await.unwrap().status(), 200);
        assert_eq!(client.send(with(101, ""), Body::empty()).await.unwrap().status(), 431);
        assert_eq!(client.send(with(101, "cookie"), Body::empty()).await.unwrap().status(), 431);
        let large = http::Request::get("https://localhost/").header("x", "y".repeat(40_000));
        let answer = client.send(large, Body::empty()).await;
        assert!(answer.is_err() || answer.unwrap().status() == 431);
        assert_eq!(client.get("https://localhost/").await.unwrap().status(), 200);

        // One literal put into the dynamic table, and many one-byte references to it.
        let edge = Edge::plain(&listener(), hello);
        let mut bomb = raw(&edge).await;
        let mut block = vec![0x82, 0x86];
        literal(&mut block, ":path", "/1");
        literal(&mut block, ":authority", "localhost");
        block.push(0x40);
        block.extend([1, b'x', 1, b'y']);
        block.extend(vec![0xbe; 16_000]);
        bomb.write(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
        let refused = async {
            let mut header = [0; 9];
            loop {
                bomb.0.read_exact(&mut header).await.unwrap();
                let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
                bomb.0.read_exact(&mut payload).await.unwrap();
                // An answer's HEADERS, a reset or a GOAWAY.
                if matches!(header[3], HEADERS | RST_STREAM | 7) {
                    return payload;
                }
            }
        };
        let payload = tokio::time::timeout(PATIENCE, refused).await.unwrap();
        assert!(!payload.starts_with(&[0x88]), "not 200");
    });
}

#[test]
fn streams_are_limited() {
    run(async {
        let mut config = listener();
        config.http2.max_streams = 5;
        let stuck = |_: Request| std::future::pending::<Response>();
        let edge = Edge::plain(&config, stuck);
        let mut client = raw(&edge).await;
        for stream in [1, 3, 5, 7, 9, 11] {
            client.write(get(stream)).await;
        }
        let refused = async {
            let mut header = [0; 9];
            loop {
                client.0.read_exact(&mut header).await.unwrap();
                let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
                client.0.read_exact(&mut payload).await.unwrap();
                if header[3] == RST_STREAM {
                    return (header[8], payload);
                }
            }
        };
        let (stream, code) = tokio::time::timeout(PATIENCE, refused).await.unwrap();
        assert_eq!((stream, code), (11, 7_u32.to_be_bytes().to_vec()), "REFUSED_STREAM");
    });
}
