//! Warm instances for validation, which may be on a request's path: one for each worker, kept between calls.
//!
//! They belong to their version, not to the thread: when the last call on an old version ends, its instances go with it,
//! on idle workers too, and no sweep is needed. The lock of a lane is uncontended, as a worker only takes its own; threads
//! that are no workers share one, and whoever finds it taken gets an instance for the one call.

use parking_lot::Mutex;

use super::{
    ValidationInput, Verdict, answer,
    fault::Fault,
    instance::{Instance, missing},
    interface::bindings::exports::sluicegate::policy::validation,
    version::Version,
};
use crate::observe;

/// Calls after which an instance is replaced, so that what it may leak does not add up.
const CALLS: u32 = 1 << 20;

/// The warm instances of a version.
pub(super) struct Warm {
    lanes: Box<[Lane]>,
}

/// Alone on its cache lines: the neighbour is another worker's.
#[repr(align(128))]
#[derive(Default)]
struct Lane(Mutex<Option<Checker>>);

struct Checker {
    instance: Instance,
    guest: validation::Guest,
    calls_left: u32,
}

impl Warm {
    pub(super) fn new(lanes: usize) -> Self {
        Self { lanes: (0..lanes.max(1)).map(|_| Lane::default()).collect() }
    }

    /// Asks `validation.check`.
    pub(super) fn check(&self, version: &Version, input: &ValidationInput) -> Result<Verdict, Fault> {
        let lane = &self.lanes[observe::worker().min(self.lanes.len() - 1)];
        let Some(mut kept) = lane.0.try_lock() else {
            return Checker::start(version)?.check(version, input);
        };
        let checker = match &mut *kept {
            Some(checker) if checker.calls_left > 0 => checker,
            kept => {
                *kept = None;
                kept.insert(Checker::start(version)?)
            }
        };
        let verdict = checker.check(version, input);
        if verdict.is_err() {
            *kept = None;
        }
        verdict
    }

    /// Lets go of every instance that is not in a call.
    pub(super) fn cool(&self) {
        for mut kept in self.lanes.iter().filter_map(|lane| lane.0.try_lock()) {
            *kept = None;
        }
    }
}

impl Checker {
    fn start(version: &Version) -> Result<Self, Fault> {
        let export = version.exports.validation.as_ref().ok_or_else(missing)?;
        let mut instance = Instance::start(version)?;
        let guest = instance.load(|store, at| export.load(store, at))?;
        Ok(Self { instance, guest, calls_left: CALLS })
    }

    #[inline]
    fn check(&mut self, version: &Version, input: &ValidationInput) -> Result<Verdict, Fault> {
        self.calls_left -= 1;
        let guest = &self.guest;
        let packed = self.instance.timed(version.limits.deadline, |store| {
            guest.call_check(
                store,
                input.trigger,
                input.age_ms,
                input.idle_ms,
                input.uses,
                input.errors,
                input.since_validated_ms,
                input.last_valid_for_ms,
                input.recent_bad,
                input.recent_good,
                input.transaction,
                input.dirty,
                input.peek,
                input.last_error,
                input.deadline_left_ms,
                input.failed_probes,
                input.epochs_behind,
            )
        })?;
        answer::verdict(packed).map_err(Fault::invalid)
    }
}
