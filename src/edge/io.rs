//! The socket under a connection: what it reads and writes is observed.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{drain::Hold, limits::Permit, watch::Watch};
use crate::net::ServerStream;

/// An accepted socket, with what its existence costs: they are given back when it is dropped, be it by a connection or
/// by whoever took it over after an upgrade. Observes writes, below TLS, where an accepted byte is one that the kernel took.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    watch: Arc<Watch>,
    _permit: Permit,
    _hold: Hold,
}

/// A connection's bytes in the clear. Observes reads, above TLS, where a byte is one of the request's.
#[derive(Debug)]
pub(super) struct Io {
    transport: Transport,
    watch: Arc<Watch>,
}

#[derive(Debug)]
enum Transport {
    Plain(Socket),
    Tls(Box<ServerStream<Socket>>),
}

// === impl Socket ===

impl Socket {
    pub(super) fn new(tcp: TcpStream, watch: Arc<Watch>, permit: Permit, hold: Hold) -> Self {
        Self { tcp, watch, _permit: permit, _hold: hold }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn observe(&self, poll: &Poll<io::Result<usize>>) {
        match poll {
            Poll::Ready(Ok(bytes)) => self.watch.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.blocked(),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.watch.counters.active.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.observe(&poll);
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.observe(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

// === impl Io ===

impl Io {
    pub(super) fn plain(socket: Socket, watch: Arc<Watch>) -> Self {
        Self { transport: Transport::Plain(socket), watch }
    }

    pub(super) fn tls(stream: ServerStream<Socket>, watch: Arc<Watch>) -> Self {
        Self { transport: Transport::Tls(Box::new(stream)), watch }
    }

    /// The socket, without what TLS has yet to send.
    pub(super) fn into_socket(self) -> Socket {
        match self.transport {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.into_inner().0,
        }
    }
}

/// Hands a poll on to whichever variant there is.
macro_rules! each {
    ($io:expr, $inner:ident => $call:expr) => {
        match &mut $io.transport {
            Transport::Plain($inner) => $call,
            Transport::Tls(stream) => {
                let $inner = stream.as_mut();
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(each!(self, inner => Pin::new(inner).poll_read(cx, buffer)))?;
        if buffer.filled().len() > before {
            self.watch.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
