//! The gate's rules, one by one. `model.rs` tries them all at random.

use std::{sync::Arc, task::Waker, time::Duration};

use tokio::time::Instant;

use super::{Action, Actions, Caller, Checkout, Core, Creation, Gate, Handed, Newborn, Refused, Ticket};
use crate::{
    config::model::IdleOrder,
    pool::{
        backend::Holder,
        budget::Budget,
        record::{Held, Home},
        tally::Cause,
    },
};

pub(super) const GATE: Gate = Gate {
    target: 2,
    reserve: 0,
    reserve_after: Duration::from_secs(1),
    max: 4,
    ceiling: u32::MAX,
    parallel: 2,
    pace: Duration::ZERO,
    queue: 3,
    clients: u32::MAX,
    order: IdleOrder::Lifo,
};

pub(super) fn caller(now: Instant) -> Caller {
    Caller { worker: 0, holder: Holder::default(), since: now, again: None }
}

pub(super) fn newborn(conn: u64) -> Newborn<u64> {
    let home = Home { worker: 0, thread: 0 };
    Newborn { conn, epoch: 0, valid_for: Duration::ZERO, jitter_permille: 0, home }
}

/// A core, and what it left to do, in few words.
struct Rig {
    core: Core<u64>,
    budget: Arc<Budget>,
    now: Instant,
    todo: Actions<u64>,
    made: u64,
}

impl Rig {
    fn new(gate: Gate) -> Self {
        let budget = Budget::new(gate.max);
        let now = Instant::now();
        Self { core: Core::new(now, gate, Arc::clone(&budget)), budget, now, todo: Vec::new(), made: 0 }
    }

    fn creates(&mut self) -> usize {
        let before = self.todo.len();
        self.todo.retain(|action| !matches!(action, Action::Create));
        before - self.todo.len()
    }

    fn closed(&mut self) -> Vec<(u64, Cause)> {
        let closes = self.todo.drain(..).filter_map(|action| match action {
            Action::Close(held, cause) => Some((held.conn, cause)),
            _ => None,
        });
        closes.collect()
    }

    fn checkout(&mut self) -> Checkout<u64> {
        self.core.checkout(self.now, caller(self.now), &mut self.todo)
    }

    fn idle(&mut self) -> Box<Held<u64>> {
        match self.checkout() {
            Checkout::Idle(held) => held,
            _ => panic!("nothing idle"),
        }
    }

    fn wait(&mut self) -> Ticket {
        match self.checkout() {
            Checkout::Wait(ticket) => ticket,
            _ => panic!("no place in the queue"),
        }
    }

    fn refused(&mut self) -> Refused {
        match self.checkout() {
            Checkout::Refused(why) => why,
            _ => panic!("not refused"),
        }
    }

    fn created(&mut self) {
        self.made += 1;
        let newborn = Newborn { epoch: self.core.epoch(), ..newborn(self.made) };
        self.core.created(self.now, newborn, &mut self.todo);
    }

    fn fetch(&mut self, ticket: Ticket) -> Box<Held<u64>> {
        match self.core.poll(ticket, Waker::noop()) {
            Some(Handed::Connection(held)) => held,
            _ => panic!("nothing handed over"),
        }
    }

    fn give_back(&mut self, mut held: Box<Held<u64>>) {
        held.record.returned = self.now;
        held.record.uses += 1;
        self.core.give_back(self.now, held, &mut self.todo);
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
    }

    /// Makes `n` connections, left idle.
    fn warm(&mut self, n: u32) {
        self.core.fill(self.now, n, 0, &mut self.todo);
        while self.core.counts().creating > 0 {
            self.step();
            self.created();
        }
        self.todo.clear();
    }
}

#[test]
fn a_waiter_is_served_by_whichever_comes_first() {
    let mut rig = Rig::new(GATE);
    rig.warm(1);
    let busy = rig.idle();
    let first = rig.wait();
    assert_eq!(rig.creates(), 1);
    rig.give_back(busy);
    assert_eq!(rig.fetch(first).conn, 1, "the returned one came before the new one");
    rig.created();
    assert_eq!(rig.core.counts().idle, 1, "and the new one is not wasted");
}

