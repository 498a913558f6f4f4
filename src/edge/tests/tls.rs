//! Handshakes and server names.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::support::{Edge, hello, listener, millis, read, run, status};
use crate::{
    config::model::UnknownSni,
    edge::{Body, Context, Request, Response, Settings},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[test]
fn both_protocols_are_offered_and_told() {
    run(async {
        let tell = |request: Request| async move {
            let tls = Context::of(&request).unwrap().peer.tls.clone().unwrap();
            Response::new(Body::full(format!("{:?} {} {} {:?}", tls.sni, tls.version, tls.cipher, tls.alpn)))
        };
        let edge = Edge::tls(&listener(), tell);
        let mut client = edge.connect_tls("localhost", "http/1.1").await.unwrap();
        let answer = client.ask(GET).await;
        assert!(answer.contains("Some(\"localhost\") TLSv1.3 TLS13_"), "{answer}");
        assert!(answer.ends_with("Some(\"http/1.1\")"));
        let answer = edge.http2().await.get("https://localhost/").await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    });
}

#[test]
fn a_connection_is_for_the_name_it_was_opened_for() {
    run(async {
        let edge = Edge::tls(&listener(), hello);
        let mut client = edge.connect_tls("localhost", "http/1.1").await.unwrap();
        assert_eq!(status(&client.ask(GET).await), 200);
        assert_eq!(status(&client.ask("GET / HTTP/1.1\r\nhost: other.test\r\n\r\n").await), 421);
        assert_eq!(status(&client.ask("GET / HTTP/1.1\r\nhost: LOCALHOST:8443\r\n\r\n").await), 200);
        assert_eq!(edge.http2().await.get("https://other.test/").await.unwrap().status(), 421);
        let mut without_name = edge.connect_tls("127.0.0.1", "http/1.1").await.unwrap();
        assert_eq!(status(&without_name.ask("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await), 200);
    });
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    run(async {
        let edge = Edge::tls(&listener(), hello);
        let mut client = edge.connect().await;
        client.write("GET / HTTP/1.1\r\nhost: localhost\r\n").await;
        client.write("x: y\r\n\r\n").await;
        let all = client.rest().await;
        assert!(all.starts_with("HTTP/1.1 400 ") && all.ends_with("\r\n\r\nthis port speaks HTTPS\n"), "{all:?}");
        let length = all.rsplit("\r\n\r\n").next().unwrap().len();
        assert!(all.contains(&format!("content-length: {length}\r\n")));

        let mut client = edge.connect().await;
        client.write("\0\0nonsense").await;
        client.gone().await;
        let figures = edge.counters.snapshot();
        assert_eq!((figures.handshake_plain_http, figures.handshake_malformed), (1, 1));
    });
}

#[test]
fn handshakes_that_fail_are_counted_by_kind() {
    run(async {
        let mut config = listener();
        config.handshake_timeout = millis(50);
        let edge = Edge::tls_for(&config, hello, &["localhost"], UnknownSni::Refuse);

        let mut silent = edge.connect().await;
        silent.gone().await;
        let mut slow = edge.connect().await;
        slow.write(b"\x16\x03\x01\x02\x00\x01").await;
        slow.gone().await;
        edge.until("two took too long", |figures| figures.handshake_timeout == 2).await;

        drop(edge.connect().await);
        edge.until("one left", |figures| figures.handshake_closed == 1).await;

        assert!(edge.connect_tls("unknown.test", "h2").await.is_err());
        edge.until("one asked for another name", |figures| figures.handshake_unknown_name == 1).await;

        assert!(edge.connect_tls("localhost", "ftp").await.is_err());
        edge.until("one spoke another protocol", |figures| figures.handshake_incompatible == 1).await;

        let mut broken = edge.connect().await;
        broken.write(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff").await;
        broken.write([0xff; 64]).await;
        broken.gone().await;
        edge.until("one broke the protocol", |figures| figures.handshake_malformed == 1).await;

        assert!(edge.connect_tls("localhost", "h2").await.is_ok());
    });
}

#[test]
fn settings_change_for_connections_to_come() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let mut old = edge.connect().await;
        assert_eq!(status(&old.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await), 200);
        let mut strict = listener();
        strict.max_headers = 2;
        edge.settings.store(Arc::new(Settings::new("test", &strict, None)));
        let three = "GET / HTTP/1.1\r\nhost: a\r\na: b\r\nc: d\r\n\r\n";
        assert_eq!(status(&old.ask(three).await), 200);
        assert_eq!(status(&edge.connect().await.ask(three).await), 431);
    });
}

#[test]
fn http2_with_prior_knowledge_works_in_the_clear() {
    run(async {
        let edge = Edge::plain(&listener(), hello);
        let answer = edge.http2().await.get("http://a/x").await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    });
}

#[test]
fn what_comes_with_the_last_words_does_not_reset_the_answer() {
    run(async {
        let edge = Edge::tls(&listener(), hello);
        let mut client = edge.connect().await;
        client.write("POST / HTTP/1.1\r\n").await;
        client.write(vec![b'x'; 300_000]).await;
        let _ = client.0.shutdown().await;
        assert!(client.rest().await.contains("HTTPS"));
        assert_eq!(read(&edge.counters.handshake_plain_http), 1);
    });
}
