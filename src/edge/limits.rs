//! How many connections there may be, in all and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

/// Tables by address. Workers seldom meet in one of them, and each is held for one lookup.
const SHARDS: usize = 32;

/// The caps on client connections, shared by all listeners and workers.
///
/// An address is an IPv4 address or an IPv6 /64, which is what one subscriber is given. Memory is bounded by the cap on all:
/// an address is remembered only while it has a connection.
#[derive(Debug)]
pub struct ConnectionLimits {
    cap: AtomicU32,
    cap_per_address: AtomicU32,
    open: AtomicU32,
    shards: Vec<Mutex<HashMap<IpAddr, u32>>>,
}

/// The right to one connection. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
}

/// Which cap was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The cap on all connections.
    Total,
    /// The cap on connections from one address.
    Address,
}

impl ConnectionLimits {
    /// At most `cap` connections, and `cap_per_address` from one address.
    pub fn new(cap: u32, cap_per_address: u32) -> Arc<Self> {
        Arc::new(Self {
            cap: AtomicU32::new(cap),
            cap_per_address: AtomicU32::new(cap_per_address),
            open: AtomicU32::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Changes the caps for connections to come; those that are open stay.
    pub fn set(&self, cap: u32, cap_per_address: u32) {
        self.cap.store(cap, Relaxed);
        self.cap_per_address.store(cap_per_address, Relaxed);
    }

    /// Connections open now.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Asks for one more connection from `address`. Neither cap is ever exceeded, whoever asks at the same time.
    ///
    /// # Errors
    /// Which cap was met.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Refused> {
        let cap = self.cap.load(Relaxed);
        let one_more = |open: u32| (open < cap).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, one_more).map_err(|_| Refused::Total)?;

        let address = group(address);
        let mut table = self.shard(address).lock();
        let count = table.entry(address).or_insert(0);
        if *count >= self.cap_per_address.load(Relaxed) {
            if *count == 0 {
                table.remove(&address);
            }
            self.open.fetch_sub(1, Relaxed);
            return Err(Refused::Address);
        }
        *count += 1;
        drop(table);
        Ok(Permit { limits: self.clone(), address })
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        let mixed = match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        // Fibonacci hashing: the upper bits of the product depend on all bits below.
        let index = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59;
        &self.shards[index as usize % SHARDS]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.limits.shard(self.address).lock();
        if let Some(count) = table.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.address);
            }
        }
        drop(table);
        self.limits.open.fetch_sub(1, Relaxed);
    }
}

/// What counts as one address.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_caps_hold_and_permits_come_back() {
        let limits = ConnectionLimits::new(3, 2);
        let first = limits.admit(address("10.0.0.1")).unwrap();
        let _second = limits.admit(address("10.0.0.1")).unwrap();
        assert_eq!(limits.admit(address("10.0.0.1")).unwrap_err(), Refused::Address);
        let _third = limits.admit(address("10.0.0.2")).unwrap();
        assert_eq!(limits.admit(address("10.0.0.3")).unwrap_err(), Refused::Total);
        assert_eq!(limits.open(), 3);
        drop(first);
        assert_eq!(limits.open(), 2);
        assert!(limits.admit(address("10.0.0.1")).is_ok());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_mapped_addresses_as_ipv4() {
        let limits = ConnectionLimits::new(10, 1);
        let _first = limits.admit(address("2001:db8::1")).unwrap();
        assert_eq!(limits.admit(address("2001:db8::ffff:2")).unwrap_err(), Refused::Address);
        assert!(limits.admit(address("2001:db8:0:1::1")).is_ok());
        let _mapped = limits.admit(address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(limits.admit(address("10.0.0.1")).unwrap_err(), Refused::Address);
    }

    #[test]
    fn caps_change_live_and_nothing_is_remembered() {
        let limits = ConnectionLimits::new(1, 1);
        let first = limits.admit(address("10.0.0.1")).unwrap();
        limits.set(10, 10);
        let more: Vec<_> = (0..9).map(|_| limits.admit(address("10.0.0.1")).unwrap()).collect();
        limits.set(0, 0);
        assert!(limits.admit(address("10.0.0.2")).is_err());
        drop((first, more));
        assert_eq!(limits.open(), 0);
        assert!(limits.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn caps_hold_between_threads() {
        let limits = ConnectionLimits::new(50, 20);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                let (limits, most) = (&limits, &most);
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        let held: Vec<_> =
                            (0..10).filter_map(|_| limits.admit(IpAddr::from([10, 0, 0, thread % 2])).ok()).collect();
                        most.fetch_max(limits.open(), Relaxed);
                        drop(held);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 50);
        assert_eq!(limits.open(), 0);
    }
}
