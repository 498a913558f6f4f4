//! From an endpoint to an open stream: resolving, connecting, and PostgreSQL's own prelude to TLS.

use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::lookup_host,
    time::{Instant, timeout_at},
};

use super::{
    failure::PostgresFailure,
    settings::{Address, Encryption, Endpoint, Settings},
};
use crate::net::{DialError, Host, Stream, connect_tls, dial_host};

/// One address of an endpoint. A cancel request goes to the very same one.
#[derive(Clone, Debug)]
pub(super) struct Place {
    host: Host,
    name: Option<Arc<str>>,
}

#[cfg(test)]
impl Place {
    pub(super) fn host(&self) -> &Host {
        &self.host
    }
}

/// The addresses of `endpoint`. Each is tried with its own start-up, so that one server of several that share a name
/// may be passed over for what it says, not only for not answering.
pub(super) async fn places(
    settings: &Settings,
    endpoint: &Endpoint,
    deadline: Instant,
) -> Result<Vec<Place>, PostgresFailure> {
    let name: Option<Arc<str>> = endpoint.name.as_deref().map(Into::into);
    let place = |host: Host| Place { host, name: name.clone() };
    let (host, port) = match &endpoint.address {
        Address::Unix(path) => return Ok(vec![place(Host::Unix(path.clone()))]),
        Address::Ip(ip, port) => return Ok(vec![place(Host::Tcp(ip.to_string(), *port))]),
        Address::Name(host, port) => (host, *port),
    };
    let resolved = timeout_at(deadline, lookup_host((host.as_str(), port))).await;
    let resolved = resolved.map_err(|_| DialError::Timeout { during: "resolving", host: host.clone() })?;
    let addresses = resolved.map_err(|source| DialError::Resolve { host: host.clone(), source })?;
    let mut places: Vec<Place> = addresses.map(|found| place(Host::Tcp(found.ip().to_string(), port))).collect();
    settings.mix(&mut places);
    Ok(places)
}

/// Connects to `place`, encrypted as the settings demand.
pub(super) async fn open(settings: &Settings, place: &Place, deadline: Instant) -> Result<Stream, PostgresFailure> {
    let mut stream = dial_host(&place.host, settings.keepalive, deadline).await?;
    if let Some(limit) = settings.user_timeout {
        stream.set_user_timeout(limit)?;
    }
    let (tls, forced) = match (&settings.encryption, &place.name) {
        (Encryption::Never, _) | (_, None) => return Ok(stream),
        (Encryption::IfOffered(tls), Some(name)) => ((tls, name), false),
        (Encryption::Always(tls), Some(name)) => ((tls, name), true),
    };
    let offered = timeout_at(deadline, offers_tls(&mut stream)).await.map_err(|_| PostgresFailure::Timeout)??;
    match (offered, forced) {
        (true, _) => Ok(connect_tls(stream, tls.0.clone(), tls.1, deadline).await?),
        (false, false) => Ok(stream),
        (false, true) => Err(PostgresFailure::NoTls),
    }
}

/// Asks whether `endpoint` answers at all, without beginning a session: whether it offers TLS. Nobody is authenticated, and nothing
/// counts against the server's limits.
pub(super) async fn knock(settings: &Settings, endpoint: &Endpoint, deadline: Instant) -> Result<(), PostgresFailure> {
    let mut failed = PostgresFailure::Timeout;
    for place in places(settings, endpoint, deadline).await? {
        let knocking = async {
            let mut stream = dial_host(&place.host, None, deadline).await?;
            offers_tls(&mut stream).await
        };
        match timeout_at(deadline, knocking).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(failure)) => failed = failure,
            Err(_) => return Err(PostgresFailure::Timeout),
        }
    }
    Err(failed)
}

/// Sends `SSLRequest` and reads the one byte that answers it. Nothing more is read, so that nothing that was slipped in
/// before the handshake can be taken for what came through it (CVE-2021-23222).
async fn offers_tls(stream: &mut Stream) -> Result<bool, PostgresFailure> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        // `E`: a server older than TLS.
        _ => Ok(false),
    }
}

/// The end of the first of `parts` equal shares of the time to `deadline`.
pub(super) fn share(deadline: Instant, parts: usize) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
}
