//! A loaded component: what it exports, under what limits it runs, and how it has fared.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;
use wasmtime::component::{Component, InstancePre, types::ComponentItem};

use super::{
    EvictionInput, EvictionOutput, Hook, PluginError, SizingInput, SizingOutput, ValidationInput, Verdict,
    content::Digest,
    engine::Host,
    error::tame,
    fault::Fault,
    health::Health,
    instance::Instance,
    interface::bindings::exports::sluicegate::policy::{eviction, lifecycle, sizing, validation},
    sandbox::{Live, State},
    warm::Warm,
};
use crate::config::{model::Plugin, value::Size};

const SIZING: &str = "sluicegate:policy/sizing@0.1.0";
const EVICTION: &str = "sluicegate:policy/eviction@0.1.0";
const VALIDATION: &str = "sluicegate:policy/validation@0.1.0";
const LIFECYCLE: &str = "sluicegate:policy/lifecycle@0.1.0";
const PAGE: u64 = 64 << 10;

/// A loaded component.
pub(super) struct Version {
    /// Its number in its slot; 0 until it is installed.
    pub(super) generation: u64,
    pub(super) sha256: Digest,
    pub(super) loaded_at: SystemTime,
    pub(super) description: Option<Description>,
    pub(super) exports: Exports,
    pub(super) pre: InstancePre<State>,
    /// The configuration as JSON text.
    pub(super) config: String,
    pub(super) limits: Limits,
    pub(super) health: [Health; 3],
    pub(super) host: Arc<Host>,
    warm: Warm,
    stores: Arc<AtomicUsize>,
}

/// What an instance may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) memory: Size,
    pub(super) deadline: Duration,
}

/// Who a component says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// JSON Schema of its configuration; empty: none is taken.
    pub config_schema: String,
    /// Carried state survives a swap when the name and this number agree.
    pub carry_version: u32,
}

/// The policy interfaces of a component, each found by itself.
pub(super) struct Exports {
    pub(super) sizing: Option<sizing::GuestIndices>,
    pub(super) eviction: Option<eviction::GuestIndices>,
    pub(super) validation: Option<validation::GuestIndices>,
    pub(super) lifecycle: Option<lifecycle::GuestIndices>,
}

impl From<&Plugin> for Limits {
    fn from(settings: &Plugin) -> Self {
        Self { memory: settings.memory, deadline: settings.deadline.0 }
    }
}

