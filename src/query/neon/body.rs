//! A request's body: `{"query", "params"?, "arrayMode"?}`, or several such in `{"queries": […]}`.

use serde::Deserialize;

use crate::{
    backend::Statement,
    query::request::{MOST_PARAMS, Object, Params},
};

/// What a body asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// One query, by itself.
    Single(Query),
    /// Queries in one transaction.
    Batch(Vec<Query>),
}

/// A query, and whether its rows shall be lists, if it says so.
#[derive(Debug, PartialEq)]
pub(super) struct Query {
    pub(super) statement: Statement,
    pub(super) array: Option<bool>,
}

/// Why a body cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("could not parse the HTTP request body: {0}")]
    Json(#[from] serde_json::Error),
    #[error("could not parse the HTTP request body: it has neither `query` nor `queries`")]
    Neither,
    #[error("the batch has {queries} queries; this route allows {most}")]
    Long { queries: usize, most: usize },
    #[error("a request may have {MOST_PARAMS} parameters at most")]
    Params,
}

/// Reads a body. Members that it does not know it passes over, as the drivers' servers do: another version may have them.
pub(super) fn parse(body: &[u8], most: usize) -> Result<Asked, BodyError> {
    let Object(payload): Object<Payload> = serde_json::from_slice(body)?;
    match payload {
        Payload { query: Some(query), params, array_mode, .. } => {
            Ok(Asked::Single(Query::from(Member { query, params, array_mode })))
        }
        Payload { queries: Some(queries), .. } if queries.len() > most => {
            Err(BodyError::Long { queries: queries.len(), most })
        }
        Payload { queries: Some(queries), .. } => {
            let queries: Vec<Query> = queries.into_iter().map(|Object(member)| member.into()).collect();
            let params: usize = queries.iter().map(|query| query.statement.params.len()).sum();
            if params > MOST_PARAMS { Err(BodyError::Params) } else { Ok(Asked::Batch(queries)) }
        }
        _ => Err(BodyError::Neither),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    query: Option<String>,
    params: Option<Params>,
    array_mode: Option<bool>,
    queries: Option<Vec<Object<Member>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    query: String,
    params: Option<Params>,
    array_mode: Option<bool>,
}

impl From<Member> for Query {
    fn from(Member { query, params, array_mode }: Member) -> Self {
        let params = params.map(|Params(params)| params).unwrap_or_default();
        Self { statement: Statement { sql: query, params }, array: array_mode }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::backend::Param;

    fn query(sql: &str, params: &[Value], array: Option<bool>) -> Query {
        let params = params.iter().cloned().map(Param::from).collect();
        Query { statement: Statement { sql: sql.to_owned(), params }, array }
    }

    fn read(body: &str) -> Result<Asked, String> {
        parse(body.as_bytes(), 2).map_err(|error| error.to_string())
    }

    #[test]
    fn queries_and_batches_are_read() {
        for (body, asked) in [
            (r#"{"query":"a"}"#, Asked::Single(query("a", &[], None))),
            (r#"{"query":"a","params":null,"arrayMode":null}"#, Asked::Single(query("a", &[], None))),
            (
                r#"{"params":["1",null,[1,["x"]],{"a":1}],"query":"a","arrayMode":true,"later":[{}]}"#,
                Asked::Single(query("a", &[json!("1"), json!(null), json!([1, ["x"]]), json!({"a": 1})], Some(true))),
            ),
            (r#"{"query":"a","queries":[]}"#, Asked::Single(query("a", &[], None))),
            (r#"{"queries":[]}"#, Asked::Batch(vec![])),
            (
                r#"{"queries":[{"query":"a","arrayMode":false},{"query":"","params":[true]}]}"#,
                Asked::Batch(vec![query("a", &[], Some(false)), query("", &[json!(true)], None)]),
            ),
        ] {
            assert_eq!(read(body), Ok(asked), "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (body, wrong) in [
            ("", "could not parse the HTTP request body: EOF"),
            ("{}", "neither `query` nor `queries`"),
            (r#"["a"]"#, "expected an object"),
            (r#"{"query":1}"#, "expected a string"),
            (r#"{"query":"a","query":"b"}"#, "duplicate field"),
            (r#"{"query":"a","params":{}}"#, "expected an array of parameters"),
            (r#"{"query":"a","arrayMode":1}"#, "expected a boolean"),
            (r#"{"queries":[["a"]]}"#, "expected an object"),
            (r#"{"queries":[{}]}"#, "missing field `query`"),
            (r#"{"queries":[{"query":""},{"query":""},{"query":""}]}"#, "has 3 queries; this route allows 2"),
            (r#"{"query":"a"} x"#, "trailing"),
        ] {
            let said = read(body).unwrap_err();
            assert!(said.contains(wrong), "{body}: {said}");
        }
        assert!(read(&format!("{{\"query\":\"a\",\"params\":{}", "[".repeat(100_000))).is_err());
        let half = vec!["0"; MOST_PARAMS / 2 + 1].join(",");
        let two = format!(r#"{{"queries":[{{"query":"","params":[{half}]}},{{"query":"","params":[{half}]}}]}}"#);
        assert!(read(&two).unwrap_err().contains("65535 parameters at most"));
    }

    proptest! {
        #[test]
        fn queries_round_trip(sql in ".{0,30}", params in prop::collection::vec(prop_oneof![Just(json!(null)), ".{0,9}".prop_map(|s| json!(s))], 0..5), array in any::<Option<bool>>()) {
            let body = json!({ "query": sql, "params": params, "arrayMode": array }).to_string();
            prop_assert_eq!(read(&body), Ok(Asked::Single(query(&sql, &params, array))));
        }
    }
}
