//! A limit on failures, by address.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

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
/// How long no token of an address is verified that has failed too often: as long as it was told to wait (`Retry-After`). After
/// that it has [`RATE`] failures again.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts failed authentications: 10 a second an address, 20 at once. Beyond that an attempt with a wrong key is worth a 429
/// instead of a 401, which costs neither log line nor thought; and for a second no token of the address is verified, as a wrong one
/// costs as much as a right one.
#[derive(Debug)]
pub struct FailedAuth {
    limiter: Limiter,
    over: Mutex<HashMap<Key, Instant>>,
}

impl Default for FailedAuth {
    fn default() -> Self {
        let limit = Limit {
            key: LimitKey::ClientAddress,
            rate: Rate { count: RATE, per: Duration::from_secs(1) },
            burst: Some(BURST),
            max_keys: ADDRESSES,
            headers: false,
        };
        let limiter = Limiter::new("failed-authentication", &limit).expect("10/s with a burst of 20 is a limit");
        Self { limiter, over: Mutex::default() }
    }
}

impl FailedAuth {
    /// Counts a failure. If the outcome is not allowed, the answer is 429.
    pub fn failed(&self, address: IpAddr) -> Outcome {
        let outcome = self.limiter.check(Key::address(address));
        if !outcome.allowed {
            self.bar(address, Instant::now());
        }
        outcome
    }

    /// Whether the address has failed too often, within the last second.
    pub fn is_over(&self, address: IpAddr) -> bool {
        self.is_over_at(address, Instant::now())
    }

    fn bar(&self, address: IpAddr, now: Instant) {
        let mut over = self.over.lock();
        if over.len() < ADDRESSES || over.contains_key(&Key::address(address)) {
            over.insert(Key::address(address), now + PAUSE);
        }
    }

    fn is_over_at(&self, address: IpAddr, now: Instant) -> bool {
        self.over.lock().get(&Key::address(address)).is_some_and(|until| now < *until)
    }

    /// Forgets addresses that have behaved. Called once a second.
    pub fn sweep(&self) {
        self.limiter.sweep();
        self.forget(Instant::now());
    }

    fn forget(&self, now: Instant) {
        let mut over = self.over.lock();
        over.retain(|_, until| now < *until);
        // What an attack took is given back.
        if over.is_empty() {
            over.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_over_its_limit_for_a_second_after_each_failure_beyond_it() {
        let (failures, now) = (FailedAuth::default(), Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, same, other) = (address("2001:db8::1"), address("2001:db8::2"), address("2001:db8:0:1::1"));
        failures.bar(one, now);
        for second in [1, 2] {
            assert!(failures.is_over_at(one, now + PAUSE.mul_f64(f64::from(second) - 0.01)));
            assert!(failures.is_over_at(same, now) && !failures.is_over_at(other, now));
            assert!(!failures.is_over_at(one, now + PAUSE * second));
            failures.bar(one, now + PAUSE);
        }
        failures.forget(now + PAUSE);
        assert!(failures.is_over_at(one, now + PAUSE), "as long as it lasts");
        failures.forget(now + PAUSE * 2);
        assert!(failures.over.lock().is_empty());
    }
}
