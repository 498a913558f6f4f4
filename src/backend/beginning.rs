//! Beginning on a connection, and on another where the first turns out to be dead.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{
    BackendError, Until,
    postgres::{Postgres, PostgresConnection},
};
use crate::pool::{Holder, Lease, Pool, UseError};

/// Connections found dead before anything was done that one caller may meet: when a server ends all its sessions at once, each
/// idle connection dies a moment later than the last.
const DEAD_CONNECTIONS: u32 = 4;

/// What is begun on a connection, as often as it takes. (No `AsyncFn`: of its futures nobody could say that they are `Send`.)
pub(super) trait Beginning {
    /// What has begun.
    type Begun;

    /// Begins it. That the connection was dead and nothing was done is [`BackendError::Lost`] with `sent: false`.
    fn on(&self, conn: &mut PostgresConnection) -> impl Future<Output = Result<Self::Begun, BackendError>> + Send;
}

/// Takes a connection of `pool` and begins on it; where it is dead, on another, a few times and as far as the pool's budget for
/// retries goes.
///
/// # Errors
/// No connection was to be had, the deadline or the connection's time passed, or it could not be begun.
pub(super) async fn begin<B: Beginning>(
    pool: &Arc<Pool<Postgres>>,
    beginning: &B,
    deadline: Instant,
    holder: Holder,
) -> Result<(Lease<Postgres>, B::Begun), BackendError> {
    let mut retries = 0;
    let checkout_ends = pool.checkout_ends(deadline);
    let outcome = loop {
        let mut lease = match pool.checkout(checkout_ends, holder.clone()).await {
            Ok(lease) => lease,
            Err(error) => break Err(error.into()),
        };
        let until = Until::of(&lease, deadline);
        let begun = timeout_at(until.at, beginning.on(&mut lease)).await;
        match begun.unwrap_or(Err(until.passed())) {
            Ok(begun) => break Ok((lease, begun)),
            Err(error) => {
                if matches!(error, BackendError::Held) {
                    lease.overheld();
                }
                let unsent = matches!(error, BackendError::Lost { sent: false, .. });
                if unsent {
                    lease.failed_with(UseError::Io);
                }
                if !unsent || retries == DEAD_CONNECTIONS || !pool.may_retry() {
                    break Err(error);
                }
                retries += 1;
                tracing::info!(pool = %pool.name(), error = %error, "connection was dead, trying another");
            }
        }
    };
    if retries > 0 {
        pool.retried(outcome.is_ok());
    }
    outcome
}
