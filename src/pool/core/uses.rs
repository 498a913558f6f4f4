//! Who uses which connection, since when; and how many have been in use, over time.

use tokio::time::Instant;

use crate::pool::{backend::Holder, tally::Cause};

/// A use of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) id: u64,
    pub(crate) since: Instant,
    pub(crate) holder: Holder,
    /// Whether the log has been told that it is held for long.
    pub(crate) warned: bool,
    /// Why the connection is closed when it comes back, if it is.
    pub(super) doomed: Option<Cause>,
}

/// A seat for each connection. Connections that are handed over, probed or cleaned are in use too.
pub(super) struct Uses {
    seats: Vec<Option<Use>>,
    free: Vec<usize>,
    in_use: u32,
    peak: u32,
    /// Connections in use times seconds, up to `at`.
    area: f64,
    at: Instant,
}

impl Uses {
    pub(super) fn new(now: Instant) -> Self {
        Self { seats: Vec::new(), free: Vec::new(), in_use: 0, peak: 0, area: 0.0, at: now }
    }

    pub(super) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// A seat for a new connection.
    pub(super) fn seat(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        })
    }

    /// The connection is gone.
    pub(super) fn vacate(&mut self, seat: usize) {
        debug_assert!(self.seats[seat].is_none(), "a connection left while in use");
        self.free.push(seat);
    }

    pub(super) fn begin(&mut self, now: Instant, seat: usize, id: u64, holder: Holder) {
        self.flow(now);
        self.seats[seat] = Some(Use { id, since: now, holder, warned: false, doomed: None });
        self.in_use += 1;
        self.peak = self.peak.max(self.in_use);
    }

    pub(super) fn end(&mut self, now: Instant, seat: usize) -> Option<Use> {
        self.flow(now);
        self.in_use -= 1;
        self.seats[seat].take()
    }

    pub(super) fn holder(&self, seat: usize) -> Option<Holder> {
        self.seats.get(seat)?.as_ref().map(|used| used.holder.clone())
    }

    /// The connection is closed when it comes back. Returns its use, if it is in use.
    pub(super) fn doom(&mut self, seat: usize, cause: Cause) -> Option<&Use> {
        let used = self.seats.get_mut(seat)?.as_mut()?;
        used.doomed = Some(cause);
        Some(used)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Use> {
        self.seats.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Use> {
        self.seats.iter_mut().flatten()
    }

    /// Connection seconds since the pool began; the difference of two, by the time between them, is the mean.
    pub(super) fn area(&mut self, now: Instant) -> f64 {
        self.flow(now);
        self.area
    }

    /// The most that were in use since the last call.
    pub(super) fn take_peak(&mut self) -> u32 {
        std::mem::replace(&mut self.peak, self.in_use)
    }

    fn flow(&mut self, now: Instant) {
        self.area += f64::from(self.in_use) * now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
    }
}
