//! HTTP/1.1 as bytes.

use std::{cell::RefCell, rc::Rc};

use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use super::support::{Edge, count, hello, listener, read, run, status};
use crate::edge::{Body, Context, Handler, Refusal, Request, Response};

#[test]
fn requests_follow_each_other_on_one_connection() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let mut client = edge.connect().await;
        for path in ["/one", "/two?x=1"] {
            let answer = client.ask(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            assert!(answer.ends_with(&format!("GET {path}")), "{answer}");
            assert!(answer.contains("\r\ndate: ") && !answer.contains("\r\nserver: "), "{answer}");
        }
        client.write("GET /3 HTTP/1.1\r\nhost: a\r\n\r\nGET /4 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.answer().await.ends_with("/3"));
        assert!(client.answer().await.ends_with("/4"));
        assert_eq!((read(&edge.counters.accepted), read(&edge.counters.active)), (1, 1));
        drop(client);
        edge.until("the connection is given back", |figures| figures.active == 0).await;
        assert_eq!(edge.limits.open(), 0);
    });
}

#[test]
fn a_handler_sees_who_asked_and_for_what() {
    run(async {
        let look = |request: Request| async move {
            let context = Context::of(&request).unwrap();
            let host = request.headers()["host"].to_str().unwrap();
            let original = context.original.as_ref().map_or("", |original| original.as_str());
            Response::new(Body::full(format!(
                "{} {} {:?} {host} {} {original}",
                context.peer.listener,
                context.authority.host,
                context.authority.port,
                request.uri()
            )))
        };
        let edge = Edge::plain(&listener(), look);
        let mut client = edge.connect().await;
        let answer = client.ask("GET http://A.test:81/x/../y?q HTTP/1.1\r\nhost: b\r\n\r\n").await;
        assert!(answer.ends_with("test a.test Some(81) A.test:81 /y?q /x/../y?q"), "{answer}");
    });
}

/// How a request may end.
#[derive(Debug, PartialEq)]
enum End {
    /// Answered with this status; the connection takes another request.
    Open(u16),
    /// Answered, then closed.
    Closed(u16),
}

