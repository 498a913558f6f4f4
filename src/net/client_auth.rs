//! Client certificates: which authorities sign them, and whether one that was verified still holds.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest, Sha256};

use super::{
    ClientCertificate,
    certs::{CertError, Problem},
};
use crate::config::model::ClientCertificates;

/// Whom a listener asks for a certificate, and of which authorities.
#[derive(Debug)]
pub struct ClientAuth {
    verifier: Arc<dyn ClientCertVerifier>,
    required: bool,
    /// Of the file of authorities.
    digest: [u8; 32],
}

impl ClientAuth {
    /// Reads the authorities. Blocks on the file.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn load(settings: &ClientCertificates) -> Result<Arc<Self>, CertError> {
        let wrong = |problem| CertError { path: settings.ca.clone(), problem };
        let pem = std::fs::read(&settings.ca).map_err(|error| wrong(error.into()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| wrong(Problem::Pem(error.to_string())))?;
            roots.add(certificate).map_err(|error| wrong(Problem::Authority(error.to_string())))?;
        }
        if roots.is_empty() {
            return Err(wrong(Problem::NoCertificate));
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider());
        let builder = if settings.required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| wrong(Problem::Authority(error.to_string())))?;
        Ok(Arc::new(Self { verifier, required: settings.required, digest: Sha256::digest(&pem).into() }))
    }

    /// For the handshake.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }

    /// Whether it accepts the same certificates.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.required == other.required && self.digest == other.digest
    }

    /// Whether a connection with this certificate, or without one, could be opened now. Verifies the chain: some 100 µs.
    pub(super) fn accepts(&self, certificate: Option<&ClientCertificate>) -> bool {
        let Some(certificate) = certificate else { return !self.required };
        let Some((leaf, intermediates)) = certificate.chain.split_first() else { return false };
        self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok()
    }
}
