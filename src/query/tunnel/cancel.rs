//! Cancel requests, which come on a connection of their own and name a session by its key.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{TryRngCore, rngs::OsRng};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::startup::Key;

/// Sessions known at a time.
const MOST: usize = 65_536;

/// Requests for one session that may wait; what is beyond asks for what is asked already.
const MOST_ASKERS: usize = 8;

/// How long whoever asks is kept waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sessions of all tunnels of the process, by the keys that were given out. The keys are ours: a database's own would name
/// whatever runs on a connection that may be another client's by then.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<Key, mpsc::Sender<Asker>>>);

/// One session, known while this lives.
pub(super) struct Known {
    sessions: Arc<Sessions>,
    key: Key,
    asked: mpsc::Receiver<Asker>,
}

/// Who asks to cancel. It waits until this is dropped, and so never has its next statement hit by what it asked for the last.
pub(super) struct Asker {
    _waits: oneshot::Sender<()>,
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
                let (key, (ask, asked)) = (*free.key(), mpsc::channel(MOST_ASKERS));
                free.insert(ask);
                return Some(Known { sessions: self.clone(), key, asked });
            }
        }
    }

    /// Asks the session of this key to cancel what it runs, and waits until it has, or has nothing to cancel. False: there is no
    /// such session.
    pub(super) async fn cancel(&self, key: Key) -> bool {
        let Some(session) = self.0.lock().get(&key).cloned() else { return false };
        let (waits, done) = oneshot::channel();
        if session.try_send(Asker { _waits: waits }).is_ok() {
            let _ = timeout(PATIENCE, done).await;
        }
        true
    }
}

impl Known {
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Whoever asks to cancel. Cancel safe.
    pub(super) async fn asked(&mut self) -> Asker {
        match self.asked.recv().await {
            Some(asker) => asker,
            // It is known as long as this lives.
            None => std::future::pending().await,
        }
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
    use futures_util::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn a_session_is_cancelled_by_its_own_key_while_it_lasts() {
        let sessions = Arc::new(Sessions::default());
        let (mut one, mut other) = (sessions.enter().unwrap(), sessions.enter().unwrap());
        assert_ne!(one.key(), other.key());
        assert!(one.key().process > 0);
        let wrong = Key { secret: one.key().secret ^ 1, ..one.key() };
        assert!(!sessions.cancel(wrong).await);
        assert!(one.asked().now_or_never().is_none() && other.asked().now_or_never().is_none());
        let mut cancel = Box::pin(sessions.cancel(one.key()));
        assert!(poll!(&mut cancel).is_pending());
        let asker = one.asked().now_or_never().unwrap();
        assert!(other.asked().now_or_never().is_none() && one.asked().now_or_never().is_none(), "once");
        assert!(poll!(&mut cancel).is_pending(), "it is under way");
        drop(asker);
        assert!(cancel.await);
        let key = one.key();
        drop(one);
        assert!(!sessions.cancel(key).await);
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
