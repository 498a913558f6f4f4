//! What an operator may set.

use policy_settings::{Field, Slot, read};

/// Configuration of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Share of what the server granted from which it counts as nearly full.
    pub near: f64,
    /// Seconds unused after which a connection is surplus.
    pub surplus_s: u32,
    /// Seconds a connection may live.
    pub lifetime_s: u32,
    /// Share of its lifetime from which a connection is replaced.
    pub replace_at: f64,
    /// Share by which lifetimes are shortened at most, to spread them.
    pub spread: f64,
}

/// The configuration as JSON Schema.
pub const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"near":{"type":"number","minimum":0.1,"maximum":1,"default":0.8,"description":"share of what the server granted from which it counts as nearly full"},"surplus_s":{"type":"integer","minimum":1,"maximum":4000000,"default":60,"description":"seconds unused after which a connection is surplus"},"lifetime_s":{"type":"integer","minimum":1,"maximum":4000000,"default":1800,"description":"seconds a connection may live"},"replace_at":{"type":"number","minimum":0.5,"maximum":1,"default":0.95,"description":"share of its lifetime from which a connection is replaced"},"spread":{"type":"number","minimum":0,"maximum":0.5,"default":0.1,"description":"share by which lifetimes are shortened at most, to spread them"}}}"#;

impl Settings {
    /// What holds when nothing is set.
    pub const DEFAULT: Self = Self { near: 0.8, surplus_s: 60, lifetime_s: 1800, replace_at: 0.95, spread: 0.1 };

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let Self { near, surplus_s, lifetime_s, replace_at, spread } = &mut settings;
        read(
            json,
            &mut [
                share("near", "a number from 0.1 to 1", near, 0.1, 1.0),
                seconds("surplus_s", surplus_s),
                seconds("lifetime_s", lifetime_s),
                share("replace_at", "a number from 0.5 to 1", replace_at, 0.5, 1.0),
                share("spread", "a number from 0 to 0.5", spread, 0.0, 0.5),
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

fn share<'a>(name: &'static str, expects: &'static str, value: &'a mut f64, least: f64, most: f64) -> Field<'a> {
    Field { name, expects, slot: Slot::Number { value, least, most } }
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
