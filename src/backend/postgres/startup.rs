//! Start-up and authentication, done by `tokio-postgres` over a stream that stays ours.
//!
//! `tokio-postgres` reads through a [`Tap`], which cuts the server's bytes into messages, keeps the session's
//! parameters as they pass, and gives nothing out beyond the first `ReadyForQuery`: what comes behind it belongs to us.
//! When start-up is over, the client and its connection are dropped without having been driven, so that they can never
//! write again, and the stream is taken out of the tap.
//!
//! The stream is encrypted already, if at all. `SslNegotiation::Direct` makes `tokio-postgres` ask its connector at
//! once, and ours hands the stream back; so SCRAM finds the channel binding where it looks for it.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, Ready, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready as done},
};

use bytes::{Buf, BytesMut};
use deadpool_postgres::{Connect, Manager as ClientManager, ManagerConfig};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};
use tokio_postgres::{
    CancelToken, Client, Config,
    config::{SslMode, SslNegotiation},
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

use super::{failure::PostgresFailure, inbox::Inbox, inbox::Next, messages};
use crate::{backend::error::DatabaseError, net::Stream, pool::backend::Manager};

/// A session that has begun.
pub(super) struct Started {
    pub(super) stream: Stream,
    /// What came behind the first `ReadyForQuery`.
    pub(super) inbox: Inbox,
    pub(super) parameters: HashMap<String, String>,
    /// The server's process.
    pub(super) process: i32,
    pub(super) cancel: CancelToken,
}

/// Begins a session on `stream`.
pub(super) async fn start(config: &Config, stream: Stream) -> Result<Started, PostgresFailure> {
    let encrypted = stream.is_tls();
    let tap = Tap::new(stream);
    let mut config = config.clone();
    config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
    config.ssl_negotiation(SslNegotiation::Direct);
    // A manager a connection: its `Connect` has one tap to hand back.
    let manager = ClientManager::from_connect(config, OverTap(tap.clone()), ManagerConfig::default());
    let client = manager.create().await.map_err(failure)?;
    let cancel = client.cancel_token();
    drop(client);
    tap.into_started(cancel).ok_or(PostgresFailure::Closed)
}

/// Sends a cancel request on `stream`, then hands it back so that its end can be awaited.
pub(super) async fn cancel(token: &CancelToken, stream: Stream) -> Result<Option<Stream>, PostgresFailure> {
    let tap = Tap::new(stream);
    token.cancel_query_raw(tap.clone(), Encrypted).await.map_err(failure)?;
    Ok(tap.0.lock().stream.take())
}

fn failure(error: tokio_postgres::Error) -> PostgresFailure {
    if let Some(said) = error.as_db_error() {
        return PostgresFailure::Server(Box::new(DatabaseError {
            severity: Some(said.severity().to_owned()),
            sqlstate: Some(said.code().code().to_owned()),
            message: said.message().to_owned(),
            detail: said.detail().map(str::to_owned),
            hint: said.hint().map(str::to_owned),
            routine: said.routine().map(str::to_owned),
            ..DatabaseError::default()
        }));
    }
    if error.is_closed() {
        return PostgresFailure::Closed;
    }
    let text = error.to_string();
    match error.into_source().map(<dyn std::error::Error + Send + Sync>::downcast::<io::Error>) {
        Some(Ok(io)) => PostgresFailure::Io(*io),
        Some(Err(source)) => PostgresFailure::Startup(format!("{text}: {source}")),
        None => PostgresFailure::Startup(text),
    }
}

// === the tap ===

/// A stream that is shared between `tokio-postgres` and us. It is never polled from two sides at once.
#[derive(Clone)]
struct Tap(Arc<Mutex<Tapped>>);

struct Tapped {
    stream: Option<Stream>,
    /// Received and not yet cut.
    inbox: Inbox,
    /// Cut and not yet given out.
    passed: BytesMut,
    parameters: HashMap<String, String>,
    process: i32,
    ready: bool,
}

impl Tap {
    fn new(stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(Tapped {
            stream: Some(stream),
            inbox: Inbox::default(),
            passed: BytesMut::new(),
            parameters: HashMap::new(),
            process: 0,
            ready: false,
        })))
    }

    fn into_started(self, cancel: CancelToken) -> Option<Started> {
        let mut tapped = self.0.lock();
        let stream = tapped.stream.take()?;
        Some(Started {
            stream,
            inbox: tapped.inbox.take(),
            parameters: std::mem::take(&mut tapped.parameters),
            process: tapped.process,
            cancel,
        })
    }

    fn on_stream<T>(&self, poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.0.lock().stream {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Tapped {
    /// Moves whole messages from the inbox to `passed`, up to the first `ReadyForQuery`.
    fn cut(&mut self) -> io::Result<()> {
        while !self.ready {
            let next = self.inbox.next(0).map_err(|violation| io::Error::new(io::ErrorKind::InvalidData, violation))?;
            let Next::Message(tag) = next else { break };
            let body = self.inbox.body();
            match tag {
                b'S' => {
                    if let Some((name, value)) = messages::parameter(body) {
                        self.parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                b'K' => self.process = body.first_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes)),
                b'Z' => self.ready = true,
                _ => {}
            }
            let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
            self.passed.extend_from_slice(&[tag]);
            self.passed.extend_from_slice(&length.to_be_bytes());
            self.passed.extend_from_slice(body);
        }
        Ok(())
    }
}

impl AsyncRead for Tap {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut tapped = self.0.lock();
        let tapped = &mut *tapped;
        loop {
            tapped.cut()?;
            if !tapped.passed.is_empty() {
                let length = tapped.passed.len().min(buffer.remaining());
                buffer.put_slice(&tapped.passed[..length]);
                tapped.passed.advance(length);
                return Poll::Ready(Ok(()));
            }
            // Behind the first `ReadyForQuery` there is nothing for `tokio-postgres` to read.
            let Some(stream) = tapped.stream.as_mut().filter(|_| !tapped.ready) else { return Poll::Ready(Ok(())) };
            if done!(tapped.inbox.poll_fill(stream, cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Tap {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.on_stream(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.on_stream(|stream| stream.poll_flush(cx))
    }

    /// Only written out: `tokio-postgres` shuts a cancel request's stream down behind it, and PgBouncer, which has to connect
    /// before it can pass it on, forgets the request of a client that has gone. The stream is closed by whoever has it then.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

// === what `tokio-postgres` and `deadpool-postgres` want ===

/// Connects over a stream that is there already.
struct OverTap(Tap);

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>>;

impl Connect for OverTap {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let (tap, config) = (self.0.clone(), config.clone());
        Box::pin(async move {
            let (client, connection) = config.connect_raw(tap, Encrypted).await?;
            drop(connection);
            Ok((client, tokio::spawn(async {})))
        })
    }
}

/// A TLS connector for a stream that is under TLS already.
struct Encrypted;

impl TlsConnect<Tap> for Encrypted {
    type Stream = Tap;
    type Error = Infallible;
    type Future = Ready<Result<Tap, Infallible>>;

    fn connect(self, tap: Tap) -> Self::Future {
        ready(Ok(tap))
    }
}

impl TlsStream for Tap {
    fn channel_binding(&self) -> ChannelBinding {
        let end_point = self.0.lock().stream.as_ref().and_then(Stream::channel_binding);
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}
