//! A read's way: to one replica, and if that cannot serve it, to the next, or to the primary.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{Place, Replica, Replicas, rotation::Standing};
use crate::{
    backend::{BackendError, Isolation, Kin, Limits, Work, start_postgres},
    pool::{CheckoutErrorKind, Holder},
};

/// A read, and where it has been.
pub(in crate::backend) struct Read {
    set: Arc<Replicas>,
    holder: Holder,
    limits: Limits,
    /// Replicas that it need not be tried on again, as bits.
    tried: u64,
    /// The replica that it runs on.
    on: Option<Arc<Replica>>,
}

/// Where else a read may go that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    /// Nowhere: it would fail there too, or the load would only be moved.
    No,
    /// To another replica: this one takes no more, and the primary is not for what replicas cannot bear.
    Replica,
    /// To another replica, or to the primary.
    Anywhere,
}

/// Whether a replica may do the work. A hot standby has no serializable transactions (PostgreSQL, "Hot Standby Limitations").
pub(in crate::backend) fn suits(work: &Work) -> bool {
    let serializable = matches!(work, Work::Batch(batch) if batch.isolation == Some(Isolation::Serializable));
    work.is_read_only() && !serializable
}

impl Read {
    pub(in crate::backend) fn new(set: &Arc<Replicas>, holder: Holder, limits: Limits) -> Self {
        Self { set: set.clone(), holder, limits, tried: 0, on: None }
    }

    /// Takes a connection where there is one, and sends `work`. Each server is tried once. What was not sent costs no retry: it
    /// is no more work for anybody.
    pub(in crate::backend) async fn start(&mut self, work: &Arc<Work>, deadline: Instant) -> Result<Kin, BackendError> {
        let mut failed = None;
        loop {
            let replica = match self.set.choose(self.tried) {
                Place::Replica(index) => {
                    self.tried |= 1 << index;
                    self.set.members[index].clone()
                }
                Place::Primary if failed.as_ref().is_none_or(|error| elsewhere(error) == Elsewhere::Anywhere) => {
                    self.set.shared.fallbacks.fetch_add(1, Ordering::Relaxed);
                    self.on = None;
                    return start_postgres(&self.set.primary, work, deadline, self.holder.clone(), self.limits).await;
                }
                Place::Primary | Place::Nowhere => {
                    let refused = failed.filter(|error| elsewhere(error) == Elsewhere::Replica);
                    return Err(refused.unwrap_or_else(|| BackendError::NoReplica(self.set.primary.name().clone())));
                }
            };
            let outcome = tokio::select! {
                biased;
                outcome = start_postgres(&replica.pool, work, deadline, self.holder.clone(), self.limits) => Some(outcome),
                () = replica.until(Standing::is_out) => None,
            };
            match outcome {
                Some(Ok(kin)) => {
                    replica.reads.fetch_add(1, Ordering::Relaxed);
                    self.on = Some(replica);
                    return Ok(kin);
                }
                Some(Err(error)) if elsewhere(&error) != Elsewhere::No => {
                    tracing::debug!(pool = %replica.pool.name(), %error, "a read goes elsewhere");
                    failed = Some(error);
                }
                Some(Err(error)) => return Err(error),
                // Whoever waited for a connection of a replica that has just been put out need not wait it out.
                None => failed = None,
            }
        }
    }

    /// Begins anew elsewhere after `error`, if nothing was given out yet: a read that was lost with its server may be done again.
    /// Within the retry budget of the pool that lost it, since this is more work. None: it stays with the error.
    pub(in crate::backend) async fn again(
        &mut self,
        work: &Arc<Work>,
        deadline: Instant,
        error: &BackendError,
    ) -> Option<Result<Kin, BackendError>> {
        if elsewhere(error) != Elsewhere::Anywhere {
            return None;
        }
        let pool = self.on.take()?.pool.clone();
        if !pool.may_retry() {
            return None;
        }
        tracing::info!(pool = %pool.name(), %error, "a read was lost, trying another server");
        let outcome = self.start(work, deadline).await;
        pool.retried(outcome.is_ok());
        Some(outcome)
    }
}

/// Waits until the replica that `read` runs on is thought to be gone, and may never answer; for ever, if it runs on none.
/// Cancel safe.
pub(in crate::backend) async fn gone(read: Option<&Read>) -> BackendError {
    match read.and_then(|read| read.on.as_ref()) {
        Some(replica) => replica.until(Standing::is_gone).await,
        None => std::future::pending().await,
    }
    let reason = "the replica does not answer any more".to_owned();
    BackendError::Lost { sent: true, outcome_unknown: false, reason }
}

fn elsewhere(error: &BackendError) -> Elsewhere {
    match error {
        BackendError::Lost { .. } => Elsewhere::Anywhere,
        BackendError::Checkout(error) => match error.kind() {
            CheckoutErrorKind::Creating { .. }
            | CheckoutErrorKind::BreakerOpen { .. }
            | CheckoutErrorKind::Paused
            | CheckoutErrorKind::Retired => Elsewhere::Anywhere,
            CheckoutErrorKind::QueueFull | CheckoutErrorKind::TooManyClients => Elsewhere::Replica,
            CheckoutErrorKind::Saturated | CheckoutErrorKind::Slow | CheckoutErrorKind::Leaked { .. } => Elsewhere::No,
        },
        BackendError::Database(said) => match said.sqlstate.as_deref() {
            // The server stops; or a conflict, which a read that is not serializable has with recovery alone.
            Some("57P01" | "57P02" | "57P03" | "40001") => Elsewhere::Anywhere,
            _ => Elsewhere::No,
        },
        _ => Elsewhere::No,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::{Batch, DatabaseError, Statement};

    fn said(sqlstate: &str) -> BackendError {
        BackendError::Database(Box::new(DatabaseError { sqlstate: Some(sqlstate.into()), ..DatabaseError::default() }))
    }

    #[test]
    fn what_a_server_cannot_help_goes_elsewhere_and_what_a_statement_did_does_not() {
        for sent in [true, false] {
            let lost = BackendError::Lost { sent, outcome_unknown: false, reason: String::new() };
            assert_eq!(elsewhere(&lost), Elsewhere::Anywhere);
        }
        for sqlstate in ["57P01", "57P02", "57P03", "40001"] {
            assert_eq!(elsewhere(&said(sqlstate)), Elsewhere::Anywhere, "{sqlstate}");
        }
        for error in
            [said("25006"), said("42601"), said("57014"), BackendError::Timeout, BackendError::TooLarge { limit: 1 }]
        {
            assert_eq!(elsewhere(&error), Elsewhere::No, "{error}");
        }
    }

    #[test]
    fn only_reads_that_a_standby_can_do_go_there() {
        let statement = || Statement { sql: "select 1".into(), params: vec![json!(1).into()] };
        let batch = |isolation, read_only| {
            Work::Batch(Batch { statements: vec![statement()], isolation, read_only, ..Batch::default() })
        };
        assert!(suits(&Work::Read(statement())) && suits(&batch(None, true)));
        assert!(suits(&batch(Some(Isolation::RepeatableRead), true)));
        assert!(!suits(&batch(Some(Isolation::Serializable), true)));
        assert!(!suits(&Work::Single(statement())) && !suits(&batch(None, false)));
        assert!(suits(&Work::Single(statement()).read_only()) && suits(&batch(None, false).read_only()));
    }
}
