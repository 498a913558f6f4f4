//! A database in memory that does what a test tells it: takes its time, refuses, freezes, dies. It counts what exists at the
//! server, which is where a cap is held or broken.

use std::{fmt, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use crate::{
    policy::{Eviction, NativeEviction, NativeSizing, NativeValidation, Sizing, Validation},
    pool::{
        Backend, Budget, Connection, Failure, FailureClass, Holder, Hygiene, Lease, Manager, Metrics, Peek, Policies,
        PolicyChange, Pool, PoolSettings, Probe, RecycleResult,
    },
};

pub(super) type TestPool = Pool<Database>;

pub(super) const MS: fn(u64) -> Duration = Duration::from_millis;

/// What the server does.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) connect: Duration,
    /// New connections fail so.
    pub(super) refuses: Option<FailureClass>,
    /// Connections that it grants at most.
    pub(super) capacity: u32,
    /// Nothing answers any more: connects, probes, goodbyes.
    pub(super) frozen: bool,
    /// Time for a probe or a goodbye.
    pub(super) answer: Duration,
    /// Closes each new connection at once.
    pub(super) hangs_up: bool,
    /// Cleaning changes nothing.
    pub(super) stubborn: bool,
}

/// What the server has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) live: u32,
    pub(super) peak: u32,
    pub(super) connecting: u32,
    pub(super) connecting_peak: u32,
    pub(super) attempts: u32,
    pub(super) created: u32,
    pub(super) goodbyes: u32,
    pub(super) probes: u32,
    pub(super) rollbacks: u32,
    pub(super) resets: u32,
    pub(super) recoveries: u32,
    pub(super) rehomed: u32,
}

pub(super) struct Server {
    pub(super) script: Mutex<Script>,
    pub(super) seen: Mutex<Seen>,
    /// Connections made before this number are dead.
    killed_below: Mutex<u32>,
}

#[derive(Clone)]
pub(super) struct Database(pub(super) Arc<Server>);

pub(super) struct Wire {
    server: Arc<Server>,
    number: u32,
    pub(super) hygiene: Hygiene,
    pub(super) dirty: u32,
}

#[derive(Debug)]
pub(super) struct Refusal(FailureClass);

impl Server {
    pub(super) fn new() -> Arc<Self> {
        let script = Script {
            connect: MS(5),
            refuses: None,
            capacity: u32::MAX,
            frozen: false,
            answer: MS(1),
            hangs_up: false,
            stubborn: false,
        };
        Arc::new(Self { script: Mutex::new(script), seen: Mutex::new(Seen::default()), killed_below: Mutex::new(0) })
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Ends all connections there are, as a restart does.
    pub(super) fn kill_all(&self) {
        *self.killed_below.lock() = self.seen.lock().created + 1;
    }

    /// Takes its time; for ever, while it is frozen.
    async fn answer(&self, time: Duration) {
        sleep(time).await;
        while self.script.lock().frozen {
            sleep(MS(10)).await;
        }
    }

    fn kills(&self, wire: &Wire) -> bool {
        wire.number < *self.killed_below.lock()
    }
}

/// Counts an attempt even when it is given up.
struct Connecting<'a>(&'a Server);

impl<'a> Connecting<'a> {
    fn begin(server: &'a Server) -> Self {
        let mut seen = server.seen.lock();
        seen.attempts += 1;
        seen.connecting += 1;
        seen.connecting_peak = seen.connecting_peak.max(seen.connecting);
        drop(seen);
        Self(server)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().connecting -= 1;
    }
}

impl Manager for Database {
    type Type = Wire;
    type Error = Refusal;

    async fn create(&self) -> Result<Wire, Refusal> {
        let _connecting = Connecting::begin(&self.0);
        let script = self.0.script.lock().clone();
        self.0.answer(script.connect).await;
        if let Some(class) = self.0.script.lock().refuses {
            return Err(Refusal(class));
        }
        let mut seen = self.0.seen.lock();
        if seen.live >= script.capacity {
            return Err(Refusal(FailureClass::ServerFull));
        }
        seen.live += 1;
        seen.created += 1;
        seen.peak = seen.peak.max(seen.live);
        if script.hangs_up {
            *self.0.killed_below.lock() = seen.created + 1;
        }
        Ok(Wire { server: Arc::clone(&self.0), number: seen.created, hygiene: Hygiene::Clean, dirty: 0 })
    }

    async fn recycle(&self, _: &mut Wire, _: &Metrics) -> RecycleResult<Refusal> {
        unreachable!("the pool validates by itself")
    }
}

impl Backend for Database {
    type Conn = Wire;
    type Failure = Refusal;

