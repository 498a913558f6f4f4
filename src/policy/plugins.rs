//! The registry of plugins: loads them as the configuration says, whole or not at all, and follows their files.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use parking_lot::Mutex;
use serde_json::json;
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::{
    Census, Compiler, Eviction, Hook, Inspection, NativeEviction, NativeSizing, NativeValidation, PluginError,
    PluginEviction, PluginSizing, PluginStatus, PluginValidation, PolicyError, Report, Sizing, Validation,
    content::Fingerprint,
    engine::Host,
    loader::Loader,
    slot::{Seat, Slot},
    version::Version,
};
use crate::config::model::{Plugin, PolicyRef};

type Slots = BTreeMap<String, Arc<Slot>>;

/// The plugins of a gateway.
pub struct Plugins {
    loader: Loader,
    slots: Mutex<Slots>,
    /// Held over every change, so that a reload and a changed file do not cross.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// The plugins of a configuration, loaded and tried, not yet in service. While it lives nothing else changes; dropping it
/// changes nothing.
pub struct Prepared {
    plugins: BTreeMap<String, Planned>,
    _changing: OwnedMutexGuard<()>,
}

struct Planned {
    slot: Arc<Slot>,
    settings: Plugin,
    outcome: Outcome,
}

enum Outcome {
    /// What serves, if anything does, goes on.
    Keep,
    /// This is to serve.
    Serve(Box<Version>, Fingerprint),
    /// It is not required, and nothing is to serve.
    Refuse(PluginError, Option<Fingerprint>),
}

impl Plugins {
    /// A registry without plugins. `state` is the state directory (compiled components go to `aot/` in it); `workers` the
    /// number of worker threads, each of which gets warm instances.
    ///
    /// # Errors
    /// Wasmtime does not run on this machine.
    pub fn new(compiler: Compiler, state: &Path, workers: usize) -> Result<Self, PluginError> {
        let host = Arc::new(Host::new(workers).map_err(PluginError::host)?);
        Ok(Self { loader: Loader::new(host, state, compiler), slots: Mutex::default(), changing: Arc::default() })
    }

    /// Puts exactly the plugins of a configuration in service: [`Self::prepare`] and [`Self::commit`].
    ///
    /// # Errors
    /// Every plugin that is refused, and why; then nothing has changed.
    pub async fn apply(&self, wanted: &BTreeMap<String, Plugin>) -> Result<(), Vec<(String, PluginError)>> {
        let prepared = self.prepare(wanted).await?;
        self.commit(prepared);
        Ok(())
    }

