//! A connection that we opened: TCP or Unix, plain or under TLS.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use super::binding;

/// A connection to a server, whatever lies underneath.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// What a look at a socket says, without reading from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Nothing has come.
    Clean,
    /// Bytes wait. Under TLS they may be a session ticket or an alert rather than data: only reading tells.
    Readable,
    /// End of file, a reset, or TLS's goodbye.
    Closed,
}

/// The socket itself. Kept as an enum of ours, so that it can be taken out and put back under a TLS session.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Re-homing failed half way; every use is `NotConnected`.
    Gone,
}

// === impl Stream ===

impl Stream {
    pub(super) fn from_tls(stream: TlsStream<Socket>) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }

    /// The bare socket, for a TLS handshake.
    pub(super) fn into_socket(self) -> Option<Socket> {
        match self.0 {
            Kind::Plain(socket) => Some(socket),
            Kind::Tls(_) => None,
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.0, Kind::Tls(_))
    }

    /// The application protocol that TLS agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Plain(_) => None,
            Kind::Tls(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// Moves the socket's registration to the runtime of the current thread. A TLS session goes with it unharmed.
    ///
    /// Call it within a runtime, and not while a read or write on this stream is pending elsewhere.
    ///
    /// # Errors
    /// The socket cannot be registered; the stream is then of no more use.
    pub fn rehome(&mut self) -> io::Result<()> {
        self.socket_mut().rehome()
    }

    /// Looks at the socket without waiting and without consuming anything.
    pub fn peek_state(&mut self) -> Peek {
        if let Kind::Tls(tls) = &mut self.0 {
            match tls.get_mut().1.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => return Peek::Readable,
                Ok(state) if state.peer_has_closed() => return Peek::Closed,
                Ok(_) => {}
                Err(_) => return Peek::Closed,
            }
        }
        self.socket().peek_state()
    }

    /// Reads what has come, without waiting and without asking the runtime, which may not have heard of it yet: so that what
    /// [`Self::peek_state`] saw can be had at once. Returns the number of bytes, 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come; otherwise the connection is broken.
    pub fn read_now(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Kind::Tls(tls) = &mut self.0 else { return Now(self.socket()).read(out) };
        let (socket, session) = tls.get_mut();
        loop {
            match session.reader().read(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if session.read_tls(&mut Now(socket))? == 0 {
                return Ok(0);
            }
            session.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Channel binding data of type `tls-server-end-point` (RFC 5929, section 4): the hash of the server's certificate.
    /// None without TLS, and for certificates whose signature names no hash (Ed25519).
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        let Kind::Tls(tls) = &self.0 else { return None };
        binding::tls_server_end_point(tls.get_ref().1.peer_certificates()?.first()?)
    }

    /// Sends segments at once instead of gathering them (`TCP_NODELAY`). Does nothing on a Unix socket.
    ///
    /// # Errors
    /// The socket refuses.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self.socket() {
            Socket::Tcp(tcp) => tcp.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
            Socket::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Probes the peer after `idle` of silence, then at a third of it; three unanswered probes end the connection.
    /// Does nothing on a Unix socket.
    ///
    /// # Errors
    /// The socket refuses.
    pub fn set_keepalive(&self, idle: Duration) -> io::Result<()> {
        let Socket::Tcp(tcp) = self.socket() else { return Ok(()) };
        let second = Duration::from_secs(1);
        let keepalive =
            TcpKeepalive::new().with_time(idle.max(second)).with_interval((idle / 3).max(second)).with_retries(3);
        SockRef::from(tcp).set_tcp_keepalive(&keepalive)
    }

    /// Gives the connection up when what was sent has been unacknowledged, or what is to be sent has not been taken, for
    /// `limit` (`TCP_USER_TIMEOUT`, RFC 5482). Does nothing on a Unix socket.
    ///
    /// # Errors
    /// The socket refuses.
    pub fn set_user_timeout(&self, limit: Duration) -> io::Result<()> {
        let Socket::Tcp(tcp) = self.socket() else { return Ok(()) };
        SockRef::from(tcp).set_tcp_user_timeout(Some(limit))
    }

    fn socket(&self) -> &Socket {
        match &self.0 {
            Kind::Plain(socket) => socket,
            Kind::Tls(tls) => tls.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match &mut self.0 {
            Kind::Plain(socket) => socket,
            Kind::Tls(tls) => tls.get_mut().0,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self(Kind::Plain(Socket::Tcp(tcp)))
    }
}

impl From<UnixStream> for Stream {
    fn from(unix: UnixStream) -> Self {
        Self(Kind::Plain(Socket::Unix(unix)))
    }
}

/// A socket that is read without waiting, whatever the runtime knows of it.
struct Now<'a>(&'a Socket);

impl Read for Now<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let descriptor = self.0.descriptor().ok_or(io::ErrorKind::NotConnected)?;
        Ok(rustix::net::recv(descriptor, out, RecvFlags::DONTWAIT)?.1)
    }
}

// === impl Socket ===

impl Socket {
    fn rehome(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Tcp(tcp) => Self::Tcp(TcpStream::from_std(tcp.into_std()?)?),
            Self::Unix(unix) => Self::Unix(UnixStream::from_std(unix.into_std()?)?),
            Self::Gone => return Err(io::ErrorKind::NotConnected.into()),
        };
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => Some(tcp.as_fd()),
            Self::Unix(unix) => Some(unix.as_fd()),
            Self::Gone => None,
        }
    }

    fn peek_state(&self) -> Peek {
        let Some(descriptor) = self.descriptor() else { return Peek::Closed };
        let mut byte = [0_u8; 1];
        loop {
            return match rustix::net::recv(descriptor, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((_, 0)) => Peek::Closed,
                Ok(_) => Peek::Readable,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => Peek::Clean,
                Err(_) => Peek::Closed,
            };
        }
    }
}

// === reading and writing ===

/// Hands a poll on to whichever variant there is.
macro_rules! each_kind {
    ($stream:expr, $inner:ident => $call:expr) => {
        match &mut $stream {
            Kind::Plain($inner) => $call,
            Kind::Tls(tls) => {
                let $inner = tls.as_mut();
                $call
            }
        }
    };
}

macro_rules! each_socket {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
            Socket::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_kind!(self.0, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each_kind!(self.0, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_kind!(self.0, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_kind!(self.0, inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_kind!(self.0, inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Plain(socket) => socket.is_write_vectored(),
            Kind::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_socket!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each_socket!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_socket!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_socket!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_socket!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self, Self::Gone)
    }
}
