//! PostgreSQL's array literals (`array_out` in its `arrayfuncs.c`) as nested JSON arrays.
//!
//! One pass, without a tree: `{` and `}` become `[` and `]`, elements are written in their own shape. `[0:1]=` in front, which
//! says where counting begins, is dropped. What is not such a literal becomes a JSON string whole.

use memchr::{memchr, memchr2};

use super::{escape::string, value::Cells};
use crate::backend::Shape;

/// PostgreSQL has six dimensions at most (`MAXDIM`); arrays of domains over arrays nest deeper, but not by much.
const MAX_DEPTH: usize = 32;

/// Appends an array literal.
pub(super) fn array(cells: &mut Cells, out: &mut Vec<u8>, element: &Shape, delimiter: u8, text: &[u8]) {
    let start = out.len();
    let whole = Literal { cells, out, element, delimiter, rest: text }.read();
    if whole.is_none() {
        out.truncate(start);
        string(out, text);
    }
}

struct Literal<'a> {
    cells: &'a mut Cells,
    out: &'a mut Vec<u8>,
    element: &'a Shape,
    delimiter: u8,
    rest: &'a [u8],
}

#[derive(Clone, Copy, PartialEq)]
enum Expect {
    /// An element, or the end of an empty array.
    First,
    /// An element.
    Element,
    /// A delimiter, or an end.
    Next,
}

impl Literal<'_> {
    /// None: not an array literal.
    fn read(mut self) -> Option<()> {
        if self.rest.first() == Some(&b'[') {
            let bounds = memchr(b'=', self.rest)?;
            self.rest = &self.rest[bounds + 1..];
        }
        let (mut depth, mut expect) = (0_usize, Expect::First);
        loop {
            let (&byte, after) = self.rest.split_first()?;
            match (expect, byte) {
                (Expect::First | Expect::Element, b'{') if depth < MAX_DEPTH => {
                    (self.rest, depth, expect) = (after, depth + 1, Expect::First);
                    self.out.push(b'[');
                }
                (Expect::First | Expect::Next, b'}') if depth > 0 => {
                    (self.rest, depth, expect) = (after, depth - 1, Expect::Next);
                    self.out.push(b']');
                    if depth == 0 {
                        return after.is_empty().then_some(());
                    }
                }
                (Expect::Next, byte) if byte == self.delimiter && depth > 0 => {
                    (self.rest, expect) = (after, Expect::Element);
                    self.out.push(b',');
                }
                (Expect::First | Expect::Element, b'"') if depth > 0 => {
                    self.rest = after;
                    self.quoted()?;
                    expect = Expect::Next;
                }
                (Expect::First | Expect::Element, _) if depth > 0 => {
                    self.bare()?;
                    expect = Expect::Next;
                }
                _ => return None,
            }
        }
    }

    /// An element in quotes, behind the first: up to the next quote that has no backslash before it.
    fn quoted(&mut self) -> Option<()> {
        let end = memchr2(b'"', b'\\', self.rest)?;
        if self.rest[end] == b'"' {
            self.cells.text(self.out, self.element, &self.rest[..end]);
            self.rest = &self.rest[end + 1..];
            return Some(());
        }
        // Taken out of `cells`, which writes from it.
        let mut plain = std::mem::take(&mut self.cells.scratch);
        plain.clear();
        let closed = loop {
            let Some(end) = memchr2(b'"', b'\\', self.rest) else { break None };
            plain.extend_from_slice(&self.rest[..end]);
            let quote = self.rest[end] == b'"';
            self.rest = &self.rest[end + 1..];
            if quote {
                break Some(());
            }
            let Some((&escaped, after)) = self.rest.split_first() else { break None };
            plain.push(escaped);
            self.rest = after;
        };
        if closed.is_some() {
            self.cells.text(self.out, self.element, &plain);
        }
        self.cells.scratch = plain;
        closed
    }

    /// An element without quotes; NULL is null.
    fn bare(&mut self) -> Option<()> {
        let ends = |byte: &u8| *byte == self.delimiter || matches!(byte, b'{' | b'}' | b'"' | b'\\');
        let end = self.rest.iter().position(ends)?;
        let (bare, rest) = self.rest.split_at(end);
        if bare.is_empty() {
            return None;
        }
        if bare == b"NULL" {
            self.out.extend_from_slice(b"null");
        } else {
            self.cells.text(self.out, self.element, bare);
        }
        self.rest = rest;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(shape: &Shape, delimiter: u8, text: &[u8]) -> Value {
        let mut out = Vec::new();
        array(&mut Cells::default(), &mut out, shape, delimiter, text);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn literals_become_nested_arrays() {
        for (shape, text, expected) in [
            (Shape::Number, "{}", json!([])),
            (Shape::Number, "{1,NULL,-3}", json!([1, null, -3])),
            (Shape::Number, "{{1,2},{3,4}}", json!([[1, 2], [3, 4]])),
            (Shape::Number, "[0:1][-1:0]={{1,2},{3,4}}", json!([[1, 2], [3, 4]])),
            (Shape::Text, r#"{a,"b c","NULL","","q\"\\{}",NULL}"#, json!(["a", "b c", "NULL", "", "q\"\\{}", null])),
            (Shape::Bool, "{t,f,NULL}", json!([true, false, null])),
            (Shape::Float, "{1.5,NaN,-Infinity}", json!([1.5, "NaN", "-Infinity"])),
            (Shape::Json, r#"{"{\"a\": [1, \"x\"]}",NULL,3}"#, json!([{ "a": [1, "x"] }, null, 3])),
        ] {
            assert_eq!(read(&shape, b',', text.as_bytes()), expected, "{text}");
        }
        assert_eq!(read(&Shape::Text, b';', b"{(1,1),(0,0);(2,2),(1,1)}"), json!(["(1,1),(0,0)", "(2,2),(1,1)"]));
    }

    #[test]
    fn what_is_no_array_stays_text() {
        let deep = "{".repeat(40);
        for text in [
            "", "{", "}", "1", "{1", "{1,}", "{,1}", "{1}2", "{{1}", r#"{"a}"#, r#"{"a\"#, "[1:2]", "{a\\b}", "{1}}",
            &deep,
        ] {
            assert_eq!(read(&Shape::Number, b',', text.as_bytes()), json!(text), "{text}");
        }
    }

    /// What PostgreSQL writes for nested arrays of text.
    fn literal(value: &Value) -> String {
        match value {
            Value::Array(items) => format!("{{{}}}", items.iter().map(literal).collect::<Vec<_>>().join(",")),
            Value::String(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            _ => "NULL".into(),
        }
    }

    fn nested() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            ".{0,8}".prop_map(Value::String),
            "[\"\\\\{},]{0,6}".prop_map(Value::String)
        ];
        let array = leaf.prop_recursive(3, 30, 5, |inner| prop::collection::vec(inner, 0..5).prop_map(Value::Array));
        prop::collection::vec(array, 0..5).prop_map(Value::Array)
    }

    proptest! {
        #[test]
        fn arrays_round_trip(value in nested()) {
            prop_assert_eq!(read(&Shape::Text, b',', literal(&value).as_bytes()), value);
        }

        #[test]
        fn any_bytes_become_json(text in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}\",\\NUL1=[]".to_vec())], 0..40)) {
            read(&Shape::Number, b',', &text);
            read(&Shape::Text, b';', &text);
        }
    }
}
