//! Callers who wait: served in order, each by direct hand-off into a place of its own.

use std::{collections::BTreeMap, task::Waker};

use tokio::time::Instant;

use super::Caller;
use crate::pool::{backend::Holder, record::Held};

/// A caller's place in the queue; the lower, the earlier it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// What a waiter is given.
pub(crate) enum Handed<C> {
    /// A connection, which counts as in use.
    Connection(Box<Held<C>>),
    /// No connection can come.
    Refused(Refused),
}

/// Why a caller is not let into the queue, or is sent out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full.
    QueueFull,
    /// There are as many callers as there may be.
    TooMany,
    /// There is no connection, and none may be made.
    Barred,
    /// The pool serves no more.
    Shut,
}

pub(super) struct Waiter {
    pub(super) since: Instant,
    pub(super) holder: Holder,
    pub(super) waker: Option<Waker>,
}

pub(super) struct Queue<C> {
    waiting: BTreeMap<Ticket, Waiter>,
    /// What waiters were given and have not yet fetched.
    handed: BTreeMap<Ticket, Handed<C>>,
    next: u64,
    peak: u32,
}

/// What became of a place that its owner left.
pub(super) enum Left<C> {
    Nothing,
    /// It had already been given this.
    Connection(Box<Held<C>>),
}

impl<C> Queue<C> {
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), handed: BTreeMap::new(), next: 0, peak: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.waiting.len() as u32
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The most that waited since the last call.
    pub(super) fn take_peak(&mut self) -> u32 {
        let len = self.len();
        std::mem::replace(&mut self.peak, len).max(len)
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.values().map(|waiter| waiter.since).next()
    }

    /// Who waits and since when, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Holder, Instant)> {
        self.waiting.values().map(|waiter| (&waiter.holder, waiter.since))
    }

    /// Gives the caller a place at the end, or again the one it had.
    pub(super) fn join(&mut self, caller: Caller) -> Ticket {
        let ticket = caller.again.unwrap_or_else(|| {
            self.next += 1;
            Ticket(self.next)
        });
        self.waiting.insert(ticket, Waiter { since: caller.since, holder: caller.holder, waker: None });
        self.peak = self.peak.max(self.len());
        ticket
    }

    /// What the waiter was given; if nothing yet, `waker` is kept to tell it.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Option<Handed<C>> {
        if let Some(waiter) = self.waiting.get_mut(&ticket) {
            match &mut waiter.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return None;
        }
        // A place that is neither waiting nor served has been left: asking again is a mistake that must not hang.
        Some(self.handed.remove(&ticket).unwrap_or(Handed::Refused(Refused::Shut)))
    }

    pub(super) fn leave(&mut self, ticket: Ticket) -> Left<C> {
        self.waiting.remove(&ticket);
        match self.handed.remove(&ticket) {
            Some(Handed::Connection(held)) => Left::Connection(held),
            Some(Handed::Refused(_)) | None => Left::Nothing,
        }
    }

    /// The first in the queue, to be given something with [`Self::hand`].
    pub(super) fn pop(&mut self) -> Option<(Ticket, Waiter)> {
        self.waiting.pop_first()
    }

    pub(super) fn hand(&mut self, ticket: Ticket, what: Handed<C>) {
        self.handed.insert(ticket, what);
    }

    /// Sends everybody out; returns who is to be woken.
    pub(super) fn refuse_all(&mut self, why: Refused) -> Vec<Waker> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut wakers = Vec::with_capacity(waiting.len());
        for (ticket, waiter) in waiting {
            self.handed.insert(ticket, Handed::Refused(why));
            wakers.extend(waiter.waker);
        }
        wakers
    }
}
