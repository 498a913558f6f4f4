//! A connection while a request uses it.

use std::sync::Arc;

use tokio::time::{Duration, Instant, timeout};

use super::{Upstream, connection::Connection};
use crate::observe;

/// How long a connection may take to be ready after the end of an answer: as a rule none, a little if the request is still
/// being sent when the answer is over.
const SETTLE: Duration = Duration::from_secs(1);

/// A connection in use. Dropped before the exchange is over, it cuts the connection.
pub(super) struct Lease {
    pub(super) connection: Connection,
    upstream: Arc<Upstream>,
}

impl Lease {
    pub(super) fn new(connection: Connection, upstream: &Arc<Upstream>) -> Self {
        Self { connection, upstream: upstream.clone() }
    }

    /// The exchange ended well: the connection may serve another as soon as it is ready.
    pub(super) fn finish(self) {
        let Self { mut connection, upstream } = self;
        if connection.sender.is_ready() {
            upstream.give_back(connection);
        } else if connection.sender.is_closed() {
            connection.end(Instant::now());
        } else if let Some(runtime) = observe::lasting_runtime() {
            runtime.spawn(settle(connection, upstream));
        }
    }
}

/// Waits until the connection is ready, and gives it back; or until it is closed.
async fn settle(mut connection: Connection, upstream: Arc<Upstream>) {
    match timeout(SETTLE, connection.sender.ready()).await {
        Ok(Ok(())) => upstream.give_back(connection),
        Ok(Err(_)) => connection.end(Instant::now()),
        // Cut, by being dropped.
        Err(_) => {}
    }
}

impl Upstream {
    /// Hands a connection to the first in the queue, else lays it on its home's stack.
    pub(super) fn give_back(&self, mut connection: Connection) {
        connection.end(Instant::now());
        if self.gate.waiting() > 0 {
            let Some(unwanted) = self.gate.offer(connection) else { return };
            connection = unwanted;
        }
        self.idle.push(connection);
        self.serve_queue();
    }

    /// Hands idle connections to those in the queue. Called by whoever joins it, and by whoever lays down a connection while
    /// somebody waits: one of the two sees the other.
    pub(super) fn serve_queue(&self) {
        while self.gate.waiting() > 0 {
            let Some(connection) = self.idle.pop_any(|_| true) else { return };
            if let Some(unwanted) = self.gate.offer(connection) {
                self.idle.push(unwanted);
            }
        }
    }
}
