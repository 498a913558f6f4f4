//! How many connections the server grants to all its clients: it says so, if it is asked.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{connection::PostgresConnection, failure::PostgresFailure, inbox::Next};
use crate::backend::work::{Cell, Row};

/// The figure changes only when the server restarts; but the next connection may be to another server.
const BELIEVED_FOR: Duration = Duration::from_mins(1);

/// What ordinary roles may use.
const QUERY: &str = "SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4 \
    - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4 \
    - coalesce(nullif(pg_catalog.current_setting('reserved_connections', true), '')::pg_catalog.int4, 0)";

/// What the server said last, and when.
#[derive(Default)]
pub(super) struct Grants(Mutex<Option<(Instant, Option<u32>)>>);

impl Grants {
    pub(super) fn are_old(&self) -> bool {
        self.0.lock().is_none_or(|(asked, _)| asked.elapsed() >= BELIEVED_FOR)
    }

    pub(super) fn note(&self, grants: Option<u32>) {
        *self.0.lock() = Some((Instant::now(), grants));
    }

    pub(super) fn known(&self) -> Option<u32> {
        self.0.lock().and_then(|(_, grants)| grants)
    }
}

impl PostgresConnection {
    /// Asks the server. One that does not know these settings only speaks PostgreSQL's protocol: nothing is known of it. Not
    /// cancel safe.
    pub(super) async fn show_grants(&mut self) -> Result<Option<u32>, PostgresFailure> {
        self.query(QUERY)?;
        let mut grants = None;
        loop {
            match self.message(usize::MAX)? {
                Next::Message(b'D') => {
                    self.inbox.cells(&mut |cell| {
                        if let Cell::Text(text) = cell {
                            grants = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                        }
                    });
                }
                Next::Message(b'Z') => return Ok(grants),
                Next::Incomplete => self.exchange().await?,
                _ => {}
            }
        }
    }
}
