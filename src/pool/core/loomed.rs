//! The gate under loom: every interleaving of returns, cancels, waits and changes of the limit, over the same lock and the
//! same wakers as the pool's own.

use std::{
    sync::Arc as Plain,
    task::{Wake, Waker},
    time::Duration,
};

use loom::{sync::Arc, thread};
use tokio::time::Instant;

use super::{Action, Actions, Caller, Checkout, Core, Gate, Handed, Newborn, Ticket};
use crate::{
    config::model::IdleOrder,
    pool::{
        backend::Holder,
        budget::Budget,
        record::{Held, Home},
        sync::Mutex,
    },
};

const GATE: Gate = Gate {
    target: 2,
    reserve: 0,
    reserve_after: Duration::from_secs(1),
    max: 2,
    ceiling: u32::MAX,
    parallel: 2,
    pace: Duration::ZERO,
    queue: 8,
    clients: u32::MAX,
    order: IdleOrder::Lifo,
};

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Plain<Self>) {
        self.0.unpark();
    }
}

/// A pool as the shell has it: one lock, and what is left to do done outside it. Closes are confirmed at once.
struct Shell {
    core: Mutex<Core<u64>>,
    now: Instant,
}

impl Shell {
    fn new(gate: Gate, budget: Plain<Budget>) -> Self {
        let now = Instant::now();
        Self { core: Mutex::new(Core::new(now, gate, budget)), now }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Core<u64>, Instant, &mut Actions<u64>) -> T) -> T {
        let mut todo = Vec::new();
        let answer = change(&mut self.core.lock(), self.now, &mut todo);
        while let Some(action) = todo.pop() {
            match action {
                Action::Wake(waker) => waker.wake(),
                Action::Close(..) => self.core.lock().closed(self.now, &mut todo),
                Action::Create | Action::Freed | Action::Later => {}
            }
        }
        answer
    }

    fn created(&self) {
        let home = Home { worker: 0, thread: 0 };
        let newborn = Newborn { conn: 0, epoch: 0, valid_for: Duration::ZERO, jitter_permille: 0, home };
        self.change(|core, now, todo| core.created(now, newborn, todo));
    }

    fn checkout(&self) -> Checkout<u64> {
        let caller = Caller { worker: 0, holder: Holder::default(), since: self.now, again: None };
        self.change(|core, now, todo| core.checkout(now, caller, todo))
    }

    fn idle(&self) -> Box<Held<u64>> {
        match self.checkout() {
            Checkout::Idle(held) => held,
            _ => panic!("nothing idle"),
        }
    }

    fn ticket(&self) -> Ticket {
        match self.checkout() {
            Checkout::Wait(ticket) => ticket,
            _ => panic!("no place in the queue"),
        }
    }

    /// Waits as a task does: looks, leaves its waker, sleeps until woken.
    fn wait(&self, ticket: Ticket) -> Box<Held<u64>> {
        let waker = Waker::from(Plain::new(Unpark(thread::current())));
        loop {
            let handed = self.core.lock().poll(ticket, &waker);
            match handed {
                Some(Handed::Connection(held)) => return held,
                Some(Handed::Refused(why)) => panic!("{why:?}"),
                None => thread::park(),
            }
        }
    }

    fn give_back(&self, held: Box<Held<u64>>) {
        self.change(|core, now, todo| core.give_back(now, held, todo));
    }

    fn cancel(&self, ticket: Ticket) {
        self.change(|core, now, todo| core.cancel(now, ticket, todo));
    }
}

/// One connection, in use, and the pool may have no other.
fn busy() -> (Arc<Shell>, Box<Held<u64>>) {
    let shell = Arc::new(Shell::new(Gate { target: 1, max: 1, ..GATE }, Budget::new(1)));
    let ticket = shell.ticket();
    shell.created();
    let held = shell.wait(ticket);
    (shell, held)
}

