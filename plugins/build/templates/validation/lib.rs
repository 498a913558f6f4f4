//! A validation policy: a connection that was used a moment ago is trusted, another one is pinged first.
//!
//! A policy is a pure function: what it is told is all there is, no clock, no file, no memory. This one is asked on a
//! request's way to the database: keep it short, and let `valid_for_ms` spare most of the calls. The host answers itself
//! when a policy traps or takes longer than 2 ms.

#[cfg(target_arch = "wasm32")]
mod component;
pub mod settings;

use settings::{Field, Slot, read};

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Milliseconds that a connection is trusted without asking.
    pub window_ms: u32,
}

/// The configuration as JSON Schema, for people and tools.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"window_ms":{"type":"integer","minimum":0,"maximum":600000,"default":500}}}"#;

/// What the decision looks at. Fill in more in `component.rs` as you need it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signals {
    /// 0 checkout, 1 return, 2 after an error, 3 after creation, 4 keep-alive.
    pub trigger: u32,
    /// Milliseconds since the connection was returned.
    pub idle_ms: u32,
    /// What the socket said: 0 clean, 1 data waiting, 2 closed.
    pub peek: u32,
    /// 0 none, else its kind.
    pub last_error: u32,
}

/// What to do before the connection is trusted. There are also 2 to 5: the configured query, roll back, reset, reset fully.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Nothing.
    Pass = 0,
    /// One empty round trip.
    Ping = 1,
    /// Throw it away.
    Discard = 6,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do first.
    pub action: Action,
    /// Longest probe; 0: the pool's own setting.
    pub timeout_ms: u16,
    /// Trust the connection for so long without asking.
    pub valid_for_ms: u32,
}

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { window_ms: 500 };

    /// Reads the configuration's JSON text. An error is shown to the operator, and the policy is not installed.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let window = Slot::Whole { value: &mut settings.window_ms, least: 0, most: 600_000 };
        read(json, &mut [Field { name: "window_ms", expects: "a whole number from 0 to 600000", slot: window }])?;
        Ok(settings)
    }
}

impl Verdict {
    /// As one number: `action + 8 * purge + 16 * timeout + 1048576 * valid for`.
    pub fn pack(&self) -> f64 {
        let low = self.action as u32 + 16 * u32::from(self.timeout_ms);
        f64::from(low) + 1_048_576.0 * f64::from(self.valid_for_ms)
    }
}

/// Decides.
pub fn check(settings: &Settings, signals: &Signals) -> Verdict {
    let fresh = signals.trigger == 1 || signals.trigger == 3 || signals.idle_ms < settings.window_ms;
    let action = match signals {
        Signals { peek: 2, .. } => Action::Discard,
        Signals { peek: 0, last_error: 0, .. } if fresh => Action::Pass,
        _ => Action::Ping,
    };
    Verdict { action, timeout_ms: 0, valid_for_ms: settings.window_ms }
}

/// Runs in the component before it is installed: prove that it decides as you mean it.
pub fn self_check() -> Result<(), String> {
    let old = Signals { idle_ms: 10_000, ..Signals::default() };
    match check(&Settings::DEFAULT, &old).action {
        Action::Ping => Ok(()),
        _ => Err("an old connection must be pinged".into()),
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
    fn a_closed_connection_is_never_trusted() {
        let closed = Signals { peek: 2, ..Signals::default() };
        assert_eq!(check(&Settings::DEFAULT, &closed).action, Action::Discard);
    }

    #[test]
    fn a_verdict_is_one_whole_number() {
        let verdict = Verdict { action: Action::Ping, timeout_ms: 250, valid_for_ms: 500 };
        assert_eq!(verdict.pack(), 524_292_001.0);
    }

    #[test]
    fn a_bad_setting_is_refused_in_words() {
        assert_eq!(Settings::parse(r#"{"window_ms":3}"#), Ok(Settings { window_ms: 3 }));
        assert_eq!(
            Settings::parse(r#"{"window_ms":1.5}"#),
            Err("`window_ms` must be a whole number from 0 to 600000".into())
        );
    }
}
