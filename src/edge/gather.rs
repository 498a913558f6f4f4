//! HTTP/2 frames, gathered into one write.
//!
//! hyper writes frame by frame, and flushes after each piece of data: answers that are ready together would be a system call
//! and a TLS record each. Here what the connection says in one poll is gathered, and sent when it has no more to say. A piece
//! that fills a record by itself is not copied.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered before it is sent, whoever has more to say: four TLS records.
const ENOUGH: usize = 64 * 1024;

/// A piece of this size is worth a write of its own.
const LARGE: usize = 8 * 1024;

/// First room for what is gathered: a TLS record.
const ROOM: usize = 16 * 1024;

/// The end of a transport that HTTP/2 writes to.
#[derive(Debug)]
pub(super) struct Gather<T>(Rc<RefCell<Gathered<T>>>);

/// A connection over a [`Gather`], which sends after each poll what that poll has gathered.
pub(super) struct Sending<C, T> {
    connection: Pin<Box<C>>,
    gathered: Rc<RefCell<Gathered<T>>>,
}

#[derive(Debug)]
struct Gathered<T> {
    io: T,
    bytes: Vec<u8>,
    sent: usize,
    /// Something was written that `io` may still hold.
    dirty: bool,
    /// Why sending failed; the connection reads it next.
    failed: Option<io::Error>,
}

/// A transport that gathers, in a connection made by `serve`.
pub(super) fn gather<T, C>(io: T, serve: impl FnOnce(Gather<T>) -> C) -> Sending<C, T> {
    let gathered = Rc::new(RefCell::new(Gathered { io, bytes: Vec::new(), sent: 0, dirty: false, failed: None }));
    Sending { connection: Box::pin(serve(Gather(gathered.clone()))), gathered }
}

// === impl Sending ===

impl<C, T> Sending<C, T> {
    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future, T: AsyncWrite + Unpin> Future for Sending<C, T> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        loop {
            if let Poll::Ready(output) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            let mut gathered = self.gathered.borrow_mut();
            match gathered.poll_send(cx) {
                // The connection is to hear of it from its next read.
                Poll::Ready(Err(error)) => gathered.failed = Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

// === impl Gathered ===

impl<T: AsyncWrite + Unpin> Gathered<T> {
    /// Sends all there is, and forgets its room: an idle connection holds none.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.dirty {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.bytes.len() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.bytes[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.bytes = Vec::new();
        self.sent = 0;
        self.dirty = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let size: usize = slices.iter().map(|slice| slice.len()).sum();
        if size >= LARGE || self.bytes.len() + size > ENOUGH {
            ready!(self.poll_send(cx))?;
        }
        self.dirty = true;
        if size >= LARGE {
            return Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(ROOM);
        }
        for slice in slices {
            self.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(size))
    }
}

// === impl Gather ===

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        match gathered.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut gathered.io).poll_read(cx, buffer),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    /// Nothing yet: [`Sending`] sends when the connection has been polled.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_send(cx))?;
        Pin::new(&mut gathered.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use super::*;

    /// A transport that takes `room` bytes, keeps them until it is flushed, and counts.
    #[derive(Default)]
    struct Wire {
        room: usize,
        held: Vec<u8>,
        flushed: Vec<u8>,
        writes: usize,
        broken: bool,
    }

    impl AsyncRead for Wire {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Wire {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes += 1;
            self.held.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            let held = std::mem::take(&mut self.held);
            self.flushed.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn wire(room: usize) -> Wire {
        Wire { room, ..Wire::default() }
    }

    /// A connection that says `pieces`, flushing after each, as far as it is let, and then has no more to say.
    fn say(wire: Wire, pieces: &'static [&'static [u8]]) -> Sending<impl Future<Output = io::Result<()>>, Wire> {
        gather(wire, move |mut out| {
            let mut left = pieces;
            poll_fn(move |cx| {
                while let Some((piece, rest)) = left.split_first() {
                    let said = ready!(Pin::new(&mut out).poll_write(cx, piece))?;
                    assert_eq!(
                        said,
                        piece.len(),
                        "the wire of these tests takes a piece whole, or a part of what is gathered"
                    );
                    left = rest;
                    ready!(Pin::new(&mut out).poll_flush(cx))?;
                }
                Pin::new(&mut out).poll_read(cx, &mut ReadBuf::new(&mut [0; 8]))
            })
        })
    }

    fn poll<C: Future, T: AsyncWrite + Unpin>(sending: &mut Sending<C, T>) -> Poll<C::Output> {
        Pin::new(sending).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_one_poll_says_is_one_write() {
        let mut sending = say(wire(usize::MAX), &[b"one", b"two", b"three"]);
        assert!(poll(&mut sending).is_pending());
        let wire = &sending.gathered.borrow().io;
        assert_eq!((wire.writes, wire.flushed.as_slice()), (1, b"onetwothree".as_slice()));
    }

    #[test]
    fn a_large_piece_goes_by_itself_behind_what_was_said_before() {
        static PIECES: [&[u8]; 2] = [b"one", &[b'x'; LARGE]];
        let mut sending = say(wire(usize::MAX), &PIECES);
        assert!(poll(&mut sending).is_pending());
        let gathered = sending.gathered.borrow();
        assert_eq!((gathered.io.writes, gathered.io.flushed.len()), (2, 3 + LARGE));
        assert!(gathered.io.flushed.starts_with(b"onex"), "in order");
        assert_eq!(gathered.bytes.capacity(), 0, "an idle connection holds no room");
    }

    #[test]
    fn a_full_socket_holds_the_connection_back_and_nothing_is_lost() {
        static PIECE: [u8; LARGE - 1] = [b'x'; LARGE - 1];
        static PIECES: [&[u8]; 12] = [&PIECE; 12];
        let mut sending = say(wire(10), &PIECES);
        assert!(poll(&mut sending).is_pending());
        assert!(sending.gathered.borrow().bytes.len() <= ENOUGH, "what waits is bounded");
        sending.gathered.borrow_mut().io.room = usize::MAX;
        assert!(poll(&mut sending).is_pending());
        assert_eq!(sending.gathered.borrow().io.flushed.len(), 12 * PIECE.len());
    }

    #[test]
    fn the_connection_hears_of_a_write_that_failed() {
        let mut sending = say(Wire { broken: true, ..wire(0) }, &[b"one"]);
        let Poll::Ready(Err(error)) = poll(&mut sending) else { panic!("the connection goes on") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
