//! Upstreams that fail, each in its own way.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{net::TcpListener, time::Instant};

use super::{origin::OK, *};

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A listener whose backlog is full: a connect gets no answer at all. It lasts as long as what is returned.
fn black_hole() -> (String, Vec<socket2::Socket>) {
    let stream = |nonblocking: bool| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(nonblocking).unwrap();
        socket
    };
    let listener = stream(false);
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let filler = stream(true);
        _ = filler.connect(&address);
        sockets.push(filler);
    }
    (format!("http://{}", address.as_socket().unwrap()), sockets)
}

async fn fails(upstream: &Arc<Upstream>, one: edge::Request) -> (u16, &'static str) {
    let (response, outcome) = send(upstream, one).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    (response.status().as_u16(), outcome.reason.expect("a reason"))
}

#[tokio::test]
async fn a_refused_connect_goes_to_the_next_endpoint() {
    let (live, dead) = (Origin::answering(OK).await, nobody().await);
    let upstream = upstream_at(&[dead.clone(), format!("http://{}", live.address)], "");
    for _ in 0..10 {
        let (status, _, outcome) = fetch(&upstream, get("/")).await;
        assert_eq!((status, outcome.reason), (StatusCode::OK, None));
    }
    let status = upstream.status(Instant::now());
    assert_eq!(status.endpoints[0].failures, 1, "passed over after the first");
    assert!((8_000..=10_000).contains(&status.endpoints[0].failed_for_ms));
    assert_eq!(live.requests().len(), 10);

    let alone = upstream_at(&[dead.clone(), dead], "");
    assert_eq!(fails(&alone, get("/")).await, (502, "upstream_connect"));
    assert_eq!(alone.status(Instant::now()).open, 0, "the permit came back");
    assert_eq!(fails(&alone, request(Method::POST, "/", RequestBody::full("x"))).await, (502, "upstream_connect"));
}

#[tokio::test]
async fn a_failed_endpoint_is_tried_again_after_a_while() {
    let (a, b) = (Origin::answering(OK).await, Origin::answering(OK).await);
    let upstream = upstream(&[&a, &b], "fail_timeout = \"50ms\"");
    upstream.endpoints[0].fail(Instant::now(), Duration::from_millis(50));
    fetch(&upstream, get("/")).await;
    fetch(&upstream, get("/")).await;
    assert_eq!((a.requests().len(), b.requests().len()), (0, 2));
    until("the time is over", || !upstream.endpoints[0].is_failed(Instant::now())).await;
    fetch(&upstream, get("/")).await;
    fetch(&upstream, get("/")).await;
    assert_eq!((a.requests().len(), b.requests().len()), (1, 3));
}

