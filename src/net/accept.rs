//! The server's half of a TLS handshake.

use std::{io, sync::Arc, time::SystemTime};

use rustls::{CipherSuite, Error, HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::ServerTls;

/// An accepted connection under TLS.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// What was agreed on in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The name that the client asked for, lower case; none when it dialled an IP address.
    pub sni: Option<Arc<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA names it.
    pub cipher: &'static str,
    /// `h2` or `http/1.1`; none when the client offered no protocols.
    pub alpn: Option<&'static str>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The client's certificate, verified.
    pub client: Option<Arc<ClientCertificate>>,
}

/// A client's certificate that one of the listener's authorities has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its alternative names, as the configuration writes them: `dns:app.internal`, `uri:spiffe://…`, `email:…`. The subject is
    /// not among them.
    pub names: Box<[Box<str>]>,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// When it ends.
    pub not_after: SystemTime,
}

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
#[error("TLS handshake: {source}")]
pub struct HandshakeError {
    /// What kind of failure it was, for counting.
    pub kind: HandshakeFailure,
    /// The reason.
    pub source: io::Error,
}

/// Why handshakes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The deadline passed.
    Timeout,
    /// The client went away.
    Closed,
    /// No certificate for the name that the client asked for.
    UnknownName,
    /// No version, cipher suite, group or application protocol in common.
    Incompatible,
    /// The client sent an alert, mostly because it does not trust the certificate.
    Refused,
    /// The client broke the protocol.
    Malformed,
}

/// Does the handshake before `deadline`.
///
/// # Errors
/// With the kind of failure; the client was sent an alert where it may help.
pub async fn accept_tls<S>(
    socket: S,
    tls: &ServerTls,
    deadline: Instant,
) -> Result<(ServerStream<S>, TlsInfo), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout_at(deadline, TlsAcceptor::from(tls.config()).accept(socket)).await {
        Ok(Ok(stream)) => {
            let info = describe(stream.get_ref().1);
            Ok((stream, info))
        }
        Ok(Err(source)) => Err(HandshakeError { kind: classify(&source), source }),
        Err(_) => Err(HandshakeError { kind: HandshakeFailure::Timeout, source: io::ErrorKind::TimedOut.into() }),
    }
}

fn describe(session: &ServerConnection) -> TlsInfo {
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    TlsInfo {
        sni: session.server_name().map(|name| name.to_ascii_lowercase().into()),
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: suite.as_ref().and_then(CipherSuite::as_str).unwrap_or("unknown"),
        alpn: match session.alpn_protocol() {
            Some(b"h2") => Some("h2"),
            Some(b"http/1.1") => Some("http/1.1"),
            _ => None,
        },
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        client: None,
    }
}

fn classify(error: &io::Error) -> HandshakeFailure {
    let Some(reason) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return HandshakeFailure::Closed;
    };
    match reason {
        // What rustls says when the resolver gives none.
        Error::NoCertificatesPresented | Error::General(_) => HandshakeFailure::UnknownName,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
        Error::AlertReceived(_) => HandshakeFailure::Refused,
        _ => HandshakeFailure::Malformed,
    }
}
