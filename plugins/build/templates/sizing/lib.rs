//! A sizing policy: as many connections as were in use at the last two peaks, and a few more.
//!
//! A policy is a pure function: what it is told is all there is, no clock, no file, no memory. What it must remember until
//! the next call it answers as `carry`, at most 16 numbers, and is told again. The host keeps every answer within the pool's
//! bounds, and answers itself when a policy traps or takes longer than 2 ms.

#[cfg(target_arch = "wasm32")]
mod component;
pub mod settings;

use settings::{Field, Slot, read};

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Connections beyond the last two peaks.
    pub spare: u32,
}

/// The configuration as JSON Schema, for people and tools.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"spare":{"type":"integer","minimum":0,"maximum":1000,"default":2}}}"#;

/// What the decision looks at. Fill in more in `component.rs` as you need it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals {
    /// Most connections in use at a time since the last decision.
    pub in_use_peak: u32,
    /// Callers in the queue now.
    pub waiters: u32,
    /// Connections kept open at least.
    pub min_size: u32,
    /// Connections open at most.
    pub max_size: u32,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Connections to aim at.
    pub target: u32,
    /// What to remember: here, the peak before this one.
    pub carry: Vec<f64>,
}

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { spare: 2 };

    /// Reads the configuration's JSON text. An error is shown to the operator, and the policy is not installed.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let spare = Slot::Whole { value: &mut settings.spare, least: 0, most: 1000 };
        read(json, &mut [Field { name: "spare", expects: "a whole number from 0 to 1000", slot: spare }])?;
        Ok(settings)
    }
}

/// Decides. `carry` is what the last answer carried, and empty at first.
pub fn decide(settings: &Settings, signals: &Signals, carry: &[f64]) -> Decision {
    let before = carry.first().map_or(0, |peak| *peak as u32);
    let peak = signals.in_use_peak.saturating_add(signals.waiters);
    let wanted = peak.max(before).saturating_add(settings.spare);
    Decision { target: wanted.max(signals.min_size).min(signals.max_size), carry: vec![f64::from(peak)] }
}

/// Runs in the component before it is installed: prove that it decides as you mean it.
pub fn self_check() -> Result<(), String> {
    let signals = Signals { in_use_peak: 4, max_size: 50, ..Signals::default() };
    match decide(&Settings::DEFAULT, &signals, &[]).target {
        6 => Ok(()),
        _ => Err("a peak of 4 must make a target of 6".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_proves_itself() {
        assert_eq!(self_check(), Ok(()));
    }

    #[test]
    fn the_peak_before_counts_as_well() {
        let signals = Signals { in_use_peak: 1, max_size: 50, ..Signals::default() };
        assert_eq!(decide(&Settings::DEFAULT, &signals, &[9.0]).target, 11);
    }

    #[test]
    fn a_bad_setting_is_refused_in_words() {
        assert_eq!(Settings::parse(r#"{"spare":3}"#), Ok(Settings { spare: 3 }));
        assert_eq!(Settings::parse(r#"{"spare":-3}"#), Err("`spare` must be a whole number from 0 to 1000".into()));
    }
}
