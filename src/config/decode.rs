//! A merged tree into a [`Config`], with every error, not the first alone.
//!
//! serde stops at the first error. So each is noted, mended (an unknown or wrong key is taken out; something that
//! fits stands in for a required one), and the whole is tried again.

use std::collections::{BTreeMap, BTreeSet};

use figment::{
    error::{Actual, Error, Kind},
    value::{Dict, Value},
};
use serde::Deserialize;

use super::{key, model::Config, problem::Finding, secrets, words};

/// Errors after which a report is long enough.
const MAX_FINDINGS: usize = 100;
/// Tries after which mending has failed; each finding takes about a dozen at most.
const MAX_TRIES: usize = 2000;

/// What could be made of a tree.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The configuration, mended where there are findings; none if that was too much.
    pub config: Option<Config>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Keys that are not in `config` as they were written.
    pub doubtful: BTreeSet<String>,
}

/// Decodes; `raw` is [`Layer::raw`](super::layer::Layer::raw).
pub(super) fn decode(values: Dict, raw: BTreeMap<String, String>) -> Decoded {
    let mut mender = Mender {
        tree: values.into(),
        raw,
        as_text: BTreeMap::new(),
        stand_ins: BTreeMap::new(),
        doubtful: BTreeSet::new(),
        findings: Vec::new(),
    };
    let mut config = None;
    for _ in 0..MAX_TRIES {
        match Config::deserialize(&mender.tree) {
            Ok(decoded) => {
                config = Some(decoded);
                break;
            }
            Err(error) if mender.findings.len() < MAX_FINDINGS => {
                if mender.mend(&error).is_none() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    if config.is_none() {
        mender.findings.push(Finding::new("", "there may be more to mend than is listed"));
    }
    Decoded { config, findings: mender.findings, doubtful: mender.doubtful }
}

struct Mender {
    tree: Value,
    /// Texts still to be tried in place of what was read from them.
    raw: BTreeMap<String, String>,
    /// Keys where that text was tried, with the error from before.
    as_text: BTreeMap<String, String>,
    /// Keys with something standing in, and how many candidates have been tried.
    stand_ins: BTreeMap<String, (Vec<String>, usize)>,
    doubtful: BTreeSet<String>,
    findings: Vec<Finding>,
}

impl Mender {
    /// Notes an error and mends it. None: it cannot be mended.
    fn mend(&mut self, error: &Error) -> Option<()> {
        let mut path = error.path.clone();
        if let Kind::MissingField(name) = &error.kind {
            path.push(name.to_string());
        }
        let key = self.key(&path);
        if let Some(misfit) = self.stand_ins.keys().rfind(|stand_in| key::is_within(&key, stand_in)).cloned() {
            let (path, _) = self.stand_ins.get(&misfit)?;
            return self.stand_in(&path.clone());
        }
        match &error.kind {
            Kind::MissingField(_) => {
                if !self.doubtful.contains(&key) {
                    self.note(&key, words::describe(&error.kind));
                }
                self.stand_in(&path)
            }
            Kind::UnknownField(..) => {
                self.note(&key, words::describe(&error.kind));
                self.take_out(&path)
            }
            Kind::InvalidType(Actual::Bool(false), wanted) if is_table(wanted) && !self.is_item(&path) => {
                self.take_out(&path)
            }
            kind if secrets::is_secret(&key) => self.mend_value(&path, &key, words::describe_secret(kind)),
            kind => self.mend_value(&path, &key, words::describe(kind)),
        }
    }

    fn mend_value(&mut self, path: &[String], key: &str, message: String) -> Option<()> {
        if let Some(text) = self.raw.remove(key) {
            self.as_text.insert(key.to_owned(), message);
            *self.at(path)? = text.into();
            return Some(());
        }
        let message = self.as_text.remove(key).unwrap_or(message);
        self.note(key, message);
        self.give_up(path)
    }

    fn note(&mut self, key: &str, message: String) {
        self.doubtful.insert(key.to_owned());
        self.findings.push(Finding::new(key, message));
    }

    /// Takes a key out; another item of its list would move up, so an item gets a stand-in.
    fn give_up(&mut self, path: &[String]) -> Option<()> {
        if self.is_item(path) {
            return self.stand_in(path);
        }
        self.doubtful.insert(self.key(path));
        self.take_out(path)
    }

    fn take_out(&mut self, path: &[String]) -> Option<()> {
        let (name, parent) = path.split_last()?;
        let Value::Dict(_, table) = self.at(parent)? else { return None };
        table.remove(name).map(drop)
    }

    /// Puts the next candidate in place; after the last, gives up the table around it.
    fn stand_in(&mut self, path: &[String]) -> Option<()> {
        let key = self.key(path);
        let (_, tried) = self.stand_ins.entry(key.clone()).or_insert((path.to_vec(), 0));
        let candidate = candidates().into_iter().nth(*tried);
        *tried += 1;
        let (name, parent) = path.split_last()?;
        let Some(candidate) = candidate else {
            self.stand_ins.remove(&key);
            return self.give_up(parent);
        };
        match self.at(parent)? {
            Value::Dict(_, table) => {
                table.insert(name.clone(), candidate);
            }
            Value::Array(_, items) => *items.get_mut(name.parse::<usize>().ok()?)? = candidate,
            _ => return None,
        }
        Some(())
    }

    fn at(&mut self, path: &[String]) -> Option<&mut Value> {
        path.iter().try_fold(&mut self.tree, |value, name| match value {
            Value::Dict(_, table) => table.get_mut(name),
            Value::Array(_, items) => items.get_mut(name.parse::<usize>().ok()?),
            _ => None,
        })
    }

    fn is_item(&mut self, path: &[String]) -> bool {
        let parent = path.split_last().and_then(|(_, parent)| self.at(parent));
        matches!(parent, Some(Value::Array(..)))
    }

    /// The path as text.
    fn key(&self, path: &[String]) -> String {
        let (mut key, mut value) = (String::new(), Some(&self.tree));
        for name in path {
            value = match value {
                Some(Value::Array(_, items)) => {
                    let index = name.parse::<usize>().unwrap_or_default();
                    key = key::item(&key, index);
                    items.get(index)
                }
                other => {
                    key = key::join(&key, name);
                    other.and_then(Value::as_dict).and_then(|table| table.get(name))
                }
            };
        }
        key
    }
}

/// Whether `false` may be written to leave it out: where a table belongs, or a table in one of its forms.
fn is_table(wanted: &str) -> bool {
    wanted.starts_with("struct ") || wanted.contains('{')
}

/// One value for each kind of required key and list item in the model.
fn candidates() -> Vec<Value> {
    let text = |text: &str| Value::from(text);
    let pair = Dict::from([("certificate".to_owned(), text("x")), ("key".to_owned(), text("x"))]);
    vec![
        text("x"),
        text("127.0.0.1:0"),
        text("127.0.0.0/8"),
        text("sqlite"),
        text("json"),
        text("all"),
        text("1/s"),
        Value::from(200_i64),
        Value::from(Vec::<Value>::new()),
        Value::from(Dict::new()),
        Value::from(pair),
    ]
}
