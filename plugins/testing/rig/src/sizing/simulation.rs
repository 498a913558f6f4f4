//! A pool, a database behind it, callers in front of it, and time: what a policy answers changes what it is told next.
//!
//! The database serves statements at full speed while no more than `knee` run at once; beyond, they share it, and each one more
//! costs all of them (locks, caches, scheduling): throughput falls by `wear` for each further knee's worth. Service times are
//! exponential. Callers come at random at a rate ([`Load::Open`]), or are so many, each asking anew as soon as it was served
//! ([`Load::Closed`]): the first kind shows what is needed, the second what is too much.
//!
//! Like the host, the pool asks each second, and after a tenth of a second already while a caller has waited that long; makes
//! two connections at a time; closes nothing in use. [`Simulation::guarded`] also holds a target while creates fail, and lets it
//! down by a tenth at a time while callers wait. Time goes by milliseconds, randomness comes from a seed. What is left out: lifetimes, idle timeouts, broken connections.

mod database;
mod meter;
mod random;

use std::collections::VecDeque;

use policy_sizing::{Decision, Policy, Signals};

pub use database::Database;
pub use meter::Stretch;

use database::Statement;
use meter::Meter;
use random::Random;

/// A waiter this old has the policy asked early; and so often at most.
const EARLY_MS: u64 = 100;
const TICK_MS: u64 = 1000;
/// Callers who waited so long give up.
const PATIENCE_MS: u64 = 5000;
const CONNECT_MS: u64 = 5;
const PARALLEL_CREATES: usize = 2;
/// After a failed create.
const PAUSE_MS: u64 = 100;

/// Who comes.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many a second, at random, however they fare.
    Open(f64),
    /// So many at a time, each asking anew when it was served.
    Closed(usize),
}

/// A pool under a policy.
#[derive(Debug)]
pub struct Simulation<P: Policy> {
    /// May be changed between stretches.
    pub database: Database,
    settings: P::Settings,
    carry: Vec<f64>,
    max_size: u32,
    guarded: bool,
    target: u32,
    min_idle: u32,
    reserve: u32,
    now: u64,
    asked: u64,
    ask_at: u64,
    pause_until: u64,
    idle: u32,
    /// When each will be made.
    making: VecDeque<u64>,
    running: Vec<Statement>,
    /// Since when each waits.
    queue: VecDeque<u64>,
    next_arrival: f64,
    random: Random,
    meter: Meter,
}

impl<P: Policy> Simulation<P> {
    /// A pool that aims at `max_size`, as the host begins, and has no connection yet.
    pub fn new(settings: P::Settings, database: Database, max_size: u32) -> Self {
        Self {
            database,
            settings,
            carry: Vec::new(),
            max_size,
            guarded: false,
            target: max_size,
            min_idle: 0,
            reserve: 0,
            now: 0,
            asked: 0,
            // The host asks when a pool begins.
            ask_at: 0,
            pause_until: 0,
            idle: 0,
            making: VecDeque::new(),
            running: Vec::new(),
            queue: VecDeque::new(),
            next_arrival: 0.0,
            random: Random::new(0x5EED_1E55),
            meter: Meter::default(),
        }
    }

    /// With the host's guards: no growth while creates fail, slow shrinking while callers wait.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// The target now.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Runs for so many seconds, and says how it went.
    pub fn run(&mut self, seconds: u64, load: Load) -> Stretch {
        self.meter.begin();
        self.next_arrival = self.next_arrival.max(self.now as f64);
        let end = self.now + seconds * TICK_MS;
        while self.now < end {
            self.step(load);
            if self.now.is_multiple_of(TICK_MS) {
                self.meter.note_target(self.target);
            }
        }
        self.meter.stretch(seconds)
    }

    fn step(&mut self, load: Load) {
        self.now += 1;
        self.arrive(load);
        self.give_up();
        self.finish_creates();
        self.serve();
        self.start_creates();
        self.meter.note_use(self.in_use());
        self.progress();
        self.close_surplus();
        let old = self.queue.front().is_some_and(|since| self.now - since >= EARLY_MS);
        let early = old && self.now >= self.asked + EARLY_MS;
        if early || self.now >= self.ask_at {
            self.ask(u32::from(early && self.now < self.ask_at));
        }
    }

