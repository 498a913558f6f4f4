//! Making a connection clean after its use.

use std::sync::Arc;

use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{
    backend::{Backend, Connection, Hygiene, Probe},
    tally::Cause,
    vet::InHand,
};

/// Steps after which a connection that is never clean is given up: stop, roll back, reset, and once more.
const MOST_STEPS: u32 = 6;

/// What was done, for the counters.
#[derive(Debug, Default)]
struct Done {
    rollbacks: u64,
    resets: u64,
    recoveries: u64,
    proved: bool,
}

/// Cleans a connection and gives it back, or closes it. `wanted`: what the validation policy asked for beyond that.
pub(super) async fn mend<B: Backend>(mut in_hand: InHand<B>, wanted: Option<Probe>) {
    let pool = Arc::clone(&in_hand.pool);
    let limit = pool.settings.load().mend_timeout();
    let backend = pool.backend.load_full();
    let begun = Instant::now();
    let mut done = Done::default();
    // What was left on a worker that has stopped is cleaned elsewhere.
    let outcome = match in_hand.held().come_home() {
        Ok(_) => timeout(limit, clean(&*backend, &mut in_hand.held().conn, wanted, &mut done)).await,
        Err(error) => Ok(Err(error.to_string())),
    };
    let mut held = in_hand.let_go();
    let error = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(format!("not clean within {} ms", limit.as_millis())),
    };
    let now = Instant::now();
    if done.proved && error.is_none() {
        held.record.validated = now;
        held.record.last_error = None;
    }
    if let Some(error) = &error {
        debug!(pool = %pool.name, connection = held.record.id, %error, "connection cannot be made clean");
    }
    let used = pool.change(|state, now, todo| {
        state.counters.rollbacks += done.rollbacks;
        state.counters.resets += done.resets;
        state.counters.recoveries += done.recoveries;
        if done.proved {
            state.proved_good(now, now.saturating_duration_since(begun));
        }
        match error {
            None => state.core.give_back(now, held, todo),
            Some(_) => state.core.discard(now, held, Cause::Unclean, todo),
        }
    });
    pool.say_if_held_long(used, now);
}

/// Does what the connection's state calls for until it is clean.
async fn clean<B: Backend>(
    backend: &B,
    conn: &mut B::Conn,
    wanted: Option<Probe>,
    done: &mut Done,
) -> Result<(), String> {
    let mut wanted = wanted;
    for _ in 0..MOST_STEPS {
        let failed = match conn.hygiene() {
            Hygiene::Clean => match wanted.take() {
                None => return Ok(()),
                Some(probe) => {
                    let outcome = backend.probe(conn, probe).await;
                    done.proved = outcome.is_ok();
                    outcome
                }
            },
            Hygiene::Broken => return Err("broken".into()),
            Hygiene::Busy => {
                done.recoveries += 1;
                backend.recover(conn).await
            }
            Hygiene::Transaction => {
                done.rollbacks += 1;
                backend.probe(conn, Probe::Rollback).await
            }
            Hygiene::Session => {
                done.resets += 1;
                backend.probe(conn, Probe::ResetSession).await
            }
        };
        failed.map_err(|error| error.to_string())?;
    }
    Err(format!("still not clean after {MOST_STEPS} steps"))
}
