//! What an operator may set.

use policy_settings::{Field, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Connections beyond the mean in use, in square roots of it.
    pub margin: f64,
    /// Over how many milliseconds the load is smoothed while nobody waits long; 0: not at all.
    pub smoothing_ms: u32,
    /// How many milliseconds less must be needed before it shrinks.
    pub calm_ms: u32,
    /// Idle connections to keep ready.
    pub min_idle: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"margin":{"type":"number","minimum":0,"maximum":10,"default":1.5,"description":"connections beyond the mean in use, in square roots of it"},"smoothing_ms":{"type":"integer","minimum":0,"maximum":600000,"default":5000,"description":"time over which the load is smoothed while nobody waits long"},"calm_ms":{"type":"integer","minimum":0,"maximum":3600000,"default":30000,"description":"how long less must be needed before it shrinks"},"min_idle":{"type":"integer","minimum":0,"maximum":1000,"default":1,"description":"idle connections to keep ready"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { margin: 1.5, smoothing_ms: 5000, calm_ms: 30_000, min_idle: 1 };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { margin, smoothing_ms, calm_ms, min_idle } = &mut settings;
        read(
            json,
            &mut [
                Field::number("margin", "a number from 0 to 10", margin, 0.0, 10.0),
                Field::whole("smoothing_ms", "a whole number from 0 to 600000", smoothing_ms, 0, 600_000),
                Field::whole("calm_ms", "a whole number from 0 to 3600000", calm_ms, 0, 3_600_000),
                Field::whole("min_idle", "a whole number from 0 to 1000", min_idle, 0, 1000),
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

    use crate::Little;

    #[test]
    fn the_schema_says_what_is_read() {
        sizing_rig::schema::agrees::<Little>(&json!({}));
    }
}
