//! Certificates: read from PEM files or signed by a local authority, chosen by server name, watched for changes.
//!
//! [`load`] gives the certificates of one listener; [`CertStore::replace`] swaps them in; [`CertWatch::due`] says when to
//! do so again: a file's content changed, or a leaf of the local authority nears its end. The watch comes before the first
//! load, so that what is replaced meanwhile is loaded again. A pair of files is written by others in two steps, so a load
//! between the steps fails ("the key does not belong to the certificate"); keep what is served, log the error, and the second
//! step makes the watch due again.

mod authority;
mod pem;
mod store;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::sign::CertifiedKey;

pub use authority::{Authority, trust_hint};
pub use pem::load_pair;
pub use store::{CertInfo, CertStore};
pub use watch::{CertWatch, FileWatch};

use crate::config::model::Tls;

/// A certificate chain with its key, ready to be served.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What rustls serves.
    pub key: Arc<CertifiedKey>,
    /// DNS names of the leaf, lower case; wildcards as `*.example.com`. IP addresses are left out: no client names one.
    pub names: Vec<Box<str>>,
    /// When the leaf expires, in seconds since 1970.
    pub not_after: i64,
    /// When it should be made anew, in seconds since 1970; only for leaves that we sign ourselves.
    pub renew_at: Option<i64>,
    /// The file of the chain.
    pub path: PathBuf,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CertError {
    /// The file at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a certificate or key file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Reading or writing failed.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// Not PEM, or a block of it is broken.
    #[error("not valid PEM: {0}")]
    Pem(String),
    /// PEM, but no certificate in it.
    #[error("holds no certificate")]
    NoCertificate,
    /// PEM, but no private key in it.
    #[error("holds no private key")]
    NoKey,
    /// The leaf cannot be read.
    #[error("the first certificate cannot be read: {0}")]
    Leaf(String),
    /// The key's kind is not supported, or it is damaged.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// Certificate and key are not a pair.
    #[error("the key does not belong to the certificate in {}", certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A certificate that cannot sign others.
    #[error("not usable as an authority: {0}")]
    Authority(String),
    /// Making a certificate failed.
    #[error("cannot make a certificate: {0}")]
    Issue(String),
}

impl CertError {
    fn new(path: &Path, problem: impl Into<Problem>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// Loads all certificates that `tls` asks for, the default first. A local authority is kept under `state`; it and the leaf
/// are made or renewed as needed.
///
/// Blocks on files; a new key takes a millisecond.
///
/// # Errors
/// The first file that cannot be used, and why.
pub fn load(tls: &Tls, state: &Path, now: SystemTime) -> Result<Vec<Certificate>, CertError> {
    match tls {
        Tls::Files(pairs) => pairs.iter().map(load_pair).collect(),
        Tls::SelfSigned(names) => Ok(vec![Authority::open(state, now)?.leaf(&names.self_signed, now)?]),
    }
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