#[test]
fn no_more_is_made_than_waiters_need_or_the_settings_allow() {
    let mut rig = Rig::new(GATE);
    let _first = rig.wait();
    assert_eq!(rig.creates(), 1);
    let _second = rig.wait();
    assert_eq!(rig.creates(), 1);
    let _third = rig.wait();
    assert_eq!(rig.creates(), 0, "the target is reached");
    assert_eq!(rig.refused(), Refused::QueueFull);
    rig.core.set_gate(rig.now, Gate { target: 4, ..GATE }, &mut rig.todo);
    assert_eq!(rig.creates(), 0, "two at a time");
    rig.created();
    assert_eq!(rig.creates(), 1);
}

#[test]
fn a_lower_target_is_a_debt_paid_by_idle_ones_at_once_and_by_others_on_return() {
    let mut rig = Rig::new(Gate { target: 4, ..GATE });
    rig.warm(4);
    let busy = [rig.idle(), rig.idle(), rig.idle()];
    rig.core.set_gate(rig.now, Gate { target: 2, ..GATE }, &mut rig.todo);
    assert_eq!(rig.closed(), [(1, Cause::Surplus)]);
    let [one, two, three] = busy;
    rig.give_back(one);
    assert_eq!(rig.closed(), [(4, Cause::Surplus)]);
    rig.give_back(two);
    rig.give_back(three);
    assert_eq!(rig.closed(), [], "what is being closed has paid its part");
    assert_eq!((rig.core.counts().idle, rig.budget.live()), (2, 4));
}

#[test]
fn the_permit_of_a_close_comes_back_when_it_is_confirmed_or_has_lingered() {
    let mut rig = Rig::new(Gate { target: 1, ..GATE });
    rig.warm(1);
    let held = rig.idle();
    let waiter = rig.wait();
    rig.core.discard(rig.now, held, Cause::Broken, &mut rig.todo);
    assert_eq!(rig.creates(), 0, "it may still live at the server");
    let until = rig.now + Duration::from_secs(5);
    rig.core.close_lost(until);
    assert_eq!((rig.core.next_linger(), rig.core.counts().lingering), (Some(until), 1));
    rig.core.reap(until - Duration::from_millis(1), &mut rig.todo);
    assert_eq!(rig.creates(), 0);
    rig.core.reap(until, &mut rig.todo);
    assert_eq!(rig.creates(), 1);
    rig.created();
    assert_eq!(rig.fetch(waiter).conn, 2);
}

#[test]
fn a_waiter_who_leaves_passes_on_what_it_was_given() {
    let mut rig = Rig::new(Gate { target: 1, ..GATE });
    rig.warm(1);
    let held = rig.idle();
    let (first, second) = (rig.wait(), rig.wait());
    rig.give_back(held);
    rig.core.cancel(rig.now, first, &mut rig.todo);
    assert_eq!(rig.fetch(second).conn, 1);
    assert_eq!((rig.core.counts().in_use, rig.core.handoffs()), (1, 2));
}

#[test]
fn one_who_got_a_useless_connection_keeps_its_place() {
    let mut rig = Rig::new(Gate { target: 1, ..GATE });
    rig.warm(1);
    let held = rig.idle();
    let (first, second) = (rig.wait(), rig.wait());
    rig.give_back(held);
    let useless = rig.fetch(first);
    rig.core.discard(rig.now, useless, Cause::Broken, &mut rig.todo);
    let again = Caller { again: Some(first), ..caller(rig.now) };
    assert!(matches!(rig.core.checkout(rig.now, again, &mut rig.todo), Checkout::Wait(ticket) if ticket == first));
    rig.core.closed(rig.now, &mut rig.todo);
    rig.created();
    assert_eq!(rig.fetch(first).conn, 2);
    assert!(rig.core.poll(second, Waker::noop()).is_none());
}

