//! A server on loopback, and clients that say exactly what they are told.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::LocalSet,
    time::{Instant, timeout},
};

use crate::{
    config::{
        model::{Listener, TlsVersion, UnknownSni, UpstreamTls},
        value::Span,
    },
    edge::{Body, ConnectionLimits, Drain, EdgeCounters, Handler, Request, Response, Service, Settings, bind, serve},
    net::{self, CertStore, ServerTls, Verify, certs::Authority},
};

/// How long an event may take before a test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    runtime.block_on(async { timeout(Duration::from_secs(30), local.run_until(test)).await.expect("the test hangs") });
}

pub(super) fn millis(n: u64) -> Span {
    Span(Duration::from_millis(n))
}

/// The defaults.
pub(super) fn listener() -> Listener {
    serde_json::from_value(serde_json::json!({ "address": "127.0.0.1:0" })).unwrap()
}

/// Says `hello`, or what the path asks for.
pub(super) async fn hello(request: Request) -> Response {
    let text = format!("{} {}", request.method(), request.uri());
    Response::new(Body::full(text))
}

/// Reads the body and says how long it was.
pub(super) async fn count(request: Request) -> Response {
    match request.into_body().collect().await {
        Ok(body) => Response::new(Body::full(format!("{} bytes", body.to_bytes().len()))),
        Err(error) => crate::edge::problem(error.status(), "", &error.public()),
    }
}

pub(super) struct Edge {
    pub(super) address: SocketAddr,
    pub(super) drain: Drain,
    pub(super) counters: Arc<EdgeCounters>,
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    trust: Option<Trust>,
}

struct Trust {
    ca: UpstreamTls,
    _state: tempfile::TempDir,
}

impl Edge {
    pub(super) fn plain<H: Handler>(listener: &Listener, handler: H) -> Self {
        Self::start(listener, handler, None)
    }

    pub(super) fn tls<H: Handler>(listener: &Listener, handler: H) -> Self {
        Self::tls_for(listener, handler, &["localhost", "other.test"], UnknownSni::Default)
    }

    pub(super) fn tls_for<H: Handler>(listener: &Listener, handler: H, names: &[&str], unknown: UnknownSni) -> Self {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open(state.path(), SystemTime::now()).unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = authority.leaf(&names, SystemTime::now()).unwrap();
        let store = Arc::new(CertStore::new(&[certificate], unknown));
        let tls = ServerTls::new("test", store, TlsVersion::V12, None).unwrap();
        let trust = Trust { ca: UpstreamTls { ca: Some(authority.path()), server_name: None }, _state: state };
        Self::start(listener, handler, Some((Arc::new(tls), trust)))
    }

    fn start<H: Handler>(listener: &Listener, handler: H, tls: Option<(Arc<ServerTls>, Trust)>) -> Self {
        let (tls, trust) = tls.unzip();
        let socket = bind(listener.address, 64, false).unwrap();
        let edge = Self {
            address: socket.local_addr().unwrap(),
            drain: Drain::new(),
            counters: Arc::default(),
            limits: ConnectionLimits::new(100, 100),
            settings: Arc::new(ArcSwap::from_pointee(Settings::new("test", listener, tls))),
            trust,
        };
        let service = Service {
            settings: edge.settings.clone(),
            handler,
            limits: edge.limits.clone(),
            counters: edge.counters.clone(),
            drain: edge.drain.clone(),
        };
        tokio::task::spawn_local(serve(tokio::net::TcpListener::from_std(socket).unwrap(), service));
        edge
    }

    /// An HTTP/1 client, over TLS where the server has it.
    pub(super) async fn http1(&self) -> Client {
        match self.trust {
            Some(_) => self.connect_tls("localhost", "http/1.1").await.unwrap(),
            None => self.connect().await,
        }
    }

    pub(super) async fn connect(&self) -> Client {
        Client(net::Stream::from(TcpStream::connect(self.address).await.unwrap()))
    }

