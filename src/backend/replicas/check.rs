//! Looking at the primary and its replicas, each interval, through their pools' own connections.
//!
//! Waiting for a connection and waiting for the answer have a deadline each: a check that comes late to a full pool has not met a
//! slow server. A check is a caller like any other, called `replica-check` where holders are named, and takes its turn. Where its
//! turn does not come because nothing comes back, it knocks at the server's door: slow work is no reason to put a replica out,
//! and a frozen server would else be hidden behind the callers that it keeps.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Replica, Replicas, rotation::Seen};
use crate::{
    backend::{
        BackendError, Cell, Event, Limits, Statement, Work,
        postgres::{Postgres, PostgresConnection, Running},
    },
    pool::{CheckoutError, CheckoutErrorKind, FailureClass, Holder, Pool, UseError},
};

/// Longest wait for a connection, and then for the answer on it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Null from a server that takes no writes: it is not the primary, whatever its pool thinks.
const PRIMARY: &str =
    "select case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint end";

const REPLICA: &str = "select pg_is_in_recovery()::int, pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    #[error("no answer in time")]
    Late,
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Looks at the set for as long as anybody has it.
pub(super) async fn watch(set: Weak<Replicas>) {
    let Some(every) = set.upgrade().map(|set| set.settings.check_interval.0) else { return };
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(set) = set.upgrade() else { return };
        tokio::join!(set.look_at_primary(), join_all(set.members.iter().map(|member| set.look_at(member))));
    }
}

impl Replicas {
    async fn look_at_primary(&self) {
        let most = self.settings.max_lag.0;
        if most.is_zero() {
            return;
        }
        match ask::<1>(&self.primary, PRIMARY).await {
            Ok([Some(lsn)]) => self.shared.history.lock().saw(Instant::now(), lsn, most * 2),
            Ok([None]) => tracing::debug!(pool = %self.primary.name(), "the primary's pool is not on a primary"),
            Err(error) => tracing::debug!(pool = %self.primary.name(), %error, "the primary's position is not known"),
        }
    }

    async fn look_at(&self, replica: &Replica) {
        let answer = ask::<2>(&replica.pool, REPLICA).await;
        let seen = match &answer {
            Ok([Some(0), _]) => Seen::Promoted,
            Ok([_, None]) => Seen::Unplaced,
            Ok([_, Some(lsn)]) => Seen::Standby { lag: self.shared.history.lock().lag(Instant::now(), *lsn) },
            Err(error) => match seen_of(error, replica.pool.outlook().is_full()) {
                Told::Seen(seen) => seen,
                Told::Nothing => knock(&replica.pool).await,
            },
        };
        replica.take_note(
            self.primary.name(),
            seen,
            self.settings.max_lag.0,
            answer.err().map(|error| error.to_string()),
        );
    }
}

/// What a failed check tells.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Seen(Seen),
    /// All connections are held, and none came back meanwhile: by slow work, or by a server that has gone.
    Nothing,
}

/// What a failed check says of the server. Where the pool was not `full`, what it waited for was a connection being made.
fn seen_of(failure: &Failure, full: bool) -> Told {
    Told::Seen(match failure {
        Failure::Late | Failure::Backend(_) => Seen::Silent,
        Failure::Checkout(error) => match error.kind() {
            CheckoutErrorKind::Creating { class: FailureClass::ServerFull, .. }
            | CheckoutErrorKind::BreakerOpen { reason: FailureClass::ServerFull, .. } => Seen::Busy,
            CheckoutErrorKind::Creating { .. } | CheckoutErrorKind::BreakerOpen { .. } => Seen::Unreachable,
            CheckoutErrorKind::Slow | CheckoutErrorKind::Leaked { .. } if full => return Told::Nothing,
            CheckoutErrorKind::Slow | CheckoutErrorKind::Leaked { .. } => Seen::Silent,
            _ => Seen::Busy,
        },
    })
}

/// Whether the server of a full pool answers at all.
async fn knock(pool: &Pool<Postgres>) -> Seen {
    match pool.backend().knock(Instant::now() + PATIENCE).await {
        Ok(()) => Seen::Busy,
        Err(error) => {
            tracing::debug!(pool = %pool.name(), %error, "the server of a full pool does not answer");
            Seen::Silent
        }
    }
}

/// The first row of an answer, of numbers.
async fn ask<const N: usize>(pool: &Arc<Pool<Postgres>>, sql: &str) -> Result<[Option<u64>; N], Failure> {
    let holder = Holder { route: "replica-check".into(), ..Holder::default() };
    let mut lease = pool.checkout(Instant::now() + PATIENCE, holder).await?;
    let work = Arc::new(Work::Single(Statement { sql: sql.to_owned(), params: Vec::new() }));
    match timeout(PATIENCE, converse(&mut lease, work)).await {
        Ok(Ok(cells)) => Ok(cells),
        Ok(Err(error)) => {
            if matches!(error, BackendError::Lost { .. }) {
                lease.failed_with(UseError::Io);
            }
            Err(error.into())
        }
        Err(_) => {
            lease.failed_with(UseError::Timeout);
            Err(Failure::Late)
        }
    }
}

async fn converse<const N: usize>(
    conn: &mut PostgresConnection,
    work: Arc<Work>,
) -> Result<[Option<u64>; N], BackendError> {
    let mut running = Running::begin(conn, work, Limits { row: 1 << 10, ..Limits::default() }).await?;
    let mut cells = [None; N];
    loop {
        let step = running.next(conn).await?;
        match running.event(conn, step) {
            None => return Ok(cells),
            Some(Event::Row(row)) => {
                let mut places = cells.iter_mut();
                row.cells(&mut |cell| {
                    if let (Some(place), Cell::Text(text)) = (places.next(), cell) {
                        *place = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                    }
                });
            }
            Some(_) => {}
        }
    }
}
