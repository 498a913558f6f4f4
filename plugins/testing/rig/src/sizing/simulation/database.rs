//! The database.

/// A database that slows down when too much runs on it at once.
#[derive(Clone, Copy, Debug)]
pub struct Database {
    /// Statements at once that it serves without slowing down.
    pub knee: f64,
    /// What a statement takes alone, in the mean.
    pub service_ms: f64,
    /// How long a connection is held when the statement is done.
    pub held_ms: f64,
    /// Throughput lost for each knee's worth of statements beyond the knee, as a share of what remains.
    pub wear: f64,
    /// Connections that it grants.
    pub grants: u32,
}

impl Database {
    /// How fast each of `busy` statements goes; 1: as if it were alone.
    pub(super) fn speed(&self, busy: f64) -> f64 {
        if busy <= self.knee {
            return 1.0;
        }
        self.knee / busy / (1.0 + self.wear * (busy - self.knee) / self.knee)
    }
}

/// A statement that runs, or has run on a connection that is still held.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) began: u64,
    /// Of the work, at full speed.
    pub(super) left_ms: f64,
    /// To the connection's return, from the answer on.
    pub(super) after_ms: f64,
    pub(super) answered: bool,
}
