//! The files of CAs that pools, upstreams and the fetching of keys trust. Their paths stay while what they hold is renewed, so they are watched,
//! and what they hold is part of what a connection is.

use std::fs;

use sha2::{Digest, Sha256};

use super::{
    key,
    model::{Config, UpstreamTls},
};

impl UpstreamTls {
    /// SHA-256 of what the CA file holds now; none where there is no such file, or it cannot be read.
    pub fn ca_digest(&self) -> Option<[u8; 32]> {
        fs::read(self.ca.as_ref()?).ok().map(|content| Sha256::digest(content).into())
    }
}

impl Config {
    /// What names a CA file, with the key that does.
    pub(super) fn authorities(&self) -> Vec<(String, &UpstreamTls)> {
        let pools = self.pool.iter().map(|(name, pool)| (key::join("pool", name), &pool.tls));
        let upstreams = self.upstream.iter().map(|(name, upstream)| (key::join("upstream", name), &upstream.tls));
        let issuers = self.issuer.iter().map(|(name, issuer)| (key::join("issuer", name), &issuer.tls));
        let all = pools.chain(upstreams).chain(issuers).filter(|(_, tls)| tls.ca.is_some());
        all.map(|(at, tls)| (format!("{at}.tls.ca"), tls)).collect()
    }
}
