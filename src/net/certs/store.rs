//! Which certificate a client gets.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Certificate;
use crate::config::model::UnknownSni;

/// The certificates of a listener by server name, swapped whole.
///
/// An exact name comes before a wildcard of one label (RFC 6125), that before the default, which is the first
/// certificate. Several certificates for one name are tried in their order until one's key fits what the client can
/// verify, so an ECDSA and an RSA certificate can stand side by side. A client that sends no name gets the default;
/// one that sends a name which no certificate has gets what [`UnknownSni`] says.
#[derive(Debug)]
pub struct CertStore {
    served: ArcSwap<Served>,
}

/// What an operator wants to know about a certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CertInfo {
    /// The file of the chain.
    pub path: String,
    /// DNS names.
    pub names: Vec<Box<str>>,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
}

type Keys = Vec<Arc<CertifiedKey>>;

#[derive(Debug, Default)]
struct Served {
    exact: HashMap<Box<str>, Keys>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Keys>,
    all: Keys,
    refuse_unknown: bool,
    infos: Vec<CertInfo>,
}

// === impl CertStore ===

impl CertStore {
    /// A store that serves `certificates`, the first as default.
    pub fn new(certificates: &[Certificate], unknown: UnknownSni) -> Self {
        Self { served: ArcSwap::from_pointee(Served::new(certificates, unknown)) }
    }

    /// Serves other certificates from the next handshake on.
    pub fn replace(&self, certificates: &[Certificate], unknown: UnknownSni) {
        self.served.store(Arc::new(Served::new(certificates, unknown)));
    }

    /// What is served, for status and metrics.
    pub fn infos(&self) -> Vec<CertInfo> {
        self.served.load().infos.clone()
    }

    /// When the first of the certificates expires, in seconds since 1970.
    pub fn not_after(&self) -> Option<i64> {
        self.served.load().infos.iter().map(|info| info.not_after).min()
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served.load().find(hello.server_name(), hello.signature_schemes())
    }
}

// === impl Served ===

impl Served {
    fn new(certificates: &[Certificate], unknown: UnknownSni) -> Self {
        let mut served = Self { refuse_unknown: unknown == UnknownSni::Refuse, ..Self::default() };
        for certificate in certificates {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut served.wildcard, parent),
                    None => (&mut served.exact, &**name),
                };
                map.entry(name.into()).or_default().push(certificate.key.clone());
            }
            served.all.push(certificate.key.clone());
            served.infos.push(CertInfo {
                path: certificate.path.display().to_string(),
                names: certificate.names.clone(),
                not_after: certificate.not_after,
            });
        }
        served
    }

    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else { return first_usable(&self.all, schemes) };
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            lower.as_str()
        } else {
            name
        };
        let by_wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        match self.exact.get(name).or_else(by_wildcard) {
            Some(keys) => first_usable(keys, schemes),
            None if self.refuse_unknown => None,
            None => first_usable(&self.all, schemes),
        }
    }
}

/// The first key that can sign for this client, else the first: rustls then says what does not fit.
fn first_usable(keys: &[Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let usable = keys.iter().find(|key| key.key.choose_scheme(schemes).is_some());
    usable.or_else(|| keys.first()).cloned()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Certificate {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let signed = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let certified = CertifiedKey::from_der(vec![signed.der().clone()], private, &crate::net::provider()).unwrap();
        let leaf = super::super::pem::read_leaf(signed.der()).unwrap();
        Certificate {
            key: Arc::new(certified),
            names: leaf.names,
            not_after: leaf.not_after,
            renew_at: None,
            path: "x.pem".into(),
        }
    }

    fn ecdsa(names: &[&str]) -> Certificate {
        certificate(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];

    fn found(served: &Served, name: Option<&str>, wanted: &Certificate) -> bool {
        served.find(name, ECDSA).is_some_and(|key| Arc::ptr_eq(&key, &wanted.key))
    }

    #[test]
    fn exact_comes_before_wildcard_before_default() {
        let certificates = [ecdsa(&["first.test"]), ecdsa(&["*.a.test"]), ecdsa(&["www.a.test"])];
        let served = Served::new(&certificates, UnknownSni::Default);
        assert!(found(&served, Some("www.a.test"), &certificates[2]));
        assert!(found(&served, Some("WWW.A.test"), &certificates[2]));
        assert!(found(&served, Some("b.a.test"), &certificates[1]));
        assert!(found(&served, Some("a.test"), &certificates[0]), "a wildcard is not for the bare name");
        assert!(found(&served, Some("x.b.a.test"), &certificates[0]), "a wildcard is for one label");
        assert!(found(&served, None, &certificates[0]));
    }

    #[test]
    fn an_unknown_name_can_be_refused_and_no_name_is_not_unknown() {
        let certificates = [ecdsa(&["first.test"])];
        let served = Served::new(&certificates, UnknownSni::Refuse);
        assert!(served.find(Some("other.test"), ECDSA).is_none());
        assert!(found(&served, Some("first.test"), &certificates[0]));
        assert!(found(&served, None, &certificates[0]));
    }

    #[test]
    fn the_key_that_the_client_can_verify_is_chosen() {
        let certificates = [ecdsa(&["a.test"]), certificate(&["a.test"], &rcgen::PKCS_RSA_SHA256)];
        let served = Served::new(&certificates, UnknownSni::Default);
        let rsa = served.find(Some("a.test"), RSA).unwrap();
        assert!(Arc::ptr_eq(&rsa, &certificates[1].key));
        assert!(found(&served, Some("a.test"), &certificates[0]));
    }
}