    /// TLS for `name`, offering `protocol`.
    pub(super) async fn connect_tls(&self, name: &str, protocol: &str) -> Result<Client, net::DialError> {
        let trust = self.trust.as_ref().unwrap();
        let config = net::client_tls(&trust.ca, Verify::Chain, &[protocol.as_bytes()]).unwrap();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        net::connect_tls(tcp.into(), config, name, Instant::now() + PATIENCE).await.map(Client)
    }

    /// An HTTP/2 client, over TLS where the server has it.
    pub(super) async fn http2(&self) -> Http2 {
        let Client(stream) = match self.trust {
            Some(_) => self.connect_tls("localhost", "h2").await.unwrap(),
            None => self.connect().await,
        };
        let (sender, connection) =
            hyper::client::conn::http2::Builder::new(Local).handshake(TokioIo::new(stream)).await.unwrap();
        let (done, ended) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let _ = done.send(connection.await);
        });
        Http2 { sender, ended }
    }

    pub(super) async fn until(&self, what: &str, ready: impl Fn(&crate::edge::EdgeFigures) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !ready(&self.counters.snapshot()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:?}", self.counters.snapshot());
    }
}

/// Spawns on the test's `LocalSet`.
#[derive(Clone)]
pub(super) struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, crate::edge::BoxError>;

pub(super) struct Http2 {
    pub(super) sender: hyper::client::conn::http2::SendRequest<BoxBody>,
    pub(super) ended: oneshot::Receiver<hyper::Result<()>>,
}

impl Http2 {
    pub(super) async fn get(&mut self, uri: &str) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        self.send(http::Request::get(uri), Body::empty()).await
    }

    pub(super) async fn send(
        &mut self,
        request: http::request::Builder,
        body: Body,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request.body(body.boxed_unsync()).unwrap()).await
    }
}

/// A client that writes bytes.
pub(super) struct Client(pub(super) net::Stream);

impl Client {
    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Reads one answer with `Content-Length` or none; head and body in one text.
    pub(super) async fn answer(&mut self) -> String {
        timeout(PATIENCE, self.read_answer()).await.expect("no answer")
    }

    async fn read_answer(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => text.push(char::from(byte)),
                Err(error) => panic!("{error} after {text:?}"),
            }
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        text + std::str::from_utf8(&body).unwrap()
    }

    /// Sends a request and reads its answer.
    pub(super) async fn ask(&mut self, request: impl AsRef<[u8]>) -> String {
        self.write(request).await;
        self.answer().await
    }

    /// Reads to the end; a reset fails the test.
    pub(super) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("the connection stays open").unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for the end, be it clean or a reset.
    pub(super) async fn gone(&mut self) {
        let mut scrap = [0; 4096];
        let end = async { while matches!(self.0.read(&mut scrap).await, Ok(1..)) {} };
        timeout(PATIENCE, end).await.expect("the connection stays open");
    }
}

/// Tells when it is dropped.
pub(super) struct Bell(Option<oneshot::Sender<()>>);

impl Bell {
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(());
        }
    }
}

/// A handler that never answers, and tells when it begins and when it is dropped.
pub(super) struct Stuck {
    began: RefCell<Option<oneshot::Sender<()>>>,
    bell: RefCell<Option<Bell>>,
}

impl Stuck {
    pub(super) fn new() -> (Rc<Self>, oneshot::Receiver<()>, oneshot::Receiver<()>) {
        let (began, begins) = oneshot::channel();
        let (bell, dropped) = Bell::new();
        let stuck = Self { began: RefCell::new(Some(began)), bell: RefCell::new(Some(bell)) };
        (Rc::new(stuck), begins, dropped)
    }

    pub(super) async fn hang(&self) -> Response {
        let _bell = self.bell.borrow_mut().take();
        if let Some(began) = self.began.borrow_mut().take() {
            let _ = began.send(());
        }
        std::future::pending().await
    }
}

pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
