//! What an operator may set.

use policy_settings::{Field, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections to aim at; 0: the pool's maximum.
    pub target: u32,
    /// Idle connections to keep ready, within the target.
    pub min_idle: u32,
    /// Connections above the target for callers who have waited long.
    pub reserve: u32,
    /// How long the first in the queue waits before the reserve is opened, in milliseconds.
    pub reserve_after_ms: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"target":{"type":"integer","minimum":0,"maximum":100000,"default":0,"description":"connections to aim at; 0: the pool's maximum"},"min_idle":{"type":"integer","minimum":0,"maximum":100000,"default":0,"description":"idle connections to keep ready"},"reserve":{"type":"integer","minimum":0,"maximum":100000,"default":0,"description":"connections above the target for callers who have waited long"},"reserve_after_ms":{"type":"integer","minimum":0,"maximum":600000,"default":5000,"description":"how long the first in the queue waits before the reserve is opened"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { target: 0, min_idle: 0, reserve: 0, reserve_after_ms: 5000 };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { target, min_idle, reserve, reserve_after_ms } = &mut settings;
        read(
            json,
            &mut [
                Field::whole("target", "a whole number from 0 to 100000", target, 0, 100_000),
                Field::whole("min_idle", "a whole number from 0 to 100000", min_idle, 0, 100_000),
                Field::whole("reserve", "a whole number from 0 to 100000", reserve, 0, 100_000),
                Field::whole("reserve_after_ms", "a whole number from 0 to 600000", reserve_after_ms, 0, 600_000),
            ],
        )?;
        Ok(settings)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Fixed;

    #[test]
    fn the_schema_says_what_is_read() {
        sizing_rig::schema::agrees::<Fixed>(&json!({}));
    }
}
