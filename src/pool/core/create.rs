//! Permits: when a connection is made, and when its permit comes back.

use tokio::time::Instant;

use super::{Action, Actions, Cause, Core, Creation, Room, Service};
use crate::pool::record::{Held, Home, Record};

/// A connection as it is made.
pub(crate) struct Newborn<C> {
    pub(crate) conn: C,
    /// The pool's epoch when it was begun.
    pub(crate) epoch: u32,
    /// What validation said of it.
    pub(crate) valid_for: std::time::Duration,
    pub(crate) jitter_permille: u32,
    pub(crate) home: Home,
}

impl<C> Core<C> {
    /// A connection was made: for the oldest waiter, else for the idle.
    pub(crate) fn created(&mut self, now: Instant, newborn: Newborn<C>, todo: &mut Actions<C>) -> u64 {
        self.creating -= 1;
        self.next_id += 1;
        let record = Record {
            id: self.next_id,
            seat: self.uses.seat(),
            epoch: newborn.epoch,
            created: now,
            returned: now,
            validated: now,
            valid_for: newborn.valid_for,
            uses: 0,
            errors: 0,
            last_error: None,
            failed_probes: 0,
            jitter_permille: newborn.jitter_permille,
            home: newborn.home,
        };
        let waited_for = !self.queue.is_empty();
        self.place(now, Box::new(Held { conn: newborn.conn, record }), todo);
        if !waited_for {
            self.replace_one(todo);
        }
        self.settle(now, todo);
        self.next_id
    }

    /// No connection was made. `linger`: until when the permit is kept, where the server may believe otherwise. Whether others
    /// may be made now has been said with [`Self::note`].
    pub(crate) fn create_failed(&mut self, now: Instant, linger: Option<Instant>, todo: &mut Actions<C>) {
        self.creating -= 1;
        match linger {
            Some(until) => self.linger(until),
            None => self.free(1, todo),
        }
        self.settle(now, todo);
    }

    /// Whoever was making a connection is gone without a word. Starts nothing: it is said from a destructor, on a runtime that
    /// may be about to end; [`Self::kick`] from a live one follows.
    pub(crate) fn create_lost(&mut self, until: Instant) {
        self.creating -= 1;
        self.linger(until);
    }

    /// Nobody ever began to make a connection. Starts nothing, as [`Self::create_lost`].
    pub(crate) fn create_unbegun(&mut self, todo: &mut Actions<C>) {
        self.creating -= 1;
        self.free(1, todo);
    }

    /// A connection is closed, or has lingered for its time.
    pub(crate) fn closed(&mut self, now: Instant, todo: &mut Actions<C>) {
        self.closing -= 1;
        self.free(1, todo);
        self.settle(now, todo);
    }

    /// Whoever was closing a connection is gone without a word.
    pub(crate) fn close_lost(&mut self, until: Instant) {
        self.closing -= 1;
        self.linger(until);
    }

    /// When something that may be made may be begun, if that is later than `now`.
    pub(crate) fn next_start(&self, now: Instant) -> Option<Instant> {
        let wanted = self.queue.len() > self.creating || self.fill > 0;
        (wanted && self.next_create > now).then_some(self.next_create)
    }

    /// When the next lingering permit comes back.
    pub(crate) fn next_linger(&self) -> Option<Instant> {
        self.lingering.iter().min().copied()
    }

    /// Takes lingering permits back whose time has come.
    pub(crate) fn reap(&mut self, now: Instant, todo: &mut Actions<C>) {
        let before = self.lingering.len();
        self.lingering.retain(|until| *until > now);
        let due = (before - self.lingering.len()) as u32;
        if due > 0 {
            self.closing -= due;
            self.free(due, todo);
            self.settle(now, todo);
        }
    }

    /// Starts what could not be started when it was asked for: the budget has room again, or a waiter has grown old.
    pub(crate) fn kick(&mut self, now: Instant, todo: &mut Actions<C>) {
        self.settle(now, todo);
    }

    /// Makes connections until there are `min` of them, and `min_idle` idle ones, as far as the target allows.
    pub(crate) fn fill(&mut self, now: Instant, min: u32, min_idle: u32, todo: &mut Actions<C>) {
        let counts = self.counts();
        let short = min.saturating_sub(counts.size());
        let short_of_idle = min_idle.saturating_sub(counts.idle + counts.creating);
        self.fill = if self.is_retired() { 0 } else { short.max(short_of_idle) };
        self.settle(now, todo);
    }

