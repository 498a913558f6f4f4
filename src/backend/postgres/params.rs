//! Parameters as PostgreSQL text: the server infers each type and reads the text as that type does.
//!
//! Null is NULL; a string goes as it is; numbers and booleans as JSON writes them; an object as JSON text; an array as
//! an array literal, nested as deep as it is. Numbers that JSON's reader cannot hold exactly (more than 64 bits) should
//! come as strings.

use std::fmt;

use bytes::BytesMut;
use postgres_protocol::{IsNull, message::frontend};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::backend::param::{Param, Render};

/// Most parameters that one statement may have: the protocol counts them in 16 bits.
pub(super) const MOST: usize = u16::MAX as usize;

/// Writes a Bind of `statement` to the unnamed portal, all results in text. Parameters must have passed [`check`].
pub(super) fn bind(statement: &str, params: &[Param], out: &mut BytesMut) -> Result<(), &'static str> {
    let write = |param: &Param, out: &mut BytesMut| Ok(write(param, out)?);
    frontend::bind("", statement, [], params, write, Some(0), out).map_err(|_| "a parameter is too long")
}

/// Looks for what cannot be sent. A NUL can, and the server says what is wrong with it.
pub(super) fn check(params: &[Param]) -> Result<(), String> {
    if params.len() > MOST {
        return Err(format!("{} parameters are more than the {MOST} that a statement can have", params.len()));
    }
    Ok(())
}

fn write(param: &Param, out: &mut BytesMut) -> Result<IsNull, serde_json::Error> {
    match param {
        Param::Null => return Ok(IsNull::Yes),
        Param::Bool(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Param::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Param::Text(text) | Param::Object(text) => out.extend_from_slice(text.as_bytes()),
        Param::Array(json) => literal(json, out)?,
    }
    Ok(IsNull::No)
}

// === arrays ===

/// Writes a JSON array as PostgreSQL's literal.
fn literal(json: &str, out: &mut BytesMut) -> Result<(), serde_json::Error> {
    serde_json::Deserializer::from_str(json).deserialize_seq(Literal(out))
}

/// Writes what is read as it stands in an array literal.
struct Literal<'a>(&'a mut BytesMut);

impl Literal<'_> {
    fn plain(self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }
}

impl<'de> DeserializeSeed<'de> for Literal<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Literal<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.plain("NULL");
        Ok(())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.plain(if truth { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.plain(&number.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.plain(&number.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.plain(&serde_json::Value::from(number).to_string());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        quoted(text, self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.extend_from_slice(b"{");
        let start = self.0.len();
        while items.next_element_seed(Item(&mut *self.0, start))?.is_some() {}
        self.0.extend_from_slice(b"}");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        let mut json = String::new();
        Render(&mut json).visit_map(members)?;
        quoted(&json, self.0);
        Ok(())
    }
}

/// An item of an array whose first one begins at this length.
struct Item<'a>(&'a mut BytesMut, usize);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        if self.0.len() > self.1 {
            self.0.extend_from_slice(b",");
        }
        Literal(self.0).deserialize(from)
    }
}

fn quoted(text: &str, out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    for part in text.as_bytes().split_inclusive(|b| matches!(b, b'"' | b'\\')) {
        match part.split_last() {
            Some((special @ (b'"' | b'\\'), before)) => {
                out.extend_from_slice(before);
                out.extend_from_slice(&[b'\\', *special]);
            }
            _ => out.extend_from_slice(part),
        }
    }
    out.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(param: &Value) -> Option<String> {
        let mut out = BytesMut::new();
        matches!(write(&param.clone().into(), &mut out).unwrap(), IsNull::No)
            .then(|| String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn each_kind_has_its_text() {
        for (param, expected) in [
            (json!(null), None),
            (json!("it's"), Some("it's")),
            (json!(42), Some("42")),
            (json!(-1.5), Some("-1.5")),
            (json!(true), Some("true")),
            (json!({"a": [1, null]}), Some(r#"{"a":[1,null]}"#)),
            (json!([]), Some("{}")),
            (json!([1, null, "NULL", [true], "a\"b\\c,{}"]), Some(r#"{1,NULL,"NULL",{true},"a\"b\\c,{}"}"#)),
            (json!([{"a": "\""}]), Some(r#"{"{\"a\":\"\\\"\"}"}"#)),
            (json!(["line\nbreak", "a\0b"]), Some("{\"line\nbreak\",\"a\0b\"}")),
            (json!([{"a": "\0"}]), Some(r#"{"{\"a\":\"\\u0000\"}"}"#)),
        ] {
            assert_eq!(text(&param).as_deref(), expected, "{param}");
        }
    }

    #[test]
    fn there_is_an_end_to_parameters() {
        assert!(check(&vec![Param::Null; MOST]).is_ok());
        assert!(check(&vec![Param::Null; MOST + 1]).unwrap_err().contains("65536"));
    }
}
