//! The end of a gateway: drain, then stop. Every wait is bounded.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{listeners::Command, pools, shared::Shared};

/// How long workers may take to stop: they drop what is open, which is quick unless one is stuck.
pub(super) const STOP: Duration = Duration::from_secs(5);

/// How long tunnels may take to hang up, once they are told to.
const HANG_UP: Duration = Duration::from_millis(250);

/// How often to look whether the workers have stopped.
const LOOK: Duration = Duration::from_millis(5);

/// Readiness falls; after the delay listeners close, connections finish within the deadline. `cut` cuts it short.
pub(super) async fn drain(shared: &Shared, cut: impl Future<Output = ()>) {
    let server = shared.generation().config().server.clone();
    shared.draining.store(true, Ordering::Relaxed);
    let (open, tunnels) = (shared.edge.snapshot().active, shared.tunnels.open());
    let (delay, deadline) = (server.drain_delay, server.drain_deadline);
    tracing::info!(%delay, %deadline, open, tunnels, "draining; another signal closes what is open");
    let finished = async {
        sleep(server.drain_delay.0).await;
        for drain in shared.listeners.drain_all() {
            drain.finished().await;
        }
    };
    tokio::select! {
        () = finished => tracing::info!("drained"),
        () = sleep(server.drain_delay.0 + server.drain_deadline.0) => {
            tracing::warn!("drain deadline passed, closing what is still open");
        }
        () = cut => tracing::warn!("second signal, closing what is still open"),
    }
    // A tunnel holds its drain for as long as its two sides please: those that are left are ended in good order.
    shared.tunnels.close_all();
    let _ = timeout(HANG_UP, shared.tunnels.drained()).await;
}

/// Stops the workers, waits for them for `within`, and closes the pools.
pub(super) async fn end(
    shared: &Arc<Shared>,
    workers: Vec<mpsc::Sender<Command>>,
    threads: Vec<JoinHandle<()>>,
    within: Duration,
) {
    let stopped = async {
        for worker in &workers {
            let _ = worker.send(Command::Stop).await;
        }
        while !threads.iter().all(JoinHandle::is_finished) {
            sleep(LOOK).await;
        }
    };
    if timeout(within, stopped).await.is_err() {
        tracing::error!("a worker does not stop, ending without it");
    }
    let of = threads.len();
    let workers = threads.iter().filter(|thread| thread.is_finished()).count();
    pools::close_all(shared).await;
    tracing::info!(workers, of, "stopped");
}
