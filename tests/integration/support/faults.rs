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
    sync::watch,
};

/// What happens to bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// They are held: neither side hears of the other, and no connection ends.
    Freeze,
    /// Connections are reset, new ones too.
    Reset,
    /// Connections are reset when the server has sent so many more bytes.
    CutAfter(u64),
}

/// A running proxy.
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    server_bytes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl FaultProxy {
    /// Passes connections on to `port` of 127.0.0.1.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, watch) = watch::channel(Fault::Pass);
        let server_bytes = Arc::new(AtomicU64::new(0));
        let counter = server_bytes.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, watch.clone(), counter.clone()));
            }
        });
        Self { address, fault, server_bytes, task }
    }

    /// Makes a fault from now on, for open connections too.
    pub fn set(&self, fault: Fault) {
        let fault = match fault {
            Fault::CutAfter(more) => Fault::CutAfter(self.server_bytes.load(Ordering::Relaxed) + more),
            other => other,
        };
        self.fault.send_replace(fault);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, port: u16, fault: watch::Receiver<Fault>, bytes: Arc<AtomicU64>) {
    if *fault.borrow() == Fault::Reset {
        return reset(&client);
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let uncounted = Arc::new(AtomicU64::new(0));
    let mut until_reset = fault.clone();
    let up = pump(client_read, server_write, fault.clone(), uncounted);
    let down = pump(server_read, client_write, fault, bytes);
    tokio::pin!(up, down);
    let hard = tokio::select! {
        hard = &mut up => if hard { true } else { down.await },
        hard = &mut down => hard,
        hard = until(&mut until_reset, |fault| fault == Fault::Reset) => hard,
    };
    let _ = hard;
}

/// Waits for a fault; false when the proxy is gone.
async fn until(fault: &mut watch::Receiver<Fault>, is: impl Fn(Fault) -> bool) -> bool {
    fault.wait_for(|fault| is(*fault)).await.is_ok()
}

/// Returns whether it was cut.
async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    bytes: Arc<AtomicU64>,
) -> bool {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return cut(&to) };
        until(&mut fault, |fault| fault != Fault::Freeze).await;
        let now = *fault.borrow();
        match now {
            Fault::Reset => return cut(&to),
            Fault::CutAfter(limit) if bytes.load(Ordering::Relaxed) + count as u64 > limit => {
                let rest = limit.saturating_sub(bytes.load(Ordering::Relaxed)) as usize;
                let _ = to.write_all(&buffer[..rest.min(count)]).await;
                return cut(&to);
            }
            _ => {}
        }
        if count == 0 {
            let _ = to.shutdown().await;
            return false;
        }
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return true;
        }
    }
}

fn cut(to: &tcp::OwnedWriteHalf) -> bool {
    reset(to.as_ref());
    true
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
