//! Requests and answers that go well.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use http_body::Body as _;
use tokio::sync::mpsc;

use super::{
    origin::{OK, field, has},
    *,
};

#[tokio::test]
async fn a_request_goes_through_and_its_connection_is_kept() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "");
    for round in 0..3 {
        let (status, body, outcome) = fetch(&upstream, get("/a/b?c=d%20e")).await;
        assert_eq!((status, &*body), (StatusCode::OK, &b"ok"[..]));
        assert_eq!((outcome.reused, outcome.retried, outcome.reason), (round > 0, false, None));
        assert_eq!(outcome.endpoint.as_deref(), Some(origin.address.to_string().as_str()));
        assert_eq!(outcome.connect_us.is_some(), round == 0);
        assert!(outcome.ttfb_us.is_some());
    }
    assert_eq!(origin.accepted(), 1);
    let head = &origin.requests()[2].head;
    assert!(head.starts_with("GET /a/b?c=d%20e HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: www.example.com",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: www.example.com",
        "x-forwarded-proto: http",
        "x-forwarded-port: 80",
        "forwarded: for=127.0.0.1;host=\"www.example.com\";proto=http",
    ] {
        assert!(has(head, line), "{line} in {head}");
    }
    assert!(field(head, "connection").is_none() && field(head, "content-length").is_none(), "{head}");

    let status = upstream.status(tokio::time::Instant::now());
    assert_eq!((status.open, status.idle, status.in_use, status.waiting), (1, 1, 0, 0));
    assert_eq!((status.endpoints[0].requests, status.endpoints[0].open), (3, 1));
    assert!(serde_json::to_string(&status).unwrap().contains("\"failed_for_ms\":0"));
}

#[tokio::test]
async fn a_body_is_framed_once_whatever_the_client_said() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "");
    let (mut one, first) = streaming().await;
    let (mut two, second) = streaming().await;
    for feeder in [&mut one, &mut two] {
        feeder.send("abc").await;
        feeder.send("def").await;
        feeder.finish().await;
    }
    let mut lying = request(Method::POST, "/known", RequestBody::full("hello"));
    lying.headers_mut().insert("content-length", "3".parse().unwrap());
    lying.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
    for one in [lying, request(Method::POST, "/stream", first), request(Method::GET, "/odd", second)] {
        assert_eq!(fetch(&upstream, one).await.0, StatusCode::OK);
    }
    let requests = origin.requests();
    assert_eq!(requests[0].body, b"hello");
    assert!(has(&requests[0].head, "content-length: 5") && field(&requests[0].head, "transfer-encoding").is_none());
    for seized in &requests[1..] {
        let text = String::from_utf8_lossy(&seized.body);
        let content: String = text.split("\r\n").skip(1).step_by(2).collect();
        assert_eq!(content, "abcdef", "{text}");
        assert!(field(&seized.head, "content-length").is_none(), "{}", seized.head);
    }
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn a_body_that_ends_at_once_is_none() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "");
    let (mut client, body) = streaming().await;
    client.finish().await;
    assert_eq!(fetch(&upstream, request(Method::POST, "/", body)).await.0, StatusCode::OK);
    let head = &origin.requests()[0].head;
    assert!(has(head, "content-length: 0") && field(head, "transfer-encoding").is_none(), "{head}");
    assert_eq!(fetch(&upstream, get("/")).await.0, StatusCode::OK);
    assert_eq!(origin.accepted(), 1, "nothing was left over on the connection");
}

#[tokio::test]
async fn trailers_pass_without_claims() {
    let origin = Origin::serve(|mut socket, _| async move {
        let _ = socket.head().await;
        let head = socket.head().await.unwrap();
        socket.seen.requests.lock().push(origin::Seized { head, body: Vec::new() });
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-api-key\r\n\r\n";
        socket.send(&format!("{answer}1\r\na\r\n0\r\nx-api-key: k\r\nx-sum: 7\r\n\r\n")).await;
        socket.request().await;
    })
    .await;
    let upstream = upstream(&[&origin], "");
    let (mut client, body) = streaming().await;
    client.send("abc").await;
    client.finish_with("x-forwarded-for: 127.0.0.1\r\nx-sum: 7\r\n").await;
    let mut one = request(Method::POST, "/", body);
    one.headers_mut().insert("trailer", "x-forwarded-for, x-sum".parse().unwrap());
    let (response, _) = send(&upstream, one).await;
    let answer = within(response.into_body().collect()).await.unwrap();
    assert_eq!(answer.trailers().unwrap().keys().collect::<Vec<_>>(), ["x-sum"]);
    let sent = &origin.requests()[0].head;
    assert!(sent.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{sent}");
}

#[tokio::test]
async fn host_can_be_the_endpoints_own() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "host = \"endpoint\"");
    fetch(&upstream, get("/")).await;
    let head = &origin.requests()[0].head;
    assert_eq!(field(head, "host"), Some(origin.address.to_string().as_str()));
    assert_eq!(field(head, "x-forwarded-host"), Some("www.example.com"));
}

