//! What a caller gives for parameters, put in order: by position, by name, or out of a query string.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    super::problem::Problem,
    Entry,
    types::{Given, value},
};
use crate::{backend::Param, config::nearest};

/// Parameters as they came.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Params {
    /// In order.
    List(Vec<Param>),
    /// By name.
    Map(BTreeMap<String, Param>),
    /// By name, in a query string.
    Texts(BTreeMap<String, String>),
}

impl Default for Params {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Params {
    /// How many there are.
    pub(in super::super) fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Texts(map) => map.len(),
        }
    }

    /// As they go to the database.
    ///
    /// # Errors
    /// 400, which names the parameter.
    pub(super) fn bind(&self, entry: &Entry) -> Result<Vec<Param>, Problem> {
        let params = &entry.settings.params;
        if let Self::List(list) = self
            && list.len() > params.len()
        {
            let detail = format!("`{}` has {} parameters, not {}", entry.name, params.len(), list.len());
            return Err(Problem::bad_request(detail));
        }
        let names = || params.iter().map(|param| param.name.as_str());
        let unknown = match self {
            Self::List(_) => None,
            Self::Map(map) => map.keys().find(|name| !names().any(|known| known == *name)),
            Self::Texts(map) => map.keys().find(|name| !names().any(|known| known == *name)),
        };
        if let Some(name) = unknown {
            let near = nearest(name, names()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let shown = shown(name);
            let detail = format!("`{}` has no parameter `{shown}`{near}", entry.name);
            return Err(Problem::bad_request(detail).with("parameter", shown));
        }
        let bound = params.iter().zip(&entry.defaults).enumerate().map(|(index, (param, default))| {
            let given = match self {
                Self::List(list) => list.get(index).map(Given::Param),
                Self::Map(map) => map.get(&param.name).map(Given::Param),
                Self::Texts(map) => map.get(&param.name).map(|text| Given::Text(text)),
            };
            match (given, default) {
                (Some(given), _) => value(param, given),
                (None, Some(default)) => Ok(default.clone()),
                (None, None) if param.nullable => Ok(Param::Null),
                (None, None) => Err("is missing".to_owned()),
            }
            .map_err(|why| {
                let detail = format!("parameter `{}` {why}", param.name);
                Problem::bad_request(detail).with("parameter", param.name.as_str())
            })
        });
        bound.collect()
    }
}

/// Reads a query string (`application/x-www-form-urlencoded`), strictly.
///
/// # Errors
/// 400: something is not encoded as it should be, or stands there twice.
pub(in super::super) fn of_query(query: Option<&str>) -> Result<Params, Problem> {
    let mut params = BTreeMap::new();
    for pair in query.unwrap_or_default().split('&').filter(|_| query.is_some_and(|query| !query.is_empty())) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Problem::bad_request("the query string is not `name=value`, with `&` between"));
        };
        let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
            return Err(Problem::bad_request("the query string is not percent-encoded UTF-8"));
        };
        if params.contains_key(name.as_ref()) {
            let shown = shown(&name);
            let detail = format!("the parameter `{shown}` stands there twice; a list is one value: `[1,2]`");
            return Err(Problem::bad_request(detail).with("parameter", shown));
        }
        params.insert(name.into_owned(), value.into_owned());
    }
    Ok(Params::Texts(params))
}

/// As much of a name that is none as is said again.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// None: a `%` without two digits, or no UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let sound = text.bytes().enumerate().filter(|(_, b)| *b == b'%').all(|(at, _)| {
        text.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !sound {
        return None;
    }
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(&spaced).collect();
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{
        super::{Catalogue, Entry},
        *,
    };

    fn entry() -> std::sync::Arc<Entry> {
        let params = json!([
            {"name": "id", "type": "int8"},
            {"name": "name", "type": "text", "nullable": true},
            {"name": "limit", "type": "int2", "default": 10},
        ]);
        let queries = json!({"q": {"sql": "select $1, $2, $3", "params": params}});
        let catalogue = Catalogue::build_after(&serde_json::from_value(queries).unwrap(), &Catalogue::default());
        catalogue.unwrap().get("q").unwrap().clone()
    }

    fn bound(params: &Params) -> Result<Value, Value> {
        let told = |param: &Param| match param {
            Param::Null => Value::Null,
            Param::Number(number) => number.clone().into(),
            Param::Text(text) => (&**text).into(),
            other => panic!("{other:?}"),
        };
        let bound = params.bind(&entry()).map_err(Problem::into_object)?;
        Ok(bound.iter().map(told).collect())
    }

    fn map(value: Value) -> Params {
        Params::Map(serde_json::from_value(value).unwrap())
    }

    fn list(value: Value) -> Params {
        Params::List(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn every_way_to_give_them_is_one() {
        for (params, expected) in [
            (list(json!([1, "a", 2])), json!([1, "a", 2])),
            (list(json!([1])), json!([1, null, 10])),
            (map(json!({"name": "a", "id": "1"})), json!([1, "a", 10])),
            (map(json!({"id": 1, "name": null, "limit": 3})), json!([1, null, 3])),
            (of_query(Some("id=1&name=a%20b+c%2B")).unwrap(), json!([1, "a b c+", 10])),
            (of_query(Some("name=&id=1")).unwrap(), json!([1, "", 10])),
        ] {
            assert_eq!(bound(&params), Ok(expected), "{params:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (params, detail, parameter) in [
            (list(json!([])), "parameter `id` is missing", Some("id")),
            (list(json!([1, null, 2, 3])), "`q` has 3 parameters, not 4", None),
            (list(json!([1, null, null])), "parameter `limit` must not be null", Some("limit")),
            (map(json!({"id": 1, "nmae": "x"})), "`q` has no parameter `nmae`; did you mean `name`?", Some("nmae")),
            (map(json!({"id": 1, "zzzzzz": 1})), "`q` has no parameter `zzzzzz`", Some("zzzzzz")),
            (of_query(Some("id=1 or 1=1")).unwrap(), "parameter `id` must be a whole number of 64 bits", Some("id")),
            (of_query(None).unwrap(), "parameter `id` is missing", Some("id")),
        ] {
            let problem = bound(&params).unwrap_err();
            assert_eq!(problem["detail"], detail);
            assert_eq!(problem.get("parameter").and_then(Value::as_str), parameter);
        }
    }

    #[test]
    fn a_query_string_is_read_strictly() {
        for query in ["id", "id=1&", "&id=1", "id=%", "id=%g0", "id=%f", "id=%ff", "a=1&a=2", "a%62=1&%61b=2"] {
            assert!(of_query(Some(query)).is_err(), "{query}");
        }
        assert_eq!(of_query(Some("")).unwrap(), Params::Texts(BTreeMap::new()));
        assert_eq!(of_query(Some("a=b=c")).unwrap(), Params::Texts(BTreeMap::from([("a".into(), "b=c".into())])));
        let twice = of_query(Some("id=1&id=2")).unwrap_err().into_object();
        assert_eq!(twice["parameter"], "id");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(name in "\\PC{1,10}", value in "\\PC{0,20}") {
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let read = of_query(Some(&format!("{}={}", encode(&name), encode(&value)))).unwrap();
            prop_assert_eq!(read, Params::Texts(BTreeMap::from([(name, value)])));
        }

        #[test]
        fn no_query_string_panics(query in "[a=&%+0-9é]{0,30}") {
            let _ = of_query(Some(&query));
        }
    }
}
