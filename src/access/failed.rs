//! A limit on failures, by address.

use std::net::IpAddr;

use crate::{
    config::{
        model::{Limit, LimitKey},
        value::Rate,
    },
    limit::{Key, Limiter, Outcome},
};

/// Failed authentications that one address (IPv6: one /64) may make in the long run, a second.
const RATE: u32 = 10;
/// Failures at once: a deployment whose key was rotated is noticed, not cut off.
const BURST: u32 = 20;
/// Addresses counted.
const ADDRESSES: usize = 65_536;

/// Counts failed authentications: 10 a second an address, 20 at once. Beyond that an attempt with a wrong key is worth a 429
/// instead of a 401, which costs neither log line nor thought.
#[derive(Debug)]
pub struct FailedAuth {
    limiter: Limiter,
}

impl Default for FailedAuth {
    fn default() -> Self {
        let limit = Limit {
            key: LimitKey::ClientAddress,
            rate: Rate { count: RATE, per: std::time::Duration::from_secs(1) },
            burst: Some(BURST),
            max_keys: ADDRESSES,
            headers: false,
        };
        Self { limiter: Limiter::new("failed-authentication", &limit).expect("10/s with a burst of 20 is a limit") }
    }
}

impl FailedAuth {
    /// Counts a failure. If the outcome is not allowed, the answer is 429.
    pub fn failed(&self, address: IpAddr) -> Outcome {
        self.limiter.check(Key::address(address))
    }

    /// Forgets addresses that have behaved. Called once a second.
    pub fn sweep(&self) {
        self.limiter.sweep();
    }
}
