//! The environment as a layer: `SLUICEGATE_POOL__DEMO__SIZE__MAX=8` sets `pool.demo.size.max`.
//!
//! Two underscores go one table down. Case does not matter, and where a name has a dash, the variable has an
//! underscore: `SLUICEGATE_LIMIT__PER_CLIENT__RATE` sets `limit.per-client.rate` if a file has `[limit.per-client]`,
//! and `limit.per_client.rate` otherwise. A value is read as TOML, and as text where that fails or where text is
//! wanted. A list is set whole.
//!
//! A variable without two underscores counts only if it names a top-level table. Orchestrators set others by
//! themselves: Kubernetes gives every pod beside a service `sluicegate` a `SLUICEGATE_PORT` and a
//! `SLUICEGATE_SERVICE_HOST`.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::{
    key,
    layer::{Layer, MAX_DEPTH, convert},
    problem::{Position, Problem},
};

const PREFIX: &str = "SLUICEGATE_";

/// Where environment variables come from.
#[derive(Clone, Debug, Default)]
pub enum Environment {
    /// The process's own.
    #[default]
    Process,
    /// These and no others.
    Given(BTreeMap<String, String>),
}

impl Environment {
    /// The value of one variable; none if it is not UTF-8.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        match self {
            Self::Process => std::env::var(name).ok(),
            Self::Given(map) => map.get(name).cloned(),
        }
    }

    /// The variables with our prefix, by name; `Err` in place of what is not UTF-8.
    pub(super) fn ours(&self) -> BTreeMap<String, Result<String, ()>> {
        let is_ours = |name: &str| name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
        match self {
            Self::Process => std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().map_err(|_| ()))))
                .filter(|(name, _)| is_ours(name))
                .collect(),
            Self::Given(map) => {
                let ours = map.iter().filter(|(name, _)| is_ours(name));
                ours.map(|(name, value)| (name.clone(), Ok(value.clone()))).collect()
            }
        }
    }

    /// The layer, with the names that `below` (the merged files) has, and `tables`, the model's top level.
    ///
    /// # Errors
    /// A variable that is not UTF-8, goes into a list, or nests too deeply.
    pub(super) fn layer(&self, below: &Dict, tables: &[&str]) -> Result<Layer, Vec<Problem>> {
        let (mut layer, mut problems) = (Layer::default(), Vec::new());
        for (name, text) in self.ours() {
            let path: Vec<_> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
            if matches!(path.as_slice(), [only] if !tables.contains(&only.as_str())) {
                continue;
            }
            let position = Position::whole(format!("${name}").into());
            let set = text.map_err(|()| (String::new(), "not UTF-8 text".to_owned()));
            match set.and_then(|text| layer.set(below, &path, &text, &position)) {
                Ok(()) => {}
                Err((key, message)) => problems.push(Problem::new(Some(position), key, message)),
            }
        }
        if problems.is_empty() { Ok(layer) } else { Err(problems) }
    }
}

impl Layer {
    /// Puts one variable in its place. `Err`: the key, and what is wrong.
    fn set(&mut self, below: &Dict, path: &[String], text: &str, at: &Position) -> Result<(), (String, String)> {
        if path.len() > MAX_DEPTH || path.iter().any(String::is_empty) {
            return Err((
                String::new(),
                "expected names with two underscores between, like SLUICEGATE_LOG__FILTER".into(),
            ));
        }
        let (mut below, mut table) = (Some(below), &mut self.values);
        let (mut key, mut path) = (String::new(), path.iter().peekable());
        while let Some(segment) = path.next() {
            let name = below.and_then(|below| known_name(below, segment)).unwrap_or(segment);
            key = key::join(&key, name);
            if path.peek().is_none() {
                let (value, is_text) = parse(text);
                if !is_text {
                    self.raw.insert(key.clone(), text.to_owned());
                }
                table.insert(name.to_owned(), value);
            } else {
                let there = below.and_then(|below| below.get(name));
                if matches!(there, Some(Value::Array(..))) {
                    return Err((key, "a list is set whole: give the variable of the list a TOML list".into()));
                }
                below = there.and_then(Value::as_dict);
                let next = table.entry(name.to_owned()).or_insert_with(|| Dict::new().into());
                if next.as_dict().is_none() {
                    *next = Dict::new().into();
                }
                let Value::Dict(_, next) = next else { return Ok(()) };
                table = next;
            }
            self.places.insert(key.clone(), at.clone());
        }
        Ok(())
    }
}

