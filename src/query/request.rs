//! A query's request: its head and its body, read into [`crate::backend::Work`].

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use tokio::time::{Instant, timeout_at};

use super::{named, problem::Problem};
use crate::{
    backend::{Isolation, Param, Statement},
    edge::RequestBody,
};

/// Most parameters of a request, of all its statements together. It is as many as one statement of PostgreSQL can have; and
/// they are held while the request waits for a connection, where many tiny ones weigh several times their text.
pub(super) const MOST_PARAMS: usize = u16::MAX as usize;

fn too_many() -> String {
    format!("a request may have {MOST_PARAMS} parameters at most")
}

/// Reads a body whole.
///
/// # Errors
/// It is too long, breaks off (the edge's answer to that), or has not come by `deadline` (408).
pub(super) async fn read(body: RequestBody, deadline: Instant) -> Result<Bytes, Problem> {
    match timeout_at(deadline, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Problem::new(error.status(), "Bad request body", error.public())),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Bad request body", "the body did not come in time")),
    }
}

/// Checks method and content type. `named`: queries may be asked for by GET, too.
pub(super) fn check_head(method: &Method, headers: &HeaderMap, named: bool) -> Result<(), Problem> {
    if method != Method::POST {
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "a query is sent with POST");
        return Err(problem.allowing(if named { "GET, HEAD, POST" } else { "POST" }));
    }
    // A form that a page of another origin can send without being asked has none of this type (Fetch, "CORS-safelisted").
    if !headers.get(header::CONTENT_TYPE).is_some_and(|value| is_json(value.as_bytes())) {
        let detail = "send the query with Content-Type: application/json, in UTF-8";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", detail));
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let detail = "send the query without Content-Encoding";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported content encoding", detail));
    }
    Ok(())
}

fn is_json(content_type: &[u8]) -> bool {
    let Ok(content_type) = std::str::from_utf8(content_type) else { return false };
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let foreign = |part: &str| match part.split_once('=') {
        Some((name, value)) => {
            name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        None => false,
    };
    essence.eq_ignore_ascii_case("application/json") && !parts.any(foreign)
}

/// What a request asks for, as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wish {
    /// In order.
    pub(super) asks: Vec<Ask>,
    /// They are one transaction; otherwise there is one.
    pub(super) batch: bool,
    pub(super) isolation: Option<Isolation>,
    pub(super) read_only: bool,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    /// Of the caller's own.
    Sql(Statement),
    /// By name.
    Name(String, named::Params),
}

/// Reads a body.
///
/// # Errors
/// 400, with `line` and `column` where the text is at fault.
pub(super) fn parse(body: &[u8], max_batch: usize) -> Result<Wish, Problem> {
    let Object(body): Object<Body> = serde_json::from_slice(body).map_err(|error| {
        let detail = error.to_string();
        let (line, column) = (error.line(), error.column());
        let detail = detail.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&detail).to_owned();
        Problem::bad_request(detail).with("line", line).with("column", column)
    })?;
    let read_only = body.read_only.unwrap_or(false);
    match body {
        Body { batch: None, isolation: Some(_), .. } => Err(Problem::bad_request("`isolation` belongs to a `batch`")),
        Body { batch: None, sql, name, params, .. } => {
            if sql.is_none() && name.is_none() {
                return Err(Problem::bad_request("send one of `sql`, `name` and `batch`"));
            }
            let ask = ask(sql, name, params)?;
            Ok(Wish { asks: vec![ask], read_only, ..Wish::default() })
        }
        Body { batch: Some(_), sql, name, .. } if sql.is_some() || name.is_some() => {
            Err(Problem::bad_request("send one of `sql`, `name` and `batch`"))
        }
        Body { batch: Some(_), params: Some(_), .. } => {
            Err(Problem::bad_request("`params` belong to each statement of a `batch`"))
        }
        Body { batch: Some(batch), .. } if batch.len() > max_batch => {
            let detail = format!("the batch has {} statements; this route allows {max_batch}", batch.len());
            Err(Problem::bad_request(detail))
        }
        Body { batch: Some(batch), .. }
            if batch.iter().map(|Object(member)| member.count()).sum::<usize>() > MOST_PARAMS =>
        {
            Err(Problem::bad_request(too_many()))
        }
        Body { batch: Some(batch), isolation, .. } => {
            let asks: Result<Vec<Ask>, Problem> =
                batch.into_iter().map(|Object(Member { sql, name, params })| ask(sql, name, params)).collect();
            Ok(Wish { asks: asks?, batch: true, isolation: isolation.map(Isolation::from), read_only })
        }
    }
}

