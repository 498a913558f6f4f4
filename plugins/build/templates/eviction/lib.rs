//! An eviction policy: connections that nobody used for a while leave, the longest unused first, down to the pool's minimum.
//!
//! A policy is a pure function: what it is told is all there is, no clock, no file, no memory. What it must remember until
//! the next call it answers as `carry`, at most 16 numbers, and is told again. The host closes nothing that is in use, and
//! answers itself when a policy traps or takes longer than 2 ms.

#[cfg(target_arch = "wasm32")]
mod component;
pub mod settings;

use settings::{Field, Slot, read};

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Seconds that a connection may lie unused.
    pub idle_s: u32,
}

/// The configuration as JSON Schema, for people and tools.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"idle_s":{"type":"integer","minimum":1,"maximum":86400,"default":60}}}"#;

/// What the decision looks at of the pool. Fill in more in `component.rs` as you need it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals {
    /// Connections that exist.
    pub size: u32,
    /// Connections kept open at least.
    pub min_size: u32,
    /// Callers in the queue.
    pub waiters: u32,
}

/// What it looks at of an idle connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Milliseconds since it was returned.
    pub idle_ms: u32,
    /// Changes of credentials, address or settings since it was opened.
    pub epochs_behind: u32,
}

/// What becomes of a connection. There are also 2, probe it, and 3, replace it and then close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// It stays.
    Keep = 0,
    /// It goes.
    Close = 1,
}

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { idle_s: 60 };

    /// Reads the configuration's JSON text. An error is shown to the operator, and the policy is not installed.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let idle = Slot::Whole { value: &mut settings.idle_s, least: 1, most: 86_400 };
        read(json, &mut [Field { name: "idle_s", expects: "a whole number from 1 to 86400", slot: idle }])?;
        Ok(settings)
    }
}

/// Decides on each connection of `idle`, which has the most recently used first.
pub fn verdicts(settings: &Settings, signals: &Signals, idle: &[Candidate]) -> Vec<Verdict> {
    let mut spare = if signals.waiters > 0 { 0 } else { signals.size.saturating_sub(signals.min_size) };
    let mut verdicts = vec![Verdict::Keep; idle.len()];
    for (verdict, candidate) in verdicts.iter_mut().zip(idle).rev() {
        if candidate.epochs_behind > 0 {
            *verdict = Verdict::Close;
            spare = spare.saturating_sub(1);
        } else if spare > 0 && candidate.idle_ms / 1000 >= settings.idle_s {
            *verdict = Verdict::Close;
            spare -= 1;
        }
    }
    verdicts
}

/// Runs in the component before it is installed: prove that it decides as you mean it.
pub fn self_check() -> Result<(), String> {
    let signals = Signals { size: 2, min_size: 1, waiters: 0 };
    let old = Candidate { idle_ms: 90_000, epochs_behind: 0 };
    match verdicts(&Settings::DEFAULT, &signals, &[old, old]).as_slice() {
        [Verdict::Keep, Verdict::Close] => Ok(()),
        _ => Err("of two old connections one must go".into()),
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
    fn nobody_leaves_while_somebody_waits() {
        let signals = Signals { size: 9, min_size: 0, waiters: 1 };
        let old = Candidate { idle_ms: 90_000, epochs_behind: 0 };
        assert_eq!(verdicts(&Settings::DEFAULT, &signals, &[old]), [Verdict::Keep]);
    }

    #[test]
    fn a_bad_setting_is_refused_in_words() {
        assert_eq!(Settings::parse(r#"{"idle_s":3}"#), Ok(Settings { idle_s: 3 }));
        assert_eq!(Settings::parse(r#"{"idle_s":0}"#), Err("`idle_s` must be a whole number from 1 to 86400".into()));
    }
}
