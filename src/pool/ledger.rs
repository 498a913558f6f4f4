//! What a pool has measured, added up for whoever asks: each policy since it was last asked, `/status` over the last minutes,
//! `/metrics` since the pool began, the log since its last line. No clock, no lock: whoever holds the steering hands in both.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    figures::{Meter, Peaks},
    samples::{Histograms, Samples, Totals},
    state::State,
};

/// How long a window of the figures in `/status` lasts; the one before counts too.
const WINDOW: Duration = Duration::from_mins(1);

/// Whatever was measured, by who wants to know.
pub(super) struct Ledger {
    pub(super) sizing: Meter,
    pub(super) eviction: Meter,
    /// For the log; none: nobody reads it there.
    pub(super) summary: Option<Meter>,
    /// This window and the one before.
    windows: [Window; 2],
    window_began: Instant,
    totals: Totals,
    /// Swapped with the state's, so that nothing is allocated or copied under its lock.
    spare: Samples,
}

struct Window {
    samples: Samples,
    peaks: Peaks,
}

/// What was drawn from the state, still to be entered.
#[must_use]
pub(super) struct Drawn(Peaks);

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        let window = || Window { samples: Samples::default(), peaks: Peaks::default() };
        Self {
            sizing: Meter::new(now),
            eviction: Meter::new(now),
            summary: None,
            windows: [window(), window()],
            window_began: now,
            totals: Totals::default(),
            spare: Samples::default(),
        }
    }

    /// Takes what was measured since the last time, for whoever asked then, off the state. Under the state's lock, and quick; to be
    /// entered outside it.
    pub(super) fn draw<C>(&mut self, state: &mut State<C>) -> Drawn {
        std::mem::swap(&mut state.samples, &mut self.spare);
        let (in_use, waiters) = state.core.take_peaks();
        Drawn(Peaks { in_use, waiters })
    }

    /// Adds it up.
    pub(super) fn enter(&mut self, now: Instant, Drawn(peaks): Drawn) {
        for meter in [&mut self.sizing, &mut self.eviction].into_iter().chain(&mut self.summary) {
            meter.take_in(&self.spare, peaks);
        }
        if now.saturating_duration_since(self.window_began) >= WINDOW {
            self.windows.swap(0, 1);
            self.windows[0].samples.clear();
            self.windows[0].peaks = Peaks::default();
            self.window_began = now;
        }
        self.windows[0].samples.add(&self.spare);
        self.windows[0].peaks = self.windows[0].peaks.max(peaks);
        self.totals.add(&self.spare);
        self.spare.clear();
    }

    /// Of the last one to two minutes.
    pub(super) fn recent(&self) -> (Samples, Peaks) {
        let [this, last] = &self.windows;
        let mut samples = this.samples.clone();
        samples.add(&last.samples);
        (samples, this.peaks.max(last.peaks))
    }

    /// Since the pool began.
    pub(super) fn totals(&self) -> Histograms {
        self.totals.now()
    }
}
