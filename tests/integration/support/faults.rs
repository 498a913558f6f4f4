//! A TCP proxy that makes faults on demand.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    time::Instant,
};

/// Pieces of at most [`PIECE`] bytes that are under way in one direction of a connection; what comes then stays with its sender.
const MOST_UNDER_WAY: usize = 64;
const PIECE: usize = 16 << 10;

/// What happens to bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// They are held: neither side hears of the other, and no connection ends.
    Freeze,
    /// They arrive so much later, in each direction: a long line, not a narrow one.
    Delay(Duration),
    /// Connections are reset, new ones too.
    Reset,
    /// Connections are reset when the server has sent so many more bytes.
    CutAfter(u64),
}

/// A running proxy.
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    orders: watch::Sender<Orders>,
    accepted: Arc<AtomicU64>,
    server_bytes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

/// What connections are told.
#[derive(Clone, Copy)]
struct Orders {
    fault: Fault,
    /// A connection of an earlier one than the last is reset: a number, as a moment of it could be missed.
    epoch: u64,
}

/// A piece of what one side said, and when the other may hear it. An empty one is the end.
type Piece = (Instant, Vec<u8>);

impl FaultProxy {
    /// Passes connections on to `port` of 127.0.0.1.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, watch) = watch::channel(Orders { fault: Fault::Pass, epoch: 0 });
        let (accepted, server_bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (accepted.clone(), server_bytes.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counters.0.fetch_add(1, Ordering::Relaxed);
                let begun = *watch.borrow();
                tokio::spawn(carry(client, port, begun, watch.clone(), counters.1.clone()));
            }
        });
        Self { address, orders, accepted, server_bytes, task }
    }

    /// Makes a fault from now on, for open connections too.
    pub fn set(&self, fault: Fault) {
        let fault = match fault {
            Fault::CutAfter(more) => Fault::CutAfter(self.server_bytes.load(Ordering::Relaxed) + more),
            other => other,
        };
        self.orders.send_modify(|orders| {
            orders.fault = fault;
            orders.epoch += u64::from(fault == Fault::Reset);
        });
    }

    /// Resets every connection that was accepted until now, whatever is set next; new ones are let be.
    pub fn cut_all(&self) {
        self.orders.send_modify(|orders| orders.epoch += 1);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fault {
    fn delay(self) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

async fn carry(
    mut client: TcpStream,
    port: u16,
    begun: Orders,
    orders: watch::Receiver<Orders>,
    server_bytes: Arc<AtomicU64>,
) {
    if begun.fault == Fault::Reset {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut epochs = orders.clone();
    let cut = tokio::select! {
        biased;
        cut = until(&mut epochs, |orders| orders.epoch != begun.epoch) => cut,
        cut = both_ways(&mut client, &mut server, &orders, &server_bytes) => cut,
    };
    if cut {
        reset(&client);
        reset(&server);
    }
}

/// Until the server has said its last, or nothing can be passed on any more. Returns whether it was cut.
async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    orders: &watch::Receiver<Orders>,
    server_bytes: &AtomicU64,
) -> bool {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let uncounted = AtomicU64::new(0);
    let up = pump(client_read, server_write, orders, &uncounted);
    let down = pump(server_read, client_write, orders, server_bytes);
    tokio::pin!(up, down);
    tokio::select! {
        cut = &mut up => if cut { true } else { down.await },
        cut = &mut down => cut,
    }
}

/// One direction. Returns whether it was cut.
async fn pump(
    from: tcp::ReadHalf<'_>,
    to: tcp::WriteHalf<'_>,
    orders: &watch::Receiver<Orders>,
    bytes: &AtomicU64,
) -> bool {
    let (pieces, under_way) = mpsc::channel(MOST_UNDER_WAY);
    let taking = async {
        take(from, pieces, orders).await;
        // What is under way arrives.
        std::future::pending::<bool>().await
    };
    tokio::select! {
        cut = taking => cut,
        cut = deliver(under_way, to, orders.clone(), bytes) => cut,
    }
}

async fn take(mut from: tcp::ReadHalf<'_>, pieces: mpsc::Sender<Piece>, orders: &watch::Receiver<Orders>) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count) = from.read(&mut buffer).await {
        let due = Instant::now() + orders.borrow().fault.delay();
        if pieces.send((due, buffer[..count].to_vec())).await.is_err() || count == 0 {
            return;
        }
    }
}

/// Returns whether it was cut.
async fn deliver(
    mut under_way: mpsc::Receiver<Piece>,
    mut to: tcp::WriteHalf<'_>,
    mut orders: watch::Receiver<Orders>,
    bytes: &AtomicU64,
) -> bool {
    while let Some((due, piece)) = under_way.recv().await {
        // A timer that is due already would still cost a millisecond.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        until(&mut orders, |orders| orders.fault != Fault::Freeze).await;
        let (fault, passed) = (orders.borrow().fault, bytes.load(Ordering::Relaxed));
        if let Fault::CutAfter(limit) = fault
            && passed + piece.len() as u64 > limit
        {
            let rest = limit.saturating_sub(passed) as usize;
            let _ = to.write_all(&piece[..rest]).await;
            return true;
        }
        if piece.is_empty() {
            let _ = to.shutdown().await;
            return false;
        }
        bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if to.write_all(&piece).await.is_err() {
            return true;
        }
    }
    true
}

/// Waits for orders; false when the proxy is gone.
async fn until(orders: &mut watch::Receiver<Orders>, is: impl Fn(Orders) -> bool) -> bool {
    orders.wait_for(|orders| is(*orders)).await.is_ok()
}

fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// An address that neither accepts nor refuses: a listener whose backlog is full.
pub struct BlackHole {
    /// Where connecting hangs.
    pub address: SocketAddr,
    _listener: std::net::TcpListener,
    _queued: Vec<socket2::Socket>,
}

impl BlackHole {
    /// Fills a backlog.
    pub fn open() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let listener: std::net::TcpListener = socket.into();
        let address = listener.local_addr().unwrap();
        let queued = (0..8)
            .map(|_| {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            })
            .collect();
        Self { address, _listener: listener, _queued: queued }
    }
}