#[tokio::test]
async fn a_black_hole_costs_the_connect_timeout_and_no_more() {
    let (hole, _sockets) = black_hole();
    let live = Origin::answering(OK).await;
    let settings = "connect_timeout = \"100ms\"";
    let alone = upstream_at(std::slice::from_ref(&hole), settings);
    let begun = Instant::now();
    assert_eq!(fails(&alone, get("/")).await, (504, "upstream_connect_timeout"));
    assert!((100..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());

    let both = upstream_at(&[hole.clone(), format!("http://{}", live.address)], settings);
    assert_eq!(fetch(&both, get("/")).await.0, StatusCode::OK);

    let many = upstream_at(&vec![hole; 20], settings);
    let begun = Instant::now();
    assert_eq!(fails(&many, get("/")).await, (504, "upstream_connect_timeout"));
    assert!((300..6_000).contains(&begun.elapsed().as_millis()), "three rounds: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_tried_again() {
    for reset in [true, false] {
        let origin = Origin::serve(move |mut socket, _| async move {
            socket.request().await;
            if reset {
                socket.reset();
            }
        })
        .await;
        let upstream = upstream(&[&origin], "");
        assert_eq!(fails(&upstream, get("/")).await, (502, "upstream_closed"));
        assert_eq!((origin.requests().len(), origin.accepted()), (1, 1));
        let status = upstream.status(Instant::now());
        assert_eq!(status.endpoints[0].failures, 1);
        until("the permit came back", || upstream.status(Instant::now()).open == 0).await;
    }
}

/// Answers the first request of each connection, and closes on the second before it answers.
async fn closing_on_the_second(reset: bool) -> Origin {
    Origin::serve(move |mut socket, _| async move {
        socket.request().await;
        socket.send(OK).await;
        socket.request().await;
        if reset {
            socket.reset();
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_closed_as_we_send_is_replaced_where_that_is_safe() {
    for reset in [true, false] {
        let origin = closing_on_the_second(reset).await;
        let upstream = upstream(&[&origin], "");
        assert_eq!(fetch(&upstream, get("/1")).await.0, StatusCode::OK);
        let (status, _, outcome) = fetch(&upstream, get("/2?x")).await;
        assert_eq!((status, outcome.retried, outcome.reason), (StatusCode::OK, true, None));
        assert_eq!(origin.accepted(), 2);
        let heads: Vec<_> = origin.requests().into_iter().map(|one| one.head).collect();
        assert_eq!(heads.len(), 3);
        assert_eq!(heads[1], heads[2], "the same request, to the last field");
        assert_eq!(upstream.status(Instant::now()).endpoints[0].failures, 0, "a server may close what is kept");
    }
}

#[tokio::test]
async fn what_may_not_be_sent_twice_is_not() {
    let post = || request(Method::POST, "/", RequestBody::empty());
    let put_with_body = || request(Method::PUT, "/", RequestBody::full("x"));
    for make in [post as fn() -> edge::Request, put_with_body] {
        let origin = closing_on_the_second(false).await;
        let upstream = upstream(&[&origin], "");
        assert_eq!(fetch(&upstream, get("/")).await.0, StatusCode::OK);
        assert_eq!(fails(&upstream, make()).await, (502, "upstream_closed"));
        assert_eq!(origin.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_second_death_is_final() {
    let origin = Origin::serve(|mut socket, number| async move {
        socket.request().await;
        if number == 0 {
            socket.send(OK).await;
            socket.request().await;
        }
    })
    .await;
    let upstream = upstream(&[&origin], "");
    assert_eq!(fetch(&upstream, get("/")).await.0, StatusCode::OK);
    let (response, outcome) = send(&upstream, get("/")).await;
    assert_eq!((response.status().as_u16(), outcome.retried, outcome.reason), (502, true, Some("upstream_closed")));
    assert_eq!(origin.requests().len(), 3);
}

#[tokio::test]
async fn a_server_that_closes_every_idle_connection_loses_no_request() {
    let origin = Origin::serve(|mut socket, _| async move {
        socket.request().await;
        socket.send(OK).await;
    })
    .await;
    let upstream = upstream(&[&origin], "");
    for _ in 0..200 {
        let (status, _, outcome) = fetch(&upstream, get("/")).await;
        assert_eq!((status, outcome.reason), (StatusCode::OK, None));
    }
    assert_eq!(origin.requests().len(), 200, "nothing was sent into a closed connection and counted twice");
}

#[tokio::test]
async fn a_restarted_server_is_found_again_through_another_endpoint() {
    let stopped = Arc::new(AtomicBool::new(false));
    let dying = Origin::serve({
        let stopped = stopped.clone();
        move |mut socket, _| {
            let stopped = stopped.clone();
            async move {
                while socket.request().await.is_some() && !stopped.load(Ordering::SeqCst) {
                    socket.send(OK).await;
                }
            }
        }
    })
    .await;
    let live = Origin::answering(OK).await;
    let upstream = upstream(&[&dying, &live], "");
    for _ in 0..4 {
        fetch(&upstream, get("/")).await;
    }
    stopped.store(true, Ordering::SeqCst);
    // The kept connection dies silently, and so does the fresh one: that is an endpoint's fault, and the last it is asked for.
    let mut bad = 0;
    for _ in 0..10 {
        bad += u32::from(fetch(&upstream, get("/")).await.0 != StatusCode::OK);
    }
    assert_eq!(bad, 1);
    assert_eq!(live.requests().len(), 2 + 9);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_whole() {
    for (answer, whole_head) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-le", false),
    ] {
        let origin = Origin::serve(move |mut socket, _| async move {
            socket.request().await;
            socket.send(answer).await;
        })
        .await;
        let upstream = upstream(&[&origin], "");
        let (response, outcome) = send(&upstream, get("/")).await;
        if whole_head && response.status() == StatusCode::OK {
            let error = within(response.into_body().collect()).await.expect_err("an error").to_string();
            assert!(error.contains("broke off"), "{error}");
        } else {
            assert_eq!((response.status().as_u16(), outcome.reason), (502, Some("upstream_incomplete")));
        }
        until("cut", || upstream.status(Instant::now()).open == 0).await;
    }
}

#[tokio::test]
async fn what_is_not_http_is_502() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 9999 Hm\r\n\r\n",
    ] {
        let origin = Origin::answering(answer).await;
        let upstream = upstream(&[&origin], "");
        assert_eq!(fails(&upstream, get("/")).await, (502, "upstream_garbage"), "{answer}");
        assert_eq!(upstream.status(Instant::now()).endpoints[0].failures, 1);
    }
    let endless = Origin::serve(|mut socket, _| async move {
        socket.request().await;
        socket.send("HTTP/1.1 200 OK\r\n").await;
        for _ in 0..1000 {
            socket.send(&format!("x-filler: {}\r\n", "x".repeat(1000))).await;
        }
    })
    .await;
    let upstream = upstream(&[&endless], "");
    assert_eq!(fails(&upstream, get("/")).await.0, 502);
}

#[tokio::test]
async fn an_unasked_switch_of_protocols_is_502() {
    let origin =
        Origin::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nraw").await;
    let upstream = upstream(&[&origin], "");
    assert_eq!(fails(&upstream, get("/")).await, (502, "upstream_switched"));
    until("cut", || origin.open() == 0).await;
}

#[tokio::test]
async fn a_slow_head_is_504_and_no_fault_of_the_endpoint() {
    let origin = Origin::serve(|mut socket, _| async move { while socket.request().await.is_some() {} }).await;
    let upstream = upstream(&[&origin], "read_timeout = \"100ms\"");
    let begun = Instant::now();
    assert_eq!(fails(&upstream, get("/")).await, (504, "upstream_head_timeout"));
    assert!((100..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    until("cut", || origin.open() == 0).await;
    let status = upstream.status(Instant::now());
    assert_eq!((status.open, status.endpoints[0].failures), (0, 0));
    assert_eq!(
        fails(&upstream, request(Method::POST, "/", RequestBody::full("x"))).await,
        (504, "upstream_head_timeout")
    );
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_and_one_that_trickles_is_not() {
    let origin = Origin::serve(|mut socket, _| async move {
        socket.request().await;
        socket.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
        for _ in 0..4 {
            socket.send("x").await;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        // The fifth never comes.
        while socket.request().await.is_some() {}
    })
    .await;
    let upstream = upstream(&[&origin], "read_timeout = \"400ms\"");
    let (response, _) = send(&upstream, get("/")).await;
    let mut body = response.into_body();
    let begun = Instant::now();
    let mut got = 0;
    let error = loop {
        match within(body.frame()).await.expect("no end") {
            Ok(frame) => got += frame.into_data().unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!(got, 4);
    assert!(matches!(error.downcast_ref(), Some(AnswerError::Silent(_))), "{error}");
    assert!((400..4_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    until("cut", || origin.open() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_stops_reading_is_504() {
    let origin = Origin::serve(|mut socket, _| async move {
        socket.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = upstream(&[&origin], "send_timeout = \"100ms\"\nread_timeout = \"20s\"");
    let (mut client, endless) = streaming().await;
    let feeding = tokio::spawn(async move {
        loop {
            client.send(vec![0; 65_536]).await;
        }
    });
    assert_eq!(fails(&upstream, request(Method::POST, "/", endless)).await, (504, "upstream_send_timeout"));
    feeding.abort();
}

#[tokio::test]
async fn a_client_that_pauses_is_not_the_upstreams_fault() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "send_timeout = \"50ms\"\nread_timeout = \"50ms\"");
    let (mut client, body) = streaming().await;
    let slow = tokio::spawn(async move {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            client.send("x").await;
        }
        client.finish().await;
        client
    });
    let (status, ..) = fetch(&upstream, request(Method::POST, "/", body)).await;
    assert_eq!(status, StatusCode::OK);
    slow.await.unwrap();
}

#[tokio::test]
async fn a_client_whose_body_fails_gets_its_own_status() {
    for (leaves, status) in [(true, 400), (false, 413)] {
        let origin = Origin::answering(OK).await;
        let upstream = upstream(&[&origin], "");
        let (mut client, mut body) = streaming().await;
        body.limit(3);
        client.send("abc").await;
        if leaves {
            drop(client);
        } else {
            client.send("d").await;
        }
        assert_eq!(fails(&upstream, request(Method::POST, "/", body)).await, (status, "client_body"));
        until("the half request is cut", || origin.open() == 0).await;
        assert!(origin.requests().is_empty(), "never taken for whole");
        assert_eq!(upstream.status(Instant::now()).endpoints[0].failures, 0);
    }
}

#[tokio::test]
async fn a_grpc_client_is_told_in_its_own_way() {
    let upstream = upstream_at(&[nobody().await], "");
    let mut call = get("/");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let (response, outcome) = send(&upstream, call).await;
    assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &"14".parse().unwrap()));
    assert_eq!(outcome.reason, Some("upstream_connect"));
}
