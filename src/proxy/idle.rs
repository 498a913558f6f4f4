//! Connections that wait for a request: one stack a worker, newest first.
//!
//! A worker takes from its own stack, whose connections it opened and whose sockets its runtime watches; the lock is there for
//! the sweep and for workers that have none left. Newest first lets the oldest go when the load falls.

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Duration, Instant};

/// What can lie idle.
pub(super) trait Parked {
    /// Index of its endpoint.
    fn endpoint(&self) -> usize;
    /// Index of the worker whose runtime drives it.
    fn home(&self) -> usize;
    /// When it was last used.
    fn since(&self) -> Instant;
    /// Whether a request can be sent on it now.
    fn is_ready(&self) -> bool;
}

/// All stacks.
pub(super) struct Stacks<T> {
    stacks: Box<[Padded<T>]>,
}

/// On cache lines of its own: workers do not share what they write.
#[repr(align(128))]
struct Padded<T>(Mutex<Stack<T>>);

/// The idle connections of one worker.
pub(super) struct Stack<T> {
    by_endpoint: Vec<Vec<T>>,
    /// The endpoint whose turn is next.
    pub(super) turn: usize,
    /// Requests sent to each endpoint.
    pub(super) requests: Vec<u64>,
}

impl<T: Parked> Stacks<T> {
    /// Stacks for as many workers as there are likely to be; workers beyond share the last one, with all other threads.
    pub(super) fn new(endpoints: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stack = |index: usize| Stack {
            by_endpoint: (0..endpoints).map(|_| Vec::new()).collect(),
            // Each worker starts with another endpoint, so that few requests spread too.
            turn: index % endpoints.max(1),
            requests: vec![0; endpoints],
        };
        Self { stacks: (0..=2 * cores).map(|index| Padded(Mutex::new(stack(index)))).collect() }
    }

    fn slot(&self, worker: usize) -> &Mutex<Stack<T>> {
        &self.stacks[worker.min(self.stacks.len() - 1)].0
    }

    /// The stack of a worker.
    pub(super) fn of(&self, worker: usize) -> MutexGuard<'_, Stack<T>> {
        self.slot(worker).lock()
    }

    /// Puts a connection on its home's stack.
    pub(super) fn push(&self, connection: T) {
        let mut stack = self.of(connection.home());
        if let Some(list) = stack.by_endpoint.get_mut(connection.endpoint()) {
            list.push(connection);
        }
    }

    /// The newest usable connection to an endpoint of any worker.
    pub(super) fn pop_to(&self, endpoint: usize) -> Option<T> {
        self.stacks.iter().find_map(|stack| stack.0.lock().pop(endpoint))
    }

    /// A usable connection to any endpoint that `wanted` accepts, of any worker.
    pub(super) fn pop_any(&self, wanted: impl Fn(usize) -> bool) -> Option<T> {
        self.stacks.iter().find_map(|stack| {
            let mut stack = stack.0.lock();
            (0..stack.by_endpoint.len()).filter(|endpoint| wanted(*endpoint)).find_map(|endpoint| stack.pop(endpoint))
        })
    }

    /// Takes out what has been idle for `longest`, or is dead.
    pub(super) fn sweep(&self, now: Instant, longest: Duration) -> Vec<T> {
        let mut out = Vec::new();
        for stack in &self.stacks {
            for list in &mut stack.0.lock().by_endpoint {
                let gone = |one: &mut T| !one.is_ready() || now.saturating_duration_since(one.since()) >= longest;
                out.extend(list.extract_if(.., gone));
            }
        }
        out
    }

    /// Idle connections and requests so far, by endpoint.
    pub(super) fn figures(&self, endpoints: usize) -> Vec<(usize, u64)> {
        let mut figures = vec![(0, 0); endpoints];
        for stack in &self.stacks {
            let stack = stack.0.lock();
            for (index, figure) in figures.iter_mut().enumerate() {
                figure.0 += stack.by_endpoint.get(index).map_or(0, Vec::len);
                figure.1 += stack.requests.get(index).copied().unwrap_or_default();
            }
        }
        figures
    }
}

impl<T: Parked> Stack<T> {
    /// The newest usable connection to an endpoint; dead ones above it are dropped.
    pub(super) fn pop(&mut self, endpoint: usize) -> Option<T> {
        let list = self.by_endpoint.get_mut(endpoint)?;
        while let Some(connection) = list.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Fake {
        endpoint: usize,
        home: usize,
        since: Instant,
        ready: bool,
    }

    impl Parked for Fake {
        fn endpoint(&self) -> usize {
            self.endpoint
        }

        fn home(&self) -> usize {
            self.home
        }

        fn since(&self) -> Instant {
            self.since
        }

        fn is_ready(&self) -> bool {
            self.ready
        }
    }

    #[test]
    fn newest_first_from_home_and_dead_ones_go() {
        let stacks = Stacks::new(2);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let fake = |endpoint, home, seconds, ready| Fake { endpoint, home, since: at(seconds), ready };
        for one in [fake(0, 0, 1, true), fake(0, 0, 2, true), fake(0, 0, 3, false), fake(1, usize::MAX, 4, true)] {
            stacks.push(one);
        }
        assert_eq!(stacks.of(0).pop(0), Some(fake(0, 0, 2, true)));
        assert_eq!(stacks.of(0).pop(1), None, "another thread's");
        assert_eq!(stacks.pop_any(|endpoint| endpoint == 1), Some(fake(1, usize::MAX, 4, true)));
        assert_eq!(stacks.figures(2), [(1, 0), (0, 0)]);
        stacks.push(fake(0, 1, 30, true));
        assert_eq!(stacks.sweep(at(32), Duration::from_secs(30)), [fake(0, 0, 1, true)]);
        assert_eq!(stacks.pop_to(0), Some(fake(0, 1, 30, true)));
    }
}
