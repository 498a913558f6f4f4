//! A server whose every byte is the test's choice.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
}

/// What a server saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) open: AtomicUsize,
    pub(super) peak: AtomicUsize,
    pub(super) accepted: AtomicUsize,
    pub(super) requests: Mutex<Vec<Seized>>,
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub(super) struct Seized {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// One accepted connection.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
    pub(super) seen: Arc<Seen>,
}

impl Origin {
    /// Serves each connection with `handler`, which also gets its number.
    pub(super) async fn serve<F, W>(handler: F) -> Self
    where
        F: Fn(Socket, usize) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = origin.seen.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = seen.accepted.fetch_add(1, Ordering::SeqCst);
                let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                seen.peak.fetch_max(open, Ordering::SeqCst);
                let handled = handler(Socket { stream, buffer: Vec::new(), seen: seen.clone() }, number);
                tokio::spawn(handled);
            }
        });
        origin
    }

    /// Answers every request with the same bytes, on connections that stay.
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::serve(move |mut socket, _| async move {
            while socket.request().await.is_some() {
                socket.send(answer).await;
            }
        })
        .await
    }

    pub(super) fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<Seized> {
        self.seen.requests.lock().clone()
    }
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Socket {
    /// The next request, body and all; none when the other side has closed.
    pub(super) async fn request(&mut self) -> Option<Seized> {
        let head = self.head().await?;
        let body = if has(&head, "transfer-encoding: chunked") {
            let end = self.until(b"0\r\n\r\n").await?;
            self.buffer.drain(..end).collect()
        } else {
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            self.bytes(length).await?
        };
        let seized = Seized { head, body };
        self.seen.requests.lock().push(seized.clone());
        Some(seized)
    }

    /// The head of the next request.
    pub(super) async fn head(&mut self) -> Option<String> {
        let end = self.until(b"\r\n\r\n").await?;
        Some(String::from_utf8(self.buffer.drain(..end).collect()).unwrap())
    }

    /// So many bytes of what comes next.
    pub(super) async fn bytes(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    pub(super) async fn send(&mut self, bytes: &str) {
        // The other side may have gone, as a test of that will notice.
        _ = self.stream.write_all(bytes.as_bytes()).await;
    }

    /// Closes with a reset instead of an end of file.
    pub(super) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    async fn until(&mut self, end: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return Some(at + end.len());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.buffer).await.unwrap_or(0);
        (read > 0).then_some(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.seen.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A field's value in a head.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

pub(super) fn has(head: &str, line: &str) -> bool {
    head.lines().any(|there| there == line)
}
