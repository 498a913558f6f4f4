//! Parameters as PostgreSQL text: the server infers each type and reads the text as that type does.
//!
//! Null is NULL; a string goes as it is; numbers and booleans as JSON writes them; an object as JSON text; an array as
//! an array literal, nested as deep as it is. Numbers that JSON's reader cannot hold exactly (more than 64 bits) should
//! come as strings.

use bytes::BytesMut;
use postgres_protocol::{IsNull, message::frontend};
use serde_json::Value;

/// Most parameters that one statement may have: the protocol counts them in 16 bits.
pub(super) const MOST: usize = u16::MAX as usize;

/// Writes a Bind of `statement` to the unnamed portal, all results in text. Parameters must have passed [`check`].
pub(super) fn bind(statement: &str, params: &[Value], out: &mut BytesMut) -> Result<(), &'static str> {
    let write = |param: &Value, out: &mut BytesMut| Ok(write(param, out));
    frontend::bind("", statement, [], params, write, Some(0), out).map_err(|_| "a parameter is too long")
}

/// Looks for what cannot be sent.
pub(super) fn check(params: &[Value]) -> Result<(), String> {
    if params.len() > MOST {
        return Err(format!("{} parameters are more than the {MOST} that a statement can have", params.len()));
    }
    match params.iter().position(has_nul) {
        Some(at) => Err(format!("parameter {} holds a NUL character, which PostgreSQL's text cannot", at + 1)),
        None => Ok(()),
    }
}

/// JSON escapes NUL, so that objects may hold it.
fn has_nul(param: &Value) -> bool {
    match param {
        Value::String(text) => memchr::memchr(0, text.as_bytes()).is_some(),
        Value::Array(items) => items.iter().any(has_nul),
        _ => false,
    }
}

fn write(param: &Value, out: &mut BytesMut) -> IsNull {
    match param {
        Value::Null => return IsNull::Yes,
        Value::String(text) => out.extend_from_slice(text.as_bytes()),
        Value::Array(items) => array(items, out),
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
    IsNull::No
}

fn array(items: &[Value], out: &mut BytesMut) {
    out.extend_from_slice(b"{");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        match item {
            Value::Null => out.extend_from_slice(b"NULL"),
            Value::Array(inner) => array(inner, out),
            Value::String(text) => quoted(text, out),
            Value::Object(_) => quoted(&item.to_string(), out),
            Value::Bool(_) | Value::Number(_) => out.extend_from_slice(item.to_string().as_bytes()),
        }
    }
    out.extend_from_slice(b"}");
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
    use serde_json::json;

    use super::*;

    fn text(param: &Value) -> Option<String> {
        let mut out = BytesMut::new();
        matches!(write(param, &mut out), IsNull::No).then(|| String::from_utf8(out.to_vec()).unwrap())
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
            (json!(["line\nbreak"]), Some("{\"line\nbreak\"}")),
        ] {
            assert_eq!(text(&param).as_deref(), expected, "{param}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        assert!(check(&[json!(1), json!("a\0b")]).unwrap_err().contains("parameter 2"));
        assert!(check(&[json!([["\0"]])]).is_err());
        assert!(check(&[json!({"a": "\0"})]).is_ok());
        assert!(check(&vec![json!(1); MOST]).is_ok());
        assert!(check(&vec![json!(1); MOST + 1]).unwrap_err().contains("65536"));
    }
}
