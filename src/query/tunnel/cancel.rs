//! Cancel requests, which come on a connection of their own and name a session by its key.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use rand::{TryRngCore, rngs::OsRng};
use tokio::sync::Notify;

use super::startup::Key;

/// Sessions known at a time.
const MOST: usize = 65_536;

/// The sessions of all tunnels of the process, by the keys that were given out. The keys are ours: a database's own would name
/// whatever runs on a connection that may be another client's by then.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<Key, Arc<Notify>>>);

/// One session, known while this lives.
pub(super) struct Known {
    sessions: Arc<Sessions>,
    key: Key,
    asked: Arc<Notify>,
}

impl Sessions {
    /// Makes a session known, under a key that nobody can guess: 63 random bits. None: there are too many, or no randomness is to
    /// be had.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Known> {
        let mut sessions = self.0.lock();
        if sessions.len() >= MOST {
            return None;
        }
        loop {
            if let Entry::Vacant(free) = sessions.entry(random()?) {
                let (key, asked) = (*free.key(), Arc::new(Notify::new()));
                free.insert(asked.clone());
                return Some(Known { sessions: self.clone(), key, asked });
            }
        }
    }

    /// Asks the session of this key to cancel what it runs. False: there is none.
    pub(super) fn cancel(&self, key: Key) -> bool {
        let found = self.0.lock().get(&key).cloned();
        found.inspect(|asked| asked.notify_one()).is_some()
    }
}

impl Known {
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Completes when somebody has asked to cancel. Cancel safe.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.sessions.0.lock().remove(&self.key);
    }
}

/// A process id is a positive number.
fn random() -> Option<Key> {
    let process = OsRng.try_next_u32().ok()? & i32::MAX as u32;
    let secret = OsRng.try_next_u32().ok()?;
    Some(Key { process: process.cast_signed().max(1), secret: secret.cast_signed() })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_session_is_cancelled_by_its_own_key_while_it_lasts() {
        let sessions = Arc::new(Sessions::default());
        let (one, other) = (sessions.enter().unwrap(), sessions.enter().unwrap());
        assert_ne!(one.key(), other.key());
        assert!(one.key().process > 0);
        let wrong = Key { secret: one.key().secret ^ 1, ..one.key() };
        assert!(!sessions.cancel(wrong));
        assert!(one.asked().now_or_never().is_none() && other.asked().now_or_never().is_none());
        assert!(sessions.cancel(one.key()));
        assert!(one.asked().now_or_never().is_some() && other.asked().now_or_never().is_none());
        assert!(one.asked().now_or_never().is_none(), "once");
        let key = one.key();
        drop(one);
        assert!(!sessions.cancel(key));
        assert!(!format!("{key:?}").contains(&key.secret.to_string()));
    }

    #[test]
    fn there_is_an_end_to_them() {
        let sessions = Arc::new(Sessions::default());
        let mut known: Vec<Known> = (0..MOST).map(|_| sessions.enter().unwrap()).collect();
        assert!(sessions.enter().is_none());
        known.pop();
        assert!(sessions.enter().is_some());
    }
}
