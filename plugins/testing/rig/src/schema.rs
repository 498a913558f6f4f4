//! Whether a schema says what the configuration's reader does.

use policy_settings::Configuration;
use serde_json::{Map, Value};

/// Every key of the schema is read, from its minimum to its maximum and no further; the defaults are those that hold when nothing
/// is set; a refusal names the key and the bound. What the JSON object `among` holds is set beside the key that is tried, where keys
/// restrict each other.
///
/// # Panics
///
/// When they do not agree.
pub fn agrees<C: Configuration>(among: &str) {
    let among: Value = serde_json::from_str(among).expect("what else is set is JSON");
    let schema: Value = serde_json::from_str(C::SCHEMA).expect("the schema is JSON");
    let properties = schema["properties"].as_object().expect("properties");
    let mut defaults = Map::new();
    for (name, property) in properties {
        defaults.insert(name.clone(), property["default"].clone());
        assert!(property["description"].is_string(), "{name} is not described");
        for (bound, step) in [("minimum", -1.0), ("maximum", 1.0)] {
            at_a_bound::<C>(&among, name, &property[bound], step);
        }
    }
    let all = C::parse(&Value::Object(defaults).to_string());
    assert_eq!(all, Ok(C::DEFAULT), "every key of the schema is known, with its default");
}

fn at_a_bound<C: Configuration>(among: &Value, name: &str, bound: &Value, step: f64) {
    let edge = bound.as_f64().expect("every property is bounded");
    let mut config = among.clone();
    config[name] = bound.clone();
    let refused = C::parse(&config.to_string()).err().filter(|refusal| refusal.contains(" must be a "));
    assert_eq!(refused, None, "{name} at its bound");
    config[name] = (edge + step).into();
    let refusal = C::parse(&config.to_string()).expect_err("out of bounds");
    assert!(refusal.starts_with(&format!("`{name}` must be ")), "{refusal}");
    let shown = if edge.fract() == 0.0 { format!("{edge:.0}") } else { format!("{edge}") };
    assert!(refusal.contains(&shown), "{refusal} does not name {shown}");
}
