//! What an operator may set.

use policy_settings::{Field, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Connections that it grows by in a second.
    pub increase: f64,
    /// Share of the target in use, at the peak, above which it grows.
    pub used_above: f64,
    /// Share that is left when the database has enough.
    pub backoff: f64,
    /// A mean round trip longer than that, in milliseconds, means that the database has enough; 0: none does.
    pub rtt_above_ms: u32,
    /// Round trips that a measurement needs.
    pub min_samples: u32,
    /// How many milliseconds a step back has to show its effect before the next.
    pub cooldown_ms: u32,
    /// How many milliseconds it stays away from what was too much.
    pub retry_ms: u32,
    /// Connections to begin with, when nothing is known.
    pub start: u32,
    /// Idle connections to keep ready.
    pub min_idle: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"increase":{"type":"number","minimum":0.01,"maximum":100,"default":1,"description":"connections that it grows by in a second"},"used_above":{"type":"number","minimum":0,"maximum":1,"default":0.8,"description":"share of the target in use above which it grows"},"backoff":{"type":"number","minimum":0.1,"maximum":0.95,"default":0.75,"description":"share that is left when the database has enough"},"rtt_above_ms":{"type":"integer","minimum":0,"maximum":600000,"default":0,"description":"round trips longer than that mean that the database has enough; 0: none do"},"min_samples":{"type":"integer","minimum":1,"maximum":100000,"default":10,"description":"round trips that a measurement needs"},"cooldown_ms":{"type":"integer","minimum":0,"maximum":600000,"default":10000,"description":"time for a step back to show its effect before the next"},"retry_ms":{"type":"integer","minimum":0,"maximum":3600000,"default":60000,"description":"how long it stays away from what was too much"},"start":{"type":"integer","minimum":1,"maximum":10000,"default":10,"description":"connections to begin with, when nothing is known"},"min_idle":{"type":"integer","minimum":0,"maximum":1000,"default":1,"description":"idle connections to keep ready"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self {
        increase: 1.0,
        used_above: 0.8,
        backoff: 0.75,
        rtt_above_ms: 0,
        min_samples: 10,
        cooldown_ms: 10_000,
        retry_ms: 60_000,
        start: 10,
        min_idle: 1,
    };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { increase, used_above, backoff, rtt_above_ms, min_samples, cooldown_ms, retry_ms, start, min_idle } =
            &mut settings;
        read(
            json,
            &mut [
                Field::number("increase", "a number from 0.01 to 100", increase, 0.01, 100.0),
                Field::number("used_above", "a number from 0 to 1", used_above, 0.0, 1.0),
                Field::number("backoff", "a number from 0.1 to 0.95", backoff, 0.1, 0.95),
                Field::whole("rtt_above_ms", "a whole number from 0 to 600000", rtt_above_ms, 0, 600_000),
                Field::whole("min_samples", "a whole number from 1 to 100000", min_samples, 1, 100_000),
                Field::whole("cooldown_ms", "a whole number from 0 to 600000", cooldown_ms, 0, 600_000),
                Field::whole("retry_ms", "a whole number from 0 to 3600000", retry_ms, 0, 3_600_000),
                Field::whole("start", "a whole number from 1 to 10000", start, 1, 10_000),
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

    use crate::Aimd;

    #[test]
    fn the_schema_says_what_is_read() {
        sizing_rig::schema::agrees::<Aimd>(&json!({}));
    }
}
