//! The place that holds the current version of one plugin, and the guards around every question to it.
//!
//! A swap is one store of a pointer: calls that began on the old version end on it, and when the last has ended it goes,
//! with its instances. What a pool holds is the slot, so pools outlive swaps.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde::Serialize;

use super::{
    FaultKind, Hook, HookFigures, PluginError,
    content::{Digest, Fingerprint},
    fault::Fault,
    figures::Counters,
    health::Aftermath,
    version::Version,
    watch::Watch,
};
use crate::config::model::Plugin;

/// A policy that faults every other call would fill the log; one line a slot in so long says it as well.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A named plugin in a running gateway.
pub(super) struct Slot {
    pub(super) name: String,
    current: ArcSwapOption<Version>,
    counters: [Counters; 3],
    /// Pools that ask each hook.
    users: [AtomicUsize; 3],
    last_logged: Mutex<Option<Instant>>,
    pub(super) book: Mutex<Book>,
}

/// What only the background looks at.
pub(super) struct Book {
    pub(super) settings: Plugin,
    pub(super) watch: Watch,
    /// Why the content that was last read does not serve.
    pub(super) last_error: Option<PluginError>,
    generation: u64,
}

/// A pool's hold on one hook of a slot; while it lasts, no version without that hook is swapped in.
pub(super) struct Seat {
    pub(super) slot: Arc<Slot>,
    hook: Hook,
}

/// A plugin, for the operator.
#[derive(Clone, Debug, Serialize)]
pub struct PluginStatus {
    /// Its name in the configuration.
    pub plugin: String,
    /// Its file.
    pub path: String,
    /// The name the component gives itself.
    pub name: Option<String>,
    /// The version it gives itself.
    pub version: Option<String>,
    /// SHA-256 of the version that serves; none: the fallbacks serve.
    pub sha256: Option<Digest>,
    /// Versions that have served, this one included.
    pub generation: u64,
    /// When the version that serves was loaded, in seconds since 1970.
    pub loaded_at: Option<u64>,
    /// Instances of the version that serves.
    pub instances: usize,
    /// What it exports, and how that fares.
    pub hooks: BTreeMap<Hook, HookStatus>,
    /// Why the file's content does not serve, when it does not.
    pub last_error: Option<String>,
}

/// A hook of a plugin, for the operator.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// Whether the version that serves has it.
    pub exported: bool,
    /// Pools that ask it.
    pub users: usize,
    /// Whether it is left alone because it faulted, and the fallback answers.
    pub quarantined: bool,
    /// What its calls came to, over all versions.
    #[serde(flatten)]
    pub figures: HookFigures,
}

impl Slot {
    pub(super) fn new(name: &str, settings: Plugin, lanes: usize) -> Self {
        let book = Book { settings, watch: Watch::default(), last_error: None, generation: 0 };
        Self {
            name: name.to_owned(),
            current: ArcSwapOption::empty(),
            counters: std::array::from_fn(|_| Counters::new(lanes)),
            users: Default::default(),
            last_logged: Mutex::new(None),
            book: Mutex::new(book),
        }
    }

    /// Asks the current version, unless it is quarantined. Says what it answered and which generation it is.
    ///
    /// # Errors
    /// Why there is no answer. It is counted, logged, and held against the version where it is its fault.
    #[inline]
    pub(super) fn ask<T>(
        &self,
        hook: Hook,
        call: impl FnOnce(&Version) -> Result<T, Fault>,
    ) -> Result<(T, u64), FaultKind> {
        let current = self.current.load();
        let counters = &self.counters[hook.index()];
        let Some(version) = current.as_ref().filter(|version| version.exports.has(hook)) else {
            counters.fault(FaultKind::Missing);
            return Err(FaultKind::Missing);
        };
        let health = &version.health[hook.index()];
        if !health.admits() {
            counters.fault(FaultKind::Quarantined);
            return Err(FaultKind::Quarantined);
        }
        let started = (counters.call() || hook != Hook::Validation).then(Instant::now);
        let answer = call(version);
        if let Some(started) = started {
            counters.took(started.elapsed());
        }
        match answer {
            Ok(answer) => {
                if health.succeeded() {
                    tracing::info!(plugin = %self.name, hook = %hook, "policy answers again, quarantine over");
                }
                Ok((answer, version.generation))
            }
            Err(fault) => {
                self.faulted(hook, version, &fault);
                Err(fault.kind)
            }
        }
    }

    #[cold]
    fn faulted(&self, hook: Hook, version: &Version, fault: &Fault) {
        self.counters[hook.index()].fault(fault.kind);
        let blamed = fault.kind != FaultKind::Exhausted;
        let aftermath = if blamed { version.health[hook.index()].failed() } else { Aftermath::Tolerated };
        let (plugin, kind, error) = (&self.name, fault.kind, &fault.detail);
        let generation = version.generation;
        if let Aftermath::Quarantined(rest) = aftermath {
            let rest_ms = rest.as_millis();
            tracing::warn!(%plugin, %hook, %kind, %error, generation, rest_ms, "policy quarantined, the fallback answers");
        } else if self.may_log() {
            tracing::warn!(%plugin, %hook, %kind, %error, generation, "policy failed to answer, answered without it");
        }
    }

