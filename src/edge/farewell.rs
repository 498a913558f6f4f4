//! Last words to a client whose request we will not read to its end.
//!
//! A socket that is closed with unread bytes in it resets the connection, and the reset may overtake the answer: the client
//! then sees "connection reset" where we said 413. So after the answer our half is closed, and what still comes is read and
//! thrown away for a moment.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::io::{Io, Socket};

/// How long last words may take to be accepted.
const WRITE: Duration = Duration::from_secs(1);

/// How long what still comes is read. Long enough for a round trip to anywhere and a client that looks up from its upload.
const LINGER: Duration = Duration::from_secs(2);

/// To a client that speaks plain HTTP where we expect TLS.
pub(super) const SPEAK_HTTPS: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 23\r\nconnection: close\r\n\r\nthis port speaks HTTPS\n";

/// To a client whose head did not end in time.
pub(super) const TOO_SLOW: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Says `words`, then closes gently.
pub(super) async fn say(words: &str, mut io: Io) {
    let said = timeout(WRITE, async {
        io.write_all(words.as_bytes()).await?;
        io.flush().await?;
        io.shutdown().await
    });
    if matches!(said.await, Ok(Ok(()))) {
        linger(io.into_socket()).await;
    }
}

/// Reads until the client closes its half, for [`LINGER`] at most. Our half must be closed.
pub(super) async fn linger(mut socket: Socket) {
    let mut scrap = vec![0; 16 * 1024];
    let _ = timeout(LINGER, async { while matches!(socket.read(&mut scrap).await, Ok(1..)) {} }).await;
}
