//! What an operator may set.

use policy_settings::{Field, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How many times their long average round trips may take before it shrinks.
    pub tolerance: f64,
    /// Statements that may queue in the database: what it grows by, before smoothing.
    pub queue: f64,
    /// Share of a new limit that is taken over each time.
    pub smoothing: f64,
    /// Measurements that the long average goes over.
    pub long_windows: u32,
    /// Weight of rising round trips in the long average while the pool is in use; 1: as Netflix has it.
    pub loaded_weight: f64,
    /// Round trips that a measurement needs.
    pub min_samples: u32,
    /// Connections to begin with, when nothing is known.
    pub start: u32,
    /// Idle connections to keep ready.
    pub min_idle: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"tolerance":{"type":"number","minimum":1,"maximum":10,"default":1.5,"description":"how many times their long average round trips may take"},"queue":{"type":"number","minimum":0.1,"maximum":100,"default":4,"description":"statements that may queue in the database: what it grows by"},"smoothing":{"type":"number","minimum":0.01,"maximum":1,"default":0.2,"description":"share of a new limit that is taken over"},"long_windows":{"type":"integer","minimum":10,"maximum":100000,"default":600,"description":"measurements that the long average goes over"},"loaded_weight":{"type":"number","minimum":0,"maximum":1,"default":0.01,"description":"weight of rising round trips under load in the long average; 1: Netflix's rule"},"min_samples":{"type":"integer","minimum":1,"maximum":100000,"default":10,"description":"round trips that a measurement needs"},"start":{"type":"integer","minimum":1,"maximum":10000,"default":10,"description":"connections to begin with, when nothing is known"},"min_idle":{"type":"integer","minimum":0,"maximum":1000,"default":1,"description":"idle connections to keep ready"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self {
        tolerance: 1.5,
        queue: 4.0,
        smoothing: 0.2,
        long_windows: 600,
        loaded_weight: 0.01,
        min_samples: 10,
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
        let Self { tolerance, queue, smoothing, long_windows, loaded_weight, min_samples, start, min_idle } =
            &mut settings;
        read(
            json,
            &mut [
                Field::number("tolerance", "a number from 1 to 10", tolerance, 1.0, 10.0),
                Field::number("queue", "a number from 0.1 to 100", queue, 0.1, 100.0),
                Field::number("smoothing", "a number from 0.01 to 1", smoothing, 0.01, 1.0),
                Field::whole("long_windows", "a whole number from 10 to 100000", long_windows, 10, 100_000),
                Field::number("loaded_weight", "a number from 0 to 1", loaded_weight, 0.0, 1.0),
                Field::whole("min_samples", "a whole number from 1 to 100000", min_samples, 1, 100_000),
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

    use crate::Gradient2;

    #[test]
    fn the_schema_says_what_is_read() {
        sizing_rig::schema::agrees::<Gradient2>(&json!({}));
    }
}