/// Sends a head and body, then a second request, and sees what becomes of both.
async fn outcome(edge: &Edge, request: &str) -> End {
    let mut client = edge.connect().await;
    let _ = client.0.write_all(format!("{request}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
    let _ = client.0.flush().await;
    let first = client.answer().await;
    if first.contains("connection: close") {
        let rest = client.rest().await;
        assert_eq!(rest, "", "after {request:?}");
        return End::Closed(status(&first));
    }
    let second = client.answer().await;
    assert!(second.contains("/smuggled"), "after {request:?}: {second}");
    End::Open(status(&first))
}

/// Where a request ends must be beyond doubt, or the connection does.
#[test]
fn the_smuggling_matrix() {
    run(async {
        let report = |request: Request| async move {
            let headers = request.headers();
            let length = headers.get("content-length").map(|value| value.to_str().unwrap().to_owned());
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert!(path == "/smuggled" || body.is_empty() || body == "12345", "{body:?}");
            Response::new(Body::full(format!("{path} {length:?} {}", body.len())))
        };
        let edge = Edge::plain(&listener(), report);
        let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}");
        let chunks = "5\r\n12345\r\n0\r\n\r\n";
        let matrix = [
            // One way to read it.
            (post("content-length: 5\r\n", "12345"), End::Open(200)),
            (post("content-length: 5\r\ncontent-length: 5\r\n", "12345"), End::Open(200)),
            (post("transfer-encoding: chunked\r\n", chunks), End::Open(200)),
            (post("Transfer-Encoding: Chunked\r\n", chunks), End::Open(200)),
            (post("", ""), End::Open(200)),
            (post("transfer-encoding: chunked\r\n", "5;ext=1\r\n12345\r\n0\r\nx: y\r\n\r\n"), End::Open(200)),
            // Both: the coding governs, the length is dropped, and nothing more is read.
            (post("content-length: 5\r\ntransfer-encoding: chunked\r\n", chunks), End::Closed(200)),
            (post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", chunks), End::Closed(200)),
            (post("transfer-encoding: chunked\r\ncontent-length: nonsense\r\n", chunks), End::Closed(200)),
            // Lengths that are none, or differ.
            (post("content-length: 5\r\ncontent-length: 6\r\n", "12345"), End::Closed(400)),
            (post("content-length: 5, 5\r\n", "12345"), End::Closed(400)),
            (post("content-length: +5\r\n", "12345"), End::Closed(400)),
            (post("content-length: -5\r\n", "12345"), End::Closed(400)),
            (post("content-length: 0x5\r\n", "12345"), End::Closed(400)),
            (post("content-length: 5 5\r\n", "12345"), End::Closed(400)),
            (post("content-length: \r\n", "12345"), End::Closed(400)),
            (post("content-length: 18446744073709551621\r\n", "12345"), End::Closed(400)),
            // Codings that are not chunked, or not only.
            (post("transfer-encoding: identity\r\n", "12345"), End::Closed(400)),
            (post("transfer-encoding: xchunked\r\n", chunks), End::Closed(400)),
            (post("transfer-encoding: chunked, identity\r\n", chunks), End::Closed(400)),
            (post("transfer-encoding: gzip, chunked\r\n", chunks), End::Closed(501)),
            (post("transfer-encoding: chunked, chunked\r\n", chunks), End::Closed(501)),
            (post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", chunks), End::Closed(501)),
            (post("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", chunks), End::Closed(501)),
            ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned() + chunks, End::Closed(400)),
            // Lines that others read otherwise.
            (post("content-length : 5\r\n", "12345"), End::Closed(400)),
            (post("transfer-encoding : chunked\r\n", chunks), End::Closed(400)),
            (post("x: a\r\n content-length: 5\r\n", "12345"), End::Closed(400)),
            (post("x: a\r\n\ttransfer-encoding: chunked\r\n", chunks), End::Closed(400)),
            (post("\u{b}transfer-encoding: chunked\r\n", chunks), End::Closed(400)),
            (post("transfer-encoding: \u{b}chunked\r\n", chunks), End::Closed(400)),
            (post("x: a\0b\r\n", ""), End::Closed(400)),
            (post("x: a\rcontent-length: 5\r\n", "12345"), End::Closed(400)),
            (post(": x\r\n", ""), End::Closed(400)),
            (post("novalue\r\n", ""), End::Closed(400)),
            ("GET / HTTP/1.1\r\n host: a\r\n\r\n".to_owned(), End::Closed(400)),
            ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), End::Closed(400)),
            ("GET / HTTP/1.1 \r\nhost: a\r\n\r\n".to_owned(), End::Closed(400)),
            ("GET / HTTP/2.0\r\nhost: a\r\n\r\n".to_owned(), End::Closed(400)),
            ("GET / HTTP/1.9\r\nhost: a\r\n\r\n".to_owned(), End::Closed(400)),
            ("GET /\r\n\r\n".to_owned(), End::Closed(400)),
            // Hosts.
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), End::Closed(400)),
            ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), End::Closed(400)),
            ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned(), End::Closed(400)),
            ("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n".to_owned(), End::Closed(405)),
        ];
        for (request, expected) in matrix {
            assert_eq!(outcome(&edge, &request).await, expected, "{request:?}");
        }
    });
}

