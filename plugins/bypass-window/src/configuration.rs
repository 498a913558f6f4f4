//! What an operator may set.

use policy_settings::{Field, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds that a connection is trusted after it showed that it lives; 0: not at all.
    pub window_ms: u32,
    /// Longest ping, in milliseconds; 0: the pool's own setting.
    pub timeout_ms: u32,
    /// Broken connections in ten seconds at which nothing is trusted any more.
    pub suspicion: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"window_ms":{"type":"integer","minimum":0,"maximum":600000,"default":500,"description":"milliseconds that a connection is trusted after it showed that it lives"},"timeout_ms":{"type":"integer","minimum":0,"maximum":65535,"default":0,"description":"longest ping; 0: the pool's own setting"},"suspicion":{"type":"integer","minimum":1,"maximum":1000,"default":3,"description":"broken connections in ten seconds at which nothing is trusted any more"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { window_ms: 500, timeout_ms: 0, suspicion: 3 };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { window_ms, timeout_ms, suspicion } = &mut settings;
        read(
            json,
            &mut [
                Field::whole("window_ms", "a whole number from 0 to 600000", window_ms, 0, 600_000),
                Field::whole("timeout_ms", "a whole number from 0 to 65535", timeout_ms, 0, 65_535),
                Field::whole("suspicion", "a whole number from 1 to 1000", suspicion, 1, 1000),
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
