//! One JSON object a request.
//!
//! A worker formats lines into a buffer of its own and hands it on when it is full or a quarter of a second old; a thread of
//! the log's own writes. The way between is bounded: when the disk is slower than the traffic, whole buffers are dropped and
//! their lines counted ([`AccessLog::dropped`]).
//!
//! When a write fails (the disk is full, say), the rest of the buffer is lost, and all of its lines are counted as dropped,
//! though some may have been written. The next buffer is tried afresh. A line that was cut short stays in the log as it is,
//! and whatever is written after it begins on a line of its own: a reader has one broken record to skip, and no whole one is
//! lost to it.

mod file;
mod line;
mod sink;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use file::LogFile;
use line::Clock;
pub use line::Line;
use sink::{Sink, Stream};

/// Bytes after which a worker hands its lines on.
const FULL: usize = 32 << 10;

/// Buffers on their way to the disk; 64 of 32 KiB bound the memory at 2 MiB.
const IN_FLIGHT: usize = 64;

/// Between two looks at a writer that is to end.
const PAUSE: Duration = Duration::from_millis(5);

/// Where lines go.
pub struct AccessLog {
    to_writer: Option<SyncSender<Message>>,
    dropped: Arc<AtomicU64>,
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
    clock: Clock,
}

enum Message {
    Lines { bytes: Vec<u8>, lines: u64 },
    Stop,
}

impl AccessLog {
    /// Opens `off`, `stdout`, or a file to append to, which may be renamed later: a new one then takes its name.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(to: &str) -> io::Result<Writer> {
        let dropped = Arc::<AtomicU64>::default();
        let sink: Box<dyn Sink> = match to {
            "off" => return Ok(Writer { log: Arc::new(Self { to_writer: None, dropped }), thread: None }),
            "stdout" => Box::new(Stream::new(io::stdout())),
            path => Box::new(LogFile::open(Path::new(path))?),
        };
        let (to_writer, handed) = sync_channel(IN_FLIGHT);
        let lost = dropped.clone();
        let thread =
            std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&handed, sink, &lost))?;
        Ok(Writer { log: Arc::new(Self { to_writer: Some(to_writer), dropped }), thread: Some(thread) })
    }

    /// Lines lost because the writer could not keep up, or could not write; of a buffer that failed half way, all.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A buffer for a worker.
    pub fn lines(self: &Arc<Self>) -> Lines {
        Lines {
            log: self.clone(),
            buffer: Mutex::new(Buffer { bytes: Vec::with_capacity(FULL + 4096), lines: 0, clock: Clock::default() }),
        }
    }
}

impl Writer {
    /// The log.
    pub fn log(&self) -> &Arc<AccessLog> {
        &self.log
    }

    /// Writes what was handed on, and ends the thread, if that can be done `within`: a reader that has stopped reading must not
    /// keep the gateway from its end. Returns whether it was. Blocks.
    pub fn finish(mut self, within: Duration) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        let end = Instant::now() + within;
        let stop = |to: &SyncSender<Message>| !matches!(to.try_send(Message::Stop), Err(TrySendError::Full(_)));
        let mut told = self.log.to_writer.as_ref().is_none_or(stop);
        while !(told && thread.is_finished()) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(PAUSE);
            told = told || self.log.to_writer.as_ref().is_none_or(stop);
        }
        thread.join().is_ok()
    }
}

impl Lines {
    /// Whether lines go anywhere.
    pub fn enabled(&self) -> bool {
        self.log.to_writer.is_some()
    }

    /// Adds a line, whose members `fill` adds.
    pub fn add(&self, fill: impl FnOnce(&mut Line<'_>)) {
        let mut guard = self.buffer.lock();
        let buffer = &mut *guard;
        fill(&mut Line::begin(&mut buffer.bytes, &mut buffer.clock));
        buffer.lines += 1;
        if buffer.bytes.len() >= FULL {
            self.hand_on(buffer);
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
            && to_writer.try_send(Message::Lines { bytes, lines }).is_err()
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

fn write_all(handed: &Receiver<Message>, mut sink: Box<dyn Sink>, dropped: &AtomicU64) {
    while let Ok(Message::Lines { bytes, lines }) = handed.recv() {
        if let Err(error) = sink.write_lines(&bytes) {
            dropped.fetch_add(lines, Ordering::Relaxed);
            tracing::warn!(%error, lines, "cannot write the access log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let writer = AccessLog::open(path.to_str().unwrap()).unwrap();
        let lines = writer.log().lines();
        for n in 0..3_000 {
            lines.add(|line| line.number("n", n));
        }
        drop(lines);
        assert!(writer.finish(Duration::from_secs(20)));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 3_000);
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted() {
        let writer = AccessLog::open("/dev/full").unwrap();
        let (log, lines) = (writer.log().clone(), writer.log().lines());
        for n in 0..3 {
            lines.add(|line| line.number("n", n));
        }
        drop(lines);
        assert!(writer.finish(Duration::from_secs(20)));
        assert_eq!(log.dropped(), 3);
    }

    #[test]
    fn a_reader_that_has_stopped_reading_does_not_hold_up_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let writer = AccessLog::open(path.to_str().unwrap()).unwrap();
        let lines = writer.log().lines();
        let text = "x".repeat(FULL);
        // More than a pipe and the channel hold.
        while writer.log().dropped() == 0 {
            lines.add(|line| line.text("text", &text));
        }
        assert!(!writer.finish(Duration::from_millis(50)));
    }
}
