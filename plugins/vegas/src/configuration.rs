//! What an operator may set.

use policy_settings::{Field, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Statements queueing in the database below which it grows, per decade of the limit.
    pub alpha: u32,
    /// Statements queueing in the database above which it shrinks, per decade of the limit.
    pub beta: u32,
    /// Seconds between measurements of the database at half the limit; 0: none.
    pub probe_s: u32,
    /// Round trips that a measurement needs.
    pub min_samples: u32,
    /// Connections to begin with, when nothing is known.
    pub start: u32,
    /// Idle connections to keep ready.
    pub min_idle: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"alpha":{"type":"integer","minimum":1,"maximum":1000,"default":3,"description":"statements queueing in the database below which it grows"},"beta":{"type":"integer","minimum":1,"maximum":1000,"default":6,"description":"statements queueing in the database above which it shrinks; more than alpha"},"probe_s":{"type":"integer","minimum":0,"maximum":86400,"default":300,"description":"seconds between measurements of the database at half load; 0: none"},"min_samples":{"type":"integer","minimum":1,"maximum":100000,"default":50,"description":"round trips that a measurement needs"},"start":{"type":"integer","minimum":1,"maximum":10000,"default":10,"description":"connections to begin with, when nothing is known"},"min_idle":{"type":"integer","minimum":0,"maximum":1000,"default":1,"description":"idle connections to keep ready"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { alpha: 3, beta: 6, probe_s: 300, min_samples: 50, start: 10, min_idle: 1 };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { alpha, beta, probe_s, min_samples, start, min_idle } = &mut settings;
        read(
            json,
            &mut [
                Field::whole("alpha", "a whole number from 1 to 1000", alpha, 1, 1000),
                Field::whole("beta", "a whole number from 1 to 1000", beta, 1, 1000),
                Field::whole("probe_s", "a whole number from 0 to 86400", probe_s, 0, 86_400),
                Field::whole("min_samples", "a whole number from 1 to 100000", min_samples, 1, 100_000),
                Field::whole("start", "a whole number from 1 to 10000", start, 1, 10_000),
                Field::whole("min_idle", "a whole number from 0 to 1000", min_idle, 0, 1000),
            ],
        )?;
        if settings.alpha >= settings.beta {
            return Err(String::from("`alpha` must be less than `beta`"));
        }
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

    use crate::Vegas;

    #[test]
    fn a_band_turned_inside_out_is_refused() {
        let refusal = super::Settings::parse(r#"{"alpha":6}"#);
        assert_eq!(refusal, Err("`alpha` must be less than `beta`".to_owned()));
    }

    #[test]
    fn the_schema_says_what_is_read() {
        sizing_rig::schema::agrees::<Vegas>(&json!({}));
    }
}
