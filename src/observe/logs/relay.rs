//! Between the threads that log and standard error: when nobody reads the other end of that pipe, lines are lost, and no
//! thread waits.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Lines on their way; of some hundred bytes each, they are less than a mebibyte.
const IN_FLIGHT: usize = 1024;
/// How long the last words may take. Where nobody reads, the end must not wait for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes lines, and has a thread of its own write them.
pub(super) struct Relay {
    to_writer: SyncSender<Message>,
    dropped: AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    /// All before this is to be written, and then this to be told.
    Flush(SyncSender<()>),
}

impl Relay {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let (to_writer, messages) = sync_channel(IN_FLIGHT);
        thread::Builder::new().name("log".into()).spawn(move || write_all(&messages, out))?;
        Ok(Arc::new(Self { to_writer, dropped: AtomicU64::new(0) }))
    }

    /// Lines lost because they were not written as fast as they came.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was taken is written, or [`PATIENCE`] is at its end.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(unsent)) = self.to_writer.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = unsent;
            thread::sleep(Duration::from_millis(5));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// `tracing-subscriber` formats a line and writes it in one piece: each write is a line.
impl Write for &Relay {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to_writer.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(messages: &Receiver<Message>, mut out: impl Write) {
    while let Ok(message) = messages.recv() {
        // When it fails there is nobody left to tell.
        match message {
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use parking_lot::Mutex;

    use super::*;

    /// Says when somebody begins to write, and lets them do it when told.
    struct Pipe {
        begun: Sender<()>,
        go_on: Receiver<()>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Pipe {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            // An end that is gone holds nobody up.
            let _ = self.go_on.recv();
            self.written.lock().push_str(std::str::from_utf8(line).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_stops_no_thread_and_what_is_lost_is_counted() {
        let ((begun, stalled), (open, go_on)) = (channel(), channel());
        let written = Arc::new(Mutex::new(String::new()));
        let relay = Relay::start(Pipe { begun, go_on, written: written.clone() }).unwrap();
        let log = |line: &str| (&*relay).write_all(line.as_bytes()).unwrap();
        log("0\n");
        stalled.recv().unwrap();
        for n in 1..=IN_FLIGHT + 7 {
            log(&format!("{n}\n"));
        }
        assert_eq!(relay.dropped(), 7);
        drop(open);
        relay.flush();
        assert_eq!(written.lock().lines().last(), Some(IN_FLIGHT.to_string().as_str()));
    }

    #[test]
    fn an_event_is_one_line_and_the_last_words_get_out() {
        let ((begun, _stalled), (open, go_on)) = (channel(), channel());
        drop(open);
        let written = Arc::new(Mutex::new(String::new()));
        let relay = Relay::start(Pipe { begun, go_on, written: written.clone() }).unwrap();
        let log = tracing_subscriber::fmt().json().with_writer(relay.clone()).finish();
        tracing::subscriber::with_default(log, || tracing::info!(n = 1, "cannot start"));
        relay.flush();
        let text = written.lock().clone();
        assert!(text.contains("cannot start") && text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    }
}
