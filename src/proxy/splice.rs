//! Two streams joined into a tunnel.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, Instant, sleep_until},
};

/// Read at once. It lies on the stack: a tunnel at rest, as most are, holds no buffer.
const PIECE: usize = 16 << 10;
/// Once one side has ended its half, the other has this long to say something. Both halves of a WebSocket end within a round
/// trip (RFC 6455, section 7.1.1); a peer that vanished would otherwise hold its connections for the whole idle time.
const HALF_CLOSED: Duration = Duration::from_mins(1);

/// How a tunnel ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Both sides ended their half.
    Closed,
    /// Neither side said anything for too long.
    Idle,
    /// A side broke off.
    Broken(io::Error),
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read, and not yet taken by the other side.
    pending: Bytes,
    written: u64,
    flush: bool,
    ended: bool,
    done: bool,
}

/// Copies in both directions until both have ended, `idle` passed without a byte, or something broke. `early`: bytes of the
/// upstream that were read before. `moved` is kept up to date: bytes to the upstream, bytes to the client.
pub(super) async fn splice<C, U>(client: C, upstream: U, early: Bytes, idle: Duration, moved: &mut (u64, u64)) -> Ended
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (mut client, mut upstream) = (pin!(client), pin!(upstream));
    let (mut up, mut down) = (Way::default(), Way { pending: early, ..Way::default() });
    let mut last = Instant::now();
    let mut alarm = pin!(sleep_until(last + idle));
    poll_fn(|cx| {
        let before = (up.written, down.written, up.ended, down.ended);
        let polled = match (
            up.poll(cx, client.as_mut(), upstream.as_mut()),
            down.poll(cx, upstream.as_mut(), client.as_mut()),
        ) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Ended::Broken(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Closed),
            _ => Poll::Pending,
        };
        *moved = (up.written, down.written);
        if polled.is_ready() {
            return polled;
        }
        if before != (up.written, down.written, up.ended, down.ended) {
            last = Instant::now();
        }
        let idle = if up.ended || down.ended { idle.min(HALF_CLOSED) } else { idle };
        if alarm.deadline() > last + idle {
            alarm.as_mut().reset(last + idle);
        }
        // Armed for an earlier end than is due now, it only means another look.
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= last + idle {
                return Poll::Ready(Ended::Idle);
            }
            alarm.as_mut().reset(last + idle);
        }
        Poll::Pending
    })
    .await
}

impl Way {
    /// Moves what can be moved. Ready when the source has ended and the sink has been told.
    fn poll<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        while !self.done {
            while !self.pending.is_empty() {
                let taken = ready!(to.as_mut().poll_write(cx, &self.pending))?;
                self.note(taken)?;
                self.pending.advance(taken);
            }
            if self.ended {
                ready!(to.as_mut().poll_shutdown(cx))?;
                self.done = true;
            } else if self.poll_piece(cx, from.as_mut(), to.as_mut())?.is_pending() {
                if self.flush {
                    ready!(to.as_mut().poll_flush(cx))?;
                    self.flush = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes what will go; only the rest is copied.
    fn poll_piece<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::<u8>::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut room);
        ready!(from.poll_read(cx, &mut piece))?;
        let mut rest = piece.filled();
        self.ended = rest.is_empty();
        while !rest.is_empty() {
            match to.as_mut().poll_write(cx, rest)? {
                Poll::Ready(taken) => {
                    self.note(taken)?;
                    rest = &rest[taken..];
                }
                Poll::Pending => {
                    self.pending = Bytes::copy_from_slice(rest);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note(&mut self, taken: usize) -> io::Result<()> {
        self.written += taken as u64;
        self.flush = true;
        if taken == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn both_ways_with_a_slow_reader_and_half_a_close() {
        let (mut client, near) = duplex(100);
        let (mut server, far) = duplex(64);
        let tunnel = tokio::spawn(async move {
            let mut moved = (0, 0);
            let ended = splice(near, far, Bytes::from_static(b"early "), LONG, &mut moved).await;
            (ended, moved)
        });
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let upload = {
            let sent = sent.clone();
            tokio::spawn(async move {
                client.write_all(&sent).await.unwrap();
                client.shutdown().await.unwrap();
                let mut rest = String::new();
                client.read_to_string(&mut rest).await.unwrap();
                rest
            })
        };
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
        // The other half is still open.
        server.write_all(b"and late").await.unwrap();
        drop(server);
        assert_eq!(upload.await.unwrap(), "early and late");
        let (ended, moved) = tunnel.await.unwrap();
        assert!(matches!(ended, Ended::Closed), "{ended:?}");
        assert_eq!(moved, (100_000, 14));
    }

    #[tokio::test]
    async fn silence_ends_it_and_a_byte_keeps_it() {
        let (mut client, near) = duplex(64);
        let (mut server, far) = duplex(64);
        let begun = Instant::now();
        let idle = Duration::from_millis(120);
        let tunnel = tokio::spawn(async move { splice(near, far, Bytes::new(), idle, &mut (0, 0)).await });
        for _ in 0..4 {
            tokio::time::sleep(idle / 2).await;
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
        }
        assert!(matches!(tunnel.await.unwrap(), Ended::Idle));
        assert!(begun.elapsed() >= idle * 3, "the bytes were not counted as life: {:?}", begun.elapsed());
    }
}
