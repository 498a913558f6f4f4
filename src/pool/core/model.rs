//! Random histories against a naive model: who came first, what is where, who may have what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    Action, Actions, Caller, Checkout, Core, Creation, Doomed, Gate, Handed, Newborn, Service, Ticket,
    tests::{GATE, caller, newborn},
};
use crate::pool::{budget::Budget, record::Held, tally::Cause};

/// What the outside world may do. Numbers choose among what there is to choose from.
#[derive(Clone, Debug)]
enum Op {
    Checkout,
    Fetch(usize),
    Cancel(usize),
    Return(usize),
    Discard(usize),
    Again(usize),
    Created,
    CreateFailed { linger: bool, creation: Creation },
    CreateLost,
    Closed,
    CloseLost,
    Advance(u64),
    Gate { target: u32, reserve: u32, max: u32, ceiling: u32, parallel: u32 },
    Creation(Creation),
    Fill(u32, u32),
    Probe,
    Evict(usize),
    Borrow(usize),
    Replace(usize),
    Purge,
    Bump,
    Retire,
    Suspend(Service),
    Doom(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let creation =
        || prop_oneof![Just(Creation::Free), Just(Creation::Single), Just(Creation::Paused), Just(Creation::Barred)];
    let op = prop_oneof![
        12 => Just(Op::Checkout),
        8 => any::<usize>().prop_map(Op::Fetch),
        4 => any::<usize>().prop_map(Op::Cancel),
        8 => any::<usize>().prop_map(Op::Return),
        2 => any::<usize>().prop_map(Op::Discard),
        1 => any::<usize>().prop_map(Op::Again),
        8 => Just(Op::Created),
        2 => (any::<bool>(), creation()).prop_map(|(linger, creation)| Op::CreateFailed { linger, creation }),
        1 => Just(Op::CreateLost),
        6 => Just(Op::Closed),
        1 => Just(Op::CloseLost),
        3 => (0..2_000_u64).prop_map(Op::Advance),
        4 => (0..6_u32, 0..3_u32, 1..6_u32, 0..8_u32, 0..4_u32)
            .prop_map(|(target, reserve, max, ceiling, parallel)| Op::Gate { target, reserve, max, ceiling, parallel }),
        2 => creation().prop_map(Op::Creation),
        2 => (0..6_u32, 0..4_u32).prop_map(|(min, idle)| Op::Fill(min, idle)),
        1 => Just(Op::Probe),
        1 => any::<usize>().prop_map(Op::Evict),
        1 => any::<usize>().prop_map(Op::Borrow),
        1 => any::<usize>().prop_map(Op::Replace),
        1 => prop_oneof![8 => Just(Op::Purge), 4 => Just(Op::Bump), 1 => Just(Op::Retire)],
        1 => prop_oneof![Just(Service::Paused), Just(Service::Drained)].prop_map(Op::Suspend),
        2 => Just(Op::Suspend(Service::Open)),
        1 => any::<usize>().prop_map(Op::Doom),
    ];
    prop::collection::vec(op, 1..80)
}

type Loan = Box<Held<u64>>;

/// The naive model: plain lists of what is where, kept from what the core says alone.
struct World {
    core: Core<u64>,
    budget: Arc<Budget>,
    now: Instant,
    next: u64,
    /// Waiters in the order of their coming.
    waiting: Vec<Ticket>,
    /// Waiters who were sent out, or served, and have not looked yet.
    served: BTreeMap<Ticket, Option<u64>>,
    /// Idle ones, the last returned last.
    idle: Vec<u64>,
    leases: Vec<Loan>,
    creating: u32,
    closing: u32,
    lingering: Vec<Instant>,
    /// In use, and to be closed when they come back.
    doomed: BTreeSet<u64>,
}

const LINGER: Duration = Duration::from_secs(5);

fn is_closed(conn: u64, todo: &Actions<u64>) -> bool {
    todo.iter().any(|action| matches!(action, Action::Close(held, _) if held.conn == conn))
}

fn choose<T>(from: &[T], n: usize) -> Option<usize> {
    (!from.is_empty()).then(|| n % from.len())
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let budget = Budget::new(8);
        Self {
            core: Core::new(now, GATE, Arc::clone(&budget)),
            budget,
            now,
            next: 0,
            waiting: Vec::new(),
            served: BTreeMap::new(),
            idle: Vec::new(),
            leases: Vec::new(),
            creating: 0,
            closing: 0,
            lingering: Vec::new(),
            doomed: BTreeSet::new(),
        }
    }

