//! Where lines end up, and what becomes of a line that could be written only in part.

use std::io::{self, ErrorKind, Write};

/// Takes buffers of whole lines.
pub(super) trait Sink: Send {
    /// Writes a buffer. Where that fails, some of its lines may have been written, and one of them in part; what is written
    /// next begins on a line of its own.
    ///
    /// # Errors
    /// The device is full, the reader has gone, and the like.
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// Something to write to, begun on a fresh line.
pub(super) struct Stream<W> {
    out: W,
    /// The last byte written was not the end of a line.
    torn: bool,
}

impl<W: Write> Stream<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, torn: false }
    }

    pub(super) fn get_ref(&self) -> &W {
        &self.out
    }

    /// As [`Write::write_all`], which does not say how far it came.
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = bytes[written - 1] != b'\n';
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write + Send> Sink for Stream<W> {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.push(b"\n")?;
        }
        self.push(lines)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is on a disk that was full after `room` bytes, and has room again.
    fn written_after(room: usize) -> String {
        let mut stream = Stream::new(Disk { written: Vec::new(), room });
        for lines in [b"one\ntwo\n", b"six\nten\n"] {
            assert_eq!(stream.write_lines(lines).unwrap_err().kind(), ErrorKind::StorageFull);
        }
        stream.out.room = usize::MAX;
        stream.write_lines(b"last\n").unwrap();
        String::from_utf8(stream.out.written).unwrap()
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        assert_eq!(written_after(6), "one\ntw\nlast\n");
        assert_eq!(written_after(7), "one\ntwo\nlast\n");
    }

    #[test]
    fn a_failure_between_two_lines_leaves_no_empty_one() {
        assert_eq!(written_after(0), "last\n");
        assert_eq!(written_after(4), "one\nlast\n");
    }
}