#[test]
fn loom_a_return_wakes_the_waiter() {
    loom::model(|| {
        let (shell, held) = busy();
        let other = Arc::clone(&shell);
        let returner = thread::spawn(move || other.give_back(held));
        let held = match shell.checkout() {
            Checkout::Idle(held) => held,
            Checkout::Wait(ticket) => shell.wait(ticket),
            Checkout::Refused(why) => panic!("{why:?}"),
        };
        returner.join().unwrap();
        shell.give_back(held);
        let counts = shell.core.lock().counts();
        assert_eq!((counts.idle, counts.live(), counts.waiters), (1, 1, 0));
    });
}

#[test]
fn loom_a_cancelled_waiter_loses_no_connection() {
    loom::model(|| {
        let (shell, held) = busy();
        let ticket = shell.ticket();
        let other = Arc::clone(&shell);
        let returner = thread::spawn(move || other.give_back(held));
        shell.cancel(ticket);
        returner.join().unwrap();
        let counts = shell.core.lock().counts();
        assert_eq!((counts.idle, counts.in_use, counts.waiters), (1, 0, 0));
    });
}

#[test]
fn loom_the_next_waiter_gets_what_a_cancelled_one_was_given() {
    loom::model(|| {
        let (shell, held) = busy();
        let (first, second) = (shell.ticket(), shell.ticket());
        let (leaver, returner) = (Arc::clone(&shell), Arc::clone(&shell));
        let leaver = thread::spawn(move || leaver.cancel(first));
        let returner = thread::spawn(move || returner.give_back(held));
        let held = shell.wait(second);
        leaver.join().unwrap();
        returner.join().unwrap();
        shell.give_back(held);
        assert_eq!(shell.core.lock().counts().idle, 1);
    });
}

#[test]
fn loom_the_limit_moves_while_connections_come_back() {
    loom::model(|| {
        let shell = Arc::new(Shell::new(GATE, Budget::new(2)));
        let tickets = [shell.ticket(), shell.ticket()];
        shell.created();
        shell.created();
        let [one, two] = tickets.map(|ticket| shell.wait(ticket));
        let other = Arc::clone(&shell);
        let returner = thread::spawn(move || other.give_back(one));
        let steering = Arc::clone(&shell);
        let steering = thread::spawn(move || {
            for target in [1, 2, 1] {
                let gate = Gate { target, ..GATE };
                steering.change(|core, now, todo| core.set_gate(now, gate, todo));
            }
        });
        shell.give_back(two);
        returner.join().unwrap();
        steering.join().unwrap();
        let counts = shell.core.lock().counts();
        assert_eq!((counts.idle, counts.in_use, counts.live()), (1, 0, 1));
    });
}

#[test]
fn loom_sisters_never_exceed_their_budget() {
    loom::model(|| {
        let budget = Budget::new(1);
        let pools = [(); 2].map(|()| Arc::new(Shell::new(GATE, Plain::clone(&budget))));
        let makers = pools.clone().map(|shell| {
            thread::spawn(move || {
                shell.ticket();
                let creating = shell.core.lock().counts().creating;
                if creating > 0 {
                    let failed = |core: &mut Core<u64>, now, todo: &mut _| {
                        core.note(super::Creation::Paused, None);
                        core.create_failed(now, None, todo);
                    };
                    shell.change(failed);
                }
                creating
            })
        });
        let made: u32 = makers.map(|maker| maker.join().unwrap()).iter().sum();
        assert!((1..=2).contains(&made), "one, or one after the other");
        assert_eq!(budget.live(), 0);
    });
}

#[test]
fn loom_idle_is_shared() {
    loom::model(|| {
        let (shell, held) = busy();
        shell.give_back(held);
        let taken = shell.idle();
        let other = Arc::clone(&shell);
        let taker = thread::spawn(move || other.checkout());
        shell.give_back(taken);
        match taker.join().unwrap() {
            Checkout::Idle(held) => shell.give_back(held),
            Checkout::Wait(ticket) => {
                let held = shell.wait(ticket);
                shell.give_back(held);
            }
            Checkout::Refused(why) => panic!("{why:?}"),
        }
        assert_eq!(shell.core.lock().counts().idle, 1);
    });
}
