//! A database that costs nothing but the time to connect, and counts how often that is asked of it.

use std::{
    convert::Infallible,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sluicegate::pool::{
    Backend, Connection, Failure, FailureClass, Hygiene, Manager, Metrics, Peek, Probe, RecycleResult,
};
use tokio::time::sleep;

/// Makes connections to nothing.
#[derive(Clone, Debug)]
pub struct Maker {
    /// How long that takes.
    pub connect: Duration,
    /// What was made.
    pub seen: Arc<Seen>,
}

/// What a server would count.
#[derive(Debug, Default)]
pub struct Seen {
    made: AtomicU32,
    being_made: AtomicU32,
    most_at_a_time: AtomicU32,
    open: AtomicU32,
}

/// A connection.
#[derive(Debug)]
pub struct Nothing(Arc<Seen>);

/// Nothing fails.
#[derive(Debug)]
pub struct Never(Infallible);

impl Maker {
    /// Each connection takes so long.
    pub fn new(connect: Duration) -> Self {
        Self { connect, seen: Arc::default() }
    }

    /// Makes one.
    pub async fn make(&self) -> Nothing {
        let seen = &self.seen;
        let now = seen.being_made.fetch_add(1, Ordering::Relaxed) + 1;
        seen.most_at_a_time.fetch_max(now, Ordering::Relaxed);
        if !self.connect.is_zero() {
            sleep(self.connect).await;
        }
        seen.being_made.fetch_sub(1, Ordering::Relaxed);
        seen.made.fetch_add(1, Ordering::Relaxed);
        seen.open.fetch_add(1, Ordering::Relaxed);
        Nothing(seen.clone())
    }
}

impl Seen {
    /// Connections made, those made at a time at most, and those open now, in that order.
    pub fn counts(&self) -> (u32, u32, u32) {
        let of = |count: &AtomicU32| count.load(Ordering::Relaxed);
        (of(&self.made), of(&self.most_at_a_time), of(&self.open))
    }

    /// Begins to count anew, what is open apart.
    pub fn forget(&self) {
        self.made.store(0, Ordering::Relaxed);
        self.most_at_a_time.store(0, Ordering::Relaxed);
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Manager for Maker {
    type Type = Nothing;
    type Error = Never;

    async fn create(&self) -> Result<Nothing, Never> {
        Ok(self.make().await)
    }

    async fn recycle(&self, _: &mut Nothing, _: &Metrics) -> RecycleResult<Never> {
        Ok(())
    }
}

impl bb8::ManageConnection for Maker {
    type Connection = Nothing;
    type Error = Never;

    async fn connect(&self) -> Result<Nothing, Never> {
        Ok(self.make().await)
    }

    async fn is_valid(&self, _: &mut Nothing) -> Result<(), Never> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Nothing) -> bool {
        false
    }
}

impl Backend for Maker {
    type Conn = Nothing;
    type Failure = Never;

    async fn probe(&self, _: &mut Nothing, _: Probe) -> Result<(), Never> {
        Ok(())
    }

    async fn recover(&self, _: &mut Nothing) -> Result<(), Never> {
        Ok(())
    }

    async fn close(&self, _: Nothing) {}
}

impl Connection for Nothing {
    fn rehome(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn peek(&mut self) -> Peek {
        Peek::Clean
    }

    fn hygiene(&self) -> Hygiene {
        Hygiene::Clean
    }

    fn transaction(&self) -> u32 {
        0
    }

    fn dirty(&self) -> u32 {
        0
    }

    fn statements(&self) -> u32 {
        0
    }
}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl std::error::Error for Never {}

impl Failure for Never {
    fn class(&self) -> FailureClass {
        match self.0 {}
    }

    fn sqlstate(&self) -> Option<&str> {
        match self.0 {}
    }

    fn public(&self) -> String {
        match self.0 {}
    }
}