#[tokio::test]
async fn bodies_stream_in_both_directions_without_being_gathered() {
    let origin = Origin::serve(|mut socket, _| async move {
        let head = socket.head().await.unwrap();
        assert!(has(&head, "transfer-encoding: chunked"));
        socket.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        // Each piece is answered before the next is sent.
        for piece in ["1\r\na\r\n", "1\r\nb\r\n", "0\r\n\r\n"] {
            assert_eq!(String::from_utf8(socket.bytes(piece.len()).await.unwrap()).unwrap(), piece);
            socket.send(&piece.to_uppercase()).await;
        }
        socket.request().await;
    })
    .await;
    let upstream = upstream(&[&origin], "");
    let (mut client, body) = streaming().await;
    client.send("a").await;
    let (response, _) = send(&upstream, request(Method::POST, "/", body)).await;
    let mut answer = response.into_body();
    for expected in ["A", "B"] {
        if expected == "B" {
            client.send("b").await;
        }
        let frame = within(answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
    }
    client.finish().await;
    assert!(within(answer.frame()).await.is_none());
    until("the connection is kept", || upstream.status(tokio::time::Instant::now()).idle == 1).await;
}

#[tokio::test]
async fn every_kind_of_answer_is_read_to_its_end() {
    let answers = [
        "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\r\nuntil the end",
    ];
    let turn = Arc::new(AtomicUsize::new(0));
    let origin = Origin::serve({
        move |mut socket, _| {
            let turn = turn.clone();
            async move {
                while socket.request().await.is_some() {
                    let index = turn.fetch_add(1, Ordering::SeqCst);
                    socket.send(answers[index]).await;
                    if index == 4 {
                        return;
                    }
                }
            }
        }
    })
    .await;
    let upstream = upstream(&[&origin], "");
    let collect = async |path: &str| {
        let (response, outcome) = send(&upstream, get(path)).await;
        assert_eq!(outcome.reason, None);
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        (parts.status.as_u16(), parts.headers, body.to_bytes(), trailers)
    };
    let mut expected_trailers = HeaderMap::new();
    expected_trailers.insert("x-sum", "7".parse().unwrap());
    let (status, headers, ..) = collect("/204").await;
    assert_eq!((status, &headers["x-a"]), (204, &"1".parse().unwrap()));
    let (status, headers, body, _) = collect("/304").await;
    assert_eq!((status, &headers["content-length"], body.len()), (304, &"99".parse().unwrap(), 0));
    assert_eq!(collect("/1xx").await.0, 200);
    let (_, headers, body, trailers) = collect("/chunked").await;
    assert_eq!((&*body, trailers), (&b"abc"[..], expected_trailers));
    assert!(headers.contains_key("trailer") && !headers.contains_key("transfer-encoding"));
    let (_, headers, body, _) = collect("/close").await;
    assert_eq!((&*body, headers.len()), (&b"until the end"[..], 0), "{headers:?}");
    assert_eq!(origin.accepted(), 1);
    until("closed", || upstream.status(tokio::time::Instant::now()).open == 0).await;
}

#[tokio::test]
async fn a_head_request_has_the_length_and_no_body() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let upstream = upstream(&[&origin], "");
    for _ in 0..2 {
        let (response, _) = send(&upstream, request(Method::HEAD, "/", RequestBody::empty())).await;
        assert_eq!(response.headers()["content-length"], "1000");
        assert!(response.body().is_end_stream());
    }
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let origin = Origin::serve(|mut socket, _| async move {
        while socket.request().await.is_some() {
            socket.send("HTTP/1.1 200 OK\r\ncontent-length: 4194304\r\n\r\n").await;
            socket.send(&"0123456789abcdef".repeat(4_194_304 / 16)).await;
        }
    })
    .await;
    let upstream = upstream(&[&origin], "");
    for _ in 0..2 {
        let (_, body, _) = fetch(&upstream, get("/")).await;
        assert_eq!(body.len(), 4_194_304);
        assert!(body.chunks(16).all(|chunk| chunk == b"0123456789abcdef"));
    }
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_request() {
    let origin = Origin::serve(|mut socket, _| async move {
        socket.head().await;
        socket.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nbig!").await;
        socket.request().await;
    })
    .await;
    let upstream = upstream(&[&origin], "");
    let (mut client, body) = streaming().await;
    client.send("a").await;
    let (status, body, outcome) = fetch(&upstream, request(Method::POST, "/", body)).await;
    assert_eq!((status.as_u16(), &*body, outcome.reason), (413, &b"big!"[..], None));
    // The request was never finished: no other may follow on that connection.
    until("the connection is cut", || origin.open() == 0).await;
    drop(client);
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (a, b, c) = (Origin::answering(OK).await, Origin::answering(OK).await, Origin::answering(OK).await);
    let upstream = upstream(&[&a, &b, &c], "");
    for _ in 0..30 {
        fetch(&upstream, get("/")).await;
    }
    for origin in [&a, &b, &c] {
        assert_eq!((origin.requests().len(), origin.accepted()), (10, 1));
    }
}

#[tokio::test]
async fn tls_is_spoken_and_verified() {
    let key = rcgen::generate_simple_self_signed(vec!["web.internal".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, key.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, mut received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, heads) = (acceptor.clone(), heads.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let mut buffer = vec![0; 4096];
                while let Ok(read) = tokio::io::AsyncReadExt::read(&mut tls, &mut buffer).await {
                    if read == 0 {
                        return;
                    }
                    heads.send(String::from_utf8_lossy(&buffer[..read]).into_owned()).unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut tls, OK.as_bytes()).await.unwrap();
                }
            });
        }
    });
    let endpoint = format!("https://{address}");
    let trusting = format!("tls = {{ ca = {:?}, server_name = \"web.internal\" }}", file.display().to_string());
    let good = upstream_at(std::slice::from_ref(&endpoint), &trusting);
    for _ in 0..2 {
        assert_eq!(fetch(&good, get("/")).await.0, StatusCode::OK);
        assert!(received.recv().await.unwrap().starts_with("GET / HTTP/1.1"));
    }
    let wrong_name = upstream_at(std::slice::from_ref(&endpoint), &trusting.replace("web.internal", "other.internal"));
    let public_only = upstream_at(&[endpoint], "tls = { server_name = \"web.internal\" }");
    for upstream in [wrong_name, public_only] {
        let (status, _, outcome) = fetch(&upstream, get("/")).await;
        assert_eq!((status, outcome.reason), (StatusCode::BAD_GATEWAY, Some("upstream_tls")));
    }
    assert!(received.try_recv().is_err(), "nothing is sent to a server that is not the one");
}

