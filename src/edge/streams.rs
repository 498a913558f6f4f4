//! HTTP/2 streams: a task each, and a bound on how long an answer waits for its client.
//!
//! An answer that the client does not take holds what it is made from: a connection to an upstream, or to a database. Another
//! stream that moves must not shield it. So each stream keeps its own time, with a timer that is made when it first stalls;
//! those that never do, which are nearly all, cost a look at one byte.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    counters::EdgeCounters,
    watch::{Said, Watch},
};

/// Spawns the streams of one connection on the current thread.
#[derive(Clone, Debug)]
pub(super) struct Streams(Rc<Rules>);

#[derive(Debug)]
struct Rules {
    watch: Arc<Watch>,
    /// How long an answer may wait for its client.
    patience: Duration,
}

/// A stream's task. Ended before the stream is over, it resets the stream, and drops the answer's body.
struct Stream<F> {
    work: Pin<Box<F>>,
    rules: Rc<Rules>,
    /// Since when the client is the one to act.
    stalled: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Streams ===

impl Streams {
    pub(super) fn new(watch: &Arc<Watch>, patience: Duration) -> Self {
        Self(Rc::new(Rules { watch: watch.clone(), patience }))
    }
}

impl<F: Future + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        // Into a box at once: an async block would hold a large future twice, and copy it when it is first polled.
        let work = Box::pin(future);
        tokio::task::spawn_local(Stream { work, rules: self.0.clone(), stalled: None, timer: None });
    }
}

// === impl Stream ===

impl<F> Stream<F> {
    /// Ready when the client has let its answer wait for too long. The timer may fire early; it is set forward only then.
    ///
    /// Where all streams of a connection stall, the connection's own deadline goes first, and this one is a quarter later.
    fn poll_patience(&mut self, since: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.rules.patience;
        let due = since + patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            let until = if self.rules.watch.all_wait() { due + patience / 4 } else { due };
            if now >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(if now >= due { until } else { due });
        }
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.rules.watch.hush();
        if self.work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match self.rules.watch.said() {
            Said::Nothing => {}
            Said::Asked => self.stalled = None,
            Said::Offered => self.stalled = Some(self.rules.watch.waiting_since()),
        }
        let Some(since) = self.stalled else { return Poll::Pending };
        ready!(self.poll_patience(since, cx));
        EdgeCounters::bump(&self.rules.watch.counters.timeout_window);
        tracing::debug!("stream reset: its client did not take the answer");
        Poll::Ready(())
    }
}