    fn act(&mut self, op: &Op) {
        let mut todo = Vec::new();
        // No two things happen at the same moment, so that "last returned" is never a tie.
        self.now += Duration::from_micros(1);
        match *op {
            Op::Checkout => self.checkout(caller(self.now), &mut todo),
            Op::Fetch(n) => self.fetch(n),
            Op::Cancel(n) => self.cancel(n, &mut todo),
            Op::Return(n) => self.give_back(n, &mut todo),
            Op::Discard(n) => drop(self.discard(n, &mut todo)),
            Op::Again(n) => self.again(n, &mut todo),
            Op::Created if self.creating > 0 => self.created(&mut todo),
            Op::CreateFailed { linger, creation } if self.creating > 0 => {
                self.creating -= 1;
                let until = linger.then(|| self.now + LINGER);
                self.closing += u32::from(linger);
                self.lingering.extend(until);
                let ceiling = self.core.gate().ceiling;
                self.core.note(creation, Some(ceiling));
                self.core.create_failed(self.now, until, &mut todo);
            }
            Op::CreateLost if self.creating > 0 => {
                self.creating -= 1;
                self.closing += 1;
                self.lingering.push(self.now + LINGER);
                self.core.create_lost(self.now + LINGER);
                self.core.kick(self.now, &mut todo);
            }
            Op::Closed if self.closing > self.lingering.len() as u32 => {
                self.closing -= 1;
                self.core.closed(self.now, &mut todo);
            }
            Op::CloseLost if self.closing > self.lingering.len() as u32 => {
                self.lingering.push(self.now + LINGER);
                self.core.close_lost(self.now + LINGER);
            }
            Op::Advance(ms) => {
                self.now += Duration::from_millis(ms);
                let before = self.lingering.len();
                self.lingering.retain(|until| *until > self.now);
                self.closing -= (before - self.lingering.len()) as u32;
                self.core.reap(self.now, &mut todo);
                self.core.kick(self.now, &mut todo);
            }
            Op::Gate { target, reserve, max, ceiling, parallel } => {
                self.budget.set_cap(max);
                let gate = Gate { target, reserve, max, ceiling, parallel, ..GATE };
                self.core.set_gate(self.now, gate, &mut todo);
            }
            Op::Creation(creation) => self.core.set_creation(self.now, creation, &mut todo),
            Op::Fill(min, idle) => self.core.fill(self.now, min, idle, &mut todo),
            Op::Probe => drop(self.core.try_probe(&mut todo)),
            Op::Evict(n) => {
                if let Some(at) = choose(&self.idle, n) {
                    assert!(self.core.evict(self.now, self.id_of(at), Cause::Policy, &mut todo));
                }
            }
            Op::Borrow(n) => {
                if let Some(at) = choose(&self.idle, n) {
                    let held = self.core.borrow(self.now, self.id_of(at), super::Holder::default()).unwrap();
                    self.idle.remove(at);
                    self.leases.push(held);
                }
            }
            Op::Replace(n) => {
                if let Some(at) = choose(&self.idle, n) {
                    self.core.replace(self.now, &[self.id_of(at)], &mut todo);
                }
            }
            Op::Purge => self.core.purge(self.now, &mut todo),
            Op::Bump => self.core.bump_epoch(self.now, &mut todo),
            Op::Retire => {
                self.core.retire(self.now, &mut todo);
                self.lent(&todo);
            }
            Op::Suspend(service) => {
                self.core.suspend(self.now, service, &mut todo);
                self.lent(&todo);
            }
            Op::Doom(n) => {
                let (idle, leased) = (self.idle.len(), self.leases.len());
                match n.checked_rem(idle + leased) {
                    None => assert_eq!(self.core.doom(self.now, 0, &mut todo), Doomed::Unknown),
                    Some(at) if at < idle => {
                        assert_eq!(self.core.doom(self.now, self.id_of(at), &mut todo), Doomed::Closed);
                    }
                    Some(at) => {
                        let id = self.leases[at - idle].record.id;
                        assert_eq!(self.core.doom(self.now, id, &mut todo), Doomed::Marked);
                        self.doomed.insert(self.leases[at - idle].conn);
                    }
                }
            }
            _ => {}
        }
        self.absorb(todo);
        self.check();
    }

    /// Ids are given in the order of creation, as the connections' own numbers are.
    fn id_of(&self, at: usize) -> u64 {
        self.core.idle().find(|held| held.conn == self.idle[at]).unwrap().record.id
    }

