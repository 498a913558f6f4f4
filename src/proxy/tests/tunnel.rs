//! WebSockets, with a real client and a real server at the ends.

use std::{collections::BTreeMap, net::SocketAddr};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, accept_async, connect_async,
    tungstenite::{self, Message},
};

use super::{
    front::{Forwarding, Front},
    origin::{OK, field, has},
    *,
};
use crate::config::model::{Config, Consumer};

fn front(upstream: &Arc<Upstream>, tunnels: &Arc<Tunnels>, identity: Option<Identity>) -> Front {
    Front::start(Forwarding { upstream: upstream.clone(), tunnels: tunnels.clone(), identity })
}

/// A WebSocket server that sends everything back.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut socket = accept_async(tcp).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        _ = socket.send(message).await;
                    }
                }
            });
        }
    });
    address
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(front: &Front) -> Client {
    within(connect_async(format!("ws://{}/chat?x=1", front.address))).await.unwrap().0
}

async fn round_trip(client: &mut Client, message: Message) {
    client.send(message.clone()).await.unwrap();
    assert_eq!(within(client.next()).await.unwrap().unwrap(), message);
}

async fn ends(client: &mut Client) {
    let last = within(client.next()).await;
    assert!(matches!(last, None | Some(Err(_))), "{last:?}");
}

#[tokio::test]
async fn a_websocket_lives_as_long_as_both_sides_want() {
    let upstream = upstream_at(&[format!("http://{}", echo().await)], "");
    let tunnels = Arc::new(Tunnels::default());
    let front = front(&upstream, &tunnels, None);
    let mut client = connect(&front).await;
    assert_eq!((tunnels.open(), tunnels.opened()), (1, 1));
    assert_eq!(upstream.status(Instant::now()).open, 1, "it counts");
    round_trip(&mut client, Message::text("hello")).await;
    round_trip(&mut client, Message::binary(vec![7; 300_000])).await;

    // Neither the upstream nor its configuration is needed any more.
    drop(upstream);
    round_trip(&mut client, Message::text("still here")).await;
    client.close(None).await.unwrap();
    while within(client.next()).await.is_some() {}
    drop(client);
    within(tunnels.drained()).await;
}

#[tokio::test]
async fn the_upstreams_refusal_is_passed_on() {
    let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nx-why: because\r\n\r\nno";
    let origin = Origin::answering(refusal).await;
    let upstream = upstream(&[&origin], "");
    let tunnels = Arc::new(Tunnels::default());
    let front = front(&upstream, &tunnels, None);
    let Err(tungstenite::Error::Http(response)) = connect_async(format!("ws://{}/", front.address)).await else {
        panic!("not refused");
    };
    assert_eq!((response.status().as_u16(), &response.headers()["x-why"]), (403, &"because".parse().unwrap()));
    assert_eq!(response.body().as_deref(), Some(&b"no"[..]));
    assert_eq!(tunnels.opened(), 0);
    let head = &origin.requests()[0].head;
    assert!(has(head, "upgrade: websocket") && has(head, "connection: upgrade"), "{head}");
    assert!(field(head, "sec-websocket-key").is_some(), "{head}");
    until("the connection is kept", || upstream.status(Instant::now()).idle == 1).await;
}

#[tokio::test]
async fn a_switch_to_something_else_is_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let origin = Origin::answering(answer).await;
        let upstream = upstream(&[&origin], "");
        let front = front(&upstream, &Arc::default(), None);
        let Err(tungstenite::Error::Http(response)) = connect_async(format!("ws://{}/", front.address)).await else {
            panic!("not refused");
        };
        assert_eq!(response.status(), 502);
        until("cut", || upstream.status(Instant::now()).open == 0).await;
    }
}

/// Sends raw bytes to the front, and returns what comes back until it is silent or closes.
async fn raw(front: SocketAddr, bytes: &str) -> String {
    let mut tcp = TcpStream::connect(front).await.unwrap();
    tcp.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        if within(tcp.read_buf(&mut answer)).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn other_upgrades_and_those_with_a_body_are_plain_requests() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "");
    let front = front(&upstream, &Arc::default(), None);
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n",
    ] {
        assert!(raw(front.address, request).await.starts_with("HTTP/1.1 200"), "{request}");
    }
    for seized in origin.requests() {
        assert!(!seized.head.contains("upgrade") && !seized.head.contains("http2-settings"), "{}", seized.head);
    }
}