#[test]
fn nobody_waits_for_what_cannot_come() {
    let mut rig = Rig::new(GATE);
    let waiter = rig.wait();
    rig.core.note(Creation::Paused, None);
    rig.core.create_failed(rig.now, None, &mut rig.todo);
    assert!(rig.core.poll(waiter, Waker::noop()).is_none(), "a pause is not the end");
    rig.core.set_creation(rig.now, Creation::Barred, &mut rig.todo);
    assert!(matches!(rig.core.poll(waiter, Waker::noop()), Some(Handed::Refused(Refused::Barred))));
    assert_eq!(rig.refused(), Refused::Barred);
    assert!(rig.core.try_probe(&mut rig.todo) && !rig.core.try_probe(&mut rig.todo), "one probe at a time");
    assert_eq!(rig.refused(), Refused::Barred, "the probe is nobody's hope");
    rig.created();
    let held = rig.idle();
    let waiter = rig.wait();
    assert_eq!(rig.core.counts().waiters, 1, "a connection in use may come back");
    rig.core.discard(rig.now, held, Cause::Broken, &mut rig.todo);
    assert!(matches!(rig.core.poll(waiter, Waker::noop()), Some(Handed::Refused(Refused::Barred))));
}

#[test]
fn outdated_connections_leave_and_are_never_handed_out() {
    let mut rig = Rig::new(GATE);
    rig.warm(2);
    let held = rig.idle();
    rig.core.bump_epoch(rig.now, &mut rig.todo);
    assert_eq!(rig.closed(), [(1, Cause::Outdated)]);
    rig.core.closed(rig.now, &mut rig.todo);
    let _waiter = rig.wait();
    rig.give_back(held);
    assert_eq!(rig.closed(), [(2, Cause::Outdated)], "not even to a waiter");
    assert_eq!(rig.core.counts().waiters, 1);
    let stale = Newborn { epoch: 0, ..newborn(9) };
    rig.core.created(rig.now, stale, &mut rig.todo);
    assert_eq!(rig.closed(), [(9, Cause::Outdated)], "nor one that was begun before");
}

#[test]
fn the_reserve_is_for_waiters_that_have_grown_old() {
    let mut rig = Rig::new(Gate { target: 1, reserve: 1, ..GATE });
    rig.warm(1);
    let held = rig.idle();
    let (first, second) = (rig.wait(), rig.wait());
    assert_eq!(rig.creates(), 0);
    rig.now += GATE.reserve_after;
    rig.core.kick(rig.now, &mut rig.todo);
    assert_eq!(rig.creates(), 1);
    rig.created();
    let reserve = rig.fetch(first);
    rig.give_back(held);
    let main = rig.fetch(second);
    rig.todo.clear();
    rig.give_back(main);
    assert_eq!(rig.closed(), [(1, Cause::Surplus)], "nobody waits any more: back to the target");
    rig.core.closed(rig.now, &mut rig.todo);
    rig.give_back(reserve);
    assert_eq!(rig.core.counts().idle, 1);
}

#[test]
fn connections_are_begun_at_the_pace_that_is_set() {
    let pace = Duration::from_millis(100);
    let mut rig = Rig::new(Gate { target: 4, parallel: 4, pace, ..GATE });
    let _waiters = [rig.wait(), rig.wait(), rig.wait()];
    assert!(rig.todo.iter().any(|action| matches!(action, Action::Later)), "the driver is told");
    assert_eq!((rig.creates(), rig.core.next_start(rig.now)), (1, Some(rig.now + pace)));
    rig.now += pace / 2;
    rig.core.kick(rig.now, &mut rig.todo);
    assert_eq!(rig.creates(), 0);
    for _ in 0..2 {
        rig.now = rig.core.next_start(rig.now).unwrap();
        rig.core.kick(rig.now, &mut rig.todo);
        assert_eq!(rig.creates(), 1);
    }
    assert_eq!(rig.core.next_start(rig.now), None, "nobody wants another");
}