    async fn probe(&self, wire: &mut Wire, action: Probe) -> Result<(), Refusal> {
        let answer = self.0.script.lock().answer;
        self.0.answer(answer).await;
        let mut seen = self.0.seen.lock();
        match action {
            Probe::Ping | Probe::Query => seen.probes += 1,
            Probe::Rollback => seen.rollbacks += 1,
            Probe::ResetSession | Probe::ResetFully => seen.resets += 1,
        }
        drop(seen);
        if self.0.kills(wire) {
            return Err(Refusal(FailureClass::Broken));
        }
        if !self.0.script.lock().stubborn {
            wire.hygiene = Hygiene::Clean;
            wire.dirty = 0;
        }
        Ok(())
    }

    async fn recover(&self, wire: &mut Wire) -> Result<(), Refusal> {
        let answer = self.0.script.lock().answer;
        self.0.answer(answer).await;
        self.0.seen.lock().recoveries += 1;
        wire.hygiene = Hygiene::Transaction;
        Ok(())
    }

    async fn close(&self, wire: Wire) {
        let answer = self.0.script.lock().answer;
        self.0.answer(answer).await;
        self.0.seen.lock().goodbyes += 1;
        drop(wire);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.seen.lock().live -= 1;
    }
}

impl Connection for Wire {
    fn rehome(&mut self) -> io::Result<()> {
        self.server.seen.lock().rehomed += 1;
        Ok(())
    }

    fn peek(&mut self) -> Peek {
        if self.server.kills(self) && !self.server.script.lock().frozen { Peek::Closed } else { Peek::Clean }
    }

    fn hygiene(&self) -> Hygiene {
        self.hygiene
    }

    fn transaction(&self) -> u32 {
        u32::from(self.hygiene == Hygiene::Transaction)
    }

    fn dirty(&self) -> u32 {
        self.dirty
    }

    fn statements(&self) -> u32 {
        0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scripted: {}", self.0)
    }
}

impl std::error::Error for Refusal {}

impl Failure for Refusal {
    fn class(&self) -> FailureClass {
        self.0
    }

    fn sqlstate(&self) -> Option<&str> {
        (self.0 == FailureClass::ServerFull).then_some("53300")
    }

    fn public(&self) -> String {
        self.0.to_string()
    }
}

pub(super) fn policies(validation: NativeValidation) -> Policies {
    Policies {
        sizing: Sizing::Native(NativeSizing::Fixed),
        eviction: Eviction::Native(NativeEviction::Lifetime),
        validation: Validation::Native(validation),
    }
}

/// Another validation, and the rest as it was.
pub(super) fn change(validation: NativeValidation) -> PolicyChange {
    PolicyChange { validation: Some(Validation::Native(validation)), ..PolicyChange::default() }
}

pub(super) fn pool_on(server: &Arc<Server>, settings: PoolSettings, budget: Option<Arc<Budget>>) -> Arc<TestPool> {
    let policies = policies(NativeValidation::BypassWindow);
    Pool::new("test", settings, Database(Arc::clone(server)), policies, Handle::current(), budget)
}

/// A pool of at most `max` with its server.
pub(super) fn pool(max: u32) -> (Arc<TestPool>, Arc<Server>) {
    let server = Server::new();
    let pool = pool_on(&server, PoolSettings { max, ..PoolSettings::default() }, None);
    (pool, server)
}

pub(super) fn settings(max: u32) -> PoolSettings {
    PoolSettings { max, ..PoolSettings::default() }
}

/// The same, with its driver running.
pub(super) fn driven(settings: PoolSettings) -> (Arc<TestPool>, Arc<Server>) {
    let server = Server::new();
    let pool = pool_on(&server, settings, None);
    drop(tokio::spawn(Arc::clone(&pool).drive()));
    (pool, server)
}

pub(super) fn who(request: u64) -> Holder {
    Holder { route: "/test".into(), request, ..Holder::default() }
}

pub(super) fn in_ms(ms: u64) -> Instant {
    Instant::now() + MS(ms)
}

/// Checks out or fails the test.
pub(super) async fn take(pool: &Arc<TestPool>) -> Lease<Database> {
    pool.checkout(in_ms(60_000), who(1)).await.unwrap()
}

/// Makes `n` connections and leaves them idle.
pub(super) async fn warm(pool: &Arc<TestPool>, n: u32) {
    let mut leases = Vec::new();
    for _ in 0..n {
        leases.push(take(pool).await);
    }
}

/// Waits, without sleeping past it, until something holds.
pub(super) async fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        let waited = begun.elapsed();
        assert!(waited < MS(120_000), "it never came to that");
        sleep(MS(1).max(waited / 50)).await;
    }
}
