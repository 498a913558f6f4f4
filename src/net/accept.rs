//! The server's half of a TLS handshake.

use std::{
    fmt::Write as _,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{CipherSuite, Error, HandshakeKind, ProtocolVersion, ServerConnection, pki_types::CertificateDer};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{ClientAuth, ServerTls};

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
    /// Under which authorities of clients that was ([`ServerTls::has_other_rules`]).
    pub rules: u64,
}

/// A client's certificate that one of the listener's authorities has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The listener whose authorities have signed it: what it says is said there, and nowhere else.
    pub listener: Arc<str>,
    /// Its alternative names, as the configuration writes them: `dns:app.internal`, `uri:spiffe://…`, `email:…`. The subject is
    /// not among them.
    pub names: Box<[Box<str>]>,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// When it ends.
    pub not_after: SystemTime,
    /// As it came, with its intermediates: other authorities may want to verify it.
    pub(super) chain: Box<[CertificateDer<'static>]>,
    voucher: Voucher,
}

/// What a listener says of clients' certificates, as it changes.
#[derive(Clone, Debug)]
pub(super) struct Voucher(pub(super) watch::Receiver<Option<Arc<ClientAuth>>>);

impl PartialEq for Voucher {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Voucher {}

impl ClientCertificate {
    /// A chain that a listener has verified; none if it cannot be read.
    fn of(chain: &[CertificateDer<'static>], listener: &Arc<str>, voucher: Voucher) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let alternatives = parsed.subject_alternative_name().ok()?;
        let names = alternatives.into_iter().flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(format!("dns:{}", name.to_ascii_lowercase()).into()),
            GeneralName::URI(uri) => Some(format!("uri:{uri}").into()),
            GeneralName::RFC822Name(address) => Some(format!("email:{address}").into()),
            _ => None,
        });
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        // Up to the end of its last second (RFC 5280, section 4.1.2.5).
        let not_after = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end.saturating_add(1)))?;
        Some(Self {
            listener: listener.clone(),
            names: names.collect(),
            sha256: Sha256::digest(leaf).into(),
            not_after,
            chain: chain.into(),
            voucher,
        })
    }

    /// A certificate for tests of those who are told of one.
    pub fn named(listener: &str, names: &[&str], not_after: SystemTime) -> Self {
        let names = names.iter().map(|name| (*name).into()).collect();
        let voucher = Voucher(watch::channel(None).1);
        Self { listener: listener.into(), names, sha256: [0; 32], not_after, chain: Box::default(), voucher }
    }

    /// Completes when its listener would not accept it any more: the authorities are others, or nobody asks for certificates
    /// there. Cancel safe.
    pub async fn disowned(&self) {
        let mut clients = self.voucher.0.clone();
        while clients.changed().await.is_ok() {
            let now = clients.borrow_and_update().clone();
            if !now.is_some_and(|clients| clients.accepts(Some(self))) {
                return;
            }
        }
        // A listener's TLS goes when nothing that came by it is left, or with the process.
        std::future::pending::<()>().await;
    }

    /// `sha256:` and the digest in hexadecimal digits, as the configuration writes it.
    pub fn fingerprint(&self) -> String {
        let mut text = String::from("sha256:");
        for byte in self.sha256 {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
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
    /// The client showed no certificate where one must be, or one that does not hold.
    Certificate,
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
    // Before what the handshake goes by: a change in between is seen.
    let voucher = tls.voucher();
    let current = tls.current();
    match timeout_at(deadline, TlsAcceptor::from(current.config.clone()).accept(socket)).await {
        Ok(Ok(stream)) => {
            let info = describe(stream.get_ref().1, tls.listener(), voucher, current.rules);
            Ok((stream, info))
        }
        Ok(Err(source)) => Err(HandshakeError { kind: classify(&source), source }),
        Err(_) => Err(HandshakeError { kind: HandshakeFailure::Timeout, source: io::ErrorKind::TimedOut.into() }),
    }
}

fn describe(session: &ServerConnection, listener: &Arc<str>, voucher: Voucher, rules: u64) -> TlsInfo {
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
        client: session
            .peer_certificates()
            .and_then(|chain| ClientCertificate::of(chain, listener, voucher))
            .map(Arc::new),
        rules,
    }
}

fn classify(error: &io::Error) -> HandshakeFailure {
    let Some(reason) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return HandshakeFailure::Closed;
    };
    match reason {
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => HandshakeFailure::Certificate,
        // What rustls says when the resolver gives none.
        Error::General(_) => HandshakeFailure::UnknownName,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
        Error::AlertReceived(_) => HandshakeFailure::Refused,
        _ => HandshakeFailure::Malformed,
    }
}
