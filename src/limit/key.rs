//! What a limit counts by, in a few bytes.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::LazyLock,
};

use http::HeaderMap;

use crate::config::model::LimitKey;

/// A key, without any of the client's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
    /// A consumer's number.
    Consumer(u64),
    /// The hash of a header's value, under a seed made at start.
    Header([u64; 2]),
    /// The header is missing.
    NoHeader,
    /// Everyone.
    All,
}

/// Who makes a request, as far as limits ask.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The client's address, behind trusted proxies.
    pub address: IpAddr,
    /// The authenticated consumer's number.
    pub consumer: Option<u64>,
    /// The request's fields.
    pub headers: &'a HeaderMap,
}

impl Key {
    /// The key of an address: an IPv4 address as it is (also one mapped into IPv6), an IPv6 address by its /64.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }

    /// The key of a header's value.
    pub fn header(value: &[u8]) -> Self {
        static SEEDS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        Self::Header([SEEDS[0].hash_one(value), SEEDS[1].hash_one(value)])
    }
}

/// The key that a configuration chooses. A limit by consumer counts callers without one by their address; of a header that
/// is repeated, the first value counts.
pub(super) fn of(choice: &LimitKey, caller: &Caller<'_>) -> Key {
    match choice {
        LimitKey::ClientAddress => Key::address(caller.address),
        LimitKey::Consumer => caller.consumer.map_or_else(|| Key::address(caller.address), Key::Consumer),
        LimitKey::Header(name) => {
            caller.headers.get(name.as_str()).map_or(Key::NoHeader, |value| Key::header(value.as_bytes()))
        }
        LimitKey::All => Key::All,
    }
}
