//! The cap on open connections, and the queue in front of it.
//!
//! A [`Permit`] is the right to have one connection open; it is held until the socket is closed. When none is left, callers
//! wait in order, each for whatever comes first: a permit given back, or a connection (`T`) that somebody returns. A caller
//! who leaves loses nothing for the others: what was handed over in the same moment goes to the next.
//!
//! Lowering the limit takes nothing away: until enough permits have come back, none is given out.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The cap and the queue. Shared by all workers.
pub(super) struct Gate<T> {
    /// The length of the queue, to be read without the lock.
    waiting: AtomicUsize,
    state: Mutex<State<T>>,
}

struct State<T> {
    limit: usize,
    open: usize,
    places: usize,
    next_ticket: u64,
    /// Ascending by ticket.
    queue: VecDeque<Waiter<T>>,
}

struct Waiter<T> {
    ticket: u64,
    wake: oneshot::Sender<Grant<T>>,
}

/// What a caller gets who enters.
pub(super) enum Entry<T> {
    /// A connection may be opened.
    Permit(Permit<T>),
    /// Others are first.
    Wait(Waiting<T>),
    /// There is no place in the queue.
    Full,
}

/// What a caller gets who waited.
pub(super) enum Grant<T> {
    /// A connection may be opened.
    Permit(Permit<T>),
    /// Somebody's connection.
    Connection(T),
}

/// The right to have one connection open. Dropping it gives it back.
pub(super) struct Permit<T>(Option<Arc<Gate<T>>>);

/// A place in the queue. Dropping it leaves the queue.
pub(super) struct Waiting<T> {
    gate: Arc<Gate<T>>,
    ticket: u64,
    granted: oneshot::Receiver<Grant<T>>,
}

// === impl Gate ===

impl<T> Gate<T> {
    pub(super) fn new(limit: u32, places: u32) -> Arc<Self> {
        let state =
            State { limit: limit as usize, open: 0, places: places as usize, next_ticket: 0, queue: VecDeque::new() };
        Arc::new(Self { waiting: AtomicUsize::new(0), state: Mutex::new(state) })
    }

    /// Moves the limit and the length of the queue. Who waits already, stays.
    pub(super) fn resize(self: &Arc<Self>, limit: u32, places: u32) {
        let mut state = self.state.lock();
        state.limit = limit as usize;
        state.places = places as usize;
        while state.open < state.limit && !state.queue.is_empty() {
            state.open += 1;
            self.pass_on(&mut state);
        }
    }

    /// A permit, if there is one that nobody waits for.
    pub(super) fn try_permit(self: &Arc<Self>) -> Option<Permit<T>> {
        let mut state = self.state.lock();
        let free = state.queue.is_empty() && state.open < state.limit;
        free.then(|| {
            state.open += 1;
            Permit(Some(self.clone()))
        })
    }

    /// A permit, or a place in the queue.
    pub(super) fn enter(self: &Arc<Self>) -> Entry<T> {
        let mut state = self.state.lock();
        if state.queue.is_empty() && state.open < state.limit {
            state.open += 1;
            return Entry::Permit(Permit(Some(self.clone())));
        }
        if state.queue.len() >= state.places {
            return Entry::Full;
        }
        let (wake, granted) = oneshot::channel();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.push_back(Waiter { ticket, wake });
        self.publish(&state);
        Entry::Wait(Waiting { gate: self.clone(), ticket, granted })
    }

    /// Hands a connection to whoever has waited longest; it comes back if nobody waits.
    pub(super) fn offer(&self, connection: T) -> Option<T> {
        let mut state = self.state.lock();
        let mut left = Some(Grant::Connection(connection));
        while let Some(grant) = left.take() {
            let Some(waiter) = state.queue.pop_front() else {
                left = Some(grant);
                break;
            };
            left = waiter.wake.send(grant).err();
        }
        self.publish(&state);
        match left {
            Some(Grant::Connection(connection)) => Some(connection),
            _ => None,
        }
    }

    /// Callers in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Permits given out.
    pub(super) fn open(&self) -> usize {
        self.state.lock().open
    }

    fn publish(&self, state: &State<T>) {
        self.waiting.store(state.queue.len(), Ordering::SeqCst);
    }

    /// Gives one counted permit to the first who still waits, else takes it off the count.
    fn pass_on(self: &Arc<Self>, state: &mut State<T>) {
        while state.open <= state.limit {
            let Some(waiter) = state.queue.pop_front() else { break };
            match waiter.wake.send(Grant::Permit(Permit(Some(self.clone())))) {
                Ok(()) => {
                    self.publish(state);
                    return;
                }
                // The caller has left; the permit is still in our hands, and must not come back by being dropped.
                Err(Grant::Permit(mut permit)) => permit.0 = None,
                Err(Grant::Connection(_)) => {}
            }
        }
        state.open -= 1;
        self.publish(state);
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.pass_on(&mut gate.state.lock());
        }
    }
}

