//! What a consumer may do at most.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Method;
use ipnet::IpNet;

use super::{AccessError, Denied, seats::Seats};
use crate::{
    config::model::{Consumer, Limit, LimitKey, Queries, TunnelMode},
    limit::{Limiter, RouteLimits},
};

/// `[consumer.NAME]` less its credentials. What is none has no bound of the consumer's own.
#[derive(Debug, Default)]
pub struct Grant {
    /// Login role on pools that have one connection pool a role; none: the consumer's name ([`super::Identity::role`]).
    pub role: Option<Arc<str>>,
    /// Named queries only, no SQL of the caller's own.
    pub named_only: bool,
    /// Every query in a read-only transaction.
    pub read_only: bool,
    /// Pools that may be asked.
    pub pools: Option<Box<[Arc<str>]>>,
    /// Most rows in one answer.
    pub max_rows: Option<u64>,
    /// Most bytes in one answer.
    pub max_response: Option<u64>,
    /// Longest query, from the request's first byte to the answer's last.
    pub deadline: Option<Duration>,
    /// What tunnels hold at most.
    pub tunnel: Option<TunnelMode>,
    /// From when on the consumer is refused.
    pub expires: Option<SystemTime>,
    pub(super) methods: Option<Box<[Method]>>,
    pub(super) networks: Option<Box<[IpNet]>>,
    pub(super) max_concurrent: Option<u32>,
    rate: Option<Limit>,
    /// The limiter of `rate`.
    pub(super) limits: Option<Arc<RouteLimits>>,
    pub(super) seats: Arc<Seats>,
}

impl Grant {
    /// The grant of a new configuration. An unchanged `rate` keeps its count; so do the requests under way, in any case.
    pub(super) fn build(name: &str, consumer: &Consumer, before: Option<&Self>) -> Result<Self, AccessError> {
        let wrong = |what: String| AccessError::Bound { consumer: name.to_owned(), what };
        let method = |method: &String| Method::from_bytes(method.as_bytes()).map_err(|error| wrong(error.to_string()));
        let methods = consumer.methods.iter().map(|methods| methods.iter().map(method).collect::<Result<_, _>>());
        let rate = consumer.rate.map(|rate| Limit {
            key: LimitKey::All,
            rate,
            burst: consumer.burst,
            max_keys: 1,
            headers: true,
        });
        let kept = before.filter(|before| before.rate == rate).and_then(|before| before.limits.clone());
        let limits = match (kept, &rate) {
            (Some(kept), _) => Some(kept),
            (None, None) => None,
            (None, Some(rate)) => {
                // No `[limit.NAME]` is called so: a name has no colon.
                let limiter =
                    Limiter::new(&format!("consumer:{name}"), rate).map_err(|error| wrong(error.to_string()))?;
                Some(Arc::new(RouteLimits::new(vec![Arc::new(limiter)])))
            }
        };
        Ok(Self {
            role: consumer.role.as_deref().map(Arc::from),
            named_only: consumer.queries == Queries::Named,
            read_only: consumer.read_only,
            pools: consumer.pools.as_ref().map(|pools| pools.iter().map(|pool| pool.as_str().into()).collect()),
            max_rows: consumer.max_rows,
            max_response: consumer.max_response.map(|size| size.0),
            deadline: consumer.deadline.map(|span| span.0),
            tunnel: consumer.tunnel,
            expires: consumer.expires.map(|moment| moment.0),
            methods: methods.into_iter().next().transpose()?,
            networks: consumer.networks.clone().map(Vec::into_boxed_slice),
            max_concurrent: consumer.max_concurrent,
            rate,
            limits,
            seats: before.map(|before| before.seats.clone()).unwrap_or_default(),
        })
    }

    /// Whether this pool may be asked, by its name in the configuration (of a template, the template's).
    pub fn may_ask(&self, pool: &str) -> bool {
        self.pools.as_ref().is_none_or(|pools| pools.iter().any(|name| **name == *pool))
    }

    /// The limit on the consumer's rate, if there is one.
    pub fn limits(&self) -> Option<&Arc<RouteLimits>> {
        self.limits.as_ref()
    }

    /// Whether a request may come from there, like this, and now.
    pub(super) fn check(&self, client: IpAddr, method: &Method, now: SystemTime) -> Result<(), Denied> {
        if self.expires.is_some_and(|end| end <= now) {
            return Err(Denied::Expired);
        }
        let client = client.to_canonical();
        if self.networks.as_ref().is_some_and(|networks| !networks.iter().any(|network| network.contains(&client))) {
            return Err(Denied::Network);
        }
        if self.methods.as_ref().is_some_and(|methods| !methods.contains(method)) {
            return Err(Denied::Method);
        }
        Ok(())
    }

    /// Whether what was admitted under `before` may go on under this: whatever bounds a tunnel that is open is still the same, and
    /// it would not have ended earlier.
    pub(super) fn keeps(&self, before: &Self) -> bool {
        let rights = |grant: &Self| {
            let Self { role, named_only, read_only, pools, tunnel, methods, networks, .. } = grant;
            (role.clone(), *named_only, *read_only, pools.clone(), *tunnel, methods.clone(), networks.clone())
        };
        let no_earlier = match (self.expires, before.expires) {
            (None, _) => true,
            (Some(now), Some(then)) => now >= then,
            (Some(_), None) => false,
        };
        no_earlier && rights(self) == rights(before)
    }
}
