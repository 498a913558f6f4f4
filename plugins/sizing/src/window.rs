//! Round trips, gathered over decisions until they say something.
//!
//! A policy is asked every second, but also early: ten times a second while callers wait. A mean of three round trips says
//! little, and a rule that is meant for each second must not be applied ten times in it. So a window stays open until it has
//! lasted a second and holds enough round trips. Where that takes too long it is thrown away: what was fast five minutes ago
//! says nothing of now.

use crate::{Signals, recall};

/// A window lasts so long at least.
const LEAST_MS: f64 = 1000.0;
/// And at most.
const MOST_MS: f64 = 300_000.0;
/// Round trips and microseconds beyond that are no measurement.
const MOST: f64 = 1e15;

/// A window that is being filled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    samples: f64,
    mean_us: f64,
    ms: f64,
    peak: f64,
}

/// What a full window says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Mean time on the backend; more than nothing.
    pub rtt_us: f64,
    /// Most connections in use at a time.
    pub peak: f64,
}

impl Window {
    /// Numbers that it takes in `carry`.
    pub const NUMBERS: usize = 4;

    /// The window kept in `carry` from `place` on; a new one when that makes no sense.
    pub fn recall(carry: &[f64], place: usize) -> Self {
        let number = |at: usize, most: f64| recall(carry, place + at, most);
        match (number(0, MOST), number(1, MOST), number(2, MOST_MS), number(3, MOST)) {
            (Some(samples), Some(mean_us), Some(ms), Some(peak)) => Self { samples, mean_us, ms, peak },
            _ => Self::default(),
        }
    }

    /// Takes in what was told. Where nothing came back from the backend, time passes, and no more.
    pub fn add(&mut self, signals: &Signals) {
        let ms = self.ms + f64::from(signals.interval_ms);
        let before = if ms > MOST_MS { Self::default() } else { *self };
        let (samples, mean) = (f64::from(signals.rtt_samples), f64::from(signals.rtt_mean_us));
        let all = before.samples + samples;
        let mean_us =
            if samples > 0.0 { before.mean_us + (mean - before.mean_us) * (samples / all) } else { before.mean_us };
        let peak = before.peak.max(f64::from(signals.in_use_peak.max(signals.in_use)));
        *self = Self { samples: all.min(MOST), mean_us, ms: ms.min(MOST_MS), peak };
    }

    /// What it says, once it holds `least_samples` and has lasted a second; then it begins anew.
    pub fn read(&mut self, least_samples: u32) -> Option<Reading> {
        if self.ms < LEAST_MS { None } else { self.read_early(least_samples) }
    }

    /// The same, however short it was.
    pub fn read_early(&mut self, least_samples: u32) -> Option<Reading> {
        if self.samples < f64::from(least_samples.max(1)) || self.mean_us <= 0.0 {
            return None;
        }
        let full = std::mem::take(self);
        Some(Reading { rtt_us: full.mean_us, peak: full.peak })
    }

    /// For `carry`.
    pub fn keep(&self) -> [f64; Self::NUMBERS] {
        [self.samples, self.mean_us, self.ms, self.peak]
    }
}

#[cfg(test)]
mod tests {
    use super::{Reading, Window};
    use crate::Signals;

    const SECOND: Signals = Signals { interval_ms: 1000, ..Signals::EMPTY };
    const TENTH: Signals =
        Signals { interval_ms: 100, rtt_samples: 5, rtt_mean_us: 1000, in_use_peak: 3, ..Signals::EMPTY };

    #[test]
    fn it_waits_for_a_second_and_for_enough_round_trips() {
        let mut window = Window::default();
        for _ in 0..9 {
            window.add(&TENTH);
            assert_eq!(window.read(10), None, "not a second yet");
        }
        window.add(&Signals { rtt_mean_us: 11_000, in_use_peak: 7, ..TENTH });
        assert_eq!(window.read(51), None, "fifty round trips");
        assert_eq!(window.read(50), Some(Reading { rtt_us: 2000.0, peak: 7.0 }));
        assert_eq!(window, Window::default(), "it begins anew");
    }

    #[test]
    fn without_round_trips_it_says_nothing() {
        let mut window = Window::default();
        window.add(&SECOND);
        assert_eq!(window.read(0), None);
        window.add(&Signals { rtt_samples: 9, ..SECOND });
        assert_eq!(window.read(1), None, "nor when they took no time");
    }

    #[test]
    fn what_is_minutes_old_is_thrown_away() {
        let mut window = Window::default();
        window.add(&TENTH);
        window.add(&Signals { interval_ms: 300_000, rtt_samples: 2, rtt_mean_us: 500, ..SECOND });
        assert_eq!(window.read(3), None);
        assert_eq!(window.read(2).map(|reading| reading.rtt_us), Some(500.0));
    }

    #[test]
    fn it_survives_being_carried() {
        let mut window = Window::default();
        window.add(&TENTH);
        let carry = window.keep();
        assert_eq!(Window::recall(&carry, 0), window);
        assert_eq!(Window::recall(&carry, 1), Window::default(), "too short");
        assert_eq!(Window::recall(&[5.0, f64::NAN, 100.0, 3.0], 0), Window::default());
    }
}
