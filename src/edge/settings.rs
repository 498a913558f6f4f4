//! A listener's configuration, made ready for its connections.

use std::{sync::Arc, time::Duration};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::{deadline::Deadlines, pace::Pace, streams::Streams, watch::Watch};
use crate::{
    config::model::{Http2, Listener},
    net::ServerTls,
};

/// Most header fields that hyper parses on the stack; a higher limit makes it allocate for each request.
const STACK_HEADERS: usize = 100;

/// Least buffer for one HTTP/1 connection, and what bodies are read and written by. hyper's own default is 408 KiB.
const BUFFER: usize = 64 * 1024;

/// What a listener does with its connections. Swapped whole; a connection keeps what it began with.
#[derive(Debug)]
pub struct Settings {
    /// The listener's name.
    pub name: Arc<str>,
    /// TLS; none for plain HTTP.
    pub tls: Option<Arc<ServerTls>>,
    pub(super) handshake_timeout: Duration,
    pub(super) max_headers: usize,
    pub(super) http1: http1::Builder,
    http2: Http2,
    max_header_bytes: usize,
    header: Duration,
    idle: Duration,
    progress: Duration,
    max_age: Duration,
    min_body_rate: u64,
}

impl Settings {
    /// Reads a listener's configuration. `tls` is the caller's, who keeps it over reloads; it should be there if and only if
    /// the configuration has certificates.
    pub fn new(name: &str, listener: &Listener, tls: Option<Arc<ServerTls>>) -> Self {
        Self {
            name: name.into(),
            tls,
            handshake_timeout: listener.handshake_timeout.0,
            max_headers: listener.max_headers,
            http1: http1(listener),
            http2: listener.http2.clone(),
            max_header_bytes: listener.max_header_bytes.as_usize(),
            header: listener.header_timeout.0,
            idle: listener.idle_timeout.0,
            progress: listener.progress_timeout.0,
            max_age: listener.max_age.0,
            min_body_rate: listener.min_body_rate.0,
        }
    }

    /// The deadlines of one connection, whose age is spread by 10 % either way, lest all that came together leave together.
    pub(super) fn deadlines(&self, ready_at: u64) -> Deadlines {
        let age = self.max_age.mul_f64(rand::random_range(0.9..1.1));
        Deadlines {
            first: ready_at.saturating_add(millis(self.header)),
            header: millis(self.header),
            idle: millis(self.idle),
            progress: millis(self.progress),
            age: millis(age),
        }
    }

    pub(super) fn header_timeout(&self) -> Duration {
        self.header
    }

    /// HTTP/2 for the connection that `watch` observes.
    pub(super) fn http2(&self, watch: &Arc<Watch>) -> http2::Builder<Streams> {
        http2(&self.http2, self.max_header_bytes, Streams::new(watch, self.progress))
    }

    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.progress, self.min_body_rate)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn http1(listener: &Listener) -> http1::Builder {
    let head = listener.max_header_bytes.as_usize();
    let mut builder = http1::Builder::new();
    // Deadlines are ours (`deadline`); hyper's header timer would also cut idle connections.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.half_close(false).max_header_size(head).max_buf_size(head.max(BUFFER));
    if listener.max_headers > STACK_HEADERS {
        builder.max_headers(listener.max_headers);
    }
    builder
}

fn http2(settings: &Http2, header_bytes: usize, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    let window = |size: u64| u32::try_from(size).unwrap_or(u32::MAX).min(i32::MAX as u32);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(settings.max_streams)
        .initial_stream_window_size(window(settings.stream_window.0))
        .initial_connection_window_size(window(settings.connection_window.0))
        .max_send_buf_size(settings.send_buffer.as_usize().min(u32::MAX as usize))
        .keep_alive_interval(settings.ping_interval.0)
        .keep_alive_timeout(settings.ping_timeout.0)
        .max_pending_accept_reset_streams(settings.max_pending_resets)
        .max_local_error_reset_streams(settings.max_local_resets);
    builder
}
