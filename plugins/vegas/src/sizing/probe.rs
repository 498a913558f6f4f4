//! Measuring an unloaded database while there is load.

use policy_sizing::{Signals, recall, round_up};

use crate::Settings;

/// The pool is asked so often during a dip: the sooner it is over, the better.
pub(super) const TICK_MS: u32 = 200;
/// Times as many round trips as any other measurement: this one holds for minutes.
pub(super) const SAMPLES: u32 = 4;
/// A dip lasts so long at most.
const LONGEST_MS: f64 = 5000.0;
/// The first probe comes so soon: a pool that begins under load takes a crowded database for an unloaded one.
const FIRST_MS: f64 = 10_000.0;
/// No time is greater.
const MOST_MS: f64 = 1e12;

/// When the database was measured, and whether it is being measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probes {
    since_ms: f64,
    pub(super) dip: Option<Dip>,
}

/// A time of fewer connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dip {
    pub(super) target: u32,
    lasted_ms: f64,
}

impl Probes {
    /// Numbers that it takes in `carry`.
    pub(super) const NUMBERS: usize = 3;

    /// The three numbers from `place` on, brought up to now.
    pub(super) fn recall(settings: &Settings, signals: &Signals, carry: &[f64], place: usize) -> Self {
        let interval = f64::from(signals.interval_ms);
        let begun = (spacing_ms(settings) - FIRST_MS).max(0.0);
        let since_ms = recall(carry, place, MOST_MS).unwrap_or(begun) + interval;
        let target = recall(carry, place + 1, f64::from(u32::MAX)).unwrap_or(0.0) as u32;
        let lasted_ms = recall(carry, place + 2, MOST_MS).unwrap_or(0.0) + interval;
        let dip = Dip { target, lasted_ms: lasted_ms.min(MOST_MS) };
        Self { since_ms: since_ms.min(MOST_MS), dip: (target > 0).then_some(dip) }
    }

    pub(super) fn are_due(&self, settings: &Settings) -> bool {
        settings.probe_s > 0 && self.since_ms >= spacing_ms(settings)
    }

    pub(super) fn done(&mut self) {
        *self = Self { since_ms: 0.0, dip: None };
    }

    pub(super) fn keep(&self) -> [f64; Self::NUMBERS] {
        let (target, lasted_ms) = self.dip.map_or((0, 0.0), |dip| (dip.target, dip.lasted_ms));
        [self.since_ms, f64::from(target), lasted_ms]
    }
}

impl Dip {
    /// To half of the limit; none where the bounds leave no room for one that would tell anything.
    pub(super) fn below(limit: f64, signals: &Signals) -> Option<Self> {
        let target = signals.within_bounds(round_up(limit / 2.0));
        let tells = target > 0 && f64::from(target) <= 0.75 * limit;
        tells.then_some(Self { target, lasted_ms: 0.0 })
    }

    /// Whether no more was in use since the last decision.
    pub(super) fn holds(self, signals: &Signals) -> bool {
        signals.in_use_peak.max(signals.in_use) <= self.target
    }

    pub(super) fn is_over(self) -> bool {
        self.lasted_ms >= LONGEST_MS
    }
}

fn spacing_ms(settings: &Settings) -> f64 {
    f64::from(settings.probe_s) * 1000.0
}
