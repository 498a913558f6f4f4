//! What lasts of a consumer: a name, and whether the credential is still good.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// One credential of a consumer, for as long as somebody uses it.
#[derive(Debug)]
pub struct ConsumerHandle {
    name: Arc<str>,
    id: u64,
    revoked: AtomicBool,
    notify: Notify,
}

impl ConsumerHandle {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), id: id(name), revoked: AtomicBool::new(false), notify: Notify::new() }
    }

    /// The consumer's name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A number for the name, for limits: the same over reloads and for all credentials of the consumer.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the credential was taken out of the configuration.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Completes when the credential is taken out of the configuration; at once if it has been. Cancel safe.
    pub async fn revoked(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        // Registered before the flag is read, so that no call of `revoke` is missed in between.
        notified.as_mut().enable();
        if !self.is_revoked() {
            notified.await;
        }
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }
}

/// A consumer's number: the same in every generation of this process, and in no other process.
fn id(name: &str) -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    SEED.hash_one(name)
}
