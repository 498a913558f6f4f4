//! A layer: the values of one file, or of the environment, and where each of them stands.

use std::{collections::BTreeMap, sync::Arc};

use figment::value::{Dict, Value};
use toml_edit::{ImDocument, TableLike};

use super::{
    key,
    problem::{Position, Problem},
};

/// Tables in tables, at most. The model needs six; the rest is for a plugin's own `config`.
pub(super) const MAX_DEPTH: usize = 32;

/// Values with their places.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// The values.
    pub values: Dict,
    /// Where each key stands. What a table or list from an environment variable holds has no entry.
    pub places: BTreeMap<String, Position>,
    /// What a variable said where that was read as a number or the like, and may have been meant as text.
    pub raw: BTreeMap<String, String>,
}

impl Layer {
    /// Parses a file's content.
    ///
    /// # Errors
    /// Not UTF-8, not TOML, nested too deeply.
    pub(super) fn from_toml(source: &Arc<str>, content: &[u8]) -> Result<Self, Vec<Problem>> {
        let place = |text: &str, at| Position { source: source.clone(), line_column: Some(Lines::of(text).at(at)) };
        let text = std::str::from_utf8(content).map_err(|error| {
            let valid = String::from_utf8_lossy(&content[..error.valid_up_to()]);
            vec![Problem::new(Some(place(&valid, valid.len())), "", "not UTF-8 text")]
        })?;
        let document = ImDocument::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            vec![Problem::new(Some(place(text, at)), "", format!("not TOML: {}", error.message().replace('\n', "; ")))]
        })?;
        let mut walk = Walk { source, lines: Lines::of(text), layer: Self::default(), too_deep: Vec::new() };
        walk.layer.values = walk.table(document.as_table(), "", 0);
        if walk.too_deep.is_empty() { Ok(walk.layer) } else { Err(walk.too_deep) }
    }
}

/// A TOML value as figment's; none beyond [`MAX_DEPTH`].
pub(super) fn convert(value: &toml_edit::Value, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    match value {
        toml_edit::Value::Array(array) => {
            array.iter().map(|item| convert(item, depth + 1)).collect::<Option<Vec<_>>>().map(Value::from)
        }
        toml_edit::Value::InlineTable(table) => {
            let entries = table.iter().map(|(name, item)| Some((name.to_owned(), convert(item, depth + 1)?)));
            entries.collect::<Option<Dict>>().map(Value::from)
        }
        scalar => Some(convert_scalar(scalar)),
    }
}

fn convert_scalar(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(flag) => Value::from(*flag.value()),
        toml_edit::Value::Datetime(time) => Value::from(time.value().to_string()),
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        // The caller has descended into these.
        toml_edit::Value::Array(_) | toml_edit::Value::InlineTable(_) => Value::from(Dict::new()),
    }
}

/// Takes a document over, keeping places.
struct Walk<'a> {
    source: &'a Arc<str>,
    lines: Lines<'a>,
    layer: Layer,
    too_deep: Vec<Problem>,
}

impl Walk<'_> {
    fn table(&mut self, table: &dyn TableLike, at: &str, depth: usize) -> Dict {
        let mut values = Dict::new();
        for (name, item) in table.iter() {
            let key = key::join(at, name);
            let name_span = table.key(name).and_then(toml_edit::Key::span);
            self.place(&key, name_span.or_else(|| item.span()));
            if let Some(value) = self.item(item, &key, depth + 1) {
                values.insert(name.to_owned(), value);
            }
        }
        values
    }

    fn item(&mut self, item: &toml_edit::Item, at: &str, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            let place = self.layer.places.get(at).cloned();
            self.too_deep.push(Problem::new(place, at, format!("nested more than {MAX_DEPTH} deep")));
            return None;
        }
        match item {
            toml_edit::Item::None => None,
            toml_edit::Item::Table(table) => Some(self.table(table, at, depth).into()),
            toml_edit::Item::Value(toml_edit::Value::InlineTable(table)) => Some(self.table(table, at, depth).into()),
            toml_edit::Item::Value(toml_edit::Value::Array(array)) => {
                let items: Vec<_> = array.iter().map(|value| (value.span(), value.clone().into())).collect();
                Some(self.list(items, at, depth))
            }
            toml_edit::Item::ArrayOfTables(tables) => {
                let items: Vec<_> = tables.iter().map(|table| (table.span(), table.clone().into())).collect();
                Some(self.list(items, at, depth))
            }
            toml_edit::Item::Value(scalar) => Some(convert_scalar(scalar)),
        }
    }

    fn list(&mut self, items: Vec<(Option<std::ops::Range<usize>>, toml_edit::Item)>, at: &str, depth: usize) -> Value {
        let mut values = Vec::with_capacity(items.len());
        for (index, (span, item)) in items.into_iter().enumerate() {
            let key = key::item(at, index);
            self.place(&key, span);
            values.extend(self.item(&item, &key, depth + 1));
        }
        Value::from(values)
    }

    /// Notes where `key` stands; without a span, where its parent does.
    fn place(&mut self, key: &str, span: Option<std::ops::Range<usize>>) {
        let position = match span {
            Some(span) => Some(Position { source: self.source.clone(), line_column: Some(self.lines.at(span.start)) }),
            None => key::parent(key).and_then(|parent| self.layer.places.get(parent)).cloned(),
        };
        self.layer.places.extend(position.map(|position| (key.to_owned(), position)));
    }
}

/// The lines of a text.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column of a byte, both from 1.
    fn at(&self, byte: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts[line - 1];
        let before = self.text.get(start..byte).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> Result<Layer, String> {
        let shown = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        Layer::from_toml(&"a.toml".into(), text.as_bytes()).map_err(shown)
    }

    #[test]
    fn every_key_knows_its_place() {
        let layer = layer(
            "[pool.demo]\nsize.max = 5\n  tls = { \"é\" = 1, x = [1, {y = 2}] }\n[[route]]\n[[route]]\npath = \"/\"\n",
        );
        let places = layer.unwrap().places;
        let at = |key: &str| places[key].line_column.unwrap();
        assert_eq!(at("pool"), (1, 2));
        assert_eq!(at("pool.demo"), (1, 7));
        assert_eq!(at("pool.demo.size.max"), (2, 6));
        assert_eq!(at("pool.demo.tls"), (3, 3));
        assert_eq!(at("pool.demo.tls.x"), (3, 20));
        assert_eq!(at("pool.demo.tls.x[1].y"), (3, 29));
        assert_eq!(at("route[1]"), (5, 1));
        assert_eq!(at("route[1].path"), (6, 1));
    }

    #[test]
    fn what_is_not_toml_is_placed() {
        assert!(layer("a = 1\nb = \n").unwrap_err().starts_with("a.toml:2:5: not TOML: "));
        assert_eq!(
            layer("a = 1\nb = 2\na = 3\n").unwrap_err(),
            "a.toml:3:1: not TOML: duplicate key `a` in document root"
        );
        let problems = Layer::from_toml(&"a.toml".into(), b"a = 1\n# caf\xe9\n").unwrap_err();
        assert_eq!(problems[0].to_string(), "a.toml:2:6: not UTF-8 text");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("a.{} = 1", vec!["b"; 70].join("."));
        assert!(layer(&deep).unwrap_err().ends_with("nested more than 32 deep"));
        let nested = format!("x = {}1{}", "[".repeat(60), "]".repeat(60));
        assert!(layer(&nested).unwrap_err().ends_with("nested more than 32 deep"));
    }
}
