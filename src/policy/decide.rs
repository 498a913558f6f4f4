//! What a pool holds of its policies: each either native, or a seat at a plugin's slot with the native policy that stands in.

use serde::Serialize;

use super::{
    EvictionInput, EvictionOutput, FaultKind, NativeEviction, NativeSizing, NativeValidation, SizingInput,
    SizingOutput, ValidationInput, Verdict, slot::Seat, version::Lineage,
};

/// An answer, and whose it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision<T> {
    /// What was decided.
    pub answer: T,
    /// Who decided.
    pub by: DecidedBy,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DecidedBy {
    /// The configured native policy.
    Native,
    /// The plugin.
    Plugin {
        /// The slot's generation that answered.
        version: u64,
    },
    /// Not the plugin, for this reason: the native fallback, or for a sizing fault the last good answer.
    Fallback(FaultKind),
}

impl DecidedBy {
    /// Who, whichever policy and version it was: one of a few names, to count by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Plugin { .. } => "plugin",
            Self::Fallback(kind) => match kind {
                FaultKind::Trap => "fallback trap",
                FaultKind::Deadline => "fallback deadline",
                FaultKind::Memory => "fallback memory",
                FaultKind::Invalid => "fallback invalid",
                FaultKind::Exhausted => "fallback exhausted",
                FaultKind::Quarantined => "fallback quarantined",
                FaultKind::Missing => "fallback missing",
            },
        }
    }

    /// The plugin's version, where it decided.
    pub const fn version(self) -> Option<u64> {
        match self {
            Self::Plugin { version } => Some(version),
            Self::Native | Self::Fallback(_) => None,
        }
    }
}

/// A pool's sizing policy. Not for a request's path: a call may take milliseconds.
pub enum Sizing {
    /// A native one.
    Native(NativeSizing),
    /// A plugin's.
    Plugin(Box<PluginSizing>),
}

/// A plugin's sizing policy, with what it carries.
pub struct PluginSizing {
    seat: Seat,
    fallback: NativeSizing,
    carried: Carried,
    last_good: Option<SizingOutput>,
}

/// A pool's eviction policy. Not for a request's path: a call may take milliseconds.
pub enum Eviction {
    /// A native one.
    Native(NativeEviction),
    /// A plugin's.
    Plugin(Box<PluginEviction>),
}

/// A plugin's eviction policy, with what it carries.
pub struct PluginEviction {
    seat: Seat,
    fallback: NativeEviction,
    carried: Carried,
}

/// A pool's validation policy, shared by all workers.
pub enum Validation {
    /// A native one.
    Native(NativeValidation),
    /// A plugin's.
    Plugin(PluginValidation),
}

/// A plugin's validation policy.
pub struct PluginValidation {
    seat: Seat,
    fallback: NativeValidation,
}

/// State that a policy carries from call to call, and whose it is.
#[derive(Debug, Default)]
struct Carried {
    numbers: Vec<f64>,
    lineage: Option<Lineage>,
}

impl Sizing {
    /// The policy's name in the configuration: the plugin's, or the native one's.
    pub fn name(&self) -> &str {
        match self {
            Self::Native(native) => native.name(),
            Self::Plugin(plugin) => &plugin.seat.slot.name,
        }
    }

    /// Asks for a target. `input.carry` is the host's business and ignored.
    pub fn decide(&mut self, input: &SizingInput) -> Decision<SizingOutput> {
        match self {
            Self::Native(native) => Decision { answer: native.decide(input), by: DecidedBy::Native },
            Self::Plugin(plugin) => plugin.decide(input),
        }
    }
}

impl PluginSizing {
    pub(super) fn new(seat: Seat, fallback: NativeSizing) -> Self {
        Self { seat, fallback, carried: Carried::default(), last_good: None }
    }

