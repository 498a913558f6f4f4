//! The connection pool: how callers share a few connections to a database, and how policies steer that.
//!
//! deadpool's [`Manager`] is the seam by which a database plugs in ([`Backend`] adds what a connection's later life needs).
//! deadpool's own pool is not used: its `resize` leaks permits, a waiter is tied to its own connect, dead connections are
//! probed one after another outside any deadline, and nothing is done on return.
//!
//! **What it promises.**
//! - *The cap holds.* A permit is taken before a connection is begun and comes back when the server has closed it, or after
//!   `linger`; limits move at once, in both directions, whatever a policy answers. A pool that replaces another on the same
//!   server shares its [`Budget`]. All pools on a server stay within its [`ServerBudget`]: one whose callers wait takes what
//!   lies idle in a sister, whichever it hurts least, and never less than a fair share.
//! - *Nobody starves.* Waiters are served in their order, each by direct hand-off; one who leaves loses no permit and wastes no
//!   connect. Connections are made detached from callers, a few at a time, and only as many as waiters need.
//! - *Every wait ends.* Queueing, connecting and validating count against one deadline; one caller pays for two failed probes at
//!   most; the queue has a bound. [`CheckoutError`] says why: saturated, slow, leaked (and by whom), or creation failing
//!   (and how).
//! - *What goes back is clean.* An open transaction is rolled back, a changed session reset, a running statement stopped, each by
//!   itself and with a deadline; what cannot be made clean is closed.
//! - *A failing database is left alone.* Pauses double between attempts; an open breaker fails callers at once and probes in the
//!   background; a full server is a ceiling, not an outage; refused credentials are tried seldom. What is open serves on.
//!
//! **How it is built.** `core` is the gate: a state machine without I/O or clock under the pool's one lock (`state`), which says
//! what is left to do; `shell` does it. A caller's way is `checkout`, `vet`, `probe`, `lease`, and back through `mend`; `make` makes and
//! closes. `drive` is the pool's own loop, with `steer` for the policies, `guards` for what holds whatever they say,
//! `breaker` and `ceiling` for what failures lead to, `server` and `sister` for what it gives to others and takes from them.
//! `samples` and `ledger` keep its times, `decisions` who decided, `summary` a line for the log; `view`, `explain`, `advice`,
//! `outlook` and `status` tell of it. `operate` is the operator's hand: pause, drain, resume, reconnect, resize, evict.
//!
//! Workers are threads with a runtime each. Idle connections lie on the stack of the worker they belong to; another worker takes
//! one only when it has none, and re-homes it ([`Connection::rehome`]). So do the connections of a worker that has stopped.
//!
//! **What it leaves out.** Choosing a replica (a pool tells how it is: [`Outlook`]), recycling through [`Manager::recycle`].

mod advice;
mod alarm;
pub mod backend;
mod breaker;
mod budget;
mod ceiling;
mod checkout;
mod core;
mod decisions;
mod drive;
mod error;
mod explain;
mod figures;
mod guards;
mod lease;
mod ledger;
mod make;
mod mend;
mod operate;
mod outlook;
mod probe;
mod record;
mod retry;
mod samples;
mod server;
mod settings;
mod shell;
mod sister;
mod state;
mod status;
mod steer;
mod summary;
mod sync;
mod tally;
mod vet;
mod view;

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests;

pub use alarm::{Alarm, Alert, Look, Rule};
pub use backend::{
    Asked, Backend, Connection, Failure, FailureClass, Holder, Hygiene, Manager, Metrics, Peek, Probe, RecycleError,
    RecycleResult,
};
pub use budget::Budget;
pub use decisions::{DecisionCount, PolicyVersion};
pub use error::{CheckoutError, CheckoutErrorKind};
pub use figures::{Counters, CreateFailures};
pub use lease::Lease;
pub use operate::{Operation, OperationError};
pub use outlook::{Outlook, Usable};
pub use record::UseError;
pub use samples::{Histograms, Quantiles};
pub use server::{ServerBudget, ServerStatus, ServerTerms};
pub use settings::PoolSettings;
pub use shell::{Policies, PolicyChange, Pool};
pub use status::{
    BreakerStatus, EvictionStatus, HolderStatus, LatencyStatus, PoolStatus, SizingStatus, Standing, WaiterStatus,
};
pub use tally::{Clamps, Closes};