impl Version {
    /// Links a compiled component with nothing, and finds its hooks. Runs none of it.
    ///
    /// # Errors
    /// It imports something, exports no hook, or starts with too much memory.
    pub(super) fn link(
        host: &Arc<Host>,
        component: &Component,
        sha256: Digest,
        settings: &Plugin,
    ) -> Result<Self, PluginError> {
        let names = imports(component);
        if !names.is_empty() {
            return Err(PluginError::Imports { names });
        }
        let initial = component.resources_required().and_then(|needs| needs.max_initial_memory_size).unwrap_or(0);
        if initial.saturating_mul(PAGE) > settings.memory.0 {
            return Err(PluginError::MemoryAtStart { initial: initial.saturating_mul(PAGE), limit: settings.memory });
        }
        let pre = host.linker.instantiate_pre(component).map_err(PluginError::host)?;
        let exports = Exports::find(&pre)?;
        host.counts.versions.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            generation: 0,
            sha256,
            loaded_at: SystemTime::now(),
            description: None,
            exports,
            pre,
            config: settings.config.to_string(),
            limits: Limits::from(settings),
            health: Default::default(),
            host: Arc::clone(host),
            warm: Warm::new(host.lanes),
            stores: Arc::default(),
        })
    }

    /// Asks for a size, in a new instance: the same question has the same answer.
    pub(super) fn decide(&self, input: &SizingInput) -> Result<SizingOutput, Fault> {
        Instance::start(self)?.decide(self, input)
    }

    /// Asks who leaves, in a new instance.
    pub(super) fn review(&self, input: &EvictionInput) -> Result<EvictionOutput, Fault> {
        Instance::start(self)?.review(self, input)
    }

    /// Asks whether to trust, in this worker's warm instance.
    #[inline]
    pub(super) fn check(&self, input: &ValidationInput) -> Result<Verdict, Fault> {
        self.warm.check(self, input)
    }

    /// Lets go of the warm instances, which trials leave behind on threads that serve nothing.
    pub(super) fn cool(&self) {
        self.warm.cool();
    }

    /// Whether it runs as those settings want.
    pub(super) fn runs_as(&self, settings: &Plugin) -> bool {
        let config = settings.config.to_string();
        self.config == config && self.limits == Limits::from(settings)
    }

    /// Counts a store of this version.
    pub(super) fn live(&self) -> Live {
        Live::new(&self.host.counts, &self.stores)
    }

    /// Stores of this version.
    pub(super) fn stores(&self) -> usize {
        self.stores.load(Ordering::Relaxed)
    }

    /// What state carried from another version is compared by: name and carry-version, or for want of them the content.
    pub(super) fn lineage(&self) -> Lineage {
        match &self.description {
            Some(description) => Lineage::Named(description.name.clone(), description.carry_version),
            None => Lineage::Content(self.sha256),
        }
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        self.host.counts.versions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose state `carry` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lineage {
    Named(String, u32),
    Content(Digest),
}

impl Exports {
    fn find(pre: &InstancePre<State>) -> Result<Self, PluginError> {
        let component = pre.component();
        let found = |interface| component.get_export_index(None, interface).is_some();
        let wrong = |interface| move |error: wasmtime::Error| wrong_interface(interface, &error.to_string());
        let exports = Self {
            sizing: found(SIZING).then(|| sizing::GuestIndices::new(pre)).transpose().map_err(wrong(SIZING))?,
            eviction: found(EVICTION).then(|| eviction::GuestIndices::new(pre)).transpose().map_err(wrong(EVICTION))?,
            validation: found(VALIDATION)
                .then(|| validation::GuestIndices::new(pre))
                .transpose()
                .map_err(wrong(VALIDATION))?,
            lifecycle: found(LIFECYCLE)
                .then(|| lifecycle::GuestIndices::new(pre))
                .transpose()
                .map_err(wrong(LIFECYCLE))?,
        };
        if exports.hooks().is_empty() {
            let wanted = [SIZING, EVICTION, VALIDATION].map(str::to_owned).into();
            return Err(PluginError::NoHook { exports: names_of_exports(component), wanted });
        }
        Ok(exports)
    }

    /// The hooks among them.
    pub(super) fn hooks(&self) -> Vec<Hook> {
        Hook::ALL.into_iter().filter(|hook| self.has(*hook)).collect()
    }

    pub(super) fn has(&self, hook: Hook) -> bool {
        match hook {
            Hook::Sizing => self.sizing.is_some(),
            Hook::Eviction => self.eviction.is_some(),
            Hook::Validation => self.validation.is_some(),
        }
    }

    /// Checks the types of every function against an instance.
    ///
    /// # Errors
    /// The interface that differs.
    pub(super) fn check_types(&self, instance: &mut Instance) -> Result<(), PluginError> {
        let wrong = |interface| move |fault: Fault| wrong_interface(interface, &fault.detail);
        if let Some(export) = &self.sizing {
            instance.load(|store, at| export.load(store, at)).map_err(wrong(SIZING))?;
        }
        if let Some(export) = &self.eviction {
            instance.load(|store, at| export.load(store, at)).map_err(wrong(EVICTION))?;
        }
        if let Some(export) = &self.validation {
            instance.load(|store, at| export.load(store, at)).map_err(wrong(VALIDATION))?;
        }
        if let Some(export) = &self.lifecycle {
            instance.load(|store, at| export.load(store, at)).map_err(wrong(LIFECYCLE))?;
        }
        Ok(())
    }
}

fn wrong_interface(interface: &'static str, detail: &str) -> PluginError {
    PluginError::WrongInterface { interface, detail: tame(detail, 300) }
}

/// The names of what a component imports besides instances that hold only types, which is how WIT's `use` looks.
pub(super) fn imports(component: &Component) -> Vec<String> {
    let engine = component.engine();
    let harmless = |item: &ComponentItem| match item {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).all(|(_, export)| matches!(export.ty, ComponentItem::Type(_)))
        }
        ComponentItem::Type(_) => true,
        _ => false,
    };
    let component = component.component_type();
    component.imports(engine).filter(|(_, import)| !harmless(&import.ty)).map(|(name, _)| tame(name, 100)).collect()
}

/// The names of what a component exports.
pub(super) fn names_of_exports(component: &Component) -> Vec<String> {
    component.component_type().exports(component.engine()).map(|(name, _)| tame(name, 100)).collect()
}
