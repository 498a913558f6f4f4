//! The log's format and filter.

mod relay;

use std::{
    io::{self, IsTerminal},
    sync::{Arc, OnceLock},
};

use tracing_subscriber::EnvFilter;

use crate::config::model::{Log, LogFormat};
use relay::Relay;

/// The process's log, once it is set up.
static RELAY: OnceLock<Arc<Relay>> = OnceLock::new();

/// The log while it is in use; dropping it gets the last words out, if that takes no longer than a second.
#[must_use = "what is dropped at once flushes nothing"]
pub struct LastWords(Arc<Relay>);

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.filter` does not parse.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody set up a log before.
    #[error("a log is already set up")]
    Twice,
    /// No thread can be had to write it.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Sets up the process-wide log on standard error. A thread of its own writes it: no other waits when nobody reads.
///
/// # Errors
/// The filter does not parse, there is no thread, or a log is already set up.
pub fn init(log: &Log) -> Result<LastWords, LogError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let relay = Relay::start(io::stderr())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(relay.clone());
    let done = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.compact().with_ansi(io::stderr().is_terminal()).try_init()
    };
    done.map_err(|_| LogError::Twice)?;
    let _ = RELAY.set(relay.clone());
    Ok(LastWords(relay))
}

/// Lines lost because nobody read standard error as fast as they came.
pub fn dropped_log_lines() -> u64 {
    RELAY.get().map_or(0, |relay| relay.dropped())
}

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.flush();
    }
}
