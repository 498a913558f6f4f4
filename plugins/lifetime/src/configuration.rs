//! What an operator may set.

use policy_settings::{Field, Slot, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Seconds a connection may lie unused above the pool's minimum.
    pub idle_s: u32,
    /// Seconds a connection may live.
    pub lifetime_s: u32,
    /// Share of its lifetime from which a connection is replaced.
    pub replace_at: f64,
    /// Share by which lifetimes are shortened at most, to spread them.
    pub spread: f64,
    /// Connections replaced at a time.
    pub replacements: u32,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"idle_s":{"type":"integer","minimum":1,"maximum":4000000,"default":180,"description":"seconds a connection may lie unused above the pool's minimum"},"lifetime_s":{"type":"integer","minimum":1,"maximum":4000000,"default":1800,"description":"seconds a connection may live"},"replace_at":{"type":"number","minimum":0.5,"maximum":1,"default":0.95,"description":"share of its lifetime from which a connection is replaced"},"spread":{"type":"number","minimum":0,"maximum":0.5,"default":0.1,"description":"share by which lifetimes are shortened at most, to spread them"},"replacements":{"type":"integer","minimum":1,"maximum":256,"default":3,"description":"connections replaced at a time"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { idle_s: 180, lifetime_s: 1800, replace_at: 0.95, spread: 0.1, replacements: 3 };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { idle_s, lifetime_s, replace_at, spread, replacements } = &mut settings;
        read(
            json,
            &mut [
                seconds("idle_s", idle_s),
                seconds("lifetime_s", lifetime_s),
                Field {
                    name: "replace_at",
                    expects: "a number from 0.5 to 1",
                    slot: Slot::Number { value: replace_at, least: 0.5, most: 1.0 },
                },
                Field {
                    name: "spread",
                    expects: "a number from 0 to 0.5",
                    slot: Slot::Number { value: spread, least: 0.0, most: 0.5 },
                },
                Field {
                    name: "replacements",
                    expects: "a whole number from 1 to 256",
                    slot: Slot::Whole { value: replacements, least: 1, most: 256 },
                },
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

/// Up to what fits the host's milliseconds, about 46 days.
fn seconds<'a>(name: &'static str, value: &'a mut u32) -> Field<'a> {
    let slot = Slot::Whole { value, least: 1, most: 4_000_000 };
    Field { name, expects: "a whole number from 1 to 4000000", slot }
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
