//! One running instance of a component, in a store of its own. A trap poisons the whole store, so the rule is: after any
//! fault the instance is dropped, and the next call gets a new one (3.5 us, measured).

use std::time::Duration;

use wasmtime::{Store, component};

use super::{
    EvictionInput, EvictionOutput, SizingInput, SizingOutput, answer,
    fault::{Fault, FaultKind},
    interface::bindings::exports::sluicegate::policy::lifecycle,
    sandbox::{self, State},
    version::Version,
};

/// Instantiation and configuration together may take so many times the deadline of a call; once an instance.
const START_FACTOR: u32 = 5;

/// An instance and its store.
pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) instance: component::Instance,
}

impl Instance {
    /// Makes an instance, not yet configured.
    pub(super) fn bare(version: &Version) -> Result<Self, Fault> {
        let mut store = sandbox::store(&version.host, &version.limits, version.live());
        sandbox::arm(&mut store, version.limits.deadline * START_FACTOR);
        match version.pre.instantiate(&mut store) {
            Ok(instance) => Ok(Self { store, instance }),
            Err(error) => Err(Fault::of_start(&error, store.data().starved)),
        }
    }

    /// Makes an instance that can be asked.
    pub(super) fn start(version: &Version) -> Result<Self, Fault> {
        let mut instance = Self::bare(version)?;
        instance
            .configure(version)?
            .map_err(|reason| Fault::invalid(format!("refuses the configuration it took before: {reason}")))?;
        Ok(instance)
    }

    /// Hands over the configuration; the inner error is the component's own. Nothing happens where there is no `lifecycle`.
    pub(super) fn configure(&mut self, version: &Version) -> Result<Result<(), String>, Fault> {
        let Some(lifecycle) = self.lifecycle(version)? else { return Ok(Ok(())) };
        let deadline = version.limits.deadline * START_FACTOR;
        self.timed(deadline, |store| lifecycle.call_configure(store, &version.config))
    }

    /// What the component exports of `lifecycle`.
    pub(super) fn lifecycle(&mut self, version: &Version) -> Result<Option<lifecycle::Guest>, Fault> {
        version.exports.lifecycle.as_ref().map(|export| self.load(|store, at| export.load(store, at))).transpose()
    }

    /// Asks `sizing.decide`.
    pub(super) fn decide(&mut self, version: &Version, input: &SizingInput) -> Result<SizingOutput, Fault> {
        let export = version.exports.sizing.as_ref().ok_or_else(missing)?;
        let guest = self.load(|store, at| export.load(store, at))?;
        let output = self.timed(version.limits.deadline, |store| guest.call_decide(store, input))?;
        answer::sizing(output).map_err(Fault::invalid)
    }

    /// Asks `eviction.review`.
    pub(super) fn review(&mut self, version: &Version, input: &EvictionInput) -> Result<EvictionOutput, Fault> {
        let export = version.exports.eviction.as_ref().ok_or_else(missing)?;
        let guest = self.load(|store, at| export.load(store, at))?;
        let output = self.timed(version.limits.deadline, |store| guest.call_review(store, input))?;
        answer::eviction(output, input.idle.len()).map_err(Fault::invalid)
    }

    /// Looks up the functions of an export and checks their types.
    pub(super) fn load<T>(
        &mut self,
        load: impl FnOnce(&mut Store<State>, &component::Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        load(&mut self.store, &self.instance).map_err(|error| Fault::of_call(&error, false))
    }

    /// A call with a deadline of its own.
    #[inline]
    pub(super) fn timed<T>(
        &mut self,
        deadline: Duration,
        call: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        sandbox::arm(&mut self.store, deadline);
        call(&mut self.store).map_err(|error| Fault::of_call(&error, self.store.data().starved))
    }
}

pub(super) fn missing() -> Fault {
    Fault { kind: FaultKind::Missing, detail: "not exported".to_owned() }
}
