//! A connection for a request: kept, fresh, or waited for.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::{Instant, timeout_at};

use super::{
    Upstream,
    connection::{Connection, Permit},
    dial::Dial,
    endpoint::choose,
    failure::Failure,
    gate::{Entry, Grant},
    idle::Parked,
    upstream::Live,
};
use crate::{net::Stream, observe};

/// The time for connecting, over all endpoints, is this many times `connect_timeout`: refusals are quick, so that every
/// endpoint has its turn; of endpoints that do not answer at all, three are enough to make a client wait for.
const CONNECT_ROUNDS: u32 = 3;

/// What a request begins with.
pub(super) enum Line {
    /// A connection that has served before.
    Kept(Connection),
    /// The right to open one to this endpoint.
    Fresh(Permit, usize),
}

/// The endpoints that one request has tried to connect to.
#[derive(Default)]
pub(super) struct Tried(Vec<usize>);

impl Upstream {
    /// This worker's newest connection to the endpoint whose turn it is; else that endpoint.
    pub(super) fn checkout_kept(&self, now: Instant, tried: &Tried) -> Result<Connection, usize> {
        let (endpoint, kept) = self.take_turn(now, tried, self.gate.waiting() == 0);
        kept.ok_or(endpoint)
    }

    /// A connection, or the right to open one to `endpoint`, where this worker has none.
    pub(super) async fn checkout(&self, endpoint: usize, now: Instant, live: &Live) -> Result<Line, Failure> {
        if let Some(permit) = self.gate.try_permit() {
            return Ok(Line::Fresh(permit, endpoint));
        }
        if self.gate.waiting() == 0 {
            if let Some(kept) = self.idle.pop_to(endpoint) {
                return Ok(self.kept(kept));
            }
            if let Some(permit) = self.rebalance(endpoint).await {
                return Ok(Line::Fresh(permit, endpoint));
            }
            if let Some(kept) = self.idle.pop_any(|_| true) {
                return Ok(self.kept(kept));
            }
        }
        match self.queue(now, live).await? {
            Grant::Connection(kept) => Ok(self.kept(kept)),
            Grant::Permit(permit) => Ok(Line::Fresh(permit, endpoint)),
        }
    }

    /// Whose turn it is.
    pub(super) fn next_endpoint(&self, now: Instant) -> usize {
        self.take_turn(now, &Tried::default(), false).0
    }

    /// Where to go after a failed connect: a kept connection, where that will do, else the next endpoint.
    pub(super) fn next_line(&self, now: Instant, permit: Permit, tried: &Tried, kept_will_do: bool) -> Line {
        let (endpoint, kept) = self.take_turn(now, tried, kept_will_do);
        match kept {
            Some(kept) => Line::Kept(kept),
            None => Line::Fresh(permit, endpoint),
        }
    }

    /// A permit for a connection that must be fresh. An idle connection is closed for it if need be.
    pub(super) async fn checkout_permit(&self, now: Instant, live: &Live) -> Result<Permit, Failure> {
        loop {
            if let Some(permit) = self.gate.try_permit() {
                return Ok(permit);
            }
            let idle = if self.gate.waiting() == 0 { self.idle.pop_any(|_| true) } else { None };
            let connection = match idle {
                Some(connection) => connection,
                None => match self.queue(now, live).await? {
                    Grant::Permit(permit) => return Ok(permit),
                    Grant::Connection(connection) => connection,
                },
            };
            if let Some(permit) = connection.into_permit().await {
                return Ok(permit);
            }
        }
    }

    /// Waits in the queue until `queue_timeout` after `now`.
    async fn queue(&self, now: Instant, live: &Live) -> Result<Grant<Connection>, Failure> {
        let mut waiting = match self.gate.enter() {
            Entry::Permit(permit) => return Ok(Grant::Permit(permit)),
            Entry::Full => return Err(Failure::QueueFull),
            Entry::Wait(waiting) => waiting,
        };
        // One may have been laid down since we looked.
        self.serve_queue();
        timeout_at(now + live.queue_timeout, waiting.granted()).await.map_err(|_| Failure::QueueTimeout)
    }

    fn kept(&self, connection: Connection) -> Line {
        self.count_request(connection.endpoint());
        Line::Kept(connection)
    }

    /// Whose turn it is, and, if wanted, this worker's newest connection to it.
    fn take_turn(&self, now: Instant, tried: &Tried, kept_will_do: bool) -> (usize, Option<Connection>) {
        let mut stack = self.idle.of(observe::worker());
        let count = self.endpoints.len();
        let failed = |index: usize| self.endpoints[index].is_failed(now);
        let chosen = choose(stack.turn, count, failed, |index| tried.0.contains(&index)).unwrap_or(stack.turn);
        stack.turn = (chosen + 1) % count;
        let kept = if kept_will_do { stack.pop(chosen) } else { None };
        if kept.is_some() {
            stack.requests[chosen] += 1;
        }
        (chosen, kept)
    }

    /// At the cap, closes an idle connection to an endpoint that has at least two more than `endpoint`: otherwise one that
    /// was down would never get its share back. Each such step makes the shares more even, so that they come to an end.
    async fn rebalance(&self, endpoint: usize) -> Option<Permit> {
        let open = |index: usize| self.endpoints[index].open.load(Ordering::Relaxed);
        let few = open(endpoint) + 2;
        let surplus = self.idle.pop_any(|index| open(index) >= few)?;
        surplus.into_permit().await
    }

    /// Opens a connection for `permit`, which comes back if that fails. A failure is noted against the endpoint.
    pub(super) async fn connect(
        &self,
        permit: Permit,
        endpoint: usize,
        deadline: Instant,
        live: &Live,
        tried: &mut Tried,
    ) -> Result<(Stream, Permit), (Failure, Permit)> {
        let place = &self.endpoints[endpoint];
        let until = deadline.min(Instant::now() + live.connect_timeout);
        match Dial::new(place, self.tls.as_ref(), until, permit).await {
            (Ok(stream), permit) => {
                place.recover();
                Ok((stream, permit))
            }
            (Err(error), permit) => {
                tried.0.push(endpoint);
                let failure = Failure::Connect(error);
                self.blame(endpoint, &failure, live);
                Err((failure, permit))
            }
        }
    }

    /// Whether another endpoint is left to be tried.
    pub(super) fn has_untried(&self, tried: &Tried) -> bool {
        tried.0.len() < self.endpoints.len()
    }

    /// Notes a failure against an endpoint; says so when it is news.
    pub(super) fn blame(&self, endpoint: usize, failure: &Failure, live: &Live) {
        let place = &self.endpoints[endpoint];
        if place.fail(Instant::now(), live.fail_timeout) {
            let (upstream, endpoint) = (self.name(), &place.name);
            tracing::warn!(%upstream, %endpoint, reason = failure.reason(), error = %failure, "endpoint failed");
        }
    }

    /// When connecting ends that begins now.
    pub(super) fn connect_deadline(live: &Live) -> Instant {
        Instant::now() + live.connect_timeout * CONNECT_ROUNDS
    }

    /// Counts a request sent to an endpoint.
    pub(super) fn count_request(&self, endpoint: usize) {
        if let Some(requests) = self.idle.of(observe::worker()).requests.get_mut(endpoint) {
            *requests += 1;
        }
    }

    /// The name of an endpoint.
    pub(super) fn endpoint_name(&self, endpoint: usize) -> Arc<str> {
        self.endpoints[endpoint].name.clone()
    }
}
