//! Opening connections, with one deadline over resolving, connecting and handshaking.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::Stream;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Tried in order until one answers.
    pub hosts: Vec<Host>,
    /// TCP keep-alive: silence after which the peer is probed. None leaves it off.
    pub keepalive: Option<Duration>,
}

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name or an IP address, and a port. All addresses of a name are tried.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why a connection was not made. Nothing was sent, so another try is always safe.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The target has no hosts.
    #[error("no host to connect to")]
    NoHost,
    /// The name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// The connection was refused, reset or has no way.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Address and port, or path.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{during} {host} took too long")]
    Timeout {
        /// `resolving`, `connecting to` or `the TLS handshake with`.
        during: &'static str,
        /// The host, address or path.
        host: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with {host}: {source}")]
    Tls {
        /// The server's name.
        host: String,
        /// The reason, often a certificate that is not trusted.
        source: io::Error,
    },
    /// The server's name cannot be sent or verified.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    ServerName(String),
    /// Every host failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<DialError>),
}

// === dialing ===

/// Connects to the first host of `target` that answers before `deadline`. A host or address that does not answer at all
/// gets an equal share of the time that is left, so that the next ones have their turn.
///
/// Cancel safe: dropping the future closes whatever was begun.
///
/// # Errors
/// What went wrong with each host.
pub async fn dial(target: &Target, deadline: Instant) -> Result<Stream, DialError> {
    let mut errors = Vec::new();
    for (tried, host) in target.hosts.iter().enumerate() {
        match dial_host(host, target.keepalive, share(deadline, target.hosts.len() - tried)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => errors.push(error),
        }
    }
    Err(DialError::of(errors))
}

/// Connects to one host before `deadline`, trying each of its addresses.
///
/// # Errors
/// What went wrong with the name, or with each address.
pub async fn dial_host(host: &Host, keepalive: Option<Duration>, deadline: Instant) -> Result<Stream, DialError> {
    match host {
        Host::Unix(path) => {
            let address = path.display().to_string();
            let connected = timeout_at(deadline, UnixStream::connect(path)).await;
            settle(connected, address).map(Stream::from)
        }
        Host::Tcp(name, port) => {
            let addresses = resolve(name, *port, deadline).await?;
            let stream = connect_any(&addresses, deadline).await?;
            let prepared =
                stream.set_nodelay().and_then(|()| keepalive.map_or(Ok(()), |idle| stream.set_keepalive(idle)));
            prepared.map_err(|source| DialError::Connect { address: format!("{name}:{port}"), source })?;
            Ok(stream)
        }
    }
}

/// Does the client's half of a TLS handshake before `deadline`. `server_name` is verified as `config` demands and sent
/// as SNI unless it is an IP address.
///
/// # Errors
/// The name is not one, the handshake failed, or the stream is under TLS already.
pub async fn connect_tls(
    stream: Stream,
    config: Arc<ClientConfig>,
    server_name: &str,
    deadline: Instant,
) -> Result<Stream, DialError> {
    let bare = server_name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(server_name);
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| DialError::ServerName(server_name.to_owned()))?;
    let host = || server_name.to_owned();
    let Some(socket) = stream.into_socket() else {
        return Err(DialError::Tls { host: host(), source: io::Error::other("already encrypted") });
    };
    match timeout_at(deadline, TlsConnector::from(config).connect(name, socket)).await {
        Ok(Ok(tls)) => Ok(Stream::from_tls(tls)),
        Ok(Err(source)) => Err(DialError::Tls { host: host(), source }),
        Err(_) => Err(DialError::Timeout { during: "the TLS handshake with", host: host() }),
    }
}

async fn resolve(name: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host((bare, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(source)) => return Err(DialError::Resolve { host: name.to_owned(), source }),
        Err(_) => return Err(DialError::Timeout { during: "resolving", host: name.to_owned() }),
    };
    if addresses.is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(DialError::Resolve { host: name.to_owned(), source });
    }
    Ok(addresses)
}

async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<Stream, DialError> {
    let mut errors = Vec::new();
    for (tried, address) in addresses.iter().enumerate() {
        let until = share(deadline, addresses.len() - tried);
        match settle(timeout_at(until, TcpStream::connect(address)).await, address.to_string()) {
            Ok(tcp) => return Ok(tcp.into()),
            Err(error) => errors.push(error),
        }
    }
    Err(DialError::of(errors))
}

fn settle<T>(outcome: Result<io::Result<T>, tokio::time::error::Elapsed>, address: String) -> Result<T, DialError> {
    match outcome {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(source)) => Err(DialError::Connect { address, source }),
        Err(_) => Err(DialError::Timeout { during: "connecting to", host: address }),
    }
}

/// The end of the first of `parts` equal shares of the time to `deadline`.
fn share(deadline: Instant, parts: usize) -> Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    now + left / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
}

// === impl DialError ===

impl DialError {
    fn of(mut errors: Vec<Self>) -> Self {
        match errors.len() {
            0 => Self::NoHost,
            1 => errors.remove(0),
            _ => Self::All(errors),
        }
    }

    /// Whether it was time that ran out; for several hosts, on the last.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::All(errors) => errors.last().is_some_and(Self::is_timeout),
            _ => false,
        }
    }

    /// Whether TLS failed, so that trying again without a change is in vain.
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Tls { .. } | Self::ServerName(_) => true,
            Self::All(errors) => errors.iter().all(Self::is_tls),
            _ => false,
        }
    }

    /// What may be told to a client: no host, address or certificate.
    pub fn public(&self) -> &'static str {
        match self {
            Self::NoHost | Self::ServerName(_) => "the server is not configured",
            Self::Resolve { .. } => "the server's name cannot be resolved",
            Self::Timeout { .. } => "connecting to the server took too long",
            Self::Tls { .. } => "the server failed the TLS handshake",
            Self::Connect { .. } | Self::All(_) => "the server cannot be reached",
        }
    }
}
