//! The accept loop.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustix::io::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{ConnectionLimits, Drain, EdgeCounters, Handler, Hold, Permit, Refused, Settings, connection};

/// Pauses after the system ran out of something.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Most connections taken from the queue after a drain has started; more than any queue holds, so that a flood of new ones
/// cannot keep the socket open.
const LAST_ACCEPTS: usize = 65_536;

/// All that an accept loop needs. Every field but the handler may be shared with other loops.
#[derive(Clone, Debug)]
pub struct Service<H> {
    /// What is done with connections; swapped for those to come.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Answers requests.
    pub handler: H,
    /// How many connections there may be.
    pub limits: Arc<ConnectionLimits>,
    /// What happened.
    pub counters: Arc<EdgeCounters>,
    /// When to stop.
    pub drain: Drain,
}

/// An accepted connection.
pub(super) struct Arrival {
    pub(super) tcp: TcpStream,
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) permit: Permit,
    pub(super) hold: Hold,
}

/// Accepts until the service's drain starts, then takes what waits in the queue and closes the socket. Connections are tasks of
/// the current runtime, which must be a local one, and outlive this future; [`Drain::finished`] waits for them.
///
/// Dropping the future closes the socket at once and resets what waits in its queue.
pub async fn serve<H: Handler>(listener: TcpListener, service: Service<H>) {
    let _hold = service.drain.hold();
    let service = Rc::new(service);
    let local = listener.local_addr().ok();
    let mut drained = pin!(service.drain.started());
    let mut pause = Pause::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drained => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, client)) => {
                pause = Pause::default();
                admit(tcp, client, local, &service);
            }
            Err(error) => {
                let Some(length) = pause.after(&error) else { continue };
                EdgeCounters::bump(&service.counters.accept_pauses);
                tokio::select! {
                    () = &mut drained => break,
                    () = sleep(length) => {}
                }
            }
        }
    }
    accept_the_rest(listener, local, &service);
}

fn admit<H: Handler>(tcp: TcpStream, client: SocketAddr, local: Option<SocketAddr>, service: &Rc<Service<H>>) {
    let counters = &service.counters;
    EdgeCounters::bump(&counters.accepted);
    let permit = match service.limits.admit(client.ip()) {
        Ok(permit) => permit,
        Err(refused) => {
            EdgeCounters::bump(match refused {
                Refused::Total => &counters.refused_total,
                Refused::Address => &counters.refused_address,
            });
            tracing::debug!(%client, ?refused, "connection refused");
            return;
        }
    };
    let bound = local.filter(|local| !local.ip().is_unspecified());
    let Some(local) = bound.or_else(|| tcp.local_addr().ok()) else { return };
    counters.active.fetch_add(1, Relaxed);
    let arrival = Arrival { tcp, client, local, permit, hold: service.drain.hold() };
    tokio::task::spawn_local(connection::serve(arrival, service.clone()));
}

/// Empties the queue before the socket is closed: what waits in it would be reset.
fn accept_the_rest<H: Handler>(listener: TcpListener, local: Option<SocketAddr>, service: &Rc<Service<H>>) {
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..LAST_ACCEPTS {
        let taken = listener.accept().and_then(|(tcp, client)| {
            tcp.set_nonblocking(true)?;
            Ok((TcpStream::from_std(tcp)?, client))
        });
        match taken {
            Ok((tcp, client)) => admit(tcp, client, local, service),
            Err(error) if is_passing(&error) => {}
            Err(_) => return,
        }
    }
}

// === errors ===

/// How long to pause after errors in a row.
#[derive(Debug, Default)]
struct Pause {
    last: Option<Duration>,
}

impl Pause {
    /// None when the error concerns one connection only, and the next may be accepted at once.
    fn after(&mut self, error: &io::Error) -> Option<Duration> {
        if is_passing(error) {
            return None;
        }
        if self.last.is_none() {
            tracing::warn!(%error, "cannot accept connections, pausing");
        }
        let length = self.last.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        self.last = Some(length);
        Some(length)
    }
}

/// Errors of the connection that was about to be accepted (accept(2), "Error handling").
fn is_passing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
                | Errno::TIMEDOUT
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_only_where_waiting_helps() {
        let mut pause = Pause::default();
        let full = io::Error::from(Errno::MFILE);
        let lengths: Vec<_> = (0..9).map(|_| pause.after(&full).unwrap().as_millis()).collect();
        assert_eq!(lengths, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
        assert_eq!(pause.after(&Errno::CONNABORTED.into()), None);
        assert_eq!(Pause::default().after(&Errno::NFILE.into()), Some(FIRST_PAUSE));
    }
}
