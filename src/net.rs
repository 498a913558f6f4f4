//! Sockets towards databases and services, and TLS in both directions.
//!
//! Everything that opens a socket on our own behalf goes through [`dial()`]: one deadline covers name resolution and every
//! address that is tried. What comes back is a [`Stream`], which is plain TCP, a Unix socket, or either of them under
//! TLS; it can be moved to another thread's runtime ([`Stream::rehome`]) and looked at without reading
//! ([`Stream::peek_state`]), which is what a connection pool over several runtimes needs.
//!
//! Towards clients, [`CertStore`] chooses a certificate by server name from a map that is swapped whole, and
//! [`ServerTls`] keeps one listener's ticket keys and sessions over every reload that leaves its rules as they are; whose
//! certificates it asks for, of which authorities, is a [`ClientAuth`]. [`certs`] reads certificates from PEM
//! files or signs them with a local authority, and notices when they change.
//!
//! When things go wrong: a dial that fails has sent nothing, so it may be tried again; an error names the host and the
//! reason, and its public text names neither. A certificate that cannot be loaded is an error that names the file and
//! leaves what is served as it is.
//!
//! [`fetch()`] gets one document over HTTP, for what the gateway itself must know (the keys of those who sign tokens).
//!
//! Left out: certificates of our own as a client, revocation lists, OCSP stapling (Let's Encrypt ended OCSP in 2025), ACME, 0-RTT.
//!
//! The cryptography is aws-lc-rs throughout, passed to rustls explicitly: no process-wide default provider is needed.

mod accept;
mod binding;
mod client_auth;
mod client_tls;
mod dial;
mod fetch;
mod server_tls;
mod stream;
#[cfg(test)]
mod tests;

pub mod certs;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use rustls::ClientConfig;

pub use accept::{ClientCertificate, HandshakeError, HandshakeFailure, ServerStream, TlsInfo, accept_tls};
pub use certs::{CertError, CertStore, Certificate};
pub use client_auth::ClientAuth;
pub use client_tls::{TlsError, Verify, client_tls};
pub use dial::{DialError, Host, Target, connect_tls, dial, dial_host};
pub use fetch::{FetchError, fetch};
pub use server_tls::ServerTls;
pub use stream::{Peek, Stream};

/// The one cryptography provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}
