//! One JSON object a request.
//!
//! A worker formats lines into a buffer of its own and hands it on when it is full or a quarter of a second old; a thread of
//! the log's own writes. The way between is bounded: when the disk is slower than the traffic, whole buffers are dropped and
//! their lines counted ([`AccessLog::dropped`]).

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;

/// Bytes after which a worker hands its lines on.
const FULL: usize = 32 << 10;

/// Buffers on their way to the disk; 64 of 32 KiB bound the memory at 2 MiB.
const IN_FLIGHT: usize = 64;

/// Where lines go.
pub struct AccessLog {
    to_writer: Option<SyncSender<Message>>,
    dropped: AtomicU64,
}

/// The writing thread; join it after the last worker has gone.
pub struct Writer {
    log: Arc<AccessLog>,
    thread: Option<JoinHandle<()>>,
}

/// A worker's buffer.
pub struct Lines {
    log: Arc<AccessLog>,
    buffer: Mutex<Buffer>,
}

struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

enum Message {
    Lines(Vec<u8>),
    Stop,
}

impl AccessLog {
    /// Opens `off`, `stdout`, or a file to append to.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(to: &str) -> io::Result<Writer> {
        let out: Box<dyn Write + Send> = match to {
            "off" => {
                let log = Arc::new(Self { to_writer: None, dropped: AtomicU64::new(0) });
                return Ok(Writer { log, thread: None });
            }
            "stdout" => Box::new(io::stdout()),
            path => Box::new(OpenOptions::new().create(true).append(true).open(Path::new(path))?),
        };
        let (to_writer, lines) = sync_channel(IN_FLIGHT);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&lines, out))?;
        let log = Arc::new(Self { to_writer: Some(to_writer), dropped: AtomicU64::new(0) });
        Ok(Writer { log, thread: Some(thread) })
    }

    /// Lines lost because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A buffer for a worker.
    pub fn lines(self: &Arc<Self>) -> Lines {
        Lines { log: self.clone(), buffer: Mutex::new(Buffer { bytes: Vec::with_capacity(FULL + 4096), lines: 0 }) }
    }
}

impl Writer {
    /// The log.
    pub fn log(&self) -> &Arc<AccessLog> {
        &self.log
    }

    /// Writes what was handed on, and ends the thread.
    pub fn finish(mut self) {
        if let Some(to_writer) = &self.log.to_writer {
            let _ = to_writer.send(Message::Stop);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Lines {
    /// Whether lines go anywhere.
    pub fn enabled(&self) -> bool {
        self.log.to_writer.is_some()
    }

    /// Adds a line, which `format` writes without its line end.
    pub fn add(&self, format: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.buffer.lock();
        format(&mut buffer.bytes);
        buffer.bytes.push(b'\n');
        buffer.lines += 1;
        if buffer.bytes.len() >= FULL {
            self.hand_on(&mut buffer);
        }
    }

    /// Hands on what there is; call it a few times a second.
    pub fn flush(&self) {
        let mut buffer = self.buffer.lock();
        if buffer.lines > 0 {
            self.hand_on(&mut buffer);
        }
    }

    fn hand_on(&self, buffer: &mut Buffer) {
        let bytes = std::mem::replace(&mut buffer.bytes, Vec::with_capacity(FULL + 4096));
        let lines = std::mem::take(&mut buffer.lines);
        if let Some(to_writer) = &self.log.to_writer
            && to_writer.try_send(Message::Lines(bytes)).is_err()
        {
            self.log.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

fn write_all(lines: &Receiver<Message>, mut out: Box<dyn Write + Send>) {
    while let Ok(Message::Lines(bytes)) = lines.recv() {
        if let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
            tracing::warn!(%error, "cannot write the access log");
        }
    }
}

/// Appends `text` as the inside of a JSON string. Control characters and the Unicode controls that reorder text on a
/// terminal are escaped: these bytes come from strangers.
pub fn escape_into(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            ' '..='~' => out.push(c as u8),
            '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\0'..='\x1f'
            | '\x7f'..='\u{9f}' => {
                let mut digits = [0; 4];
                super::trace::hex(&mut digits, &(c as u16).to_be_bytes());
                out.extend_from_slice(b"\\u");
                out.extend_from_slice(&digits);
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_reach_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let writer = AccessLog::open(path.to_str().unwrap()).unwrap();
        let lines = writer.log().lines();
        for n in 0..3_000 {
            lines.add(|out| write!(out, "{{\"n\":{n}}}").unwrap());
        }
        drop(lines);
        writer.finish();
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 3_000);
    }

    #[test]
    fn a_terminal_is_not_fooled() {
        let mut out = Vec::new();
        escape_into(&mut out, "a\u{202e}b\x1b[31m\u{85}é");
        assert_eq!(String::from_utf8(out).unwrap(), "a\\u202eb\\u001b[31m\\u0085é");
    }

    proptest! {
        #[test]
        fn any_text_is_valid_json(text: String) {
            let mut out = vec![b'"'];
            escape_into(&mut out, &text);
            out.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
