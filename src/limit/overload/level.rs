//! One resource's level: how much is refused for its sake.

use std::time::Duration;

use tokio::time::Instant;

/// Where between the threshold and 1 the thresholds of `low`, `normal` and `high` lie.
const STEPS: [f64; 3] = [0.0, 0.5, 0.8];

/// Longest time between two samples that counts: after a pause nothing is known of what was.
const LONGEST: f64 = 1.0;

/// A level falls at least as if this share were free, so that it ends within minutes however little is.
const LEAST_ROOM: f64 = 0.1;

/// How a resource is followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// How long it must have been beyond the threshold before anything is refused; seconds.
    patience: f64,
    /// Time constant of the figure's smoothing; seconds.
    smoothing: f64,
    /// How fast the level rises at the very top; a second.
    rise: f64,
    /// How fast it falls when nothing is used; a second.
    fall: f64,
    /// How far below the threshold the figure must be for the level to fall.
    margin: f64,
}

impl Tuning {
    /// Memory is not given back, and the kernel kills where it ends: no patience, and at the very top a priority a sample.
    pub(super) const MEMORY: Self = Self { patience: 0.0, smoothing: 0.0, rise: 2.0, fall: 0.2, margin: 0.05 };
    /// Processor time comes anew each second, and a burst takes all of it. Refusing shows at once, in a figure that says nothing of
    /// the excess: 1 is all that it can be. So the level goes up slowly enough to see what each step does.
    pub(super) const CPU: Self = Self { patience: 5.0, smoothing: 1.0, rise: 0.125, fall: 0.2, margin: 0.1 };
}

/// A level, from 0 to 3.
#[derive(Debug)]
pub(super) struct Level {
    tuning: Tuning,
    at: Option<Instant>,
    /// The figure, smoothed.
    figure: f64,
    /// For how long it has been beyond the threshold, less for how long it was not; seconds.
    beyond: f64,
    level: f64,
}

impl Level {
    pub(super) fn new(tuning: Tuning) -> Self {
        Self { tuning, at: None, figure: 0.0, beyond: 0.0, level: 0.0 }
    }

    /// The figure that the level follows.
    pub(super) fn figure(&self) -> f64 {
        self.figure
    }

    /// Takes a sample and returns the level. `threshold` 0: off.
    pub(super) fn look(&mut self, now: Instant, value: Option<f64>, threshold: f64) -> f64 {
        let passed = self.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let passed = passed.as_secs_f64().min(LONGEST);
        let value = value.filter(|value| value.is_finite()).unwrap_or(0.0).clamp(0.0, 1.0);
        let weight = if passed >= self.tuning.smoothing { 1.0 } else { passed / self.tuning.smoothing };
        self.figure += weight * (value - self.figure);
        if threshold <= 0.0 || threshold >= 1.0 {
            (self.beyond, self.level) = (0.0, 0.0);
            return 0.0;
        }
        let beyond = if self.figure >= threshold { passed } else { -passed };
        self.beyond = (self.beyond + beyond).clamp(0.0, self.tuning.patience);
        if self.level > 0.0 || self.beyond >= self.tuning.patience {
            self.step(passed, threshold);
        }
        self.level
    }

    /// Up or down, at most to the end of the priority that it is in.
    fn step(&mut self, passed: f64, threshold: f64) {
        let margin = self.tuning.margin.min(threshold / 4.0);
        // The priority that is refused next, and the one that is let in again next; the same but where one is refused whole.
        let [next, last] = [self.level.floor(), self.level.ceil() - 1.0].map(|index| index.clamp(0.0, 2.0));
        let of = |priority: f64| threshold + (1.0 - threshold) * STEPS[priority as usize];
        let (up, down) = (of(next), of(last) - margin);
        if self.figure >= up {
            let excess = (self.figure - up) / (1.0 - up);
            self.level = (self.level + self.tuning.rise * excess * passed).min(next + 1.0);
        } else if self.figure < down {
            let room = ((down - self.figure) / down).max(LEAST_ROOM);
            self.level = (self.level - self.tuning.fall * room * passed).max(last.min(self.level));
        }
    }
}
