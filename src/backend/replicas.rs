//! Reads go to replicas: which of them, and whether they are fit for it.
//!
//! Each replica is a pool of its own, with its own policies and breaker; this room only chooses among them. Work that is read
//! only (and that a standby can do) goes to the less busy of two replicas in rotation, picked at random: the power of two
//! choices (Mitzenmacher 2001) spreads load about as well as the least busy of all, and does not send a herd to one that has just
//! come back. Everything else goes to the primary, always. That a read is one is enforced where it runs: it is a read-only
//! transaction, so that the wrong word of a caller is refused (25006) on whichever server it lands.
//!
//! **In rotation** is who was found, by a check on the background each interval, to be a standby that answers and is not too far
//! behind (`check`, `rotation`, `lag`), and whose pool can lend. The choice takes each pool's lock for a glance, and no other.
//!
//! **When things go wrong.** A read that finds its replica's pool without a way to its server, or closed, goes to the next, then to
//! the primary, each once. One that was sent and lost before anything was given out does so within the retry budget: reading twice
//! does no harm. One that meets a full queue goes to another replica only, and one that waited in vain for a full pool nowhere:
//! load is no outage, and the primary is not there to take what is too much for all replicas. Whoever waits at a replica
//! that is put out leaves its queue at once; where it is out because it does not answer, so does what runs there and has given
//! nothing out. If the primary cannot be asked for its position, the last one holds; a replica is not
//! put out for a full pool, whose check only comes later. When none is left, reads go to the primary, or are refused where that
//! is not wanted ([`BackendError::NoReplica`](super::BackendError::NoReplica)).
//!
//! **Left out**: reading one's own writes (a request that must see them is not to be read only), replicas of different weight, and
//! finding replicas by oneself.

mod check;
mod lag;
mod read;
mod rotation;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::{sync::Notify, task::AbortHandle};

use self::{
    lag::History,
    rotation::{Rotation, Seen, Standing},
};
use super::postgres::Postgres;
use crate::{
    config::model,
    pool::{Pool, Usable},
};

pub(super) use read::{Read, gone, suits};

/// The replicas of a pool, as one configuration has them. What is known of each passes to the next configuration's set.
pub struct Replicas {
    primary: Arc<Pool<Postgres>>,
    members: Vec<Arc<Replica>>,
    settings: model::Replicas,
    shared: Arc<Shared>,
    checking: Mutex<Option<AbortHandle>>,
}

/// What sets of the same primary share, one after the other.
#[derive(Default)]
struct Shared {
    history: Mutex<History>,
    /// Reads that went to the primary for want of a replica.
    fallbacks: AtomicU64,
}

struct Replica {
    pool: Arc<Pool<Postgres>>,
    rotation: Mutex<Rotation>,
    /// The rotation's standing, for whoever chooses.
    standing: AtomicU8,
    /// In milliseconds; [`UNKNOWN`] if it is not known.
    lag: AtomicU64,
    reads: AtomicU64,
    ejections: AtomicU64,
    /// Told when it is put out.
    ejected: Notify,
}

const UNKNOWN: u64 = u64::MAX;

/// Where a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Replica(usize),
    Primary,
    Nowhere,
}

/// A pool's replicas at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicasStatus {
    /// Reads that went to the primary for want of a replica.
    pub fallbacks: u64,
    /// Each replica, in the configuration's order.
    pub pools: Vec<ReplicaStatus>,
}

/// A replica at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// Its pool.
    pub pool: Arc<str>,
    /// Whether it gets reads.
    pub in_rotation: bool,
    /// Why it does not.
    pub why: Option<&'static str>,
    /// How far it is behind, in seconds, to within one check's interval; none if that is not known.
    pub lag_s: Option<f64>,
    /// Reads that began there.
    pub reads: u64,
    /// How often it was put out of rotation.
    pub ejections: u64,
}

impl Replicas {
    /// The replicas of `primary`, as `settings` has them. Of `before`, what has not changed is taken over; it is `before` itself if
    /// nothing has. At most 64.
    pub fn new(
        primary: &Arc<Pool<Postgres>>,
        pools: &[Arc<Pool<Postgres>>],
        settings: &model::Replicas,
        before: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let known = |pool: &Arc<Pool<Postgres>>| {
            before.and_then(|set| set.members.iter().find(|member| Arc::ptr_eq(&member.pool, pool)))
        };
        let members: Vec<_> =
            pools.iter().map(|pool| known(pool).cloned().unwrap_or_else(|| Replica::new(pool.clone()))).collect();
        let before = before.filter(|set| Arc::ptr_eq(&set.primary, primary));
        if let Some(same) = before.filter(|set| set.settings == *settings && is_same(&set.members, &members)) {
            return same.clone();
        }
        Arc::new(Self {
            primary: primary.clone(),
            members,
            settings: settings.clone(),
            shared: before.map_or_else(Arc::default, |set| set.shared.clone()),
            checking: Mutex::default(),
        })
    }

    /// Checks its members from now on, on the current runtime's thread. Ends with [`Self::stop`], or when nobody has the set any more.
    pub fn start(self: &Arc<Self>) {
        let checking = tokio::task::spawn_local(check::watch(Arc::downgrade(self)));
        *self.checking.lock() = Some(checking.abort_handle());
    }

