//! A cell as JSON: DESIGN's forms, straight from the database's text, without a copy in between.

use memchr::memchr2;

use super::{
    array,
    escape::{HEX, string},
};
use crate::backend::{Cell, Shape};

/// Whole numbers beyond this lose digits in a JavaScript number, so they are strings.
const EXACT: u64 = 1 << 53;

/// Writes cells; keeps what it needs for that from cell to cell.
#[derive(Default)]
pub(super) struct Cells {
    /// For array elements that had escapes.
    pub(super) scratch: Vec<u8>,
}

impl Cells {
    /// Appends a cell of a column of this shape.
    pub(super) fn cell(&mut self, out: &mut Vec<u8>, shape: &Shape, cell: Cell<'_>) {
        match cell {
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::Text(text) => self.text(out, shape, text),
            Cell::Integer(number) => integer(out, number),
            Cell::Real(number) => real(out, number),
            Cell::Blob(bytes) => blob(out, bytes),
        }
    }

    /// Appends a value that the database gave as text.
    pub(super) fn text(&mut self, out: &mut Vec<u8>, shape: &Shape, text: &[u8]) {
        match shape {
            Shape::Number | Shape::Float if is_number(text) => out.extend_from_slice(text),
            Shape::Bool if text == b"t" => out.extend_from_slice(b"true"),
            Shape::Bool if text == b"f" => out.extend_from_slice(b"false"),
            Shape::Json if !text.is_empty() => json(out, text),
            Shape::Array(element, delimiter) => array::array(self, out, element, *delimiter, text),
            // NaN and infinities, and whatever is not what its type says.
            Shape::Number | Shape::Float | Shape::Bool | Shape::Json | Shape::Text => string(out, text),
        }
    }
}

fn integer(out: &mut Vec<u8>, number: i64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    if number.unsigned_abs() <= EXACT {
        out.extend_from_slice(digits);
    } else {
        out.push(b'"');
        out.extend_from_slice(digits);
        out.push(b'"');
    }
}

fn real(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        return bare_real(out, number);
    }
    out.push(b'"');
    bare_real(out, number);
    out.push(b'"');
}

/// A float as it is, without quotes whatever it is.
pub(super) fn bare_real(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else if number.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
}

fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"\"\\");
    hex(out, bytes);
    out.push(b'"');
}

/// PostgreSQL's hex form of bytea.
pub(super) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2 + 3);
    out.extend_from_slice(b"\\x");
    for pair in bytes {
        out.extend_from_slice(&[HEX[usize::from(pair >> 4)], HEX[usize::from(pair & 15)]]);
    }
}

/// JSON that the database has checked. Line ends between its tokens become blanks, so that a row stays a line.
fn json(out: &mut Vec<u8>, text: &[u8]) {
    if std::str::from_utf8(text).is_err() {
        return string(out, text);
    }
    let mut rest = text;
    while let Some(end) = memchr2(b'\n', b'\r', rest) {
        out.extend_from_slice(&rest[..end]);
        out.push(b' ');
        rest = &rest[end + 1..];
    }
    out.extend_from_slice(rest);
}

/// Whether this is a number in JSON (RFC 8259 section 6).
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned[0] == b'0') {
        return false;
    }
    let mut rest = &unsigned[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(shape: &Shape, cell: Cell<'_>) -> String {
        let mut out = Vec::new();
        Cells::default().cell(&mut out, shape, cell);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cells_have_their_forms() {
        for (shape, cell, form) in [
            (Shape::Text, Cell::Null, "null"),
            (Shape::Number, Cell::Text(b"-42"), "-42"),
            (Shape::Float, Cell::Text(b"1e+20"), "1e+20"),
            (Shape::Float, Cell::Text(b"NaN"), "\"NaN\""),
            (Shape::Float, Cell::Text(b"-Infinity"), "\"-Infinity\""),
            (Shape::Bool, Cell::Text(b"t"), "true"),
            (Shape::Bool, Cell::Text(b"f"), "false"),
            (Shape::Bool, Cell::Text(b"x"), "\"x\""),
            (Shape::Json, Cell::Text(b"{\n\"a\":\r\n1}"), "{ \"a\":  1}"),
            (Shape::Json, Cell::Text(b""), "\"\""),
            (Shape::Text, Cell::Text(b"a\"b\n"), "\"a\\\"b\\n\""),
            (Shape::Text, Cell::Integer(9_007_199_254_740_992), "9007199254740992"),
            (Shape::Text, Cell::Integer(-9_007_199_254_740_993), "\"-9007199254740993\""),
            (Shape::Text, Cell::Integer(i64::MIN), "\"-9223372036854775808\""),
            (Shape::Text, Cell::Real(1.0), "1.0"),
            (Shape::Text, Cell::Real(-1e300), "-1e300"),
            (Shape::Text, Cell::Real(f64::INFINITY), "\"Infinity\""),
            (Shape::Text, Cell::Real(f64::NEG_INFINITY), "\"-Infinity\""),
            (Shape::Text, Cell::Blob(&[0, 255, 16]), "\"\\\\x00ff10\""),
        ] {
            assert_eq!(written(&shape, cell), form, "{shape:?} {cell:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_are_told_as_serde_tells_them(text in "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?|[-+.eE0-9N]{0,6}") {
            // Skipping a value, serde reads its grammar alone: `1e310` is a number, though none that a double can hold.
            let value = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert_eq!(is_number(text.as_bytes()), value.is_ok(), "{}", text);
        }

        #[test]
        fn every_cell_is_json(bytes in prop::collection::vec(any::<u8>(), 0..40), shape in 0..5_usize) {
            let array = Shape::Array(Box::new(Shape::Number), b',');
            let shape = [Shape::Number, Shape::Float, Shape::Bool, Shape::Text, array][shape].clone();
            let out = written(&shape, Cell::Text(&bytes));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
        }

        #[test]
        fn floats_round_trip(number in any::<f64>()) {
            let out = written(&Shape::Text, Cell::Real(number));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
            match out.parse::<f64>() {
                Ok(read) => prop_assert_eq!(read.to_bits(), number.to_bits()),
                Err(_) => prop_assert!(!number.is_finite()),
            }
        }
    }
}