#[tokio::test]
async fn a_consumers_key_stays_here_and_a_strangers_passes() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "");
    let key = crate::access::new_key().unwrap();
    let text = format!("key_sha256 = [\"{}\"]", key.sha256);
    let consumer = std::collections::BTreeMap::from([("who".to_owned(), toml_edit::de::from_str(&text).unwrap())]);
    let consumers = Consumers::build(&crate::config::model::Config { consumer, ..Default::default() }).unwrap();
    let (at, tunnels) = (Context::for_host(Authority::none()), Arc::default());
    for name in ["authorization", "x-api-key"] {
        let value = if name == "x-api-key" { key.text.clone() } else { format!("Bearer {}", key.text) };
        let mut one = get("/");
        one.headers_mut().insert(name, value.parse().unwrap());
        let identity = known(&consumers, one.headers());
        assert!(identity.is_some());
        for identity in [identity, None] {
            let mut one = get("/");
            one.headers_mut().insert(name, value.parse().unwrap());
            let known = identity.is_some();
            let context = Forward {
                context: &at,
                client: LOOPBACK,
                trusted: false,
                strip_prefix: None,
                identity,
                tunnels: &tunnels,
            };
            let (response, _) = within(forward(one, &upstream, &context)).await;
            assert_eq!(response.status(), StatusCode::OK);
            let head = origin.requests().pop().unwrap().head;
            assert_eq!(field(&head, name), (!known).then_some(value.as_str()), "{head}");
        }
    }
}
