//! What has come from the server and is not read yet: bytes, cut into messages in place.

use std::{
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::failure::Violation;
use crate::backend::work::{Cell, Row};

/// Read at once: a little at first, more while a result streams in.
const CHUNK: usize = 8 << 10;
const CHUNK_STREAMING: usize = 64 << 10;

/// Longest message that is not a row: errors, descriptions (1,664 columns at most), notices.
const LONGEST_OTHER: usize = 4 << 20;

/// Most that is read while nothing is asked for: notices, and what is sent to a channel that is listened to.
const MOST_UNASKED: usize = 1 << 20;

/// Type byte and length.
const HEADER: usize = 5;

/// Bytes received, and the message that is being looked at. As a [`Row`], that message's cells.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: BytesMut,
    /// Length of the current message, header included; 0: none.
    current: usize,
    /// The current message is to be seen once more.
    again: bool,
    /// Bytes of a message that is passed over, still to come.
    skip: usize,
    /// The last read filled all the space there was.
    streaming: bool,
    /// More was held at a time than a small answer needs.
    grown: bool,
}

/// What [`Inbox::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A message of this type; [`Inbox::body`] holds it.
    Message(u8),
    /// Not yet a whole message.
    Incomplete,
    /// A row longer than allowed. It is passed over.
    LongRow,
}

// === impl Inbox ===

impl Inbox {
    /// Lets go of the current message and looks at the next. Rows longer than `longest_row` are passed over as they
    /// come.
    pub(super) fn next(&mut self, longest_row: usize) -> Result<Next, Violation> {
        if std::mem::take(&mut self.again) {
            return Ok(Next::Message(self.buffer[0]));
        }
        self.buffer.advance(std::mem::take(&mut self.current));
        self.skim();
        let Some((tag, total)) = header(&self.buffer)? else { return Ok(Next::Incomplete) };
        let is_row = matches!(tag, b'D' | b'd');
        if is_row && total > longest_row.saturating_add(HEADER) {
            self.skip = total;
            self.skim();
            return Ok(Next::LongRow);
        }
        if !is_row && total > LONGEST_OTHER {
            return Err(Violation("a message is too long"));
        }
        if self.buffer.len() < total {
            return Ok(Next::Incomplete);
        }
        self.current = total;
        Ok(Next::Message(tag))
    }

    /// Shows the current message once more on the next [`Inbox::next`].
    pub(super) fn again(&mut self) {
        self.again = self.current > 0;
    }

    /// The current message, without its header.
    pub(super) fn body(&self) -> &[u8] {
        self.buffer.get(HEADER..self.current).unwrap_or_default()
    }

    /// The bytes behind the current message, which is let go of. For who cuts them by himself.
    pub(super) fn raw(&mut self) -> &mut BytesMut {
        self.again = false;
        self.buffer.advance(std::mem::take(&mut self.current));
        &mut self.buffer
    }

    /// Passes over the rest of a message that was taken in part from [`Inbox::raw`].
    pub(super) fn pass_over(&mut self, rest: usize) {
        self.skip += rest;
    }

    /// Whether there is nothing to look at but perhaps the current message.
    pub(super) fn is_settled(&self) -> bool {
        self.buffer.len() == self.current && !self.again
    }

    /// Bytes held, the current message's included.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether a `ReadyForQuery` is among the whole messages from the current one on, and the status that it tells.
    pub(super) fn foresee_ready(&self) -> Result<Option<u8>, Violation> {
        let mut rest = &self.buffer[..];
        while let Some((tag, total)) = header(rest)? {
            match (tag, rest.get(HEADER..total)) {
                (_, None) => break,
                (b'Z', Some(body)) => return Ok(body.first().copied()),
                _ => rest = &rest[total..],
            }
        }
        Ok(None)
    }

    /// Takes everything out, to be put back by [`Inbox::put_back`].
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Puts `earlier` before what has come since.
    pub(super) fn put_back(&mut self, mut earlier: Self) {
        self.buffer.advance(std::mem::take(&mut self.current));
        earlier.buffer.unsplit(std::mem::take(&mut self.buffer));
        *self = earlier;
    }

    /// Reads what there is into the buffer, at most a chunk. 0 means end of file.
    pub(super) fn poll_fill<R>(&mut self, from: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
    {
        let chunk = if self.streaming { CHUNK_STREAMING } else { CHUNK };
        if self.buffer.capacity() - self.buffer.len() < chunk / 2 {
            self.buffer.reserve(chunk);
        }
        let space = (self.buffer.capacity() - self.buffer.len()).min(CHUNK_STREAMING);
        let mut from = from.take(space as u64);
        let poll = pin!(from.read_buf(&mut self.buffer)).poll(cx);
        if let Poll::Ready(Ok(read)) = poll {
            self.streaming = read == space;
            self.grown |= self.buffer.len() > CHUNK;
        }
        poll
    }

    /// Reads what has come already, by `read`, which does not wait.
    ///
    /// # Errors
    /// The stream has ended or broke, or more came than a server says unasked.
    pub(super) fn absorb(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        let most = self.buffer.len() + MOST_UNASKED;
        while self.buffer.len() < most {
            match read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the server does not stop talking"))
    }

    /// Gives memory back that a large answer took. For a connection that goes idle.
    pub(super) fn relax(&mut self) {
        self.streaming = false;
        if self.is_settled() && std::mem::take(&mut self.grown) {
            self.buffer = BytesMut::new();
            self.current = 0;
        }
    }

    fn skim(&mut self) {
        let now = self.skip.min(self.buffer.len());
        self.buffer.advance(now);
        self.skip -= now;
    }
}

/// The type and the whole length of the message that `bytes` begins with.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, Violation> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=i32::MAX as usize).contains(&length) {
        return Err(Violation("a message's length makes no sense"));
    }
    Ok(Some((tag, length + 1)))
}

