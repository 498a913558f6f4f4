//! What an operator may set.

use policy_settings::{Field, Slot, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Milliseconds that a connection is trusted at least after it showed that it lives, and at first.
    pub least_ms: u32,
    /// Milliseconds that it is trusted at most.
    pub most_ms: u32,
    /// Share by which an answered ping lengthens the window.
    pub growth: f64,
    /// How often a broken connection counts against a good one.
    pub caution: u32,
    /// Broken connections in ten seconds at which the idle ones are closed, if more were broken than good.
    pub suspicion: u32,
    /// Longest ping, in milliseconds; 0: the pool's own setting.
    pub timeout_ms: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"least_ms":{"type":"integer","minimum":1,"maximum":1000,"default":250,"description":"milliseconds that a connection is trusted at least after it showed that it lives, and at first"},"most_ms":{"type":"integer","minimum":1000,"maximum":600000,"default":10000,"description":"milliseconds that it is trusted at most"},"growth":{"type":"number","minimum":0,"maximum":1,"default":0.25,"description":"share by which an answered ping lengthens the window"},"caution":{"type":"integer","minimum":1,"maximum":10000,"default":50,"description":"how often a broken connection counts against a good one"},"suspicion":{"type":"integer","minimum":1,"maximum":1000,"default":3,"description":"broken connections in ten seconds at which the idle ones are closed, if more were broken than good"},"timeout_ms":{"type":"integer","minimum":0,"maximum":65535,"default":0,"description":"longest ping; 0: the pool's own setting"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self =
        Self { least_ms: 250, most_ms: 10_000, growth: 0.25, caution: 50, suspicion: 3, timeout_ms: 0 };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { least_ms, most_ms, growth, caution, suspicion, timeout_ms } = &mut settings;
        read(
            json,
            &mut [
                whole("least_ms", "a whole number from 1 to 1000", least_ms, 1, 1000),
                whole("most_ms", "a whole number from 1000 to 600000", most_ms, 1000, 600_000),
                Field {
                    name: "growth",
                    expects: "a number from 0 to 1",
                    slot: Slot::Number { value: growth, least: 0.0, most: 1.0 },
                },
                whole("caution", "a whole number from 1 to 10000", caution, 1, 10_000),
                whole("suspicion", "a whole number from 1 to 1000", suspicion, 1, 1000),
                whole("timeout_ms", "a whole number from 0 to 65535", timeout_ms, 0, 65_535),
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

fn whole<'a>(name: &'static str, expects: &'static str, value: &'a mut u32, least: u32, most: u32) -> Field<'a> {
    Field { name, expects, slot: Slot::Whole { value, least, most } }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{SCHEMA, Settings};

    #[test]
    fn the_schema_says_what_is_read() {
        let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        let properties = schema["properties"].as_object().expect("properties");
        let mut defaults = serde_json::Map::new();
        for (name, property) in properties {
            defaults.insert(name.clone(), property["default"].clone());
            for (bound, step) in [("minimum", -1.0), ("maximum", 1.0)] {
                let edge = property[bound].as_f64().expect("every property is bounded");
                assert!(
                    Settings::parse(&json!({ name: property[bound] }).to_string()).is_ok(),
                    "{name} at its {bound}"
                );
                let refusal = Settings::parse(&json!({ name: edge + step }).to_string()).expect_err("out of bounds");
                assert!(refusal.starts_with(&format!("`{name}` must be ")), "{refusal}");
                assert!(refusal.contains(&edge.to_string()), "{refusal} does not name {edge}");
            }
        }
        let all = Settings::parse(&Value::Object(defaults).to_string());
        assert_eq!(all, Ok(Settings::DEFAULT), "every key of the schema is known, with its default");
    }
}
