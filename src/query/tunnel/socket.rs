//! A WebSocket as two streams of bytes, with bounds on both.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use super::frames::{self, Close, Heard, ROOM, Reader};

/// Bytes held in each direction, beyond what is being written.
pub(super) const MOST: usize = 64 << 10;

/// Read at once. It lies on the stack: a tunnel at rest, as most are, holds no buffer.
const PIECE: usize = 16 << 10;

/// How long a client may take to hear the last words and say its own.
const GOODBYE: Duration = Duration::from_secs(1);

/// The client's end of a tunnel.
pub(super) struct Socket<S> {
    stream: S,
    reader: Reader,
    raw: BytesMut,
    /// What the client has said and nobody has taken.
    pub(super) said: BytesMut,
    /// What is to be said, behind [`ROOM`] free bytes; empty: nothing.
    told: BytesMut,
    /// Frames on their way out; empty, what is left of their buffer.
    sealed: BytesMut,
    flushed: bool,
    /// Bytes read and written, frames and all.
    pub(super) moved: (u64, u64),
}

/// Why there is nothing more to be had from a client.
#[derive(Debug)]
pub(super) enum Gone {
    /// It closed, or its connection ended.
    Left,
    /// It broke.
    Broken(io::Error),
    /// It broke the rules.
    Breach(Close),
}

// === impl Gone ===

impl Gone {
    /// Says to the log what is not as it should be.
    pub(super) fn tell(&self) {
        match self {
            Self::Left => {}
            Self::Broken(error) => tracing::debug!(%error, "a tunnel's client broke off"),
            Self::Breach(close) => tracing::debug!(?close, "a tunnel's client broke the rules"),
        }
    }
}

// === impl Socket ===

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            reader: Reader::default(),
            raw: BytesMut::new(),
            said: BytesMut::new(),
            told: BytesMut::new(),
            sealed: BytesMut::new(),
            flushed: true,
            moved: (0, 0),
        }
    }

    /// How many bytes may be told now.
    pub(super) fn room(&self) -> usize {
        MOST.saturating_sub(self.told.len().saturating_sub(ROOM))
    }

    /// As much is in hand as may be.
    pub(super) fn is_full(&self) -> bool {
        self.said.len() >= MOST
    }

    /// Where bytes to be told are appended.
    pub(super) fn tell(&mut self) -> &mut BytesMut {
        if self.told.is_empty() {
            if self.sealed.is_empty() {
                self.told = std::mem::take(&mut self.sealed);
            }
            self.told.resize(ROOM, 0);
        }
        &mut self.told
    }

    /// Bytes that are ready to be written.
    pub(super) fn sealed(&self) -> usize {
        self.sealed.len()
    }

    /// Waits for more of what the client says; at once if there is as much as may be held. Cancel safe.
    pub(super) fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.is_full() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let most = MOST - self.said.len();
            match self.reader.read(&mut self.raw, &mut self.said, most).map_err(Gone::Breach)? {
                Heard::Bytes => return Poll::Ready(Ok(())),
                // One who asks often and does not listen is not answered each time (RFC 6455, section 5.5.3).
                Heard::Ping(payload) if self.sealed.len() < PIECE => frames::pong(&payload, &mut self.sealed),
                Heard::Ping(_) => {}
                Heard::Close => return Poll::Ready(Err(Gone::Left)),
                Heard::Nothing => {
                    let mut room = [MaybeUninit::<u8>::uninit(); PIECE];
                    let mut piece = ReadBuf::uninit(&mut room);
                    ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece)).map_err(Gone::Broken)?;
                    if piece.filled().is_empty() {
                        return Poll::Ready(Err(Gone::Left));
                    }
                    self.moved.0 += piece.filled().len() as u64;
                    self.raw.extend_from_slice(piece.filled());
                }
            }
        }
    }

    /// Completes when the client has gone. What it says meanwhile is kept, as far as may be held, and a ping is answered. Cancel
    /// safe.
    pub(super) async fn gone(&mut self) -> Gone {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(Err(gone)) = self.poll_write(cx) {
                    return Poll::Ready(gone);
                }
                let sealed = self.sealed.len();
                while !self.is_full()
                    && let Poll::Ready(heard) = self.poll_hear(cx)
                {
                    if let Err(gone) = heard {
                        return Poll::Ready(gone);
                    }
                }
                if self.sealed.len() == sealed {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Writes what was told. Ready when all is out.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        loop {
            while !self.sealed.is_empty() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.sealed)).map_err(Gone::Broken)?;
                if written == 0 {
                    return Poll::Ready(Err(Gone::Broken(io::ErrorKind::WriteZero.into())));
                }
                self.moved.1 += written as u64;
                self.sealed.advance(written);
                self.flushed = false;
            }
            if self.told.len() > ROOM {
                frames::seal(&mut self.told);
                self.sealed = std::mem::take(&mut self.told);
                continue;
            }
            if !self.flushed {
                ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(Gone::Broken)?;
                self.flushed = true;
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Gives memory back that was needed for a while.
    pub(super) fn relax(&mut self) {
        if self.told.len() <= ROOM {
            self.told = BytesMut::new();
        }
        for buffer in [&mut self.said, &mut self.raw, &mut self.sealed] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Says what is still to be said, closes, and waits a little for the client to do the same.
    pub(super) async fn close(mut self, why: Close) {
        let closing = async {
            poll_fn(|cx| self.poll_write(cx)).await.ok()?;
            frames::close(why, &mut self.sealed);
            poll_fn(|cx| self.poll_write(cx)).await.ok()?;
            self.stream.shutdown().await.ok()?;
            let mut scrap = [0; 1024];
            while self.stream.read(&mut scrap).await.ok()? > 0 {}
            Some(())
        };
        let _ = timeout(GOODBYE, closing).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_ping_is_answered_while_the_client_is_only_watched() {
        let (near, mut far) = duplex(1 << 10);
        let mut socket = Socket::new(near);
        // Without a payload, and masked with zeros.
        far.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut pong = [0; 2];
        let heard = async {
            tokio::select! {
                gone = socket.gone() => panic!("{gone:?}"),
                read = far.read_exact(&mut pong) => read.unwrap(),
            }
        };
        assert_eq!(timeout(Duration::from_secs(5), heard).await.expect("nothing is said"), 2);
        assert_eq!(pong, [0x8a, 0]);
        drop(far);
        assert!(matches!(socket.gone().await, Gone::Left));
    }
}