// === rows ===

impl Row for Inbox {
    fn cells(&self, each: &mut dyn FnMut(Cell<'_>)) {
        for cell in Cells::of(self.body()).1 {
            each(cell.map_or(Cell::Null, Cell::Text));
        }
    }
}

impl Inbox {
    /// Whether the current message is a row of `columns` cells that fill it exactly.
    pub(super) fn is_row_of(&self, columns: usize) -> bool {
        let (count, mut cells) = Cells::of(self.body());
        self.body().len() >= 2 && count == columns && cells.by_ref().count() == columns && cells.rest.is_empty()
    }
}

/// The cells of a row; ends early where the row is malformed.
struct Cells<'a> {
    rest: &'a [u8],
}

impl<'a> Cells<'a> {
    fn of(body: &'a [u8]) -> (usize, Self) {
        match body.split_first_chunk::<2>() {
            Some((count, rest)) => (u16::from_be_bytes(*count).into(), Self { rest }),
            None => (0, Self { rest: &[] }),
        }
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Some(None);
        };
        let (cell, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Some(cell))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    fn feed(inbox: &mut Inbox, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            let poll = inbox.poll_fill(&mut left, &mut Context::from_waker(Waker::noop()));
            assert!(matches!(poll, Poll::Ready(Ok(_))));
        }
    }

    #[test]
    fn a_long_row_is_passed_over_without_holding_it() {
        let mut inbox = Inbox::default();
        let row = message(b'D', &vec![7; 100_000]);
        feed(&mut inbox, &row[..20]);
        assert_eq!(inbox.next(1000), Ok(Next::LongRow));
        for chunk in row[20..].chunks(4096) {
            assert_eq!(inbox.next(1000), Ok(Next::Incomplete));
            feed(&mut inbox, chunk);
            assert!(inbox.len() <= 4096);
        }
        feed(&mut inbox, &message(b'Z', b"I"));
        assert_eq!(inbox.next(1000), Ok(Next::Message(b'Z')));
        assert_eq!(inbox.body(), b"I");
    }

    #[test]
    fn rows_are_checked_to_the_byte() {
        let cell = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat();
        let good = [&[0, 2][..], &cell(b"ab"), &[255; 4]].concat();
        for (body, columns, expected) in [
            (good.clone(), 2, true),
            (good.clone(), 1, false),
            ([good.as_slice(), b"x"].concat(), 2, false),
            (good[..good.len() - 1].to_vec(), 2, false),
            (vec![0], 0, false),
        ] {
            let mut inbox = Inbox::default();
            feed(&mut inbox, &message(b'D', &body));
            inbox.next(usize::MAX).unwrap();
            assert_eq!(inbox.is_row_of(columns), expected, "{body:?}");
        }
    }

    #[test]
    fn a_server_that_does_not_stop_talking_is_not_listened_to_for_ever() {
        let mut inbox = Inbox::default();
        let mut given = 0;
        let outcome = inbox.absorb(|chunk| {
            given += chunk.len();
            assert!(given < 4 * MOST_UNASKED);
            Ok(chunk.len())
        });
        assert!(outcome.is_err() && inbox.len() <= MOST_UNASKED + CHUNK);
        let mut few = [3, 0].into_iter();
        assert!(inbox.absorb(|_| few.next().filter(|read| *read > 0).ok_or(io::ErrorKind::WouldBlock.into())).is_ok());
        assert!(inbox.absorb(|_| Ok(0)).is_err(), "it has gone");
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20), cut in 1..64_usize,
        ) {
            let all: Vec<u8> = bodies.iter().flat_map(|body| message(b'T', body)).collect();
            let mut inbox = Inbox::default();
            let mut seen = Vec::new();
            for chunk in all.chunks(cut) {
                feed(&mut inbox, chunk);
                while let Next::Message(b'T') = inbox.next(usize::MAX).unwrap() {
                    inbox.again();
                    prop_assert_eq!(inbox.next(usize::MAX), Ok(Next::Message(b'T')));
                    seen.push(inbox.body().to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), columns in 0..5_usize) {
            let mut inbox = Inbox::default();
            feed(&mut inbox, &noise);
            let _ = inbox.foresee_ready();
            while let Ok(Next::Message(_)) = inbox.next(1000) {
                if inbox.is_row_of(columns) {
                    let mut count = 0;
                    inbox.cells(&mut |_| count += 1);
                    prop_assert_eq!(count, columns);
                }
            }
        }
    }
}