    /// Checks no more: another set takes over.
    pub fn stop(&self) {
        if let Some(checking) = self.checking.lock().take() {
            checking.abort();
        }
    }

    /// The set at this moment.
    pub fn status(&self) -> ReplicasStatus {
        ReplicasStatus {
            fallbacks: self.shared.fallbacks.load(Ordering::Relaxed),
            pools: self.members.iter().map(|member| member.status()).collect(),
        }
    }

    /// Where the next read goes that was `tried` on those replicas, as bits.
    fn choose(&self, tried: u64) -> Place {
        let standing = |wanted: Standing| {
            let members = self.members.iter().enumerate();
            members.filter(|(_, member)| member.standing() == wanted).fold(0, |set, (index, _)| set | 1 << index)
        };
        let find = |among: u64| self.less_busy(among & !tried);
        match find(standing(Standing::In)) {
            Some(index) => Place::Replica(index),
            None if self.settings.fallback => Place::Primary,
            // The first check is still under way.
            None => find(standing(Standing::Unknown)).map_or(Place::Nowhere, Place::Replica),
        }
    }

    /// The less busy of two, or of the next two if both are of no use.
    fn less_busy(&self, mut among: u64) -> Option<usize> {
        while among != 0 {
            let one = pick(among);
            let pair = match among & !(1 << one) {
                0 => [one, one],
                others => [one, pick(others)],
            };
            let usable = pair.into_iter().filter_map(|index| {
                let outlook = self.members[index].pool.outlook();
                (outlook.state == Usable::Yes).then_some((outlook.busy(), index))
            });
            // Of two that are as busy, the one that was picked first: always the same would get all.
            if let Some((_, index)) = usable.min_by_key(|(busy, _)| *busy) {
                return Some(index);
            }
            among &= !(1 << pair[0] | 1 << pair[1]);
        }
        None
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Replica {
    fn new(pool: Arc<Pool<Postgres>>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            rotation: Mutex::default(),
            standing: AtomicU8::default(),
            lag: AtomicU64::new(UNKNOWN),
            reads: AtomicU64::default(),
            ejections: AtomicU64::default(),
            ejected: Notify::new(),
        })
    }

    fn standing(&self) -> Standing {
        let number = usize::from(self.standing.load(Ordering::Acquire));
        Standing::ALL.get(number).copied().unwrap_or_default()
    }

    /// What a check found. `error`: why it found nothing, for the log.
    fn take_note(&self, primary: &str, seen: Seen, most: Duration, error: Option<String>) {
        match seen {
            Seen::Standby { lag } => {
                let ms = lag.map_or(UNKNOWN, |lag| u64::try_from(lag.as_millis()).unwrap_or(UNKNOWN));
                self.lag.store(ms, Ordering::Relaxed);
            }
            // What it was stands, while nothing newer is known.
            Seen::Busy => {}
            _ => self.lag.store(UNKNOWN, Ordering::Relaxed),
        }
        let mut rotation = self.rotation.lock();
        let was = rotation.standing();
        rotation.see(seen, most);
        let is = rotation.standing();
        self.standing.store(is as u8, Ordering::Release);
        drop(rotation);
        if is != was && is.is_out() {
            self.ejected.notify_waiters();
        }
        let lag_ms = Some(self.lag.load(Ordering::Relaxed)).filter(|ms| *ms != UNKNOWN);
        match (was.is_out(), is.is_out()) {
            (false, true) => {
                self.ejections.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(pool = primary, replica = %self.pool.name(), why = is.why(), lag_ms, error, "replica out of rotation");
            }
            (true, false) => {
                tracing::info!(pool = primary, replica = %self.pool.name(), lag_ms, "replica back in rotation");
            }
            _ => {}
        }
    }

    /// Waits until its standing is out of rotation, and such. Cancel safe.
    async fn until(&self, such: fn(Standing) -> bool) {
        loop {
            let ejected = self.ejected.notified();
            tokio::pin!(ejected);
            ejected.as_mut().enable();
            if such(self.standing()) {
                return;
            }
            ejected.await;
        }
    }

    fn status(&self) -> ReplicaStatus {
        let usable = match self.pool.outlook().state {
            Usable::Yes => None,
            Usable::Paused => Some("its pool is paused"),
            Usable::Failing => Some("no connection can be made"),
            Usable::BreakerOpen => Some("its breaker is open"),
        };
        let why = self.standing().why().or(usable);
        let lag = Some(self.lag.load(Ordering::Relaxed)).filter(|ms| *ms != UNKNOWN);
        ReplicaStatus {
            pool: self.pool.name().clone(),
            in_rotation: why.is_none(),
            why,
            lag_s: lag.map(|ms| ms as f64 / 1e3),
            reads: self.reads.load(Ordering::Relaxed),
            ejections: self.ejections.load(Ordering::Relaxed),
        }
    }
}

fn is_same(one: &[Arc<Replica>], other: &[Arc<Replica>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// A member of the set, at random; the set has one.
fn pick(mut set: u64) -> usize {
    for _ in 0..rand::random_range(0..set.count_ones().max(1)) {
        set &= set - 1;
    }
    set.trailing_zeros() as usize
}