/// The name in `table` that a variable's segment means.
fn known_name<'a>(table: &'a Dict, segment: &str) -> Option<&'a String> {
    let same = |name: &&String| name.to_ascii_lowercase() == *segment;
    let dashed = |name: &&String| name.to_ascii_lowercase().replace('-', "_") == *segment;
    table.keys().find(same).or_else(|| table.keys().find(dashed))
}

/// The value, and whether it is text.
fn parse(text: &str) -> (Value, bool) {
    let parsed = text.parse::<toml_edit::Value>().ok().and_then(|value| convert(&value, 0));
    match parsed {
        Some(value) if value.as_str().is_none() => (value, false),
        Some(value) => (value, true),
        None => (text.into(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(below: &str, variables: &[(&str, &str)]) -> Result<Layer, Vec<Problem>> {
        let below = Layer::from_toml(&"below".into(), below.as_bytes()).unwrap().values;
        let given = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment::Given(given).layer(&below, &["log", "pool", "limit", "route"])
    }

    fn find(layer: &Layer, key: &str) -> Option<Value> {
        Value::from(layer.values.clone()).find(key)
    }

    #[test]
    fn names_nest_and_find_dashes() {
        let below = "[limit.Per-Client]\nrate = \"1/s\"\n[pool.a-b]\n[pool.a_b]\n";
        let layer = layer(
            below,
            &[
                ("SLUICEGATE_LIMIT__PER_CLIENT__RATE", "5/s"),
                ("sluicegate_pool__A_B__queue", "7"),
                ("SLUICEGATE_POOL__NEW_ONE__QUEUE", "8"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(find(&layer, "limit.Per-Client.rate"), Some("5/s".into()));
        assert_eq!(find(&layer, "pool.a_b.queue").unwrap().to_i128(), Some(7));
        assert_eq!(find(&layer, "pool.new_one.queue").unwrap().to_i128(), Some(8));
        assert_eq!(layer.places["pool.a_b.queue"].to_string(), "$sluicegate_pool__A_B__queue");
        assert_eq!(layer.places.len(), 3 + 3 + 2);
    }

    #[test]
    fn values_are_toml_or_text() {
        let values = [
            ("SLUICEGATE_LOG__A", "true"),
            ("SLUICEGATE_LOG__B", "[1, \"x\"]"),
            ("SLUICEGATE_LOG__C", "{ d = 1.5 }"),
            ("SLUICEGATE_LOG__E", "plain text"),
            ("SLUICEGATE_LOG__F", "\"quoted\""),
            ("SLUICEGATE_LOG__G", ""),
        ];
        let layer = layer("", &values).unwrap();
        assert_eq!(find(&layer, "log.a"), Some(true.into()));
        assert_eq!(find(&layer, "log.b").unwrap().as_array().unwrap()[1], "x".into());
        assert_eq!(find(&layer, "log.c.d").unwrap().to_f64(), Some(1.5));
        assert_eq!(find(&layer, "log.e"), Some("plain text".into()));
        assert_eq!(find(&layer, "log.f"), Some("quoted".into()));
        assert_eq!(find(&layer, "log.g"), Some("".into()));
        assert_eq!(layer.raw.keys().collect::<Vec<_>>(), ["log.a", "log.b", "log.c"]);
    }

    #[test]
    fn variables_of_an_orchestrator_are_not_ours() {
        let set = [("SLUICEGATE_PORT", "tcp://10.0.0.1:80"), ("SLUICEGATE_SERVICE_HOST", "10.0.0.1")];
        assert!(layer("", &set).unwrap().values.is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_a_problem() {
        let wrong = |name: &str| layer("[[route]]\n", &[(name, "1")]).unwrap_err()[0].to_string();
        assert_eq!(
            wrong("SLUICEGATE_ROUTE__0__PATH"),
            "$SLUICEGATE_ROUTE__0__PATH: route: a list is set whole: give the variable of the list a TOML list"
        );
        assert!(wrong("SLUICEGATE_LOG____X").contains("SLUICEGATE_LOG__FILTER"));
        assert!(wrong(&format!("SLUICEGATE_{}", vec!["A"; 5000].join("__"))).contains("SLUICEGATE_LOG__FILTER"));
    }
}