    fn may_log(&self) -> bool {
        let mut last = self.last_logged.lock();
        let may = last.is_none_or(|last| last.elapsed() >= LOG_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// Puts a version in service.
    pub(super) fn install(&self, mut version: Version, looks: Option<Fingerprint>) {
        let mut book = self.book.lock();
        book.generation += 1;
        version.generation = book.generation;
        book.watch = Watch::loaded(looks, tokio::time::Instant::now());
        book.last_error = None;
        let (plugin, path) = (&self.name, book.settings.path.display());
        let (sha256, generation) = (version.sha256, version.generation);
        let says = version.description.as_ref().map(|said| format!("{} {}", said.name, said.version));
        let hooks = version.exports.hooks().into_iter().map(Hook::as_str).collect::<Vec<_>>().join(",");
        let old = self.current.swap(Some(Arc::new(version)));
        let replaced = old.map(|old| old.sha256.to_string());
        tracing::info!(%plugin, %path, %sha256, generation, says, %hooks, replaced, "policy component in service");
    }

    /// Remembers why a file that looked like that was not taken into service, and tries it again later if that may help.
    pub(super) fn refuse(&self, error: PluginError, looks: Option<Fingerprint>, content: Option<Digest>) {
        let mut book = self.book.lock();
        book.watch.was_read(looks);
        if error.is_transient() {
            book.watch.retry(looks, tokio::time::Instant::now());
        }
        let serving = self.current.load().as_ref().map(|version| version.sha256.to_string());
        let sha256 = content.map(|content| content.to_string());
        let (plugin, path) = (&self.name, book.settings.path.display());
        tracing::warn!(%plugin, %path, error = %error, sha256, serving, "policy component refused");
        book.last_error = Some(error);
    }

    /// Has a file read again that was refused, as the operator asks for it.
    pub(super) fn try_again(&self) {
        let mut book = self.book.lock();
        if book.last_error.is_some() {
            book.watch.forget(tokio::time::Instant::now());
        }
    }

    /// Has a file read again that was refused for want of a hook, once no pool asks that any more.
    pub(super) fn reconsider(&self) {
        let mut book = self.book.lock();
        if let Some(PluginError::HookLost { exports, .. }) = &book.last_error
            && self.lost(exports).is_none()
        {
            book.watch.forget(tokio::time::Instant::now());
        }
    }

    /// The version that serves.
    pub(super) fn current(&self) -> Option<Arc<Version>> {
        self.current.load_full()
    }

    /// The first hook that a pool asks and `hooks` lack.
    pub(super) fn lost(&self, hooks: &[Hook]) -> Option<Hook> {
        let used = |hook: &Hook| self.users[hook.index()].load(Ordering::Relaxed) > 0;
        Hook::ALL.into_iter().filter(used).find(|hook| !hooks.contains(hook))
    }

    pub(super) fn status(&self) -> PluginStatus {
        let version = self.current.load_full();
        let description = version.as_ref().and_then(|version| version.description.as_ref());
        let hook_status = |hook: Hook| {
            let version = version.as_ref().filter(|version| version.exports.has(hook));
            HookStatus {
                exported: version.is_some(),
                users: self.users[hook.index()].load(Ordering::Relaxed),
                quarantined: version.is_some_and(|version| version.health[hook.index()].is_quarantined()),
                figures: self.counters[hook.index()].read(),
            }
        };
        let told = |(_, status): &(Hook, HookStatus)| status.exported || status.users > 0 || status.figures.calls > 0;
        let book = self.book.lock();
        PluginStatus {
            plugin: self.name.clone(),
            path: book.settings.path.display().to_string(),
            name: description.map(|said| said.name.clone()),
            version: description.map(|said| said.version.clone()),
            sha256: version.as_ref().map(|version| version.sha256),
            generation: book.generation,
            loaded_at: version.as_ref().map(|version| seconds(version.loaded_at)),
            instances: version.as_ref().map_or(0, |version| version.stores()),
            hooks: Hook::ALL.into_iter().map(|hook| (hook, hook_status(hook))).filter(told).collect(),
            last_error: book.last_error.as_ref().map(ToString::to_string),
        }
    }
}

impl PluginStatus {
    /// Whether something is not as configured: nothing serves, the file holds something else, or a hook is quarantined.
    pub fn is_degraded(&self) -> bool {
        self.sha256.is_none() || self.last_error.is_some() || self.hooks.values().any(|hook| hook.quarantined)
    }
}

impl Seat {
    pub(super) fn take(slot: Arc<Slot>, hook: Hook) -> Self {
        slot.users[hook.index()].fetch_add(1, Ordering::Relaxed);
        Self { slot, hook }
    }

    /// Asks the hook; see [`Slot::ask`].
    #[inline]
    pub(super) fn ask<T>(&self, call: impl FnOnce(&Version) -> Result<T, Fault>) -> Result<(T, u64), FaultKind> {
        self.slot.ask(self.hook, call)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.slot.users[self.hook.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