    fn checkout(&mut self, caller: Caller, todo: &mut Actions<u64>) {
        let again = caller.again;
        let open = self.core.service() == Service::Open;
        let expected = self.idle.last().copied().filter(|_| open);
        match self.core.checkout(self.now, caller, todo) {
            Checkout::Idle(held) => {
                assert_eq!(Some(held.conn), expected, "the last returned is taken first");
                self.idle.pop();
                self.leases.push(held);
            }
            Checkout::Wait(ticket) => {
                assert_eq!(expected, None, "nobody waits while something is idle");
                match again {
                    None => assert!(self.waiting.iter().all(|other| *other < ticket), "newcomers go to the end"),
                    Some(again) => assert_eq!(again, ticket),
                }
                self.waiting.push(ticket);
                self.waiting.sort_unstable();
            }
            Checkout::Refused(_) => assert_eq!(expected, None),
        }
    }

    fn fetch(&mut self, n: usize) {
        let tickets: Vec<Ticket> = self.waiting.iter().chain(self.served.keys()).copied().collect();
        let Some(at) = choose(&tickets, n) else { return };
        let handed = self.core.poll(tickets[at], Waker::noop());
        match (self.served.remove(&tickets[at]), handed) {
            (Some(Some(conn)), Some(Handed::Connection(held))) => {
                assert_eq!(held.conn, conn);
                self.leases.push(held);
            }
            (Some(None), Some(Handed::Refused(_))) | (None, None) => {}
            (expected, _) => panic!("expected {expected:?}"),
        }
    }

    fn cancel(&mut self, n: usize, todo: &mut Actions<u64>) {
        let tickets: Vec<Ticket> = self.waiting.iter().chain(self.served.keys()).copied().collect();
        let Some(at) = choose(&tickets, n) else { return };
        self.waiting.retain(|ticket| *ticket != tickets[at]);
        let given = self.served.remove(&tickets[at]).flatten();
        self.core.cancel(self.now, tickets[at], todo);
        if let Some(conn) = given {
            self.whither(conn, todo);
        }
    }

    fn give_back(&mut self, n: usize, todo: &mut Actions<u64>) {
        let Some(at) = choose(&self.leases, n) else { return };
        let mut held = self.leases.remove(at);
        let conn = held.conn;
        held.record.returned = self.now;
        assert!(self.core.give_back(self.now, held, todo).is_some(), "its use was registered");
        self.whither(conn, todo);
    }

    fn discard(&mut self, n: usize, todo: &mut Actions<u64>) -> Option<u64> {
        let at = choose(&self.leases, n)?;
        let held = self.leases.remove(at);
        let conn = held.conn;
        self.core.discard(self.now, held, Cause::Broken, todo);
        Some(conn)
    }

    /// A caller who was served finds the connection useless and takes its old place.
    fn again(&mut self, n: usize, todo: &mut Actions<u64>) {
        let served: Vec<Ticket> = self.served.iter().filter_map(|(ticket, conn)| conn.map(|_| *ticket)).collect();
        let Some(at) = choose(&served, n) else { return };
        let Some(Handed::Connection(held)) = self.core.poll(served[at], Waker::noop()) else { panic!("not served") };
        self.served.remove(&served[at]);
        self.core.discard(self.now, held, Cause::Broken, todo);
        self.absorb(std::mem::take(todo));
        self.checkout(Caller { again: Some(served[at]), ..caller(self.now) }, todo);
    }

    fn created(&mut self, todo: &mut Actions<u64>) {
        self.creating -= 1;
        self.next += 1;
        self.core.created(self.now, Newborn { epoch: self.core.epoch(), ..newborn(self.next) }, todo);
        self.whither(self.next, todo);
    }

    /// What lay idle goes to those who wait, the newest first, when the pool is open again.
    fn lent(&mut self, todo: &Actions<u64>) {
        let still: BTreeSet<u64> = self.core.idle().map(|held| held.conn).collect();
        let gone = |conn: &u64| !still.contains(conn) && !is_closed(*conn, todo);
        let lent: Vec<u64> = self.idle.iter().rev().copied().filter(gone).collect();
        self.idle.retain(|conn| !lent.contains(conn));
        for conn in lent {
            assert_eq!(self.core.service(), Service::Open);
            let first = self.waiting.remove(0);
            self.served.insert(first, Some(conn));
        }
    }

    /// Where a connection went that was put back: it is closed, or idle, or else with the one who waited longest.
    fn whither(&mut self, conn: u64, todo: &Actions<u64>) {
        let doomed = self.doomed.remove(&conn);
        if is_closed(conn, todo) {
            return;
        }
        assert!(!doomed, "an operator wanted it closed");
        let at = self.core.idle().find(|held| held.conn == conn).map(|held| held.record.returned);
        match (at, self.waiting.is_empty() || self.core.service() != Service::Open) {
            (Some(returned), true) => {
                let order =
                    |conn: &u64| self.core.idle().find(|held| held.conn == *conn).map(|held| held.record.returned);
                // One that this one replaces has gone from the core already, and is still in our list.
                let before = self.idle.iter().rposition(|other| order(other).is_some_and(|at| at < returned));
                self.idle.insert(before.map_or(0, |at| at + 1), conn);
            }
            (None, false) => {
                let first = self.waiting.remove(0);
                self.served.insert(first, Some(conn));
            }
            (at, _) => panic!("a connection was lost or a waiter passed over: {at:?}"),
        }
    }

