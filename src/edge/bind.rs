//! Listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Most bytes that the kernel takes for a client beyond what it has sent (`TCP_NOTSENT_LOWAT`). Without it a socket becomes
/// writable again only when a third of its buffer is free, which grows to megabytes: a client that reads 10 KiB/s would be
/// taken for one that reads nothing, and an idle answer would hold kernel memory that nobody counts.
const UNSENT: u32 = 128 * 1024;

/// Binds `address` and [`listen`]s there.
///
/// # Errors
/// As the system says: in use, not permitted, no such address.
pub fn bind(address: SocketAddr, backlog: u32, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = reserve(address, reuse_port)?;
    listen(&socket, backlog)?;
    Ok(socket)
}

/// Binds `address`, so that it can be listened on: connections that come meanwhile go elsewhere, or nowhere.
///
/// With `reuse_port`, several sockets may listen on one port and the kernel spreads connections over them: one a worker.
/// The kernel would also let another process of the same user join, silently taking a share of the traffic; so call
/// [`probe`] first, where the port is not held already. Accepted sockets inherit
/// `TCP_NODELAY` and `TCP_NOTSENT_LOWAT`. An IPv6 socket takes IPv6
/// only, so that `0.0.0.0` and `[::]` can stand side by side.
///
/// # Errors
/// As the system says: in use, not permitted, no such address.
pub fn reserve(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Listens on a socket that [`reserve`] bound. From now on connections may wait in its queue, and closing it resets them.
///
/// # Errors
/// `AddrInUse` when somebody else has come to listen there since; whatever else the system says. The socket does not listen
/// then, and accepting on it fails for ever.
pub fn listen(socket: &TcpListener, backlog: u32) -> io::Result<()> {
    SockRef::from(socket).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Sees whether `address` is free, by binding it without `SO_REUSEPORT` and letting go. Not for ports that this process
/// holds. Port 0 is always free.
///
/// # Errors
/// `AddrInUse`, or whatever else stands against listening there.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    bind(address, 1, false).map(drop)
}

/// Raises the limit on open files as far as it goes without privileges, and returns it.
///
/// # Errors
/// The system refuses; the old limit stays.
pub fn raise_file_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn workers_share_a_port_and_a_probe_finds_it_taken() {
        let first = bind(loopback(0), 16, true).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind(address, 16, true).unwrap();
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((first, second));
        probe(address).unwrap();
        assert!(probe(loopback(0)).is_ok());
    }

    #[test]
    fn a_probe_leaves_nothing_behind_for_a_port_in_time_wait() {
        let listener = bind(loopback(0), 16, true).unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        // The server closes first, so its port stays in TIME_WAIT.
        drop(listener.accept().unwrap());
        drop((client, listener));
        probe(address).unwrap();
    }

    #[test]
    fn accepted_sockets_inherit_how_they_send() {
        let listener = bind(loopback(0), 16, false).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        assert!(accepted.nodelay().unwrap());
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), UNSENT);
    }

    #[test]
    fn both_families_fit_on_one_port() {
        let Ok(six) = bind("[::]:0".parse().unwrap(), 16, false) else { return };
        let port = six.local_addr().unwrap().port();
        bind(SocketAddr::from(([0, 0, 0, 0], port)), 16, false).unwrap();
    }

    #[test]
    fn the_file_limit_goes_up() {
        assert!(raise_file_limit().unwrap() >= 1_024);
    }
}
