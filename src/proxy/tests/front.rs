//! The edge in front of the proxy, on a thread of its own, as a worker has it.

use std::{net::SocketAddr, sync::Arc, thread};

use arc_swap::ArcSwap;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use super::super::{Forward, Tunnels, Upstream, forward};
use crate::{
    access::Identity,
    edge::{
        Body, ConnectionLimits, Context, Drain, EdgeCounters, Handler, Request, RequestBody, Response, Service,
        Settings, serve,
    },
};

/// A server; it ends when this is dropped.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Front {
    pub(super) fn start<H: Handler + Send>(handler: H) -> Self {
        Self::start_with(handler, "")
    }

    /// With settings for the listener.
    pub(super) fn start_with<H: Handler + Send>(handler: H, settings: &'static str) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let listening = toml_edit::de::from_str(&format!("address = \"127.0.0.1:0\"\n{settings}")).unwrap();
                let service = Service {
                    settings: Arc::new(ArcSwap::from_pointee(Settings::new("test", &listening, None))),
                    handler,
                    limits: ConnectionLimits::new(1000, 1000),
                    counters: Arc::new(EdgeCounters::default()),
                    drain: Drain::new(),
                };
                tokio::select! {
                    () = serve(listener, service) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), _stop: stop }
    }
}

/// Forwards everything to one upstream.
#[derive(Clone)]
pub(super) struct Forwarding {
    pub(super) upstream: Arc<Upstream>,
    pub(super) tunnels: Arc<Tunnels>,
    pub(super) identity: Option<Identity>,
}

impl Handler for Forwarding {
    async fn handle(&self, mut request: Request) -> Response {
        let context = request.extensions_mut().remove::<Context>().unwrap();
        let context = Forward {
            context: &context,
            client: context.peer.socket.ip(),
            trusted: false,
            strip_prefix: None,
            identity: self.identity.clone(),
            tunnels: &self.tunnels,
        };
        forward(request, &self.upstream, &context).await.0
    }
}

/// A client that is in the middle of sending a request. Dropped, it has left.
pub(super) struct Feeder {
    client: TcpStream,
    _answer: oneshot::Sender<()>,
    _front: Front,
}

impl Feeder {
    pub(super) async fn send(&mut self, piece: impl AsRef<[u8]>) {
        let piece = piece.as_ref();
        let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
        self.client.write_all(&framed).await.unwrap();
    }

    /// Ends the request; the client waits for its answer.
    pub(super) async fn finish(&mut self) {
        self.finish_with("").await;
    }

    /// Ends the request with trailers, each a line.
    pub(super) async fn finish_with(&mut self, trailers: &str) {
        self.client.write_all(format!("0\r\n{trailers}\r\n").as_bytes()).await.unwrap();
    }
}

/// A real request body of unknown length, and the client that sends it.
pub(super) async fn streaming() -> (Feeder, RequestBody) {
    let (hand_over, mut handed) = mpsc::unbounded_channel();
    let front = Front::start(Capture(hand_over));
    let mut client = TcpStream::connect(front.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let (body, answer) = handed.recv().await.unwrap();
    (Feeder { client, _answer: answer, _front: front }, body)
}

/// Hands the bodies of requests to the test.
#[derive(Clone)]
struct Capture(mpsc::UnboundedSender<(RequestBody, oneshot::Sender<()>)>);

impl Handler for Capture {
    async fn handle(&self, request: Request) -> Response {
        let (answer, answered) = oneshot::channel();
        self.0.send((request.into_body(), answer)).unwrap();
        _ = answered.await;
        Response::new(Body::empty())
    }
}