#[tokio::test]
async fn a_contradiction_in_framing_never_reaches_the_upstream() {
    let origin = Origin::answering(OK).await;
    let upstream = upstream(&[&origin], "");
    let front = front(&upstream, &Arc::default(), None);
    let smuggled =
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /admin";
    raw(front.address, smuggled).await;
    raw(front.address, "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: content-length\r\n\r\nabc")
        .await;
    let requests = origin.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    for seized in &requests {
        let framed = [field(&seized.head, "content-length"), field(&seized.head, "transfer-encoding")];
        assert!(framed.iter().flatten().count() == 1, "{}", seized.head);
    }
    assert_eq!(requests[1].body, b"abc");
    assert_eq!(upstream.status(Instant::now()).open, 1, "nothing was left over on the connection");
}

#[tokio::test]
async fn revoking_the_key_ends_the_tunnel() {
    let key = crate::access::new_key().unwrap();
    let consumer =
        BTreeMap::from([("app".to_owned(), Consumer { key_sha256: Some(vec![key.sha256]), ..Consumer::default() })]);
    let consumers = Consumers::build(&Config { consumer, ..Config::default() }).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", key.text.parse().unwrap());
    let identity = known(&consumers, &headers);

    let upstream = upstream_at(&[format!("http://{}", echo().await)], "");
    let tunnels = Arc::new(Tunnels::default());
    let (with_key, without) = (front(&upstream, &tunnels, identity), front(&upstream, &tunnels, None));
    let mut known = connect(&with_key).await;
    let mut other = connect(&without).await;
    round_trip(&mut known, Message::text("in")).await;
    consumers.revoke_missing(&Consumers::default());
    ends(&mut known).await;
    round_trip(&mut other, Message::text("unharmed")).await;
    until("counted out", || tunnels.open() == 1 && upstream.status(Instant::now()).open == 1).await;
}

#[tokio::test]
async fn a_drain_ends_what_is_left() {
    let upstream = upstream_at(&[format!("http://{}", echo().await)], "");
    let tunnels = Arc::new(Tunnels::default());
    let front = front(&upstream, &tunnels, None);
    let mut clients = [connect(&front).await, connect(&front).await];
    for client in &mut clients {
        round_trip(client, Message::text("x")).await;
    }
    tunnels.close_all();
    for client in &mut clients {
        ends(client).await;
    }
    within(tunnels.drained()).await;
    until("the cap has them back", || upstream.status(Instant::now()).open == 0).await;
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    let upstream = upstream_at(&[format!("http://{}", echo().await)], "upgrade_idle_timeout = \"100ms\"");
    let tunnels = Arc::new(Tunnels::default());
    let front = front(&upstream, &tunnels, None);
    let mut client = connect(&front).await;
    round_trip(&mut client, Message::text("x")).await;
    ends(&mut client).await;
    within(tunnels.drained()).await;
}

#[tokio::test]
async fn a_tunnel_takes_an_idle_connections_place_at_the_cap() {
    let upstream = upstream_at(&[format!("http://{}", echo().await)], "max_connections = 1\nqueue_timeout = \"100ms\"");
    let tunnels = Arc::new(Tunnels::default());
    let front = front(&upstream, &tunnels, None);
    let plain = request(Method::GET, "/", RequestBody::empty());
    // The echo server closes on what is no handshake; the connection's place is free again.
    _ = send(&upstream, plain).await;
    let mut client = connect(&front).await;
    round_trip(&mut client, Message::text("x")).await;
    let (response, outcome) = send(&upstream, get("/")).await;
    assert_eq!((response.status().as_u16(), outcome.reason), (503, Some("upstream_queue_timeout")));
    let Err(tungstenite::Error::Http(refused)) = connect_async(format!("ws://{}/", front.address)).await else {
        panic!("two tunnels where one may be");
    };
    assert_eq!(refused.status(), 503);
}
