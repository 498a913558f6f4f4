//! One connection to an endpoint: opened, driven by a task of its own, given up.

use std::{
    future::poll_fn,
    io, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
    task::JoinHandle,
    time::{Duration, Instant, Sleep, sleep_until, timeout},
};

use super::{body::SendBody, endpoint::Endpoint, gate, idle::Parked, spare::Spare};
use crate::{net::Stream, observe};

/// After we have closed our half of a connection, how long we wait for the server to close its own before the connection no
/// longer counts. Nobody waits for it but a request that needs the permit.
const LINGER: Duration = Duration::from_secs(1);
/// What a server may still send meanwhile.
const LINGER_BYTES: usize = 64 << 10;
/// The largest head of an answer. nginx stops at 4 to 8 KiB, and is often set to more for large cookies.
const MAX_HEAD: usize = 64 << 10;

/// The right to have a connection open.
pub(super) type Permit = gate::Permit<Connection>;

/// A permit in use, and the count of its endpoint.
pub(super) struct Held {
    permit: Permit,
    _counted: Counted,
}

struct Counted(Arc<Endpoint>);

/// A [`Link`], boxed: it changes hands several times a request.
pub(super) type Connection = Box<Link>;

/// An open connection that speaks HTTP/1.1. Dropped while it serves a request, it is cut: what is in transit must not meet
/// another request. Dropped otherwise, it closes in good order.
pub(super) struct Link {
    pub(super) sender: SendRequest<SendBody>,
    driver: Driver,
    signs: Arc<Signs>,
    /// The request in transit, where it may be sent again.
    pub(super) spare: Spare,
    alarm: Option<Alarm>,
    endpoint: usize,
    home: usize,
    since: Instant,
}

/// A timer that lasts as long as the connection. It is set back only when an earlier time is wanted, or when it fires: setting
/// one for each request, all of which are over long before, would cost more than waiting for the answer.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// The worker whose runtime fires it.
    worker: usize,
}

/// The task that reads and writes.
struct Driver {
    task: JoinHandle<Ended>,
    busy: bool,
    signs: Arc<Signs>,
    /// Wakes the task when the connection is cut.
    wake: Option<oneshot::Sender<()>>,
}

/// What the task and the request tell each other.
#[derive(Default)]
struct Signs {
    /// A byte of the answer has come.
    answered: AtomicBool,
    /// The request may turn the connection into a tunnel: the task then gives the stream back instead of closing it.
    tunnel: AtomicBool,
    /// The request was given up: nothing more is sent, and what comes is waste.
    cut: AtomicBool,
}

/// What is left of a connection when HTTP is over.
struct Ended {
    held: Held,
    stream: Option<(Stream, Bytes)>,
}

/// Notes when bytes come, so that "died before the first byte of the answer" is known and not guessed.
struct Watched {
    stream: Stream,
    signs: Arc<Signs>,
}

// === opening ===

impl Link {
    /// Starts HTTP on a stream. The task that drives it belongs to the current thread's runtime.
    pub(super) async fn start(
        stream: Stream,
        permit: Permit,
        endpoint: &Arc<Endpoint>,
        index: usize,
    ) -> hyper::Result<Connection> {
        let held = Held::new(permit, endpoint);
        let signs = Arc::new(Signs::default());
        let io = TokioIo::new(Watched { stream, signs: signs.clone() });
        let mut builder = http1::Builder::new();
        builder.max_header_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(io).await?;
        let (wake, woken) = oneshot::channel();
        let task = tokio::spawn(drive(connection, held, signs.clone(), woken));
        let driver = Driver { task, busy: false, signs: signs.clone(), wake: Some(wake) };
        Ok(Box::new(Self {
            sender,
            driver,
            signs,
            spare: Spare::default(),
            alarm: None,
            endpoint: index,
            home: observe::worker(),
            since: Instant::now(),
        }))
    }

    /// A request is about to be sent. `tunnel`: it may end as one.
    pub(super) fn begin(&mut self, tunnel: bool) {
        self.driver.busy = true;
        self.signs.answered.store(false, Ordering::Relaxed);
        self.signs.tunnel.store(tunnel, Ordering::Relaxed);
    }

