//! A certificate authority of our own, for first starts and development.
//!
//! It lives in `<state>/ca/`: `ca.pem` and `ca.key`, and a leaf for each set of names that was asked for. The directory has
//! mode 0700, keys 0600. A file is written beside its place and renamed, under a lock, so that two starting gateways do not
//! mix their keys. A leaf's file name holds a hash of its names and of the authority, so a leaf is never used for other
//! names, nor after the authority was replaced.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::{CertError, Certificate, Problem, pem, unix};

const DAY: i64 = 86_400;
/// Ten years: it is trusted by hand on each machine, which nobody wants to repeat.
const AUTHORITY_DAYS: i64 = 3_650;
/// Under the 398 days that browsers accept from public authorities.
const LEAF_DAYS: i64 = 90;
/// A leaf is made anew when a third of its life is left, the authority when a leaf would outlive it.
const RENEW_DAYS: i64 = 30;

/// The local authority.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    _lock: File,
}

/// How to make a client trust the local authority whose state directory is `state`.
pub fn trust_hint(state: &Path) -> String {
    format!("curl --cacert {} https://…", state.join("ca/ca.pem").display())
}

// === impl Authority ===

impl Authority {
    /// Opens the authority under `state`, and makes it when there is none or it nears its end. Other processes wait while
    /// the value lives.
    ///
    /// # Errors
    /// The directory cannot be used, or holds something that is not an authority.
    pub fn open(state: &Path, now: SystemTime) -> Result<Self, CertError> {
        let directory = state.join("ca");
        let lock = lock(&directory).map_err(|error| CertError::new(&directory, error))?;
        let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        if !certificate.exists() || !key.exists() {
            make_authority(&certificate, &key, now)?;
        }
        let (mut issuer, mut der) = read(&certificate, &key)?;
        let not_after = pem::read_leaf(&der).map_err(|problem| CertError::new(&certificate, problem))?.not_after;
        if unix(now) + LEAF_DAYS * DAY > not_after {
            make_authority(&certificate, &key, now)?;
            (issuer, der) = read(&certificate, &key)?;
        }
        Ok(Self { directory, issuer, certificate: der, _lock: lock })
    }

    /// A certificate for `names` (DNS names, wildcards, IP addresses), the same as last time while it has long to live.
    ///
    /// # Errors
    /// A name is not one, or files cannot be written.
    pub fn leaf(&self, names: &[String], now: SystemTime) -> Result<Certificate, CertError> {
        let stem = self.stem(names);
        let certificate = self.directory.join(format!("{stem}.pem"));
        let key = self.directory.join(format!("{stem}.key"));
        if let Ok(kept) = pem::load_files(&certificate, &key)
            && kept.not_after - RENEW_DAYS * DAY > unix(now)
        {
            return Ok(Certificate { renew_at: Some(kept.not_after - RENEW_DAYS * DAY), ..kept });
        }
        self.make_leaf(names, &certificate, &key, now)?;
        let made = pem::load_files(&certificate, &key)?;
        Ok(Certificate { renew_at: Some(made.not_after - RENEW_DAYS * DAY), ..made })
    }

    /// The authority's certificate, which clients must trust.
    pub fn path(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    fn stem(&self, names: &[String]) -> String {
        let mut hash = Sha256::new().chain_update(&self.certificate);
        for name in names {
            hash = hash.chain_update(name.to_ascii_lowercase()).chain_update([0]);
        }
        let hash = hash.finalize();
        let short = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let first = names.first().map_or("leaf", String::as_str);
        let readable: String = first
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
            .take(64)
            .collect();
        format!("{}-{short:08x}", readable.trim_start_matches('.'))
    }

    fn make_leaf(&self, names: &[String], certificate: &Path, key: &Path, now: SystemTime) -> Result<(), CertError> {
        let wrong = |error: rcgen::Error| CertError::new(certificate, Problem::Issue(error.to_string()));
        let mut parameters = CertificateParams::new(names.to_vec()).map_err(wrong)?;
        validity(&mut parameters, now, LEAF_DAYS);
        parameters.distinguished_name.push(DnType::CommonName, names.first().map_or("sluicegate", String::as_str));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate().map_err(wrong)?;
        let signed = parameters.signed_by(&pair, &self.issuer).map_err(wrong)?;
        write(key, &pair.serialize_pem(), 0o600)?;
        write(certificate, &signed.pem(), 0o644)
    }
}

fn read(certificate: &Path, key: &Path) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>), CertError> {
    let wrong = |path: &Path, error: rcgen::Error| CertError::new(path, Problem::Issue(error.to_string()));
    let text = std::fs::read_to_string(key).map_err(|error| CertError::new(key, error))?;
    let pair = KeyPair::from_pem(&text).map_err(|error| wrong(key, error))?;
    // Also says so when the two are not a pair.
    let der = pem::load_files(certificate, key)?.key.cert[0].clone();
    let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|error| wrong(certificate, error))?;
    Ok((issuer, der))
}

fn make_authority(certificate: &Path, key: &Path, now: SystemTime) -> Result<(), CertError> {
    let wrong = |error: rcgen::Error| CertError::new(certificate, Problem::Issue(error.to_string()));
    let mut parameters = CertificateParams::default();
    validity(&mut parameters, now, AUTHORITY_DAYS);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("Sluicegate local authority {}", host.trim());
    parameters.distinguished_name.push(DnType::CommonName, name.trim_end());
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate().map_err(wrong)?;
    let signed = parameters.self_signed(&pair).map_err(wrong)?;
    write(key, &pair.serialize_pem(), 0o600)?;
    write(certificate, &signed.pem(), 0o644)
}

/// From an hour ago, for clocks that are behind, to `days` from now.
fn validity(parameters: &mut CertificateParams, now: SystemTime, days: i64) {
    let at = |unix: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    parameters.not_before = at(unix(now) - 3_600);
    parameters.not_after = at(unix(now) + days * DAY);
}

/// Makes the directory, private to its owner, and waits until no other process works in it.
fn lock(directory: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(directory.join(".lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Writes beside `path` and renames, so that a reader sees the old content or the new.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let beside = path.with_added_extension("new");
    let written = || -> io::Result<()> {
        let _ = std::fs::remove_file(&beside);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    written().map_err(|error| CertError::new(path, error))
}