    fn decide(&mut self, input: &SizingInput) -> Decision<SizingOutput> {
        let carried = &mut self.carried;
        let asked = self.seat.ask(|version| {
            version.decide(&SizingInput { carry: carried.for_lineage(version.lineage()), ..input.clone() })
        });
        match asked {
            Ok((answer, version)) => {
                self.carried.numbers.clone_from(&answer.carry);
                self.last_good = Some(answer.clone());
                Decision { answer, by: DecidedBy::Plugin { version } }
            }
            Err(kind) => {
                self.carried.survive(kind);
                if matches!(kind, FaultKind::Quarantined | FaultKind::Missing) {
                    // From now on the fallback decides, whatever comes of a later probe: two in turn would move the target
                    // up and down.
                    self.last_good = None;
                }
                let answer = self.last_good.clone().unwrap_or_else(|| self.fallback.decide(input));
                Decision { answer, by: DecidedBy::Fallback(kind) }
            }
        }
    }
}

impl Eviction {
    /// The policy's name in the configuration: the plugin's, or the native one's.
    pub fn name(&self) -> &str {
        match self {
            Self::Native(native) => native.name(),
            Self::Plugin(plugin) => &plugin.seat.slot.name,
        }
    }

    /// Asks who of the idle should leave. `input.carry` is the host's business and ignored.
    pub fn review(&mut self, input: &EvictionInput) -> Decision<EvictionOutput> {
        match self {
            Self::Native(native) => Decision { answer: native.review(input), by: DecidedBy::Native },
            Self::Plugin(plugin) => plugin.review(input),
        }
    }
}

impl PluginEviction {
    pub(super) fn new(seat: Seat, fallback: NativeEviction) -> Self {
        Self { seat, fallback, carried: Carried::default() }
    }

    fn review(&mut self, input: &EvictionInput) -> Decision<EvictionOutput> {
        let carried = &mut self.carried;
        let asked = self.seat.ask(|version| {
            version.review(&EvictionInput { carry: carried.for_lineage(version.lineage()), ..input.clone() })
        });
        match asked {
            Ok((answer, version)) => {
                self.carried.numbers.clone_from(&answer.carry);
                Decision { answer, by: DecidedBy::Plugin { version } }
            }
            Err(kind) => {
                self.carried.survive(kind);
                Decision { answer: self.fallback.review(input), by: DecidedBy::Fallback(kind) }
            }
        }
    }
}

impl Validation {
    /// The policy's name in the configuration: the plugin's, or the native one's.
    pub fn name(&self) -> &str {
        match self {
            Self::Native(native) => native.name(),
            Self::Plugin(plugin) => &plugin.seat.slot.name,
        }
    }

    /// Asks whether a connection may be trusted. Fit for a request's path: some hundred nanoseconds, and a bound.
    #[inline]
    pub fn check(&self, input: &ValidationInput) -> Decision<Verdict> {
        match self {
            Self::Native(native) => Decision { answer: native.check(input), by: DecidedBy::Native },
            Self::Plugin(plugin) => plugin.check(input),
        }
    }
}

impl PluginValidation {
    pub(super) fn new(seat: Seat, fallback: NativeValidation) -> Self {
        Self { seat, fallback }
    }

    #[inline]
    fn check(&self, input: &ValidationInput) -> Decision<Verdict> {
        match self.seat.ask(|version| version.check(input)) {
            Ok((answer, version)) => Decision { answer, by: DecidedBy::Plugin { version } },
            Err(kind) => Decision { answer: self.fallback.check(input), by: DecidedBy::Fallback(kind) },
        }
    }
}

impl Carried {
    /// What to hand to a version: nothing, if what is kept is another lineage's.
    fn for_lineage(&mut self, lineage: Lineage) -> Vec<f64> {
        if self.lineage.as_ref() != Some(&lineage) {
            self.numbers.clear();
            self.lineage = Some(lineage);
        }
        self.numbers.clone()
    }

    /// A fault leaves what was carried before it, in case the fault was chance; a quarantine does not, in case it was the
    /// cause.
    fn survive(&mut self, kind: FaultKind) {
        if kind == FaultKind::Quarantined {
            self.numbers.clear();
        }
    }
}