    /// Makes one connection more for each of `ids`, and closes those as the new ones come. Where there is no room to make one
    /// more, the old one is left where it is.
    pub(crate) fn replace(&mut self, now: Instant, ids: &[u64], todo: &mut Actions<C>) {
        let room = self.allowance().saturating_sub(self.counts().live()) as usize;
        self.replacing = ids.iter().copied().take(room).collect();
        // What is being made already will do: a slow connect must not be begun again with every sweep.
        self.fill = self.fill.max((self.replacing.len() as u32).saturating_sub(self.creating));
        self.settle(now, todo);
    }

    /// Makes one connection although callers may not, if there is room and none is being made. Its outcome says whether they
    /// may again.
    pub(crate) fn try_probe(&mut self, todo: &mut Actions<C>) -> bool {
        let wanted = self.service == Service::Open && self.creating == 0;
        let go = wanted && self.has_room(self.gate.target.min(self.gate.max)) && self.budget.try_take() == Room::Taken;
        if go {
            self.creating += 1;
            todo.push(Action::Create);
        }
        go
    }

    /// Connections that may exist now. The reserve counts while anybody waits: it was made for them.
    pub(super) fn allowance(&self) -> u32 {
        let reserve = if self.queue.is_empty() { 0 } else { self.gate.reserve };
        self.gate.target.saturating_add(reserve).min(self.gate.max)
    }

    /// Makes connections for waiters that no connection is being made for yet, and for [`Self::fill`].
    pub(super) fn start_creates(&mut self, now: Instant, todo: &mut Actions<C>) {
        let was_short = std::mem::take(&mut self.short);
        if self.service != Service::Open {
            return;
        }
        let parallel = match self.creation {
            Creation::Free => self.gate.parallel.max(1),
            Creation::Single => 1,
            Creation::Paused if self.crowded => {
                let wanted = self.queue.len() > self.creating && self.has_room(self.allowance_to_create(now));
                return self.note_short(wanted && self.budget.is_server_pressed(), was_short, todo);
            }
            Creation::Paused | Creation::Barred => return,
        };
        while self.creating < parallel {
            let for_waiter = self.queue.len() > self.creating;
            if !for_waiter && self.fill == 0 {
                return;
            }
            let most = if for_waiter { self.allowance_to_create(now) } else { self.gate.target.min(self.gate.max) };
            if !self.has_room(most) {
                return;
            }
            if now < self.next_create {
                // Once for each: who is told looks here again.
                if std::mem::replace(&mut self.told_later, self.next_create) != self.next_create {
                    todo.push(Action::Later);
                }
                return;
            }
            match self.budget.try_take() {
                Room::Taken => {}
                Room::Full => return,
                Room::ServerFull => return self.note_short(for_waiter, was_short, todo),
            }
            self.next_create = self.next_create.max(now) + self.gate.pace;
            self.fill = self.fill.saturating_sub(u32::from(!for_waiter));
            self.creating += 1;
            todo.push(Action::Create);
        }
    }

    fn note_short(&mut self, short: bool, was_short: bool, todo: &mut Actions<C>) {
        self.short = short;
        if self.short && !was_short {
            todo.push(Action::Later);
        }
    }

    /// The reserve is for waiters that have grown old.
    fn allowance_to_create(&self, now: Instant) -> u32 {
        let grown_old =
            self.queue.oldest().is_some_and(|since| now.saturating_duration_since(since) >= self.gate.reserve_after);
        if grown_old { self.allowance() } else { self.gate.target.min(self.gate.max) }
    }

    fn has_room(&self, most: u32) -> bool {
        self.counts().live() < most.min(self.gate.ceiling)
    }

    fn replace_one(&mut self, todo: &mut Actions<C>) {
        while let Some(id) = self.replacing.pop_front() {
            if let Some(old) = self.idle.remove(id) {
                return self.send_off(old, Cause::Lifetime, todo);
            }
        }
    }

    fn linger(&mut self, until: Instant) {
        self.closing += 1;
        self.lingering.push(until);
    }

    fn free(&mut self, n: u32, todo: &mut Actions<C>) {
        self.budget.give_back(n);
        todo.push(Action::Freed);
    }
}

impl<C> Drop for Core<C> {
    /// A pool that is dropped with connections in it drops them; a sister pool must not starve for that.
    fn drop(&mut self) {
        self.budget.give_back(self.counts().live());
    }
}
