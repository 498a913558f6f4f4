//! The gateway under pressure: samples on the background thread, and what a request that is refused is told.

use std::{sync::Arc, time::Duration};

use http::{StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{entry::Entry, generation::RouteEntry, shared::Shared};
use crate::{
    config::model,
    edge::{Response, answer},
    limit::{self, Admission, Decision, Shares, Turn},
    observe::pressure::{Own, Pressure, Resource, Sampler},
};

/// How often the kernel's files are read.
const LOOK: Duration = Duration::from_millis(500);

/// The problem type of draft-ietf-httpapi-ratelimit-headers for what is not the caller's doing.
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// What workers and the admin listener see of it.
#[derive(Debug, Default)]
pub struct Overload {
    admission: Admission,
    standing: Mutex<Standing>,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Standing {
    /// What came short; none: nothing is refused.
    pub cause: Option<Resource>,
    /// Shares of requests refused, by priority.
    pub refused: Shares,
    /// How full each resource is, from 0 to 1.
    pub pressure: Pressure,
}

impl Overload {
    /// How it stands.
    pub fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    /// The answer to a request that is not let in, counted and noted.
    pub(super) fn refusal(&self, route: &RouteEntry, entry: &mut Entry) -> Option<Response> {
        let cause = self.admission.refuses(route.priority, entry.id)?;
        route.figures.refuse(cause);
        entry.reason = Some("overload");
        Some(refusal(entry.id))
    }

    fn set(&self, pressure: Pressure, decision: Decision) {
        self.admission.set(&decision);
        *self.standing.lock() = Standing { cause: decision.cause, refused: decision.shares, pressure };
    }
}

/// Says what cannot be said otherwise: neither whether the route is a poor one nor what is short is the caller's concern.
fn refusal(number: u64) -> Response {
    let mut members = serde_json::Map::new();
    members.insert("type".to_owned(), REDUCED_CAPACITY.into());
    let detail = "the gateway is overloaded; try again later";
    let mut response = answer::problem_with(StatusCode::SERVICE_UNAVAILABLE, "Overloaded", detail, members);
    response.headers_mut().insert(header::RETRY_AFTER, limit::retry_after(number).into());
    response
}

/// Watches over the gateway for as long as it lives.
pub(super) async fn watch(shared: Arc<Shared>) {
    let (mut watch, mut look) = (Watch::default(), interval(LOOK));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        // At the end there is none.
        let Some(generation) = shared.current.load_full() else { return };
        watch.look(Instant::now(), Own::now(), &generation.config().overload, &shared.overload);
    }
}

/// From files to a decision.
#[derive(Default)]
struct Watch {
    sampler: Sampler,
    decides: limit::Overload,
}

impl Watch {
    fn look(&mut self, now: Instant, own: Own, settings: &model::Overload, to: &Overload) {
        let pressure = self.sampler.look(now, own, settings.memory_limit.map(|size| size.0));
        let decision = self.decides.look(now, pressure, settings);
        to.set(pressure, decision);
        match decision.turn {
            Some(Turn::Begun { cause, value, threshold }) => {
                tracing::warn!(
                    cause = cause.as_str(),
                    value,
                    threshold,
                    "overloaded: requests are refused, low priority first"
                );
            }
            Some(Turn::Ended { after }) => {
                tracing::info!(after_s = after.as_secs(), "overload ended: nothing is refused any more");
            }
            None => {}
        }
    }
}
