//! How a policy can fail to answer.

use serde::Serialize;
use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::error::tame;

/// Characters of a fault's text that are kept.
const TEXT: usize = 500;

/// Why the fallback answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// The component trapped: a panic, an overflow of its stack, an access out of bounds.
    Trap,
    /// It took longer than its deadline.
    Deadline,
    /// It wanted more memory than it may have.
    Memory,
    /// Its answer breaks the interface's rules, or cannot be read.
    Invalid,
    /// The gateway had no room for an instance. Not the component's fault, and not held against it.
    Exhausted,
    /// It was not asked: it faulted too often lately.
    Quarantined,
    /// It was not asked: there is no version, or the version has no such hook.
    Missing,
}

/// One failure to answer.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) detail: String,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Trap, Self::Deadline, Self::Memory, Self::Invalid, Self::Exhausted, Self::Quarantined, Self::Missing];

    /// The name in logs and figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Invalid => "invalid",
            Self::Exhausted => "exhausted",
            Self::Quarantined => "quarantined",
            Self::Missing => "missing",
        }
    }

    /// Its place in an array with one element a kind.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Fault {
    pub(super) fn invalid(detail: impl AsRef<str>) -> Self {
        Self { kind: FaultKind::Invalid, detail: tame(detail.as_ref(), TEXT) }
    }

    /// A call ended in `error`. `starved`: it had asked for more memory than it may have.
    pub(super) fn of_call(error: &wasmtime::Error, starved: bool) -> Self {
        let kind = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => FaultKind::Deadline,
            _ if starved => FaultKind::Memory,
            Some(_) => FaultKind::Trap,
            // What is no trap is an answer that could not be read: a list out of bounds, text that is not UTF-8, too much of it.
            None => FaultKind::Invalid,
        };
        Self { kind, detail: text(error) }
    }

    /// An instance could not be made.
    pub(super) fn of_start(error: &wasmtime::Error, starved: bool) -> Self {
        let fault = Self::of_call(error, starved);
        match fault.kind {
            // What is no trap was the host's part: no slot, no address space.
            FaultKind::Invalid => Self { kind: FaultKind::Exhausted, ..fault },
            _ if error.is::<PoolConcurrencyLimitError>() => Self { kind: FaultKind::Exhausted, ..fault },
            _ => fault,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

fn text(error: &wasmtime::Error) -> String {
    tame(&format!("{error:#}"), TEXT)
}