    /// Whether a byte of the answer has come.
    pub(super) fn has_answered(&self) -> bool {
        self.signs.answered.load(Ordering::Relaxed)
    }

    /// Ready when `until` has come. Called by one task at a time.
    pub(super) fn poll_alarm(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let worker = observe::worker();
        // Another worker's runtime may be gone before this one.
        if self.alarm.as_ref().is_some_and(|alarm| alarm.worker != worker) {
            self.alarm = None;
        }
        let alarm = self.alarm.get_or_insert_with(|| Alarm { sleep: Box::pin(sleep_until(until)), worker });
        if alarm.sleep.deadline() > until {
            alarm.sleep.as_mut().reset(until);
        }
        while alarm.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            alarm.sleep.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// The request is over, and the connection good for another.
    pub(super) fn end(&mut self, now: Instant) {
        self.driver.busy = false;
        self.signs.tunnel.store(false, Ordering::Relaxed);
        self.since = now;
    }

    /// Closes, and gives the permit for another connection. None if the task came to a bad end, or to none in time; the permit
    /// has then gone, or will go, to the next in the queue.
    pub(super) async fn into_permit(self: Box<Self>) -> Option<Permit> {
        Some(self.into_ended().await?.held.permit)
    }

    /// The bare stream behind a switch of protocols, with what was read of the new one.
    pub(super) async fn into_tunnel(self: Box<Self>) -> Option<(Held, Stream, Bytes)> {
        let Ended { held, stream } = self.into_ended().await?;
        let (stream, early) = stream?;
        Some((held, stream, early))
    }

    async fn into_ended(self: Box<Self>) -> Option<Ended> {
        let Self { sender, mut driver, .. } = *self;
        drop(sender);
        // Cut, should it take too long or the caller leave.
        driver.busy = true;
        timeout(2 * LINGER, &mut driver.task).await.ok()?.ok()
    }
}

/// Runs a connection until it ends or is cut, and lets the server close it first if it will.
async fn drive(
    mut connection: http1::Connection<TokioIo<Watched>, SendBody>,
    held: Held,
    signs: Arc<Signs>,
    mut cut: oneshot::Receiver<()>,
) -> Ended {
    let mut fresh = true;
    let ended = poll_fn(|cx| {
        // Polled once, which leaves the task's waker there; after that only the sign is looked at.
        if mem::take(&mut fresh) {
            _ = Pin::new(&mut cut).poll(cx);
        }
        if signs.cut.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        connection.poll_without_shutdown(cx).map(Some)
    })
    .await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().stream;
    // An error is told to the request in transit; without one there is nobody to tell.
    if matches!(ended, Some(Ok(()))) && signs.tunnel.load(Ordering::Relaxed) {
        return Ended { held, stream: Some((stream, parts.read_buf)) };
    }
    linger(stream).await;
    Ended { held, stream: None }
}

/// Closes our half, and waits for the server to close its own. The cap is the server's: a connection counts until it is gone
/// there, too.
pub(super) async fn linger(mut stream: Stream) {
    let goodbye = async {
        stream.shutdown().await?;
        let mut waste = [0_u8; 1024];
        let mut left = LINGER_BYTES;
        loop {
            let read = stream.read(&mut waste).await?;
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                return io::Result::Ok(());
            }
        }
    };
    // Out of time, or already gone: closed either way.
    _ = timeout(LINGER, goodbye).await;
}

// === impl Driver ===

impl Drop for Driver {
    fn drop(&mut self) {
        if self.busy {
            self.signs.cut.store(true, Ordering::Release);
            if let Some(wake) = self.wake.take() {
                _ = wake.send(());
            }
        }
    }
}

// === impl Held ===

impl Held {
    fn new(permit: Permit, endpoint: &Arc<Endpoint>) -> Self {
        endpoint.open.fetch_add(1, Ordering::Relaxed);
        Self { permit, _counted: Counted(endpoint.clone()) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Parked for Connection {
    fn endpoint(&self) -> usize {
        self.endpoint
    }

    fn home(&self) -> usize {
        self.home
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }
}

// === impl Watched ===

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.signs.answered.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
