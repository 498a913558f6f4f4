//! Refusing requests while the gateway itself is short of memory or of processor time.
//!
//! [`Overload`] is a pure state machine: samples of [`Pressure`] in, twice a second, and out come the share of requests to
//! refuse, by priority, and what is worth a line in the log. Workers read the shares from an [`Admission`], one atomic.
//!
//! Each resource has a [`Level`] that rises while it is beyond its threshold and falls when it is below by a margin; between the
//! two it stays. So it finds the share that keeps the figure there, as much as is refused and no more, and does not swing between
//! all and nothing. From 0 to 1 it is the share of `low` that is refused, from there to 2 that of `normal`, to 3 that of
//! `high`; each priority has its own threshold, the higher ones nearer to 1. Where both resources are short, the higher level
//! counts.
//!
//! When things go wrong: a resource that nothing tells of is not short. What is under way is never touched; the admin listener
//! does not ask here.

mod level;
#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    config::model::{self, Priority},
    observe::pressure::{Pressure, Resource},
};
use level::{Level, Tuning};

/// What an [`Overload`] decided upon a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// What to refuse from now on.
    pub shares: Shares,
    /// What came short most; none: nothing is refused.
    pub cause: Option<Resource>,
    /// What changed with this sample.
    pub turn: Option<Turn>,
}

/// Shares of requests to refuse, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// Of routes with `priority = "low"`.
    pub low: f64,
    /// Of those with `normal`.
    pub normal: f64,
    /// Of those with `high`.
    pub high: f64,
}

/// Refusing begins or ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// It begins.
    Begun {
        /// What came short.
        cause: Resource,
        /// How full it is, as it was followed.
        value: f64,
        /// How full it may be.
        threshold: f64,
    },
    /// It has ended.
    Ended {
        /// How long it went on.
        after: Duration,
    },
}

/// Decides from sample to sample.
#[derive(Debug)]
pub struct Overload {
    memory: Level,
    cpu: Level,
    since: Option<Instant>,
}

/// What workers know: one atomic.
///
/// Three shares of 16 bits each, `low` in the lowest; above them the cause, 1 for memory and 2 for processor time.
#[derive(Debug, Default)]
pub struct Admission(AtomicU64);

impl Default for Overload {
    fn default() -> Self {
        Self { memory: Level::new(Tuning::MEMORY), cpu: Level::new(Tuning::CPU), since: None }
    }
}

impl Overload {
    /// Takes a sample. `settings` may change from one to the next.
    pub fn look(&mut self, now: Instant, pressure: Pressure, settings: &model::Overload) -> Decision {
        let memory = self.memory.look(now, pressure.memory, settings.memory);
        let cpu = self.cpu.look(now, pressure.cpu, settings.cpu);
        let (level, cause, value, threshold) = if memory >= cpu {
            (memory, Resource::Memory, self.memory.figure(), settings.memory)
        } else {
            (cpu, Resource::Cpu, self.cpu.figure(), settings.cpu)
        };
        let sheds = level > 0.0;
        let turn = match (self.since, sheds) {
            (None, true) => {
                self.since = Some(now);
                Some(Turn::Begun { cause, value, threshold })
            }
            (Some(since), false) => {
                self.since = None;
                Some(Turn::Ended { after: now.saturating_duration_since(since) })
            }
            _ => None,
        };
        Decision { shares: Shares::of(level), cause: sheds.then_some(cause), turn }
    }
}

impl Shares {
    fn of(level: f64) -> Self {
        let [low, normal, high] = [0.0, 1.0, 2.0].map(|below| (level - below).clamp(0.0, 1.0));
        Self { low, normal, high }
    }
}

impl Admission {
    /// What holds from now on.
    pub fn set(&self, decision: &Decision) {
        let cause = match decision.cause {
            None => return self.0.store(0, Ordering::Relaxed),
            Some(Resource::Memory) => 1,
            Some(Resource::Cpu) => 2,
        };
        // A share however small is not rounded to nothing, nor is a part to the whole.
        let [low, normal, high] = [decision.shares.low, decision.shares.normal, decision.shares.high]
            .map(|share| (share * f64::from(u16::MAX)).ceil() as u64);
        self.0.store(cause << 48 | high << 32 | normal << 16 | low, Ordering::Relaxed);
    }

    /// Whether to refuse a request, and for what. `number` is the request's own: those that are refused are spread evenly over
    /// the numbers (a Weyl sequence by the golden ratio), whatever pattern the priorities among them make.
    pub fn refuses(&self, priority: Priority, number: u64) -> Option<Resource> {
        let packed = self.0.load(Ordering::Relaxed);
        if packed == 0 {
            return None;
        }
        let share = (packed >> (16 * priority as u32)) & u64::from(u16::MAX);
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        if share <= spread.min(u64::from(u16::MAX) - 1) {
            return None;
        }
        Some(if packed >> 48 == 1 { Resource::Memory } else { Resource::Cpu })
    }
}

/// When a refused request may come again, in seconds: levels fall within some seconds, and those who were refused together should
/// not come back together.
pub fn retry_after(number: u64) -> u32 {
    5 + (number % 6) as u32
}
