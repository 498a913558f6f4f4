//! Composition: a generation from a configuration, the handler that walks it, workers, reload, drain.
//!
//! [`run()`] is the life of a gateway. One background thread supervises: it reads the configuration, builds the first
//! [`Generation`], starts a worker a core and hands each its listening sockets; then it looks at files a few times a second,
//! reloads when asked, and drains at SIGTERM. Workers do nothing but answer requests with the generation that serves when the
//! request comes.
//!
//! What it promises when things go wrong: a configuration is applied whole or not at all. Everything that can be refused
//! (files, certificates, plugins, ports) is tried beside what serves; only then is anything touched. At start every reason is
//! told at once, and nothing serves. A database or an upstream that is absent is not a reason: its routes answer 503 until it
//! comes.
//!
//! Pools that have replicas are told of them here, and one task a pool checks them; it ends with the generation that no longer
//! has them.
//!
//! [`with_pool`] makes one pool of a configuration in the same way and serves nothing, for whoever measures it.
//!
//! What it leaves out: upgrading the binary without closing its sockets, and changing the number of workers while running.

mod alerts;
mod check;
mod ending;
mod entry;
mod generation;
mod handler;
mod inputs;
mod listeners;
mod overload;
mod places;
mod pools;
mod replicas;
mod run;
mod servers;
mod shared;
mod single;
mod source;
mod supervisor;
mod template;
#[cfg(test)]
mod tests;
mod tunnel;
mod worker;

pub use alerts::Alerts;
pub use check::{Checked, check};
pub use generation::Generation;
pub use listeners::{Listeners, Listening};
pub use overload::{Overload, Standing};
pub use pools::{PoolEntry, Retiring};
pub use run::{Companion, RunError, run};
pub use shared::{LastReload, ReloadSummary, Reloads, Shared};
pub use single::{SinglePool, with_pool};