    fn arrive(&mut self, load: Load) {
        match load {
            Load::Open(per_second) => {
                while per_second > 0.0 && self.next_arrival <= self.now as f64 {
                    self.next_arrival += self.random.exponential(1000.0 / per_second);
                    self.enter();
                }
            }
            Load::Closed(callers) => {
                while self.queue.len() + self.running.len() < callers {
                    self.enter();
                }
            }
        }
    }

    fn enter(&mut self) {
        self.meter.flows.checkouts += 1;
        self.queue.push_back(self.now);
    }

    fn give_up(&mut self) {
        while self.queue.front().is_some_and(|since| self.now - since > PATIENCE_MS) {
            self.queue.pop_front();
            self.meter.flows.timeouts += 1;
            self.meter.note_timeout();
        }
    }

    fn serve(&mut self) {
        while self.idle > 0
            && let Some(since) = self.queue.pop_front()
        {
            self.idle -= 1;
            self.meter.note_wait(self.now - since);
            let work = self.random.exponential(self.database.service_ms);
            self.running.push(Statement {
                began: self.now,
                left_ms: work,
                after_ms: self.database.held_ms,
                answered: false,
            });
        }
    }

    fn finish_creates(&mut self) {
        while self.making.front().is_some_and(|at| *at <= self.now) {
            self.making.pop_front();
            self.idle += 1;
        }
    }

    fn start_creates(&mut self) {
        while self.making.len() < PARALLEL_CREATES && self.now >= self.pause_until && self.wants_one() {
            if self.live() >= self.database.grants {
                self.meter.flows.create_failures += 1;
                self.meter.flows.server_full += 1;
                self.pause_until = self.now + PAUSE_MS;
            } else {
                self.making.push_back(self.now + CONNECT_MS);
            }
        }
    }

    fn wants_one(&self) -> bool {
        let making = self.making.len();
        let for_idle = self.idle as usize + making < self.min_idle as usize && self.live() < self.target;
        let reserve = if self.queue.is_empty() { 0 } else { self.reserve };
        let for_waiter = self.queue.len() > making && self.live() < self.target + reserve;
        for_idle || for_waiter
    }

    fn progress(&mut self) {
        let busy = self.running.iter().filter(|statement| !statement.answered).count();
        let speed = self.database.speed(busy as f64);
        let (now, meter) = (self.now, &mut self.meter);
        let before = self.running.len();
        self.running.retain_mut(|statement| {
            if statement.answered {
                statement.after_ms -= 1.0;
            } else {
                statement.left_ms -= speed;
                if statement.left_ms <= 0.0 {
                    statement.answered = true;
                    meter.note_round_trip(now - statement.began + 1);
                }
            }
            let held = !statement.answered || statement.after_ms > 0.0;
            if !held {
                meter.note_hold(now - statement.began + 1);
            }
            held
        });
        self.idle += (before - self.running.len()) as u32;
    }

    fn close_surplus(&mut self) {
        let surplus = self.live().saturating_sub(self.target);
        self.idle -= surplus.min(self.idle);
    }

    fn in_use(&self) -> u32 {
        self.running.len() as u32
    }

    fn live(&self) -> u32 {
        self.idle + self.in_use() + self.making.len() as u32
    }

    fn ask(&mut self, trigger: u32) {
        let signals = self.signals(trigger);
        let decision = P::decide(&self.settings, &signals, &self.carry);
        let target = if self.guarded { guard(&decision, &signals) } else { decision.target };
        self.meter.note_turn(self.target, target);
        self.meter.restart();
        self.target = target;
        self.min_idle = decision.min_idle;
        self.reserve = decision.reserve;
        self.asked = self.now;
        self.ask_at = self.now + if decision.next_tick_ms == 0 { TICK_MS } else { decision.next_tick_ms.into() };
        self.carry = decision.carry;
    }