#[test]
fn callers_are_counted_with_a_connection_and_without() {
    let mut rig = Rig::new(Gate { target: 1, clients: 2, ..GATE });
    rig.warm(1);
    let held = rig.idle();
    let waiter = rig.wait();
    assert_eq!(rig.refused(), Refused::TooMany);
    rig.give_back(held);
    let next = rig.fetch(waiter);
    rig.give_back(next);
    rig.idle();
}

#[test]
fn a_replacement_comes_before_the_old_one_goes() {
    let mut rig = Rig::new(Gate { target: 3, ..GATE });
    rig.warm(2);
    rig.core.replace(rig.now, &[1, 2], &mut rig.todo);
    assert_eq!(rig.creates(), 1, "there is room for one only");
    rig.core.replace(rig.now, &[1, 2], &mut rig.todo);
    rig.core.set_gate(rig.now, Gate { target: 4, ..GATE }, &mut rig.todo);
    rig.core.replace(rig.now, &[1], &mut rig.todo);
    assert_eq!(rig.creates(), 0, "it is being made already");
    rig.created();
    assert_eq!(rig.closed(), [(1, Cause::Lifetime)]);
    assert_eq!(rig.core.counts().idle, 2);
}

#[test]
fn a_retired_pool_serves_whoever_comes_but_keeps_nothing() {
    let mut rig = Rig::new(GATE);
    rig.warm(2);
    let held = rig.idle();
    rig.core.retire(rig.now, &mut rig.todo);
    assert_eq!(rig.closed(), [(1, Cause::Retired)]);
    rig.core.closed(rig.now, &mut rig.todo);
    let late = rig.wait();
    assert!(!rig.core.is_drained());
    rig.give_back(held);
    let held = rig.fetch(late);
    rig.give_back(held);
    assert_eq!(rig.closed(), [(2, Cause::Retired)]);
    rig.core.create_failed(rig.now, None, &mut rig.todo);
    rig.core.closed(rig.now, &mut rig.todo);
    assert!(rig.core.is_drained());
    let waiter = rig.wait();
    rig.core.shut(rig.now, &mut rig.todo);
    assert!(matches!(rig.core.poll(waiter, Waker::noop()), Some(Handed::Refused(Refused::Shut))));
    assert_eq!(rig.refused(), Refused::Shut);
}

#[test]
fn sister_pools_share_a_budget() {
    let now = Instant::now();
    let budget = Budget::new(2);
    let mut todo = Vec::new();
    let mut old = Core::<u64>::new(now, GATE, Arc::clone(&budget));
    let mut new = Core::<u64>::new(now, GATE, Arc::clone(&budget));
    old.fill(now, 2, 0, &mut todo);
    assert_eq!(todo.drain(..).count(), 2);
    assert!(matches!(new.checkout(now, caller(now), &mut todo), Checkout::Wait(_)));
    assert!(todo.is_empty(), "the old pool has it all");
    old.note(Creation::Paused, None);
    old.create_failed(now, None, &mut todo);
    assert!(matches!(todo[..], [Action::Freed]));
    todo.clear();
    new.kick(now, &mut todo);
    assert!(matches!(todo[..], [Action::Create]));
    drop(old);
    assert_eq!(budget.live(), 1);
}

#[test]
fn use_is_measured_over_time() {
    let mut rig = Rig::new(GATE);
    rig.warm(2);
    let start = rig.core.area(rig.now);
    let (one, two) = (rig.idle(), rig.idle());
    rig.now += Duration::from_secs(2);
    rig.give_back(one);
    rig.now += Duration::from_secs(1);
    assert!((rig.core.area(rig.now) - start - 5.0).abs() < 1e-9);
    assert_eq!(rig.core.take_peaks(), (2, 0));
    rig.give_back(two);
    assert_eq!(rig.core.take_peaks(), (1, 0), "the peak starts from what is in use");
    assert_eq!(rig.core.take_peaks(), (0, 0));
}
