//! TLS towards clients: one [`ServerTls`] a listener, which outlives every reload.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    Error, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::Ticketer,
    server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions},
    version::{TLS12, TLS13},
};

use tokio::sync::watch;

use super::{CertStore, ClientAuth, ClientCertificate, accept::Voucher};
use crate::config::model::TlsVersion;

/// Sessions kept for clients that resume by session id, which only TLS 1.2 clients without tickets do. rustls defaults to
/// 256, which a hundred clients a second empty in seconds; 16384 take about 8 MiB when full.
const SESSIONS: usize = 16_384;

/// The TLS side of one listener: certificates, ticket keys, sessions, and whose certificates it asks for.
///
/// Ticket keys turn every six hours and are good for twelve. They and the sessions are kept while the configuration is
/// replaced, so that a reload does not make every client do a full handshake; a change of the rules throws them away, since a
/// session made under the old ones must not outlive them. A session holds who its client was: with other authorities, or when
/// certificates become required, no session of before can be resumed, and who comes back shows the certificate anew. For the same
/// reason they are not shared between listeners.
#[derive(Debug)]
pub struct ServerTls {
    listener: Arc<str>,
    store: Arc<CertStore>,
    current: ArcSwap<Current>,
    changing: Mutex<()>,
    /// Whose certificates are accepted, for what lasts: `current`'s, or a successor's.
    clients: watch::Sender<Option<Arc<ClientAuth>>>,
}

/// What handshakes use now.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) config: Arc<ServerConfig>,
    /// Counts up with each change of the authorities.
    pub(super) rules: u64,
    oldest: TlsVersion,
    clients: Option<Arc<ClientAuth>>,
}

impl ServerTls {
    /// TLS of the listener of this name with the certificates of `store`, for HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// The cryptography cannot give random keys.
    pub fn new(
        listener: &str,
        store: Arc<CertStore>,
        oldest: TlsVersion,
        clients: Option<Arc<ClientAuth>>,
    ) -> Result<Self, Error> {
        let config = Arc::new(build(store.clone(), oldest, clients.as_deref())?);
        let told = watch::Sender::new(clients.clone());
        let current = ArcSwap::from_pointee(Current { config, rules: 0, oldest, clients });
        Ok(Self { listener: listener.into(), store, current, changing: Mutex::new(()), clients: told })
    }

    /// The certificates, which may be replaced at any time.
    pub fn store(&self) -> &Arc<CertStore> {
        &self.store
    }

    /// The listener's name.
    pub(super) fn listener(&self) -> &Arc<str> {
        &self.listener
    }

    /// What the next handshake uses.
    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Sets the rules for handshakes from now on. Does nothing, and loses no session, when they are the same.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; the old rules then stay.
    pub fn set_rules(&self, oldest: TlsVersion, clients: Option<Arc<ClientAuth>>) -> Result<(), Error> {
        let _changing = self.changing.lock();
        let before = self.current();
        let same_clients = are_same(before.clients.as_ref(), clients.as_ref());
        if before.oldest == oldest && same_clients {
            return Ok(());
        }
        let config = Arc::new(build(self.store.clone(), oldest, clients.as_deref())?);
        let rules = if same_clients { before.rules } else { before.rules + 1 };
        self.current.store(Arc::new(Current { config, rules, oldest, clients: clients.clone() }));
        self.tell(clients);
        Ok(())
    }

    /// What came by this listener, which serves no more, goes by the authorities of the one that has taken its place. Without one,
    /// nobody vouches for it any more.
    pub fn succeeded_by(&self, successor: Option<&Self>) {
        self.tell(successor.and_then(|successor| successor.current().clients.clone()));
    }

    fn tell(&self, clients: Option<Arc<ClientAuth>>) {
        self.clients.send_if_modified(|known| {
            let changes = !are_same(known.as_ref(), clients.as_ref());
            *known = clients;
            changes
        });
    }

    pub(super) fn voucher(&self) -> Voucher {
        Voucher(self.clients.subscribe())
    }

    /// The authorities of client certificates are others than they were with `rules`.
    pub fn has_other_rules(&self, rules: u64) -> Option<u64> {
        Some(self.current.load().rules).filter(|now| *now != rules)
    }

    /// Whether clients are asked for certificates.
    pub fn asks_clients(&self) -> bool {
        self.current.load().clients.is_some()
    }

    /// Whether a connection with this certificate, or without one, could be opened now. A certificate that nobody asks for any more
    /// is nobody's word. Verifies a chain: for when the rules have changed.
    pub fn accepts(&self, certificate: Option<&ClientCertificate>) -> bool {
        match &self.current.load().clients {
            Some(clients) => clients.accepts(certificate),
            None => certificate.is_none(),
        }
    }
}

fn are_same(one: Option<&Arc<ClientAuth>>, other: Option<&Arc<ClientAuth>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same_as(other),
        (None, None) => true,
        _ => false,
    }
}

fn build(store: Arc<CertStore>, oldest: TlsVersion, clients: Option<&ClientAuth>) -> Result<ServerConfig, Error> {
    let versions: &[&SupportedProtocolVersion] = match oldest {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let ticketer: Arc<dyn ProducesTickets> = Ticketer::new()?;
    let sessions: Arc<dyn StoresServerSessions> = ServerSessionMemoryCache::new(SESSIONS);
    let builder = ServerConfig::builder_with_provider(super::provider()).with_protocol_versions(versions)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(store);
    config.ticketer = ticketer;
    config.session_storage = sessions;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
