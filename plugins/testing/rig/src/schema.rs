//! Whether a schema says what the configuration's reader does.

use policy_sizing::Policy;
use serde_json::{Map, Value};

/// Every key of the schema is read, from its minimum to its maximum and no further; the defaults are those that hold when nothing
/// is set; a refusal names the key and the bound. `among` is set beside the key that is tried, where keys restrict each other.
///
/// # Panics
///
/// When they do not agree.
pub fn agrees<P: Policy>(among: &Value) {
    let schema: Value = serde_json::from_str(P::SCHEMA).expect("the schema is JSON");
    let properties = schema["properties"].as_object().expect("properties");
    let mut defaults = Map::new();
    for (name, property) in properties {
        defaults.insert(name.clone(), property["default"].clone());
        assert!(property["description"].is_string(), "{name} is not described");
        for (bound, step) in [("minimum", -1.0), ("maximum", 1.0)] {
            at_a_bound::<P>(among, name, &property[bound], step);
        }
    }
    let all = P::parse(&Value::Object(defaults).to_string());
    assert_eq!(all, Ok(P::DEFAULT), "every key of the schema is known, with its default");
}

fn at_a_bound<P: Policy>(among: &Value, name: &str, bound: &Value, step: f64) {
    let edge = bound.as_f64().expect("every property is bounded");
    let mut config = among.clone();
    config[name] = bound.clone();
    let refused = P::parse(&config.to_string()).err().filter(|refusal| refusal.contains(" must be a "));
    assert_eq!(refused, None, "{name} at its bound");
    config[name] = (edge + step).into();
    let refusal = P::parse(&config.to_string()).expect_err("out of bounds");
    assert!(refusal.starts_with(&format!("`{name}` must be ")), "{refusal}");
    let shown = if edge.fract() == 0.0 { format!("{edge:.0}") } else { format!("{edge}") };
    assert!(refusal.contains(&shown), "{refusal} does not name {shown}");
}
