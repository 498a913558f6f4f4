//! Why no connection was to be had: saturated, creation failing, leaked, or slow.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    backend::Holder,
    breaker::{Breaker, Reason},
    core::{Core, Refused, Service},
    error::{CheckoutErrorKind, Load},
    record::millis,
    status::{HolderStatus, WaiterStatus},
};

/// Holders that an error names.
const NAMED: usize = 8;

/// Who holds connections, the longest first.
pub(super) fn holders<C>(core: &Core<C>, now: Instant, most: usize) -> Vec<HolderStatus> {
    let status = |used: &super::core::Use| HolderStatus {
        connection: used.id,
        route: used.holder.route.clone(),
        request: used.holder.request,
        held_ms: millis(now.saturating_duration_since(used.since)),
    };
    let mut holders: Vec<HolderStatus> = core.uses().map(status).collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.held_ms));
    holders.truncate(most);
    holders
}

/// Who waits, the longest first.
pub(super) fn waiters<C>(core: &Core<C>, now: Instant, most: usize) -> Vec<WaiterStatus> {
    let status = |(holder, since): (&Holder, Instant)| WaiterStatus {
        route: holder.route.clone(),
        request: holder.request,
        waited_ms: millis(now.saturating_duration_since(since)),
    };
    core.waiters().take(most).map(status).collect()
}

pub(super) fn load<C>(core: &Core<C>) -> Load {
    let counts = core.counts();
    Load { in_use: counts.in_use, limit: limit(core), waiters: counts.waiters }
}

/// Connections that may exist, after every bound: what sisters on the same server have is not for this pool.
pub(super) fn limit<C>(core: &Core<C>) -> u32 {
    let gate = core.gate();
    let server = core.server().and_then(|(server, _)| server.left_for(core.counts().live())).unwrap_or(u32::MAX);
    gate.target.min(gate.max).min(gate.ceiling).min(server)
}

/// Why a caller was refused at once.
pub(super) fn refusal(why: Refused, breaker: &Breaker, now: Instant) -> CheckoutErrorKind {
    match why {
        Refused::QueueFull => CheckoutErrorKind::QueueFull,
        Refused::TooMany => CheckoutErrorKind::TooManyClients,
        Refused::Shut => CheckoutErrorKind::Retired,
        Refused::Barred => match breaker.reason() {
            Some(Reason { class, sqlstate, public, .. }) => CheckoutErrorKind::BreakerOpen {
                reason: *class,
                sqlstate: sqlstate.clone(),
                public: public.clone(),
                retry_after: breaker.retry_after(now),
            },
            // It has just closed: whoever asks again is served.
            None => CheckoutErrorKind::Slow,
        },
    }
}

/// Why a caller waited in vain while `returned` connections came back.
pub(super) fn timeout<C>(
    core: &Core<C>,
    breaker: &Breaker,
    now: Instant,
    held_warning: Duration,
    returned: u64,
) -> CheckoutErrorKind {
    if core.service() != Service::Open {
        return CheckoutErrorKind::Paused;
    }
    let counts = core.counts();
    let gate = core.gate();
    if let Some(Reason { class, sqlstate, public, .. }) = breaker.reason()
        && counts.idle + counts.in_use < gate.target.min(gate.max)
    {
        return CheckoutErrorKind::Creating { class: *class, sqlstate: sqlstate.clone(), public: public.clone() };
    }
    let long = |holder: &HolderStatus| !held_warning.is_zero() && holder.held_ms >= millis(held_warning);
    let all = holders(core, now, usize::MAX);
    let held_long = all.iter().take_while(|holder| long(holder)).count();
    if held_long > 0 && held_long * 2 >= all.len() {
        let holders = all.into_iter().take(held_long.min(NAMED)).collect();
        return CheckoutErrorKind::Leaked { holders };
    }
    if returned == 0 { CheckoutErrorKind::Slow } else { CheckoutErrorKind::Saturated }
}
