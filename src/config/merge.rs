//! Layers into one tree. Tables merge key by key; everything else, lists too, is the topmost layer's whole.

use std::collections::BTreeMap;

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{key, layer::Layer, problem::Position};

/// Keys of which a table has one group at most: when a layer sets one, the layers below lose the others.
type Choice = &'static [&'static [&'static str]];

const SECRET: Choice = &[&["env"], &["file"]];
const POLICY: Choice = &[&["native"], &["plugin", "fallback"]];
const OF_A_POOL: [(&str, Choice); 5] =
    [("url", SECRET), ("password", SECRET), ("sizing", POLICY), ("eviction", POLICY), ("validation", POLICY)];

/// All layers as one.
#[derive(Debug)]
pub(super) struct Merged {
    /// The values.
    pub values: Dict,
    /// Where each key stands, in the layer that set it.
    pub places: BTreeMap<String, Position>,
    /// See [`Layer::raw`].
    pub raw: BTreeMap<String, String>,
}

/// Merges, the first layer at the bottom.
pub(super) fn merge(layers: &mut [Layer]) -> Merged {
    for top in 1..layers.len() {
        let (below, above) = layers.split_at_mut(top);
        for lower in below {
            give_way(&mut lower.values, &above[0].values);
        }
    }
    let numbered = layers.iter().enumerate().map(|(index, layer)| Numbered { index, values: &layer.values });
    let figment = numbered.fold(Figment::new(), Figment::merge);
    let values = figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
    let mut places = BTreeMap::new();
    Places { figment: &figment, layers, found: &mut places }.of_table(&values, "", None);
    Merged { values, places, raw: layers.iter().flat_map(|layer| layer.raw.clone()).collect() }
}

fn give_way(lower: &mut Dict, upper: &Dict) {
    give_way_at(lower, upper, "admin", "token", SECRET);
    if let (Some(Value::Dict(_, lower)), Some(Value::Dict(_, upper))) = (lower.get_mut("pool"), upper.get("pool")) {
        for (name, above) in upper {
            for (key, choice) in OF_A_POOL {
                give_way_at(lower, upper, name, key, choice);
            }
            let (Some(Value::Dict(_, below)), Value::Dict(_, above)) = (lower.get_mut(name), above) else { continue };
            if let (Some(Value::Dict(_, below)), Some(Value::Dict(_, above))) =
                (below.get_mut("roles"), above.get("roles"))
            {
                for role in above.keys() {
                    give_way_at(below, above, role, "password", SECRET);
                }
            }
        }
    }
}

fn give_way_at(lower: &mut Dict, upper: &Dict, table: &str, key: &str, choice: Choice) {
    let Some(Value::Dict(_, lower)) = lower.get_mut(table) else { return };
    let Some(Value::Dict(_, lower)) = lower.get_mut(key) else { return };
    let Some(upper) = upper.get(table).and_then(Value::as_dict) else { return };
    let Some(upper) = upper.get(key).and_then(Value::as_dict) else { return };
    for taken in choice.iter().filter(|group| group.iter().any(|key| upper.contains_key(*key))) {
        lower.retain(|key, _| {
            taken.contains(&key.as_str()) || !choice.iter().any(|group| group.contains(&key.as_str()))
        });
    }
}

/// A layer as figment takes it; the tag of a merged value leads back to the number.
struct Numbered<'a> {
    index: usize,
    values: &'a Dict,
}

impl Provider for Numbered<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.index.to_string())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// Finds the place of every merged key.
struct Places<'a, 'f> {
    figment: &'a Figment,
    layers: &'a [Layer],
    found: &'f mut BTreeMap<String, Position>,
}

impl<'a> Places<'a, '_> {
    fn of_table(&mut self, table: &Dict, at: &str, around: Option<&Position>) {
        for (name, value) in table {
            self.of(value, key::join(at, name), around);
        }
    }

    fn of(&mut self, value: &Value, at: String, around: Option<&Position>) {
        let metadata = self.figment.get_metadata(value.tag());
        let layer = metadata.and_then(|metadata| self.layers.get(metadata.name.parse::<usize>().ok()?));
        let set_here = layer.and_then(|layer| layer.places.get(&at));
        let header = matches!(value, Value::Dict(..)).then(|| self.header(&at)).flatten();
        let place = header.or(set_here).or(around).cloned();
        match value {
            Value::Dict(_, table) => self.of_table(table, &at, place.as_ref()),
            Value::Array(_, items) => {
                for (index, item) in items.iter().enumerate() {
                    self.of(item, key::item(&at, index), place.as_ref());
                }
            }
            _ => {}
        }
        self.found.extend(place.map(|place| (at, place)));
    }

    /// Where a file has the table `at`: the topmost file, even if a variable sets a key of it. What is in a list is the
    /// list's layer's alone.
    fn header(&self, at: &str) -> Option<&'a Position> {
        let files = self.layers.iter().rev().filter_map(|layer| layer.places.get(at));
        files.filter(|_| !at.contains('[')).find(|place| place.line_column.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(texts: &[&str]) -> Merged {
        let layer =
            |(index, text): (usize, &&str)| Layer::from_toml(&index.to_string().into(), text.as_bytes()).unwrap();
        merge(&mut texts.iter().enumerate().map(layer).collect::<Vec<_>>())
    }

    #[test]
    fn tables_merge_and_lists_are_replaced() {
        let merged = merged(&["[a]\nx = 1\ny = [1, 2, 3]\n[[route]]\n[[route]]", "[a]\ny = [9]\n\n[[route]]\np = 1"]);
        let tree = Value::from(merged.values);
        assert_eq!(tree.find_ref("a.x").unwrap().to_i128(), Some(1));
        assert_eq!(tree.find_ref("a.y").unwrap().as_array().unwrap().len(), 1);
        assert_eq!(tree.find_ref("route").unwrap().as_array().unwrap().len(), 1);
        let at = |key: &str| merged.places[key].to_string();
        assert_eq!((at("a.x"), at("a.y"), at("a.y[0]")), ("0:2:1".into(), "1:2:1".into(), "1:2:6".into()));
        assert_eq!((at("route[0].p"), at("route")), ("1:5:1".into(), "1:4:3".into()));
    }

    #[test]
    fn the_other_choice_gives_way() {
        let tree = |texts: &[&str]| Value::from(merged(texts).values);
        let base = "admin.token = { file = \"t\" }\n[pool.a]\nurl = { env = \"X\" }\n\
                    sizing = { plugin = \"p\", fallback = \"fixed\" }";
        let native =
            "[pool.a]\nurl = { file = \"f\" }\nsizing = { native = \"fixed\" }\n[admin]\ntoken = { env = \"T\" }";
        let over = tree(&[base, native]);
        assert_eq!(over.find_ref("pool.a.sizing").unwrap().as_dict().unwrap().keys().collect::<Vec<_>>(), ["native"]);
        assert_eq!(over.find_ref("pool.a.url").unwrap().as_dict().unwrap().keys().collect::<Vec<_>>(), ["file"]);
        assert_eq!(over.find_ref("admin.token").unwrap().as_dict().unwrap().keys().collect::<Vec<_>>(), ["env"]);
        let partly = tree(&[base, "[pool.a]\nsizing.fallback = \"other\""]);
        assert_eq!(partly.find_ref("pool.a.sizing").unwrap().as_dict().unwrap().len(), 2);
    }
}