impl<T> Waiting<T> {
    /// Waits for the turn. Cancel safe: dropping the future and calling again loses nothing.
    pub(super) async fn granted(&mut self) -> Grant<T> {
        match (&mut self.granted).await {
            Ok(grant) => grant,
            // The sender is dropped only after it sent, or in `drop` below.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        {
            let mut state = self.gate.state.lock();
            if let Ok(at) = state.queue.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
                state.queue.remove(at);
                self.gate.publish(&state);
                return;
            }
        }
        // The turn came in this very moment: a permit goes back by being dropped, a connection to the next in the queue.
        self.granted.close();
        if let Ok(Grant::Connection(connection)) = self.granted.try_recv() {
            drop(self.gate.offer(connection));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use proptest::prelude::*;

    use super::*;

    fn wait(gate: &Arc<Gate<u32>>) -> Waiting<u32> {
        match gate.enter() {
            Entry::Wait(waiting) => waiting,
            Entry::Permit(_) => panic!("a permit was free"),
            Entry::Full => panic!("the queue was full"),
        }
    }

    fn turn(waiting: &mut Waiting<u32>) -> Option<Grant<u32>> {
        match pin!(waiting.granted()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(grant) => Some(grant),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_queue_is_served_in_order_and_bounded() {
        let gate = Gate::new(1, 2);
        let permit = gate.try_permit().unwrap();
        assert!(gate.try_permit().is_none());
        let (mut first, mut second) = (wait(&gate), wait(&gate));
        assert!(matches!(gate.enter(), Entry::Full));
        assert_eq!(gate.offer(7), None);
        assert!(turn(&mut second).is_none());
        assert!(matches!(turn(&mut first), Some(Grant::Connection(7))));
        drop(permit);
        let Some(Grant::Permit(permit)) = turn(&mut second) else { panic!("no permit") };
        assert_eq!((gate.open(), gate.waiting()), (1, 0));
        drop(permit);
        assert_eq!(gate.open(), 0);
        assert_eq!(gate.offer(8), Some(8), "nobody waits");
    }

    #[test]
    fn nobody_jumps_the_queue() {
        let gate: Arc<Gate<u32>> = Gate::new(2, 8);
        let (one, _two) = (gate.try_permit().unwrap(), gate.try_permit().unwrap());
        let mut waiting = wait(&gate);
        drop(one);
        assert!(gate.try_permit().is_none(), "the permit is the waiter's");
        assert!(matches!(turn(&mut waiting), Some(Grant::Permit(_))));
    }

    #[test]
    fn who_leaves_loses_nothing_for_the_others() {
        let gate = Gate::new(1, 8);
        let permit = gate.try_permit().unwrap();
        let (left_early, granted_then_left, mut last) = (wait(&gate), wait(&gate), wait(&gate));
        drop(left_early);
        assert_eq!(gate.waiting(), 2);
        drop(permit);
        assert!(turn(&mut last).is_none(), "it is another's turn");
        drop(granted_then_left);
        let Some(Grant::Permit(permit)) = turn(&mut last) else { panic!("the permit was lost") };

        let (granted_then_left, mut last) = (wait(&gate), wait(&gate));
        assert_eq!(gate.offer(5), None);
        drop(granted_then_left);
        assert!(matches!(turn(&mut last), Some(Grant::Connection(5))));
        drop(permit);
        assert_eq!(gate.open(), 0);
    }

    #[test]
    fn the_limit_moves_at_once_and_is_never_passed() {
        let gate: Arc<Gate<u32>> = Gate::new(3, 8);
        let mut permits: Vec<_> = (0..3).map(|_| gate.try_permit().unwrap()).collect();
        gate.resize(1, 8);
        let mut waiting = wait(&gate);
        permits.truncate(1);
        assert!(turn(&mut waiting).is_none(), "two over, then one: still none free");
        gate.resize(2, 8);
        assert!(matches!(turn(&mut waiting), Some(Grant::Permit(_))));
        drop(permits);
        assert_eq!(gate.open(), 0);
    }

    proptest! {
        /// Whatever callers do, permits out never pass the limit, the queue never holds more than its places, and when all is
        /// given back nothing is missing.
        #[test]
        fn permits_are_neither_made_nor_lost(limit in 1_u32..4, steps in prop::collection::vec((0_u8..6, any::<prop::sample::Index>()), 1..200)) {
            let gate: Arc<Gate<u32>> = Gate::new(limit, 4);
            let mut permits = Vec::new();
            let mut waiting: Vec<Waiting<u32>> = Vec::new();
            for (step, index) in steps {
                match step {
                    0 | 1 => match gate.enter() {
                        Entry::Permit(permit) => permits.push(permit),
                        Entry::Wait(wait) => waiting.push(wait),
                        Entry::Full => prop_assert_eq!(gate.waiting(), 4),
                    },
                    2 if !permits.is_empty() => drop(permits.swap_remove(index.index(permits.len()))),
                    3 if !waiting.is_empty() => drop(waiting.remove(index.index(waiting.len()))),
                    4 => _ = gate.offer(1),
                    _ => {}
                }
                let mut still = Vec::new();
                for mut wait in waiting {
                    // Some look, some do not: a grant may lie unread.
                    match if index.index(3) == 0 { None } else { turn(&mut wait) } {
                        Some(Grant::Permit(permit)) => permits.push(permit),
                        Some(Grant::Connection(_)) => {}
                        None => still.push(wait),
                    }
                }
                waiting = still;
                prop_assert!(permits.len() <= limit as usize);
                prop_assert!(gate.open() <= limit as usize);
                prop_assert!(gate.waiting() <= 4);
            }
            drop(waiting);
            drop(permits);
            prop_assert_eq!((gate.open(), gate.waiting()), (0, 0));
        }
    }
}
