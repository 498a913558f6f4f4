//! What an operator may set.

use policy_settings::{Field, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Share of the target in use above which the pool grows.
    pub grow_above: f64,
    /// Share of the target in use below which it shrinks, in time.
    pub shrink_below: f64,
    /// Connections that one decision adds or takes away.
    pub step: u32,
    /// Quiet ticks in a row before each step down.
    pub calm_ticks: u32,
    /// A first waiter this old, in milliseconds, makes the pool grow at once.
    pub wait_ms: u32,
    /// Over how many milliseconds demand is smoothed; 0: not at all.
    pub smoothing_ms: u32,
    /// Idle connections to keep ready.
    pub min_idle: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"grow_above":{"type":"number","minimum":0.05,"maximum":1,"default":0.7,"description":"share of the target in use above which the pool grows"},"shrink_below":{"type":"number","minimum":0,"maximum":0.95,"default":0.3,"description":"share below which it shrinks, in time; less than grow_above"},"step":{"type":"integer","minimum":1,"maximum":1000,"default":5,"description":"connections that one decision adds or takes away"},"calm_ticks":{"type":"integer","minimum":1,"maximum":100000,"default":10,"description":"quiet ticks in a row before each step down"},"wait_ms":{"type":"integer","minimum":0,"maximum":60000,"default":50,"description":"a first waiter this old makes the pool grow at once"},"smoothing_ms":{"type":"integer","minimum":0,"maximum":600000,"default":2000,"description":"time over which demand is smoothed"},"min_idle":{"type":"integer","minimum":0,"maximum":1000,"default":1,"description":"idle connections to keep ready"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self {
        grow_above: 0.7,
        shrink_below: 0.3,
        step: 5,
        calm_ticks: 10,
        wait_ms: 50,
        smoothing_ms: 2000,
        min_idle: 1,
    };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        read(
            json,
            &mut [
                Field::number("grow_above", "a number from 0.05 to 1", &mut settings.grow_above, 0.05, 1.0),
                Field::number("shrink_below", "a number from 0 to 0.95", &mut settings.shrink_below, 0.0, 0.95),
                Field::whole("step", "a whole number from 1 to 1000", &mut settings.step, 1, 1000),
                Field::whole("calm_ticks", "a whole number from 1 to 100000", &mut settings.calm_ticks, 1, 100_000),
                Field::whole("wait_ms", "a whole number from 0 to 60000", &mut settings.wait_ms, 0, 60_000),
                Field::whole("smoothing_ms", "a whole number from 0 to 600000", &mut settings.smoothing_ms, 0, 600_000),
                Field::whole("min_idle", "a whole number from 0 to 1000", &mut settings.min_idle, 0, 1000),
            ],
        )?;
        if settings.shrink_below >= settings.grow_above {
            return Err(String::from("`shrink_below` must be less than `grow_above`"));
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

    use super::Settings;
    use crate::Utilisation;

    #[test]
    fn the_example_of_the_readme_is_read() {
        let settings = Settings::parse(r#"{"grow_above":0.8,"shrink_below":0.2,"step":3}"#);
        assert_eq!(settings, Ok(Settings { grow_above: 0.8, shrink_below: 0.2, step: 3, ..Settings::DEFAULT }));
    }

    #[test]
    fn a_band_turned_inside_out_is_refused() {
        let refusal = Settings::parse(r#"{"grow_above":0.3,"shrink_below":0.7}"#);
        assert_eq!(refusal, Err("`shrink_below` must be less than `grow_above`".to_owned()));
        let refusal = Settings::parse(r#"{"grow_above":0.3}"#);
        assert_eq!(refusal, Err("`shrink_below` must be less than `grow_above`".to_owned()));
    }

    #[test]
    fn the_schema_says_what_is_read() {
        // A value out of its bounds must not be refused for the band it makes.
        sizing_rig::schema::agrees::<Utilisation>(&json!({"grow_above": 1, "shrink_below": 0}));
    }
}
