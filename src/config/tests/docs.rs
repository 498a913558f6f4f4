//! `docs/configuration.md` says of every key what is so: that it exists, its default, its class.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{class_of, model::Config, value::Span};

/// A row of one of the page's tables.
struct Row {
    default: String,
    class: String,
}

/// Values that are one thing to a reader, with forms explained in words.
const WHOLE: [&str; 6] = ["query.endpoints", "sizing", "eviction", "validation", "tls", "jwt.claims"];

/// The page: section (`pool.NAME`, `route`) to its text and its rows.
fn page() -> BTreeMap<String, (String, BTreeMap<String, Row>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections = text.split("\n## `").skip(1).map(|section| {
        let (title, body) = section.split_once('`').unwrap();
        let rows = body.lines().filter_map(|line| {
            let cells: Vec<_> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
            let [key, default, class, ..] = cells.as_slice() else { return None };
            let row = Row { default: (*default).into(), class: (*class).into() };
            Some((key.trim_end_matches('`').to_owned(), row))
        });
        (title.trim_matches(['[', ']']).to_owned(), (body.to_owned(), rows.collect()))
    });
    sections.collect()
}

/// Every key of the model as section and key, with its value in `every_key.toml`. Several values where several tables
/// have it.
fn keys() -> BTreeMap<(String, String), Vec<Value>> {
    let config: Config = toml_edit::de::from_str(include_str!("../every_key.toml")).unwrap();
    let mut found = BTreeMap::new();
    let Value::Object(tables) = serde_json::to_value(config).unwrap() else { panic!("a table") };
    for (table, value) in tables {
        match (table.as_str(), value) {
            ("server" | "log" | "admin" | "alert" | "overload", value) => leaves(&table, "", &value, &mut found),
            ("route", Value::Array(routes)) => routes.iter().for_each(|route| leaves("route", "", route, &mut found)),
            (_, Value::Object(named)) => {
                let section = format!("{table}.NAME");
                named.values().for_each(|value| leaves(&section, "", value, &mut found));
            }
            (_, other) => panic!("{table}: {other}"),
        }
    }
    found
}

fn leaves(section: &str, at: &str, value: &Value, found: &mut BTreeMap<(String, String), Vec<Value>>) {
    let forms = section == "listener.NAME" || at != "tls";
    match value {
        Value::Object(table) if !(forms && WHOLE.contains(&at)) => {
            for (name, value) in table {
                let name = if at == "roles" { "NAME" } else { name };
                let key = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
                leaves(section, &key, value, found);
            }
        }
        value => found.entry((section.into(), at.into())).or_default().push(value.clone()),
    }
}

#[test]
fn every_key_is_on_the_page_and_nothing_else() {
    let (page, mut keys) = (page(), keys());
    for target in ["query", "proxy", "respond", "redirect", "cors"] {
        assert!(keys.contains_key(&("route".into(), target.into())), "{target}: null in some route");
    }
    keys.retain(|(section, key), _| {
        let (_, rows) = page.get(section).unwrap_or_else(|| panic!("no section [{section}]"));
        assert!(rows.contains_key(key), "[{section}] has no row for `{key}`");
        true
    });
    for (section, (_, rows)) in &page {
        for key in rows.keys() {
            assert!(keys.contains_key(&(section.clone(), key.clone())), "[{section}] `{key}` is not a key");
        }
    }
    for (section, words) in
        [("pool.NAME", ["plugin", "fallback", "native"]), ("listener.NAME", ["self_signed", "certificate", "key"])]
    {
        for word in words {
            assert!(page[section].0.contains(word), "[{section}] does not speak of {word}");
        }
    }
}

/// Whether two texts say the same: `60s` is `1m`.
fn same(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<Span>(), b.parse::<Span>()), (Ok(a), Ok(b)) if a == b)
}

#[test]
fn defaults_on_the_page_are_true() {
    let page = page();
    let mut compared = 0;
    for ((section, key), values) in keys() {
        let default = page[&section].1[&key].default.as_str();
        let quoted = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let Some(literal) = quoted.filter(|literal| !literal.contains('`')) else {
            // In words: `required`, or no value of its own.
            let none = [Value::Null, Value::from(""), Value::from("***"), Value::Array(Vec::new())];
            assert!(
                default == "required" || values.iter().any(|value| none.contains(value)),
                "[{section}] `{key}`: {default}"
            );
            continue;
        };
        let as_toml = format!("x = {literal}").parse::<toml_edit::DocumentMut>();
        let written =
            as_toml.ok().map(|document| toml_edit::de::from_document::<Value>(document).unwrap()["x"].clone());
        let is =
            |value: &Value| written.as_ref() == Some(value) || value.as_str().is_some_and(|text| same(text, literal));
        assert!(values.iter().any(is), "[{section}] `{key}`: the page says {literal}, the model {values:?}");
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
}

#[test]
fn classes_on_the_page_are_true() {
    for (section, (_, rows)) in page() {
        for (key, row) in rows {
            let at = if section == "route" { format!("route[0].{key}") } else { format!("{section}.{key}") };
            let class = row.class.split(',').next().unwrap();
            assert_eq!(class, class_of(&at).to_string(), "[{section}] `{key}`");
        }
    }
}