/// Bodies whose chunks are broken have no end that we could agree on.
#[test]
fn broken_chunks_end_the_connection() {
    run(async {
        let edge = Edge::plain(&listener(), count);
        for chunks in [
            "5\n12345\r\n0\r\n\r\n",
            "+5\r\n12345\r\n0\r\n\r\n",
            "0x5\r\n12345\r\n0\r\n\r\n",
            "5\r\n123456\r\n0\r\n\r\n",
            "10000000000000005\r\n12345\r\n0\r\n\r\n",
            "\r\n12345\r\n0\r\n\r\n",
            "g\r\n",
            "-1\r\n",
            "5;a=\nb\r\n12345\r\n0\r\n\r\n",
        ] {
            let mut client = edge.connect().await;
            client.write("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
            client.write(chunks).await;
            client.write("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let all = client.rest().await;
            assert!(all.contains("HTTP/1.1 400") && all.matches("HTTP/1.1 ").count() == 1, "{chunks:?}: {all}");
        }
    });
}

#[test]
fn bare_line_feeds_are_lines_and_nothing_more() {
    run(async {
        // RFC 9112, section 2.2, lets a recipient take a bare LF for a line's end; httparse does. Both ways of reading must
        // agree on where the head ends.
        let edge = Edge::plain(&listener(), count);
        let mut client = edge.connect().await;
        let answer = client.ask("POST / HTTP/1.1\nhost: a\ncontent-length: 5\n\n12345").await;
        assert!(answer.ends_with("5 bytes"), "{answer}");
        assert!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ends_with("0 bytes"));
    });
}

#[test]
fn heads_are_limited_in_count_and_size() {
    run(async {
        let mut few = listener();
        few.max_headers = 10;
        let mut many = listener();
        many.max_headers = 150;
        for (config, most) in [(few, 10), (listener(), 100), (many, 150)] {
            let edge = Edge::plain(&config, hello);
            let get = |count: usize| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(count - 1));
            assert_eq!(status(&edge.connect().await.ask(get(most)).await), 200);
            assert_eq!(status(&edge.connect().await.ask(get(most + 1)).await), 431, "{most}");
        }
        let edge = Edge::plain(&listener(), hello);
        let long = |length| format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(length));
        assert_eq!(status(&edge.connect().await.ask(long(32_000)).await), 200);
        assert_eq!(status(&edge.connect().await.ask(long(33_000)).await), 431);
        let path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(33_000));
        assert_eq!(status(&edge.connect().await.ask(path).await), 431);
        assert!(read(&edge.counters.rejected) >= 2);
    });
}

