//! What a reload changes, key by key, and what each change costs.

use std::fmt;

use serde_json::{Map, Value};

use super::{
    env::Environment,
    key,
    model::Config,
    secrets::{Fingerprints, Revealed, is_kept_of_a_key},
};

/// Characters of a value that a change shows.
const SHOWN: usize = 120;

/// What it takes to apply a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Applied while running; nothing is interrupted.
    Live,
    /// A listener binds anew, and the old sockets drain.
    Rebind,
    /// A pool with a new identity takes over, and the old one drains.
    Replaced,
    /// Not before the next start.
    Restart,
}

/// One changed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key's place.
    pub key: String,
    /// What it takes.
    pub class: Class,
    /// The value before, as JSON, cut if it is long; none if there was none. Secrets are `"***"`, and so is what is kept of keys.
    pub old: Option<String>,
    /// The value after, in the same form.
    pub new: Option<String>,
}

/// What is different in `new`. Secrets are read anew for both: a content that changed behind an unchanged `{ env = …
/// }` or `{ file = … }` is found by [`Loaded::changes_since`](super::Loaded::changes_since) alone.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let of = |config| Revealed::read(config, &Environment::Process).fingerprints(config);
    diff_with((old, &of(old)), (new, &of(new)))
}

/// The same with secrets that were read before.
pub(super) fn diff_with(old: (&Config, &Fingerprints), new: (&Config, &Fingerprints)) -> Vec<Change> {
    let tree = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let mut walk = Walk { changes: Vec::new() };
    walk.value("", &tree(old.0), &tree(new.0));
    walk.secrets(old.1, new.1);
    walk.changes.sort_by(|a, b| a.key.cmp(&b.key));
    walk.changes
}

/// What it takes to change the value at `key`.
pub fn class_of(key: &str) -> Class {
    match key.split('.').collect::<Vec<_>>().as_slice() {
        ["server", "workers" | "state"] | ["log", ..] | ["admin"] | ["admin", "address"] => Class::Restart,
        ["listener", _, "address" | "backlog"] => Class::Rebind,
        ["pool", _, "backend" | "per" | "url"] => Class::Replaced,
        _ => Class::Live,
    }
}

struct Walk {
    changes: Vec<Change>,
}

impl Walk {
    fn value(&mut self, at: &str, old: &Value, new: &Value) {
        match (old, new) {
            _ if old == new => {}
            (Value::Object(old), Value::Object(new)) if is_table(at) => self.table(at, old, new),
            (Value::Array(old), Value::Array(new)) if old.iter().chain(new).all(Value::is_object) => {
                self.list(at, old, new);
            }
            _ => self.note(at, Some(old), Some(new)),
        }
    }

    fn table(&mut self, at: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        for (name, before) in old {
            match new.get(name) {
                Some(after) => self.value(&key::join(at, name), before, after),
                None => self.note(&key::join(at, name), Some(before), None),
            }
        }
        for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            self.note(&key::join(at, name), None, Some(after));
        }
    }

    /// What is the same at both ends of a list has not changed; in between, item is set against item.
    fn list(&mut self, at: &str, old: &[Value], new: &[Value]) {
        let start = old.iter().zip(new).take_while(|(before, after)| before == after).count();
        let (old, new) = (&old[start..], &new[start..]);
        let end = old.iter().rev().zip(new.iter().rev()).take_while(|(before, after)| before == after).count();
        let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
        for index in 0..old.len().max(new.len()) {
            let at = key::item(at, start + index);
            match (old.get(index), new.get(index)) {
                (Some(before), Some(after)) => self.value(&at, before, after),
                (before, after) => self.note(&at, before, after),
            }
        }
    }

    fn note(&mut self, at: &str, old: Option<&Value>, new: Option<&Value>) {
        let set = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
        let (old, new) = (set(old), set(new));
        let class = if is_listener_tls(at) && old.is_some() != new.is_some() { Class::Rebind } else { class_of(at) };
        let shown = |value: Option<Value>| value.map(|value| show(&masked(at, value)));
        self.changes.push(Change { key: at.into(), class, old: shown(old), new: shown(new) });
    }

    /// Secrets, and what CA files hold, look the same in both trees.
    fn secrets(&mut self, old: &Fingerprints, new: &Fingerprints) {
        for (key, after) in &new.contents {
            let before = old.contents.get(key);
            if before == Some(after) || self.changes.iter().any(|change| key::is_within(key, &change.key)) {
                continue;
            }
            let same_pool = new.identities.get(key).is_some_and(|identity| old.identities.get(key) == Some(identity));
            let class = if same_pool { Class::Live } else { class_of(key) };
            let hidden = Some("\"***\"".to_owned());
            self.changes.push(Change { key: key.clone(), class, old: hidden.clone(), new: hidden });
        }
    }
}

/// Certificates are swapped under a listener; TLS itself is not.
fn is_listener_tls(key: &str) -> bool {
    matches!(key.split('.').collect::<Vec<_>>().as_slice(), ["listener", _, "tls"])
}

/// Whether the object at `key` has keys of its own that may change one by one. A policy or a certificate source is
/// one value.
fn is_table(key: &str) -> bool {
    let keys: Vec<_> = key.split('.').collect();
    !matches!(keys.as_slice(), ["pool", _, "sizing" | "eviction" | "validation"]) && !is_listener_tls(key)
}

/// The value at `key` without what is kept of keys; how many there are may be seen.
fn masked(key: &str, value: Value) -> Value {
    let hidden = is_kept_of_a_key(key);
    match value {
        Value::Object(table) => {
            let mask = |(name, value): (String, Value)| {
                let value = masked(&key::join(key, &name), value);
                (name, value)
            };
            table.into_iter().map(mask).collect()
        }
        Value::Array(list) if hidden => list.into_iter().map(|one| masked(key, one)).collect(),
        Value::String(_) if hidden => "***".into(),
        other => other,
    }
}

fn show(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Rebind => "rebind",
            Self::Replaced => "replaced",
            Self::Restart => "restart",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".into());
        write!(f, "{}: {} -> {} ({})", self.key, shown(&self.old), shown(&self.new), self.class)
    }
}
