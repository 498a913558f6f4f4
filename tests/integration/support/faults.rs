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
    /// Those of connections that are open now are held; what is opened later passes.
    FreezeOpen,
    /// Those of connections that are opened from now on are held; what is open passes.
    FreezeNew,
    /// What the server says is held, of all connections; what it hears is not.
    Mute,
    /// What the server says passes at so many bytes a second: a narrow line, not a long one.
    Trickle(usize),
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
    counters: Arc<Counters>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    ended: AtomicU64,
    server_bytes: AtomicU64,
}

/// One direction of a connection.
#[derive(Clone, Copy)]
struct Line {
    /// Of the connection, in the order of their coming; from 1.
    number: u64,
    /// From the server to the client.
    down: bool,
}

/// What connections are told.
#[derive(Clone, Copy)]
struct Orders {
    fault: Fault,
    /// A connection of an earlier one than the last is reset: a number, as a moment of it could be missed.
    epoch: u64,
    /// Connections up to this number were open when the fault began.
    open: u64,
}

impl Orders {
    fn holds(self, line: Line) -> bool {
        match self.fault {
            Fault::Freeze => true,
            Fault::FreezeOpen => line.number <= self.open,
            Fault::FreezeNew => line.number > self.open,
            Fault::Mute => line.down,
            _ => false,
        }
    }
}

/// A piece of what one side said, and when the other may hear it. An empty one is the end.
type Piece = (Instant, Vec<u8>);

impl FaultProxy {
    /// Passes connections on to `port` of 127.0.0.1.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, watch) = watch::channel(Orders { fault: Fault::Pass, epoch: 0, open: 0 });
        let counters = Arc::new(Counters::default());
        let counted = counters.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = counted.accepted.fetch_add(1, Ordering::Relaxed) + 1;
                let begun = *watch.borrow();
                let (watch, counted) = (watch.clone(), counted.clone());
                tokio::spawn(async move {
                    carry(client, port, number, begun, watch, &counted.server_bytes).await;
                    counted.ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, orders, counters, task }
    }

    /// Makes a fault from now on, for open connections too.
    pub fn set(&self, fault: Fault) {
        let fault = match fault {
            Fault::CutAfter(more) => Fault::CutAfter(self.counters.server_bytes.load(Ordering::Relaxed) + more),
            other => other,
        };
        self.orders.send_modify(|orders| {
            orders.fault = fault;
            orders.open = self.accepted();
            orders.epoch += u64::from(fault == Fault::Reset);
        });
    }

    /// Resets every connection that was accepted until now, whatever is set next; new ones are let be.
    pub fn cut_all(&self) {
        self.orders.send_modify(|orders| orders.epoch += 1);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        let ended = self.counters.ended.load(Ordering::Relaxed);
        self.accepted() - ended
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
    number: u64,
    begun: Orders,
    orders: watch::Receiver<Orders>,
    server_bytes: &AtomicU64,
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
        cut = both_ways(&mut client, &mut server, number, &orders, server_bytes) => cut,
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
    number: u64,
    orders: &watch::Receiver<Orders>,
    server_bytes: &AtomicU64,
) -> bool {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let uncounted = AtomicU64::new(0);
    let up = pump(client_read, server_write, Line { number, down: false }, orders, &uncounted);
    let down = pump(server_read, client_write, Line { number, down: true }, orders, server_bytes);
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
    line: Line,
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
        cut = deliver(under_way, to, line, orders.clone(), bytes) => cut,
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
    line: Line,
    mut orders: watch::Receiver<Orders>,
    bytes: &AtomicU64,
) -> bool {
    while let Some((due, piece)) = under_way.recv().await {
        // A timer that is due already would still cost a millisecond.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        until(&mut orders, |orders| !orders.holds(line)).await;
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
        let written = match fault {
            Fault::Trickle(rate) if line.down => trickle(&mut to, &piece, rate, &mut orders).await,
            _ => to.write_all(&piece).await,
        };
        if written.is_err() {
            return true;
        }
    }
    true
}

/// Twenty times a second a twentieth of the rate, until something else is ordered.
async fn trickle(
    to: &mut tcp::WriteHalf<'_>,
    piece: &[u8],
    rate: usize,
    orders: &mut watch::Receiver<Orders>,
) -> std::io::Result<()> {
    for drop in piece.chunks((rate / 20).max(1)) {
        let other = until(orders, |orders| orders.fault != Fault::Trickle(rate));
        let _ = tokio::time::timeout(Duration::from_millis(50), other).await;
        to.write_all(drop).await?;
    }
    Ok(())
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