#[test]
fn answers_without_a_body_have_none() {
    run(async {
        let vary = |request: Request| async move {
            let mut response = Response::new(Body::full("some text"));
            *response.status_mut() = match request.uri().path() {
                "/204" => http::StatusCode::NO_CONTENT,
                "/304" => http::StatusCode::NOT_MODIFIED,
                _ => http::StatusCode::OK,
            };
            response
        };
        let edge = Edge::plain(&listener(), vary);
        let mut client = edge.connect().await;
        client.write("HEAD / HTTP/1.1\r\nhost: a\r\n\r\nGET /204 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client
            .write("GET /304 HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        let all = client.rest().await;
        assert_eq!(all.matches("some text").count(), 1, "{all}");
        assert!(all.split("HTTP/1.1 204").next().unwrap().contains("content-length: 9"), "{all}");
        assert!(all.ends_with("some text"));
    });
}

#[test]
fn an_answer_that_is_cut_short_does_not_look_whole() {
    run(async {
        let half = |_: Request| async move {
            let (mut sender, body) = Body::channel(1);
            tokio::task::spawn_local(async move {
                sender.send("half".into()).await.unwrap();
                sender.abort("the rest is lost".into());
            });
            Response::new(body)
        };
        let edge = Edge::plain(&listener(), half);
        let mut client = edge.connect().await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let all = client.rest().await;
        assert!(all.contains("transfer-encoding: chunked") && !all.ends_with("0\r\n\r\n"), "no last chunk: {all:?}");
    });
}

#[test]
fn a_body_over_its_limit_is_refused_and_the_client_hears_of_it() {
    run(async {
        let limited = |mut request: Request| async move {
            request.body_mut().limit(1_000);
            count(request).await
        };
        let edge = Edge::plain(&listener(), limited);
        let mut client = edge.connect().await;
        assert!(client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n1234").await.ends_with("4 bytes"));

        // Announced: refused before it is asked to go on.
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n";
        let answer = client.ask(head).await;
        assert_eq!(status(&answer), 413, "{answer}");

        // The client is in the middle of a large upload and looks up only later: no reset may swallow the answer.
        let mut client = edge.connect().await;
        let mut upload = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..200 {
            upload.extend_from_slice(b"1000\r\n");
            upload.extend_from_slice(&[b'x'; 4096]);
            upload.extend_from_slice(b"\r\n");
        }
        client.write(&upload).await;
        let all = client.rest().await;
        assert_eq!(status(&all), 413, "{all}");
    });
}

#[test]
fn a_client_that_asks_may_continue() {
    run(async {
        let edge = Edge::plain(&listener(), count);
        let mut client = edge.connect().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(status(&client.ask(head).await), 100);
        assert!(client.ask("12345").await.ends_with("5 bytes"));
    });
}

#[test]
fn refusals_of_the_edge_are_problems() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let answer = edge.connect().await.ask("GET /%zz HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.contains("application/problem+json") && answer.contains("percent escape"), "{answer}");
        let answer = edge.connect().await.ask("GET / HTTP/1.1\r\ncontent-type: application/grpc\r\n\r\n").await;
        assert!(answer.contains("grpc-status: 3") && status(&answer) == 200, "{answer}");
    });
}

#[test]
fn an_upgrade_hands_the_connection_over() {
    run(async {
        let tunnel = |mut request: Request| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::task::spawn_local(async move {
                let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
                io.write_all(b"welcome").await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(io);
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response
        };
        let edge = Edge::plain(&listener(), tunnel);
        let mut client = edge.connect().await;
        let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        assert_eq!(status(&client.ask(head).await), 101);
        client.write(" and again").await;
        let mut bytes = [0; 17];
        tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut bytes).await.unwrap();
        assert_eq!(&bytes, b"welcome and again");
        assert_eq!((edge.limits.open(), read(&edge.counters.active)), (1, 1), "an upgraded connection counts");
        drop(client);
        edge.until("the connection is given back", |figures| figures.active == 0).await;
    });
}

#[test]
fn connections_over_a_cap_are_closed_at_once() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        edge.limits.set(100, 2);
        let mut first = edge.connect().await;
        let mut second = edge.connect().await;
        for client in [&mut first, &mut second] {
            assert_eq!(status(&client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await), 200);
        }
        edge.connect().await.gone().await;
        edge.limits.set(2, 100);
        edge.connect().await.gone().await;
        let figures = edge.counters.snapshot();
        assert_eq!((figures.refused_address, figures.refused_total, figures.active), (1, 1, 2));
        drop(first);
        edge.until("there is room again", |figures| figures.active == 1).await;
        assert_eq!(status(&edge.connect().await.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await), 200);
    });
}

/// Answers, and notes what never came to it.
#[derive(Clone, Default)]
struct Noting(Rc<RefCell<Vec<(u16, &'static str)>>>);

impl Handler for Noting {
    async fn handle(&self, request: Request) -> Response {
        hello(request).await
    }

    fn refused(&self, refusal: &Refusal<'_>) {
        self.0.borrow_mut().push((refusal.response.status().as_u16(), refusal.reason));
    }
}

#[test]
fn the_handler_is_told_of_what_the_edge_refuses() {
    run(async {
        let noting = Noting::default();
        let edge = Edge::tls(&listener(), noting.clone());
        for request in [
            "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: other.test\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
            "GET /% HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ] {
            edge.http1().await.ask(request).await;
        }
        let refused = [(421, "misdirected"), (405, "connect"), (400, "many-hosts"), (400, "bad-path")];
        assert_eq!(*noting.0.borrow(), refused);
    });
}
