//! Idle connections: a stack for each worker, the last returned on top.
//!
//! Newest first, so that a falling load lets the oldest lie until they are closed. A stack for each worker, because a
//! socket's readiness comes from the runtime that registered it: moving one costs more than a microsecond.

use crate::{config::model::IdleOrder, pool::record::Held};

pub(super) struct Stacks<C> {
    /// By [`slot`]; each in the order of return, the last on top.
    stacks: Vec<Vec<Box<Held<C>>>>,
    len: u32,
}

/// Threads that are no workers share the first stack.
fn slot(worker: usize) -> usize {
    /// More workers than any machine has cores; beyond, they share stacks.
    const MOST: usize = 1024;
    worker.checked_add(1).map_or(0, |slot| slot % MOST)
}

impl<C> Stacks<C> {
    pub(super) fn new() -> Self {
        Self { stacks: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a connection on its home's stack, in the order of return: one that comes back from a probe, or from a waiter who
    /// left, is not made the first to be used again.
    pub(super) fn push(&mut self, held: Box<Held<C>>) {
        let slot = slot(held.record.home.worker);
        if self.stacks.len() <= slot {
            self.stacks.resize_with(slot + 1, Vec::new);
        }
        let stack = &mut self.stacks[slot];
        let returned = held.record.returned;
        let later = stack.iter().rev().take_while(|other| other.record.returned > returned).count();
        stack.insert(stack.len() - later, held);
        self.len += 1;
    }

    /// The worker's own newest, else the newest of all; or the oldest.
    pub(super) fn pop(&mut self, worker: usize, order: IdleOrder) -> Option<Box<Held<C>>> {
        if self.is_empty() {
            return None;
        }
        if order == IdleOrder::Fifo {
            return self.take_oldest(1).pop();
        }
        let own = self.stacks.get_mut(slot(worker)).and_then(Vec::pop);
        let held = own.or_else(|| {
            let newest = |stack: &&mut Vec<Box<Held<C>>>| stack.last().map(|held| held.record.returned);
            self.stacks.iter_mut().max_by_key(newest)?.pop()
        });
        self.len -= u32::from(held.is_some());
        held
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Box<Held<C>>> {
        for stack in &mut self.stacks {
            if let Some(at) = stack.iter().position(|held| held.record.id == id) {
                self.len -= 1;
                return Some(stack.remove(at));
            }
        }
        None
    }

    /// Takes the `n` that came back longest ago.
    pub(super) fn take_oldest(&mut self, n: u32) -> Vec<Box<Held<C>>> {
        let mut taken = Vec::new();
        while taken.len() < n as usize {
            let with_some = self.stacks.iter_mut().filter(|stack| !stack.is_empty());
            let Some(stack) = with_some.min_by_key(|stack| stack[0].record.returned) else { break };
            taken.push(stack.remove(0));
        }
        self.len -= taken.len() as u32;
        taken
    }

    pub(super) fn take_all(&mut self) -> Vec<Box<Held<C>>> {
        self.len = 0;
        self.stacks.iter_mut().flat_map(std::mem::take).collect()
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held<C>> {
        self.stacks.iter().flatten().map(AsRef::as_ref)
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::pool::record::{Home, Record, record};

    #[expect(clippy::unnecessary_box_returns, reason = "a connection travels boxed")]
    fn held(id: u64, worker: usize, returned: Instant) -> Box<Held<()>> {
        let home = Home { worker, thread: 0 };
        Box::new(Held { conn: (), record: Record { id, returned, home, ..record(returned) } })
    }

    #[test]
    fn a_worker_gets_its_own_newest_then_the_newest_of_others() {
        let now = Instant::now();
        let at = |n| now + Duration::from_secs(n);
        let mut stacks = Stacks::new();
        for (id, worker) in [(1, 0), (2, 0), (3, 1), (4, usize::MAX), (5, 1)] {
            stacks.push(held(id, worker, at(id)));
        }
        let mut pop = |worker| stacks.pop(worker, IdleOrder::Lifo).map(|held| held.record.id);
        assert_eq!([pop(0), pop(0), pop(0)], [Some(2), Some(1), Some(5)]);
        assert_eq!([pop(usize::MAX), pop(7), pop(7)], [Some(4), Some(3), None]);
        assert_eq!(stacks.len(), 0);
    }

    #[test]
    fn in_the_order_of_return_all_are_used_in_turn() {
        let now = Instant::now();
        let mut stacks = Stacks::new();
        for (id, worker) in [(1, 0), (2, 1), (3, 0)] {
            stacks.push(held(id, worker, now + Duration::from_secs(id)));
        }
        let mut pop = |worker| stacks.pop(worker, IdleOrder::Fifo).map(|held| held.record.id);
        assert_eq!([pop(0), pop(0), pop(1), pop(1)], [Some(1), Some(2), Some(3), None], "whoever asks");
        assert_eq!(stacks.len(), 0);
    }

    #[test]
    fn one_that_was_only_looked_at_keeps_its_place() {
        let now = Instant::now();
        let mut stacks = Stacks::new();
        for id in 1..=3 {
            stacks.push(held(id, 0, now + Duration::from_secs(id)));
        }
        let probed = stacks.remove(1).unwrap();
        stacks.push(probed);
        let oldest: Vec<u64> = stacks.take_oldest(2).iter().map(|held| held.record.id).collect();
        assert_eq!(oldest, [1, 2]);
        assert_eq!(stacks.take_all().len(), 1);
        assert!(stacks.is_empty() && stacks.remove(3).is_none() && stacks.take_oldest(1).is_empty());
    }
}