    /// Loads and tries what a configuration wants and does not run already, one after another. Cancel safe. A plugin that
    /// is not required is let off its first refusal; one that serves is not, so that a reload changes all or nothing.
    ///
    /// # Errors
    /// Every plugin that is refused, and why.
    pub async fn prepare(&self, wanted: &BTreeMap<String, Plugin>) -> Result<Prepared, Vec<(String, PluginError)>> {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        let running = self.slots.lock().clone();
        let mut plugins = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, settings) in wanted {
            let slot = running.get(name).cloned();
            let slot = slot.unwrap_or_else(|| Arc::new(Slot::new(name, settings.clone(), self.loader.host.lanes)));
            match self.plan(&slot, settings, running.contains_key(name)).await {
                Ok(outcome) => {
                    plugins.insert(name.clone(), Planned { slot, settings: settings.clone(), outcome });
                }
                Err(error) => errors.push((name.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(Prepared { plugins, _changing: changing }) } else { Err(errors) }
    }

    async fn plan(&self, slot: &Slot, settings: &Plugin, runs: bool) -> Result<Outcome, PluginError> {
        if runs && slot.book.lock().settings == *settings {
            return Ok(Outcome::Keep);
        }
        let looks = Fingerprint::of(&settings.path);
        let error = match self.load_unless_serving(slot, settings).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        if settings.required || slot.current().is_some() { Err(error) } else { Ok(Outcome::Refuse(error, looks)) }
    }

    async fn load_unless_serving(&self, slot: &Slot, settings: &Plugin) -> Result<Outcome, PluginError> {
        let content = self.loader.read(settings).await?;
        let looks = content.fingerprint;
        let same = |version: Arc<Version>| version.sha256 == content.sha256 && version.runs_as(settings);
        if slot.current().is_some_and(same) {
            return Ok(Outcome::Keep);
        }
        let version = self.loader.load(content, settings).await?;
        Ok(Outcome::Serve(Box::new(version), looks))
    }

    /// Puts what was prepared in service, and takes out what the configuration no longer names; pools that still ask that
    /// keep it alive. Quick, and cannot fail.
    pub fn commit(&self, prepared: Prepared) {
        let mut slots = Slots::new();
        for (name, Planned { slot, settings, outcome }) in prepared.plugins {
            slot.book.lock().settings = settings;
            match outcome {
                Outcome::Keep => slot.try_again(),
                Outcome::Serve(version, looks) => slot.install(*version, Some(looks)),
                Outcome::Refuse(error, looks) => slot.refuse(error, looks, None),
            }
            slots.insert(name, slot);
        }
        *self.slots.lock() = slots;
    }

    /// Looks at the plugins' files, and swaps in those whose content changed and settled. Call it every 200 ms or so, in a
    /// task of its own: a look costs microseconds, but a change is compiled before this returns. A content that is refused
    /// is reported, and what served goes on serving. It is tried again when its file is touched, when a configuration is
    /// applied, when no pool asks the hook any more that it lacks, and later by itself if the machine may have been at
    /// fault. While a configuration is applied, this does nothing. Returns whether anything was swapped.
    pub async fn check_files(&self) -> bool {
        let Ok(_changing) = self.changing.try_lock() else { return false };
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        if slots.is_empty() {
            return false;
        }
        let paths: Vec<_> = slots.iter().map(|slot| slot.book.lock().settings.path.clone()).collect();
        let looks = tokio::task::spawn_blocking(move || paths.iter().map(|path| Fingerprint::of(path)).collect());
        let looks: Vec<_> = looks.await.unwrap_or_default();
        let mut swapped = false;
        for (slot, looks) in slots.iter().zip(looks) {
            slot.reconsider();
            if slot.book.lock().watch.look(looks, Instant::now()) {
                swapped |= self.follow(slot, looks).await;
            }
        }
        swapped
    }

    /// Reads a changed file, and swaps in what it holds, if it is new and sound. Returns whether it was.
    async fn follow(&self, slot: &Slot, looks: Option<Fingerprint>) -> bool {
        let settings = slot.book.lock().settings.clone();
        let content = match self.loader.read(&settings).await {
            Ok(content) => content,
            Err(error) => {
                slot.refuse(error, looks, None);
                return false;
            }
        };
        let (sha256, looks) = (content.sha256, Some(content.fingerprint));
        if slot.current().is_some_and(|version| version.sha256 == sha256) {
            // Touched, or put back.
            let mut book = slot.book.lock();
            book.watch.was_read(looks);
            book.last_error = None;
            return false;
        }
        let loaded = self.loader.load(content, &settings).await.and_then(|version| keeps_hooks(slot, version));
        let sound = loaded.is_ok();
        match loaded {
            Ok(version) => slot.install(version, looks),
            Err(error) => slot.refuse(error, looks, Some(sha256)),
        }
        sound
    }

    /// The sizing policy of that reference.
    ///
    /// # Errors
    /// There is no such plugin or native policy, or the plugin has no such hook.
    pub fn sizing(&self, reference: &PolicyRef) -> Result<Sizing, PolicyError> {
        let native = NativeSizing::named(reference.native())?;
        let seat = self.seat(Hook::Sizing, reference)?;
        Ok(seat.map_or(Sizing::Native(native), |seat| Sizing::Plugin(Box::new(PluginSizing::new(seat, native)))))
    }

    /// The eviction policy of that reference.
    ///
    /// # Errors
    /// There is no such plugin or native policy, or the plugin has no such hook.
    pub fn eviction(&self, reference: &PolicyRef) -> Result<Eviction, PolicyError> {
        let native = NativeEviction::named(reference.native())?;
        let seat = self.seat(Hook::Eviction, reference)?;
        Ok(seat.map_or(Eviction::Native(native), |seat| Eviction::Plugin(Box::new(PluginEviction::new(seat, native)))))
    }

    /// The validation policy of that reference.
    ///
    /// # Errors
    /// There is no such plugin or native policy, or the plugin has no such hook.
    pub fn validation(&self, reference: &PolicyRef) -> Result<Validation, PolicyError> {
        let native = NativeValidation::named(reference.native())?;
        let seat = self.seat(Hook::Validation, reference)?;
        Ok(seat.map_or(Validation::Native(native), |seat| Validation::Plugin(PluginValidation::new(seat, native))))
    }

    fn seat(&self, hook: Hook, reference: &PolicyRef) -> Result<Option<Seat>, PolicyError> {
        let Some(name) = reference.plugin() else { return Ok(None) };
        let slot = self.slots.lock().get(name).cloned();
        let slot = slot.ok_or_else(|| PolicyError::UnknownPlugin { name: name.to_owned() })?;
        if let Some(version) = slot.current() {
            exports(name, &version, hook)?;
        }
        Ok(Some(Seat::take(slot, hook)))
    }

    /// Every plugin, for the operator.
    pub fn status(&self) -> Vec<PluginStatus> {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        slots.iter().map(|slot| slot.status()).collect()
    }

    /// What is alive.
    pub fn census(&self) -> Census {
        self.loader.host.census()
    }

    /// Looks at a component with the default limits: `plugin inspect`.
    ///
    /// # Errors
    /// It cannot be read or compiled.
    pub async fn inspect(&self, file: &Path) -> Result<Inspection, PluginError> {
        self.loader.inspect(&defaults(file)?).await
    }

    /// Puts a component through all that it must pass before it serves, with the default limits and no configuration, and
    /// times it: `plugin check`.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn check(&self, file: &Path) -> Result<Report, PluginError> {
        self.check_as(&defaults(file)?).await
    }

    /// As [`Self::check`], as configured.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn check_as(&self, settings: &Plugin) -> Result<Report, PluginError> {
        self.loader.check(settings).await
    }
}

impl Prepared {
    /// Whether a pool of the same configuration can have that policy: what [`Plugins::sizing`] and its sisters will say
    /// once this is committed.
    ///
    /// # Errors
    /// There is no such plugin or native policy, or the plugin has no such hook.
    pub fn check(&self, hook: Hook, reference: &PolicyRef) -> Result<(), PolicyError> {
        match hook {
            Hook::Sizing => NativeSizing::named(reference.native()).map(drop)?,
            Hook::Eviction => NativeEviction::named(reference.native()).map(drop)?,
            Hook::Validation => NativeValidation::named(reference.native()).map(drop)?,
        }
        let Some(name) = reference.plugin() else { return Ok(()) };
        let planned = self.plugins.get(name).ok_or_else(|| PolicyError::UnknownPlugin { name: name.to_owned() })?;
        match &planned.outcome {
            Outcome::Serve(version, _) => exports(name, version, hook),
            Outcome::Keep => planned.slot.current().map_or(Ok(()), |version| exports(name, &version, hook)),
            Outcome::Refuse(..) => Ok(()),
        }
    }
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugins").field("names", &self.slots.lock().keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("names", &self.plugins.keys()).finish_non_exhaustive()
    }
}

fn exports(plugin: &str, version: &Version, hook: Hook) -> Result<(), PolicyError> {
    if version.exports.has(hook) {
        return Ok(());
    }
    Err(PolicyError::NoSuchHook { plugin: plugin.to_owned(), hook, exports: version.exports.hooks() })
}

fn keeps_hooks(slot: &Slot, version: Version) -> Result<Version, PluginError> {
    let exports = version.exports.hooks();
    match slot.lost(&exports) {
        Some(hook) => Err(PluginError::HookLost { exports, hook }),
        None => Ok(version),
    }
}

/// A plugin's keys as they are when only its path is given.
fn defaults(file: &Path) -> Result<Plugin, PluginError> {
    serde_json::from_value(json!({ "path": file })).map_err(PluginError::host)
}
