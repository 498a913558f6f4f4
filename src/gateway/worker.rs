//! A worker: one thread, one single-threaded runtime, its own listening sockets, and every request that comes in by them.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    handler::Walk,
    listeners::{Command, Open, Socket},
    shared::Shared,
};
use crate::{edge, observe};

/// How old a line of the access log may grow in a worker's buffer.
const FLUSH: Duration = Duration::from_millis(250);

/// Starts worker `index`; it ends at [`Command::Stop`].
pub(super) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
) -> std::io::Result<JoinHandle<()>> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        observe::set_worker(index);
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error))),
        };
        shared.count_tasks_of(runtime.handle().clone());
        drop(tell.send(Ok(())));
        runtime.block_on(work(shared, commands));
        // What is still open is dropped with the runtime: the drain's deadline has passed. What it leaves behind, such as a
        // statement to be cancelled, is finished on the background.
        observe::leave_worker();
        runtime.shutdown_background();
    })?;
    told.recv().map_err(std::io::Error::other)??;
    Ok(thread)
}

async fn work(shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let lines = Arc::new(shared.access_log.lines());
    let mut flush = interval(FLUSH);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Serve(Socket { tcp, open })) => {
                    let listening = open.listening().clone();
                    let walk = Walk { shared: shared.clone(), lines: lines.clone(), listening };
                    tokio::task::spawn_local(accept(walk, tcp, open));
                }
                Some(Command::Stop) | None => break,
            },
            _ = flush.tick() => lines.flush(),
        }
    }
    lines.flush();
}

/// Accepts until the listener drains; `open` is let go of when the socket has been closed.
async fn accept(walk: Walk, socket: std::net::TcpListener, open: Open) {
    let (shared, listening) = (walk.shared.clone(), walk.listening.clone());
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => edge::serve(socket, listening.service(&shared, walk)).await,
        Err(error) => tracing::error!(listener = %listening.name, %error, "a worker cannot listen"),
    }
    drop(open);
}
