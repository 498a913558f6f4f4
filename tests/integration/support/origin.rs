//! An origin that nginx cannot be: it echoes, holds WebSockets, answers slowly on demand.

use std::{
    convert::Infallible,
    fmt::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

/// A running origin.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    /// The most connections at a time.
    pub peak: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    /// `/echo` returns the body, `/head` the request's head, `/sleep/MS` answers late, all else `ok`.
    pub async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (connections.clone(), peak.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let now = counters.0.fetch_add(1, Ordering::SeqCst) + 1;
                counters.1.fetch_max(now, Ordering::SeqCst);
                let open = counters.0.clone();
                tokio::spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, peak, task }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Echoes WebSocket messages.
    pub async fn websocket() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
                    let (mut write, mut read) = socket.split();
                    while let Some(Ok(message)) = read.next().await {
                        if matches!(message, Message::Text(_) | Message::Binary(_))
                            && write.send(message).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, peak: Arc::default(), task }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        "/echo" => request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
        "/head" => {
            let mut head = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                let _ = writeln!(head, "{name}: {}", value.to_str().unwrap_or("?"));
            }
            head.into()
        }
        _ => {
            if let Some(millis) = path.strip_prefix("/sleep/").and_then(|millis| millis.parse().ok()) {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            Bytes::from_static(b"ok")
        }
    };
    Ok(Response::new(Full::new(body)))
}
