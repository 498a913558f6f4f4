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

use super::CertStore;
use crate::config::model::TlsVersion;

/// Sessions kept for clients that resume by session id, which only TLS 1.2 clients without tickets do. rustls defaults to
/// 256, which a hundred clients a second empty in seconds; 16384 take about 8 MiB when full.
const SESSIONS: usize = 16_384;

/// The TLS side of one listener: certificates, ticket keys, sessions.
///
/// Ticket keys turn every six hours and are good for twelve. They and the sessions are kept while the configuration is
/// replaced, so that a reload does not make every client do a full handshake; a change of the oldest version throws them
/// away, since a session made under the old rule must not outlive it. They are not shared between listeners, whose
/// certificates may differ.
#[derive(Debug)]
pub struct ServerTls {
    store: Arc<CertStore>,
    current: ArcSwap<ServerConfig>,
    rules: Mutex<TlsVersion>,
}

impl ServerTls {
    /// TLS with the certificates of `store`, for HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// The cryptography cannot give random keys.
    pub fn new(store: Arc<CertStore>, oldest: TlsVersion) -> Result<Self, Error> {
        let config = Arc::new(build(store.clone(), oldest)?);
        Ok(Self { store, current: ArcSwap::new(config), rules: Mutex::new(oldest) })
    }

    /// The certificates, which may be replaced at any time.
    pub fn store(&self) -> &Arc<CertStore> {
        &self.store
    }

    /// What the next handshake uses.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Sets the oldest version for handshakes from now on. Does nothing, and loses no session, when it is the same.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; the old rule then stays.
    pub fn set_oldest(&self, oldest: TlsVersion) -> Result<(), Error> {
        let mut rules = self.rules.lock();
        if *rules != oldest {
            self.current.store(Arc::new(build(self.store.clone(), oldest)?));
            *rules = oldest;
        }
        Ok(())
    }
}

fn build(store: Arc<CertStore>, oldest: TlsVersion) -> Result<ServerConfig, Error> {
    let versions: &[&SupportedProtocolVersion] = match oldest {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let ticketer: Arc<dyn ProducesTickets> = Ticketer::new()?;
    let sessions: Arc<dyn StoresServerSessions> = ServerSessionMemoryCache::new(SESSIONS);
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.ticketer = ticketer;
    config.session_storage = sessions;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
