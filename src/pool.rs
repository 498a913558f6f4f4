//! draft
mod advice;
pub mod backend;
mod breaker;
mod budget;
mod checkout;
mod core;
mod drive;
mod error;
mod explain;
mod figures;
mod guards;
mod lease;
mod make;
mod mend;
mod record;
mod settings;
mod shell;
mod state;
mod status;
mod steer;
mod sync;
mod tally;
mod vet;
mod view;

pub use backend::{Backend, Connection, Failure, FailureClass, Holder, Hygiene, Manager, Metrics, Peek, Probe, RecycleError, RecycleResult};
pub use budget::Budget;
pub use error::{CheckoutError, CheckoutErrorKind};
pub use figures::{Counters, CreateFailures, Quantiles};
pub use lease::Lease;
pub use record::UseError;
pub use settings::PoolSettings;
pub use shell::{Policies, Pool};
pub use status::{BreakerStatus, DecisionCount, EvictionStatus, HolderStatus, LatencyStatus, PoolStatus, SizingStatus};
pub use tally::{Clamps, Closes};

#[cfg(all(test, not(feature = "loom")))]
mod tests;