fn ask(sql: Option<String>, name: Option<String>, params: Option<Given>) -> Result<Ask, Problem> {
    let params = params.map(|Given(params)| params).unwrap_or_default();
    match (sql, name, params) {
        (Some(sql), None, named::Params::List(params)) => Ok(Ask::Sql(Statement { sql, params })),
        (Some(_), None, _) => Err(Problem::bad_request("`params` of `sql` are a list: its placeholders have no names")),
        (None, Some(name), params) => Ok(Ask::Name(name, params)),
        _ => Err(Problem::bad_request("a statement is either `sql` or a `name`")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    sql: Option<String>,
    name: Option<String>,
    params: Option<Given>,
    batch: Option<Vec<Object<Member>>>,
    isolation: Option<Level>,
    read_only: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    sql: Option<String>,
    name: Option<String>,
    params: Option<Given>,
}

impl Member {
    fn count(&self) -> usize {
        self.params.as_ref().map_or(0, |Given(params)| params.len())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl From<Level> for Isolation {
    fn from(level: Level) -> Self {
        match level {
            Level::ReadUncommitted => Self::ReadUncommitted,
            Level::ReadCommitted => Self::ReadCommitted,
            Level::RepeatableRead => Self::RepeatableRead,
            Level::Serializable => Self::Serializable,
        }
    }
}

/// A struct from an object. Left to itself, serde also takes an array of its fields.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        from.deserialize_map(Members(PhantomData)).map(Object)
    }
}

/// Parameters; exists for its message and its bound.
#[derive(Default)]
pub(super) struct Params(pub(super) Vec<Param>);

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of parameters")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Params, A::Error> {
                list(items).map(Params)
            }
        }

        from.deserialize_seq(Items)
    }
}

fn list<'de, A: SeqAccess<'de>>(mut items: A) -> Result<Vec<Param>, A::Error> {
    let mut params = Vec::new();
    while let Some(item) = items.next_element()? {
        if params.len() == MOST_PARAMS {
            return Err(A::Error::custom(too_many()));
        }
        params.push(item);
    }
    Ok(params)
}

