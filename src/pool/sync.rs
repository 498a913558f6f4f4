//! The lock and the counter of the gate, so that loom can take them over: `cargo test --features loom loom_`.
//!
//! A Cargo feature, not `--cfg loom`, under which tokio does not build. With the feature on, only tests that begin with
//! `loom_` can run.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(not(feature = "loom"))]
pub(crate) use parking_lot::Mutex;

#[cfg(feature = "loom")]
pub(crate) use self::modelled::Mutex;

#[cfg(feature = "loom")]
mod modelled {
    use std::sync::PoisonError;

    use loom::sync::MutexGuard;

    /// loom's mutex with parking_lot's manners: no poisoning.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