    fn absorb(&mut self, todo: Actions<u64>) {
        let mut surplus = 0;
        for action in todo {
            match action {
                Action::Create => {
                    assert_eq!(self.core.service(), Service::Open, "made although nothing may be");
                    self.creating += 1;
                    let gate = self.core.gate();
                    let most = (gate.target + gate.reserve).min(gate.max).min(gate.ceiling);
                    assert!(self.core.counts().live() <= most, "made beyond {most}: {:?}", self.core.counts());
                    assert!(self.budget.live() <= self.budget.cap());
                }
                Action::Close(held, cause) => {
                    surplus += u32::from(cause == Cause::Surplus);
                    self.closing += 1;
                    self.idle.retain(|conn| *conn != held.conn);
                }
                Action::Wake(_) | Action::Freed | Action::Later => {}
            }
        }
        let counts = self.core.counts();
        let least = self.core.gate().target.min(self.core.gate().max);
        assert!(surplus == 0 || counts.size() >= least, "{surplus} closed as surplus, too many: {counts:?}");
        if counts.waiters == 0 && counts.idle + counts.in_use == 0 {
            // All were sent out; each is told when it looks.
            self.served.extend(self.waiting.drain(..).map(|ticket| (ticket, None)));
        }
    }

    fn check(&self) {
        let counts = self.core.counts();
        let served = self.served.values().flatten().count() as u32;
        assert_eq!(counts.in_use, self.leases.len() as u32 + served, "leases, and what waiters have not fetched");
        assert_eq!((counts.creating, counts.closing), (self.creating, self.closing));
        assert_eq!(counts.lingering, self.lingering.len() as u32);
        assert_eq!(counts.idle, self.idle.len() as u32);
        assert_eq!(counts.waiters, self.waiting.len() as u32, "no waiter is forgotten");
        assert_eq!(counts.live(), self.budget.live(), "no permit is lost, none is made up");
        let open = self.core.service() == Service::Open;
        assert!(counts.waiters == 0 || counts.idle == 0 || !open, "nobody waits while something is idle");
        assert!(counts.idle == 0 || self.core.service() != Service::Drained, "a drained pool keeps nothing");
        let mut ids = BTreeSet::new();
        assert!(
            self.core.idle().all(|held| ids.insert(held.record.id)) && self.core.uses().all(|used| ids.insert(used.id))
        );
        self.check_progress();
    }

    /// Nobody waits for a connection that could be made and is not.
    fn check_progress(&self) {
        let (counts, gate) = (self.core.counts(), self.core.gate());
        if self.core.service() != Service::Open {
            return;
        }
        let barred = self.core.creation == Creation::Barred;
        assert!(!barred || counts.idle + counts.in_use > 0 || counts.waiters == 0, "waits for what cannot come");
        let parallel = if self.core.creation == Creation::Free { gate.parallel.max(1) } else { 1 };
        let may = matches!(self.core.creation, Creation::Free | Creation::Single)
            && counts.creating < parallel
            && counts.live() < gate.target.min(gate.max).min(gate.ceiling)
            && self.budget.live() < self.budget.cap();
        assert!(!may || counts.waiters <= counts.creating, "a waiter is left without a create");
    }

    /// Everybody leaves; nothing may be left over.
    fn end(mut self) {
        self.act(&Op::Retire);
        while let Some(ticket) = self.waiting.first().or(self.served.keys().next()).copied() {
            let position = self.waiting.iter().chain(self.served.keys()).position(|other| *other == ticket).unwrap();
            self.act(&Op::Cancel(position));
        }
        while !self.leases.is_empty() {
            self.act(&Op::Return(0));
        }
        while self.creating > 0 {
            self.act(&Op::CreateFailed { linger: false, creation: Creation::Free });
        }
        while self.closing > self.lingering.len() as u32 {
            self.act(&Op::Closed);
        }
        self.act(&Op::Advance(6_000));
        assert!(self.core.is_drained(), "{:?}", self.core.counts());
        assert_eq!(self.budget.live(), 0);
    }
}

proptest! {
    #[test]
    fn no_history_breaks_the_gate(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.act(op);
        }
        world.end();
    }
}
