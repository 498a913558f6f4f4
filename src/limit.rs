//! Rate limits by key, and what is refused when the gateway itself is overloaded.
//!
//! A [`Limiter`] is one `[limit.NAME]`: a token bucket a key (GCRA, by the `governor` crate), so that `burst` requests pass
//! at once and `rate` in the long run; in the worst case `burst` plus one window's refill within a window. A route's limits
//! are [`RouteLimits`]; what they said about a request is gathered in a [`Tally`] and rendered as the fields of
//! draft-ietf-httpapi-ratelimit-headers.
//!
//! **Keys are bounded.** A key is an address (IPv6 by /64, the least that one customer gets), a consumer, the hash of a
//! header's value, or nothing at all; never text of the client's. At most `max_keys` are counted; a key beyond shares one
//! bucket with all others beyond, until [`Limiter::sweep`], once a second, has forgotten those whose bucket is full again.
//! So a flood of addresses makes the limit coarse for newcomers, not the gateway large (governor's own stores never evict).
//! Hashes are seeded at random, so that nobody can aim at another's bucket.
//!
//! **Scope.** Counts are this process's own: three gateways admit three times the rate.
//!
//! When things go wrong: nothing here can fail while serving. A refused request has still been counted by the limits that
//! were asked before the one that refused it.
//!
//! [`Overload`] is apart from these: it refuses by the route's priority, for the sake of the gateway, whoever asks.
//!
//! Left out: limits on concurrency, a store shared by several gateways.

mod answer;
mod key;
mod overload;
mod store;
#[cfg(test)]
mod tests;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::StateInformationMiddleware,
};

pub use answer::{Refused, RouteLimits, Tally};
pub use key::{Caller, Key};
pub use overload::{Admission, Decision, Overload, Shares, Turn, retry_after};

use crate::config::model::{Limit, LimitKey};
use store::Store;

/// The longest time in which an empty bucket fills again: a year. Beyond it the arithmetic of nanoseconds in 64 bits comes
/// into sight of its end, and a limit that long would not outlive the process anyway.
const LONGEST_WINDOW: Duration = Duration::from_hours(366 * 24);

/// One rate limit over all its keys. Shared by all workers.
#[derive(Debug)]
pub struct Limiter<C: Clock = MonotonicClock> {
    name: Arc<str>,
    settings: Limit,
    burst: u32,
    /// Time in which one permit comes back.
    interval: Duration,
    buckets: RateLimiter<Key, Store, C, StateInformationMiddleware>,
}

/// Why a limit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The burst is zero: nothing would ever pass.
    #[error("limit `{0}`: `burst` must be at least 1")]
    NoBurst(String),
    /// The burst takes more than a year to come back.
    #[error("limit `{0}`: at this rate the burst takes more than a year to come back")]
    Window(String),
}

/// What a limit says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the request may pass.
    pub allowed: bool,
    /// Requests that may pass at once after a pause.
    pub burst: u32,
    /// Requests that may still pass now.
    pub remaining: u32,
    /// Seconds, rounded up and never 0, until one more may pass than `remaining`; for a refused request, until it may be
    /// tried again.
    pub reset_seconds: u32,
}

impl Limiter {
    /// A limit with all buckets full.
    ///
    /// # Errors
    /// The burst is zero, or takes more than a year to come back.
    pub fn new(name: &str, limit: &Limit) -> Result<Self, LimitError> {
        Self::with_clock(name, limit, MonotonicClock)
    }
}

impl<C: Clock> Limiter<C> {
    /// A limit with all buckets full, and a clock of one's own.
    ///
    /// # Errors
    /// As [`Limiter::new`].
    pub fn with_clock(name: &str, limit: &Limit, clock: C) -> Result<Self, LimitError> {
        let burst = limit.burst.unwrap_or(limit.rate.count);
        let Some(permits) = NonZeroU32::new(burst) else { return Err(LimitError::NoBurst(name.to_owned())) };
        let interval = (limit.rate.per / limit.rate.count.max(1)).max(Duration::from_nanos(1));
        if interval.checked_mul(burst).is_none_or(|window| window > LONGEST_WINDOW) {
            return Err(LimitError::Window(name.to_owned()));
        }
        let quota = Quota::with_period(interval).expect("the interval is at least a nanosecond").allow_burst(permits);
        let buckets = RateLimiter::new(quota, Store::new(limit.max_keys), clock);
        Ok(Self { name: name.into(), settings: limit.clone(), burst, interval, buckets })
    }

    /// The name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The configuration it was made from: unchanged in a reload, the limiter is kept, and its counts with it.
    pub fn settings(&self) -> &Limit {
        &self.settings
    }

    /// Whether it can only be asked once the caller is known.
    pub fn needs_consumer(&self) -> bool {
        self.settings.key == LimitKey::Consumer
    }

    /// Takes a permit for `key`, if there is one.
    pub fn check(&self, key: Key) -> Outcome {
        self.check_for(key, NonZeroU32::MIN)
    }

    /// Takes `permits` for `key`, all or none. More than there ever are is refused as what takes the longest.
    pub fn check_for(&self, key: Key, permits: NonZeroU32) -> Outcome {
        let refused = |reset_seconds| Outcome { allowed: false, burst: self.burst, remaining: 0, reset_seconds };
        match self.buckets.check_key_n(&key, permits) {
            Ok(Ok(state)) => Outcome {
                allowed: true,
                burst: self.burst,
                remaining: state.remaining_burst_capacity(),
                reset_seconds: seconds(self.interval),
            },
            Ok(Err(not_until)) => refused(seconds(not_until.wait_time_from(self.buckets.clock().now()))),
            Err(_more_than_ever) => refused(self.window_seconds()),
        }
    }

    /// Takes `permits` for the key that the configuration chose.
    pub fn check_caller_for(&self, caller: &Caller<'_>, permits: NonZeroU32) -> Outcome {
        self.check_for(key::of(&self.settings.key, caller), permits)
    }

    /// Takes a permit for the key that the configuration chose.
    pub fn check_caller(&self, caller: &Caller<'_>) -> Outcome {
        self.check_caller_for(caller, NonZeroU32::MIN)
    }

    /// Forgets the keys whose bucket is full again, and gives memory back. Called once a second; each lock is held for a
    /// few microseconds.
    pub fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    /// Keys counted now; never more than `max_keys`.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no key is counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Seconds in which an empty bucket fills again: the window of the policy.
    fn window_seconds(&self) -> u32 {
        seconds(self.interval.saturating_mul(self.burst))
    }
}

/// Whole seconds, rounded up, at least 1: `Retry-After: 0` would invite a client to try again at once.
fn seconds(duration: Duration) -> u32 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(up.max(1)).unwrap_or(u32::MAX)
}
