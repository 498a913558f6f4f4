//! PEM files to a certificate that can be served.

use std::{path::Path, sync::Arc};

use rustls::{
    Error, InconsistentKeys,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{CertError, Certificate, Problem};
use crate::config::model::TlsPair;

/// Loads a chain and its key.
///
/// # Errors
/// Names the file at fault and what is wrong with it.
pub fn load_pair(pair: &TlsPair) -> Result<Certificate, CertError> {
    load_files(&pair.certificate, &pair.key)
}

pub(super) fn load_files(certificate: &Path, key: &Path) -> Result<Certificate, CertError> {
    let in_chain = |problem| CertError::new(certificate, problem);
    let in_key = |problem| CertError::new(key, problem);

    let text = std::fs::read(certificate).map_err(|error| in_chain(error.into()))?;
    let chain = parse_chain(&text).map_err(in_chain)?;
    let leaf = read_leaf(&chain[0]).map_err(in_chain)?;

    let text = std::fs::read(key).map_err(|error| in_key(error.into()))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => in_key(Problem::NoKey),
        error => in_key(Problem::Pem(error.to_string())),
    })?;
    let certified = CertifiedKey::from_der(chain, private, &crate::net::provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            in_key(Problem::Mismatch { certificate: certificate.to_owned() })
        }
        error => in_key(Problem::Key(error.to_string())),
    })?;
    Ok(Certificate {
        key: Arc::new(certified),
        names: leaf.names,
        not_after: leaf.not_after,
        renew_at: None,
        path: certificate.to_owned(),
    })
}

/// At least one certificate.
fn parse_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(Problem::NoCertificate),
        Ok(chain) => Ok(chain),
        Err(error) => Err(Problem::Pem(error.to_string())),
    }
}

/// What we want to know of a leaf.
pub(super) struct Leaf {
    pub(super) names: Vec<Box<str>>,
    pub(super) not_after: i64,
}

pub(super) fn read_leaf(der: &[u8]) -> Result<Leaf, Problem> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| Problem::Leaf(error.to_string()))?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| Problem::Leaf(error.to_string()))?;
    let names = alternatives.into_iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase().into_boxed_str()),
        _ => None,
    });
    Ok(Leaf { names: names.collect(), not_after: parsed.validity().not_after.timestamp() })
}