    fn signals(&self, trigger: u32) -> Signals {
        let interval = self.now - self.asked;
        Signals {
            trigger,
            interval_ms: interval as u32,
            min_size: 1,
            max_size: self.max_size,
            target: self.target,
            size: self.live(),
            creating: self.making.len() as u32,
            in_use: self.in_use(),
            waiters: self.queue.len() as u32,
            oldest_wait_ms: self.queue.front().map_or(0, |since| (self.now - since) as u32),
            ..self.meter.signals(interval)
        }
    }
}

fn guard<R>(decision: &Decision<R>, signals: &Signals) -> u32 {
    let current = signals.current();
    match decision.target {
        more if more > current && signals.failing() => current,
        less if less < current && signals.waiters > 0 => less.max(current - (current / 10).max(1)),
        followed => followed,
    }
}

/// The fewest connections with which 99 of 100 callers wait no longer than a statement takes: what is truly needed, found by trial.
pub fn need(database: Database, load: Load) -> u32 {
    let enough = |size: &u32| {
        let mut pool = constant(*size, database);
        pool.run(5, load);
        f64::from(pool.run(120, load).wait_p99_ms) <= database.service_ms
    };
    (1..500).find(enough).unwrap_or(500)
}

policy_settings::settings! {
    /// A number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Size {
        /// The target.
        target: whole from 0 to 1000, default 1, "the target";
    }
}

/// Aims at its settings.
#[derive(Debug)]
struct Constant;

impl Policy for Constant {
    type Settings = Size;
    type Reason = u32;

    const CARRY_VERSION: u32 = 1;

    fn decide(settings: &Size, signals: &Signals, _: &[f64]) -> Decision<u32> {
        Decision::new(signals.within_bounds(settings.target), settings.target, 0, Vec::new())
    }

    fn self_check() -> Result<(), String> {
        Ok(())
    }
}

/// A pool of so many connections, at any time.
fn constant(target: u32, database: Database) -> Simulation<Constant> {
    Simulation::new(Size { target }, database, target)
}

#[cfg(test)]
mod tests {
    use super::{Database, Load, constant, need};

    const DATABASE: Database = Database { knee: 20.0, service_ms: 20.0, held_ms: 0.0, wear: 0.2, grants: u32::MAX };

    /// As Little's and Erlang's formulas have it, so that what policies are held to is not the simulation's own invention.
    #[test]
    fn it_does_as_queueing_theory_says() {
        let mut pool = constant(30, Database { knee: 1000.0, ..DATABASE });
        pool.run(10, Load::Open(500.0));
        let stretch = pool.run(200, Load::Open(500.0));
        assert!((stretch.in_use_mean - 10.0).abs() < 0.6, "{stretch:?}");
        assert!((stretch.served_per_s - 500.0).abs() < 10.0, "{stretch:?}");
        assert!(stretch.wait_p99_ms <= 1, "{stretch:?}");
        // Erlang C for a load of 10: 13 servers let 1.4 % wait longer than a service time, 14 let 0.3 %.
        let needed = need(Database { knee: 1000.0, ..DATABASE }, Load::Open(500.0));
        assert!((13..=15).contains(&needed), "{needed}");
    }

    #[test]
    fn beyond_the_knee_more_connections_serve_less() {
        let served = |size| {
            let mut pool = constant(size, DATABASE);
            pool.run(5, Load::Closed(300));
            pool.run(60, Load::Closed(300))
        };
        let [few, knee, many] = [10, 20, 60].map(served);
        assert!((few.served_per_s - 500.0).abs() < 25.0, "{few:?}");
        assert!((knee.served_per_s - 1000.0).abs() < 50.0, "{knee:?}");
        assert!(many.served_per_s < 0.8 * knee.served_per_s, "{many:?}");
        assert!(many.rtt_mean_ms > 3.5 * knee.rtt_mean_ms, "{many:?}");
    }

    #[test]
    fn a_full_server_refuses() {
        let mut pool = constant(20, Database { grants: 5, ..DATABASE });
        let stretch = pool.run(20, Load::Closed(50));
        assert!((stretch.in_use_mean - 5.0).abs() < 0.2, "{stretch:?}");
    }
}
