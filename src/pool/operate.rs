//! What an operator may do to a pool while it serves.

use std::sync::Arc;

use super::{
    backend::Backend,
    core::{Doomed, Service},
    settings::PoolSettings,
    shell::Pool,
};

/// Most connections that a pool may have.
const MOST: u32 = 65_536;

/// An operator's word. It holds until the next one, or until another pool takes this one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Lend nothing: callers wait, in their order, as long as they may. What is open stays open, nothing is made.
    Pause,
    /// The same, and close everything; what is in use, when it comes back. Before a restart of the database.
    Drain,
    /// Lend again, after the two.
    Resume,
    /// Replace every connection; those in use when they come back.
    Reconnect,
    /// Other bounds at once, until a configuration changes this pool's settings.
    Resize {
        /// `size.min`, if it is to change.
        min: Option<u32>,
        /// `size.max`, if it is to change.
        max: Option<u32>,
    },
    /// Close one connection, by its number: now if it is idle, else when it comes back.
    Evict(u64),
}

/// Why an operator's word cannot be followed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// It drains, since another has its place.
    #[error("another pool has taken this one's place")]
    Retired,
    /// Neither idle nor in use.
    #[error("there is no connection {0}")]
    UnknownConnection(u64),
    /// Bounds that cannot be.
    #[error("`max` must be from 1 to {MOST}, and `min`, now {min}, no more than `max`, now {max}")]
    Size {
        /// What `min` would be.
        min: u32,
        /// What `max` would be.
        max: u32,
    },
}

impl<B: Backend> Pool<B> {
    /// Does what an operator says, at once. It does not wait for connections in use to come back: [`Pool::status`] tells.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn operate(self: &Arc<Self>, operation: Operation) -> Result<(), OperationError> {
        if self.state.lock().core.is_retired() {
            return Err(OperationError::Retired);
        }
        match operation {
            Operation::Pause => self.suspend(Service::Paused),
            Operation::Drain => self.suspend(Service::Drained),
            Operation::Resume => self.suspend(Service::Open),
            Operation::Reconnect => self.reconnect(),
            Operation::Resize { min, max } => self.resize(min, max)?,
            Operation::Evict(id) => {
                if self.change(|state, now, todo| state.core.doom(now, id, todo)) == Doomed::Unknown {
                    return Err(OperationError::UnknownConnection(id));
                }
            }
        }
        self.bell.notify_one();
        Ok(())
    }

    fn suspend(self: &Arc<Self>, service: Service) {
        self.change(|state, now, todo| state.core.suspend(now, service, todo));
    }

    fn resize(self: &Arc<Self>, min: Option<u32>, max: Option<u32>) -> Result<(), OperationError> {
        let old = self.settings.load_full();
        let (min, max) = (min.unwrap_or(old.min), max.unwrap_or(old.max));
        if max == 0 || max > MOST || min > max {
            return Err(OperationError::Size { min, max });
        }
        let reserve = old.reserve.min(max - min.max(1));
        let settings = PoolSettings { min, max, reserve, ..(*old).clone() };
        self.settings.store(Arc::new(settings.clone()));
        self.change(|state, now, todo| self.take_up_size(state, now, old.most(), &settings, todo));
        Ok(())
    }
}
