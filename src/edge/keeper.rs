//! Polls a connection and keeps its deadlines.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    EdgeCounters,
    deadline::{CLOSING_PROGRESS, Cause, Deadlines, Ending, NEVER, due},
    drain::Drain,
    watch::Watch,
};

/// Answers that a client of HTTP/2 may give up, above half as many as it took, before its connection is asked to end; at twice
/// as many it is cut. Each costs it two small frames, and us a request to an upstream, or a query. A page that is left gives up
/// what it had asked for, some dozens.
const ABANDONED: u32 = 100;

/// The deadlines of one connection, kept.
pub(super) struct Keeper<'a> {
    watch: &'a Watch,
    deadlines: Deadlines,
    drain: &'a Drain,
    ending: Ending,
    /// When the timer fires, in the watch's time.
    armed: u64,
    /// What the socket had taken when the ending connection last made progress.
    mark: u64,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// By itself.
    Ended(hyper::Result<()>),
    /// We cut it.
    Cut(Cause),
}

enum Step {
    Wait,
    Again,
    AskToEnd,
    Cut(Cause),
}

impl<'a> Keeper<'a> {
    pub(super) fn new(watch: &'a Watch, deadlines: Deadlines, drain: &'a Drain) -> Self {
        Self { watch, deadlines, drain, ending: Ending::No, armed: NEVER, mark: 0 }
    }

    /// Polls `connection` until it ends or has to be cut. `ask` begins its graceful end.
    ///
    /// The timer and the drain are polled when they are new to this task, which leaves its waker with them; after that they
    /// are only looked at, which takes no lock that workers share.
    pub(super) async fn keep<C>(mut self, mut connection: Pin<&mut C>, ask: impl Fn(Pin<&mut C>)) -> Outcome
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut drained = pin!(self.drain.started());
        let (first, _) = due(&self.watch.view(), &self.deadlines, self.ending);
        self.armed = first.min(self.next_look(self.watch.now()));
        let mut timer = pin!(sleep_until(self.instant(self.armed)));
        let mut fresh = true;
        std::future::poll_fn(|cx| {
            if std::mem::take(&mut fresh) {
                let _ = drained.as_mut().poll(cx);
                let _ = timer.as_mut().poll(cx);
            }
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Outcome::Ended(result));
                }
                match self.step(timer.as_mut(), cx) {
                    Step::Wait => return Poll::Pending,
                    Step::Again => {}
                    Step::AskToEnd => ask(connection.as_mut()),
                    Step::Cut(cause) => return Poll::Ready(Outcome::Cut(cause)),
                }
            }
        })
        .await
    }

    fn step(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Step {
        let view = self.watch.view();
        if self.ending == Ending::No && self.drain.is_started() {
            self.ending = Ending::Waiting { since: self.watch.now() };
        }
        let head_is_coming = !view.served || view.head_since != NEVER;
        if matches!(self.ending, Ending::Waiting { .. }) && (view.open > 0 || !head_is_coming) {
            return self.ask();
        }
        if self.watch.is_http2()
            && let Some(step) = self.abandoned()
        {
            return step;
        }
        let (at, cause) = due(&view, &self.deadlines, self.ending);
        let elapsed = timer.is_elapsed();
        if !elapsed && at >= self.armed {
            return Step::Wait;
        }
        let now = self.watch.now();
        if elapsed && now >= at {
            return self.act(cause, now);
        }
        self.armed = at.min(self.next_look(now));
        timer.as_mut().reset(self.instant(self.armed));
        match timer.poll(cx) {
            Poll::Ready(()) => Step::Again,
            Poll::Pending => Step::Wait,
        }
    }

    /// What the answers that the client gave up ask for.
    fn abandoned(&mut self) -> Option<Step> {
        let excess = self.watch.excess();
        if excess > 2 * ABANDONED {
            return Some(Step::Cut(Cause::Closing));
        }
        let asked = matches!(self.ending, Ending::Asked { .. });
        (excess > ABANDONED && !asked).then(|| {
            EdgeCounters::bump(&self.watch.counters.abandoned);
            self.ask()
        })
    }

    fn act(&mut self, cause: Cause, now: u64) -> Step {
        match cause {
            Cause::Idle => {
                EdgeCounters::bump(&self.watch.counters.timeout_idle);
                self.ask()
            }
            Cause::Age => {
                EdgeCounters::bump(&self.watch.counters.timeout_age);
                self.deadlines.age = NEVER;
                self.ending = Ending::Waiting { since: now };
                Step::Again
            }
            Cause::Drained => self.ask(),
            Cause::Closing if self.watch.written().saturating_sub(self.mark) >= CLOSING_PROGRESS => {
                self.ask_again(now);
                Step::Again
            }
            Cause::Look => Step::Again,
            Cause::FirstRequest | Cause::Header | Cause::Write | Cause::Window | Cause::Closing => Step::Cut(cause),
        }
    }

    fn ask(&mut self) -> Step {
        self.ask_again(self.watch.now());
        Step::AskToEnd
    }

    fn ask_again(&mut self, now: u64) {
        self.ending = Ending::Asked { since: now };
        self.mark = self.watch.written();
    }

    /// When to look again, whatever is due: HTTP/2 streams stall and end on tasks of their own, without a poll of the
    /// connection. At most one such deadline away, so that none is noticed late.
    fn next_look(&self, now: u64) -> u64 {
        now.saturating_add(self.deadlines.idle.min(self.deadlines.progress).max(1))
    }

    /// A point in the watch's time; far away for never.
    fn instant(&self, at: u64) -> Instant {
        const FAR: u64 = 365 * 86_400_000;
        self.watch.base() + Duration::from_millis(at.min(FAR))
    }
}