/// The same of what may be a named query's: then they may have names.
struct Given(named::Params);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of parameters, or an object for a named query")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Given, A::Error> {
                list(items).map(|params| Given(named::Params::List(params)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Given, A::Error> {
                let mut params = BTreeMap::new();
                while let Some((name, value)) = members.next_entry::<String, Param>()? {
                    if params.len() == MOST_PARAMS {
                        return Err(A::Error::custom(too_many()));
                    }
                    if let Some((name, _)) = params.get_key_value(&name) {
                        return Err(A::Error::custom(format_args!("the parameter `{name}` stands there twice")));
                    }
                    params.insert(name, value);
                }
                Ok(Given(named::Params::Map(params)))
            }
        }

        from.deserialize_any(Items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &str) -> Result<Wish, Value> {
        parse(body.as_bytes(), 2).map_err(Problem::into_object)
    }

    fn one(ask: Ask) -> Wish {
        Wish { asks: vec![ask], ..Wish::default() }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn statement(sql: &str, params: Vec<Value>) -> Ask {
        Ask::Sql(Statement { sql: sql.into(), params: params.into_iter().map(Param::from).collect() })
    }

    #[test]
    fn statements_and_batches_are_read() {
        let single = |params| Ok(one(statement("s", params)));
        assert_eq!(read(r#"{"sql":"s"}"#), single(vec![]));
        assert_eq!(read(r#"{"sql":"s","params":null}"#), single(vec![]));
        assert_eq!(read(r#"{"sql":"s","params":[1,[null]]}"#), single(vec![json!(1), json!([null])]));
        assert_eq!(read(r#"{"sql":"s","read_only":false}"#), single(vec![]));
        assert_eq!(
            read(r#"{"sql":"s","read_only":true}"#),
            Ok(Wish { read_only: true, ..one(statement("s", vec![])) })
        );
        let batch = read(
            r#"{"batch":[{"sql":"a","params":[true]},{"sql":"b"}],"isolation":"repeatable-read","read_only":true}"#,
        );
        let asks = vec![statement("a", vec![json!(true)]), statement("b", vec![])];
        let isolation = Some(Isolation::RepeatableRead);
        assert_eq!(batch, Ok(Wish { asks, batch: true, isolation, read_only: true }));
        assert_eq!(read(r#"{"batch":[]}"#), Ok(Wish { batch: true, ..Wish::default() }));
    }

    #[test]
    fn queries_are_asked_for_by_name() {
        let named = |params| Ask::Name("q".into(), params);
        let list = named::Params::List(vec![json!(1).into()]);
        let map = named::Params::Map(BTreeMap::from([("id".to_owned(), json!(1).into())]));
        assert_eq!(read(r#"{"name":"q"}"#), Ok(one(named(named::Params::default()))));
        assert_eq!(read(r#"{"name":"q","params":[1]}"#), Ok(one(named(list.clone()))));
        assert_eq!(read(r#"{"name":"q","params":{"id":1}}"#), Ok(one(named(map))));
        let batch = read(r#"{"batch":[{"name":"q","params":[1]},{"sql":"a"}]}"#);
        let asks = vec![named(list), statement("a", vec![])];
        assert_eq!(batch, Ok(Wish { asks, batch: true, ..Wish::default() }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, detail) in [
            ("", "EOF"),
            (r#"["s", [], null, null, null]"#, "expected an object"),
            (r#"{"batch":[["s", []]]}"#, "expected an object"),
            ("{}", "one of `sql`, `name` and `batch`"),
            (r#"{"sql":"a","batch":[]}"#, "one of"),
            (r#"{"sql":"a","name":"b"}"#, "either `sql` or a `name`"),
            (r#"{"name":"b","params":{"a":1,"a":2}}"#, "`a` stands there twice"),
            (r#"{"batch":[{"sql":"a","params":{"a":1}}]}"#, "placeholders have no names"),
            (r#"{"sql":"a","sqls":1}"#, "unknown field `sqls`, expected one of `sql`"),
            (r#"{"sql":1}"#, "expected a string"),
            (r#"{"sql":"a","params":"x"}"#, "expected an array of parameters"),
            (r#"{"sql":"a","params":{"a":1}}"#, "placeholders have no names"),
            (r#"{"sql":"a","sql":"b"}"#, "duplicate field `sql`"),
            (r#"{"sql":"a","isolation":"serializable"}"#, "belongs to a `batch`"),
            (r#"{"sql":"a","read_only":1}"#, "expected a boolean"),
            (r#"{"batch":[{"sql":"a"}],"params":[]}"#, "each statement"),
            (r#"{"batch":[{"sql":"a"}],"isolation":"snapshot"}"#, "unknown variant `snapshot`"),
            (r#"{"batch":[{"params":[]}]}"#, "either `sql` or a `name`"),
            (r#"{"batch":[{"sql":"a","name":"b"}]}"#, "either `sql` or a `name`"),
            (r#"{"batch":[{"sql":"a","isolation":"b"}]}"#, "unknown field `isolation`"),
            (r#"{"batch":[{"sql":""},{"sql":""},{"sql":""}]}"#, "has 3 statements; this route allows 2"),
            (r#"{"sql":"a"} x"#, "trailing"),
        ] {
            let problem = read(body).unwrap_err();
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{body}: {problem}");
            assert_eq!(problem["status"], 400);
        }
        let problem = read("{\n  \"sql\": nope }").unwrap_err();
        assert_eq!((&problem["line"], &problem["detail"]), (&json!(2), &json!("expected ident")));
        assert!(read(&format!("{{\"sql\":\"a\",\"params\":{}", "[".repeat(100_000))).is_err());
    }

    /// `count` parameters, the smallest that have parts.
    fn tiny(count: usize) -> String {
        vec![r#"{"":0}"#; count].join(",")
    }

    #[test]
    fn many_parameters_are_refused_and_those_that_may_be_weigh_little() {
        let at_most = MOST_PARAMS;
        let body = format!(r#"{{"sql":"s","params":[{}]}}"#, tiny(at_most));
        let asks = read(&body).unwrap().asks;
        let [Ask::Sql(Statement { params, .. })] = asks.as_slice() else { panic!("one statement") };
        // What the allocator adds to each is 16 bytes.
        let held: usize = params.iter().map(|param| size_of::<Param>() + text(param).len() + 16).sum();
        assert!(params.len() == at_most && held < 8 * body.len(), "{held} bytes for {}", body.len());
        let members: Vec<String> = (0..=at_most).map(|n| format!("\"{n}\":0")).collect();
        for body in [
            format!(r#"{{"name":"s","params":{{{}}}}}"#, members.join(",")),
            format!(r#"{{"sql":"s","params":[{}]}}"#, tiny(at_most + 1)),
            format!(r#"{{"batch":[{{"sql":"s","params":[{}]}},{{"sql":"s","params":[1]}}]}}"#, tiny(at_most)),
        ] {
            let problem = read(&body).unwrap_err();
            assert_eq!(problem["status"], 400);
            assert!(problem["detail"].as_str().unwrap().contains("65535 parameters at most"), "{problem}");
        }
    }

    fn text(param: &Param) -> &str {
        match param {
            Param::Text(text) | Param::Array(text) | Param::Object(text) => text,
            _ => "",
        }
    }

    #[test]
    fn heads_are_checked() {
        for kind in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"; x=y"] {
            assert!(check_head(&Method::POST, &headers(&[("content-type", kind)]), false).is_ok(), "{kind}");
        }
        for kind in ["text/plain", "application/jsonp", "application/json; charset=latin1", ""] {
            let problem = check_head(&Method::POST, &headers(&[("content-type", kind)]), false).unwrap_err();
            assert_eq!(problem.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        }
        assert!(check_head(&Method::POST, &HeaderMap::new(), false).is_err());
        let zipped = headers(&[("content-type", "application/json"), ("content-encoding", "gzip")]);
        assert!(check_head(&Method::POST, &zipped, false).is_err());
        let get = check_head(&Method::GET, &HeaderMap::new(), false).unwrap_err().into_response();
        assert_eq!(
            (get.status(), get.headers()[header::ALLOW].as_bytes()),
            (StatusCode::METHOD_NOT_ALLOWED, &b"POST"[..])
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&body, 10);
        }

        #[test]
        fn statements_round_trip(sql in ".{0,30}", params in prop::collection::vec(prop_oneof![Just(json!(null)), any::<i64>().prop_map(|n| json!(n)), ".{0,9}".prop_map(|s| json!(s))], 0..5)) {
            let body = json!({ "sql": sql, "params": params }).to_string();
            prop_assert_eq!(read(&body), Ok(one(statement(&sql, params))));
        }
    }
}
