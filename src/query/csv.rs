//! An answer as comma-separated values (RFC 4180): a line with the columns' names, and a line for each row.
//!
//! Values are the database's own text and nothing else. NULL is an empty field, an empty string `""`, so that they can be told
//! apart by who looks (PostgreSQL's `COPY … CSV` reads them back as they were). A field is quoted where its text asks for it.
//! What a spreadsheet takes for a formula stays as it is: a number or a name that begins with `-`, `+`, `=` or `@` would not come
//! back as it went in.

use http::HeaderValue;
use memchr::{memchr, memchr3};

use super::{
    problem::Problem,
    value,
    writer::{Sheet, Writer},
};
use crate::backend::{Cell, Columns, Row};

/// One result. Its command and count have no place in it.
pub(super) struct Csv {
    sheet: Sheet,
}

impl Csv {
    pub(super) fn new() -> Self {
        Self { sheet: Sheet::new() }
    }
}

impl Writer for Csv {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("text/csv; charset=utf-8; header=present")
    }

    fn columns(&mut self, columns: &Columns) {
        let out = &mut self.sheet.out;
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            text(out, column.name.as_bytes());
        }
        if !columns.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn row(&mut self, row: &dyn Row) {
        let out = &mut self.sheet.out;
        let mut first = true;
        row.cells(&mut |cell| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            field(out, cell);
        });
        out.extend_from_slice(b"\r\n");
    }

    fn complete(&mut self, _: &str, _: Option<u64>) {}

    fn end(&mut self) {}

    fn failed(&mut self, _: Problem) -> bool {
        false
    }

    fn sheet(&mut self) -> &mut Sheet {
        &mut self.sheet
    }
}

fn field(out: &mut Vec<u8>, cell: Cell<'_>) {
    match cell {
        Cell::Null => {}
        Cell::Text(bytes) => text(out, bytes),
        Cell::Integer(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Cell::Real(number) => value::bare_real(out, number),
        Cell::Blob(bytes) => value::hex(out, bytes),
    }
}

/// Appends a text. What is not UTF-8 becomes U+FFFD, as in JSON.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_ascii() || std::str::from_utf8(text).is_ok() {
        valid(out, text);
    } else {
        valid(out, String::from_utf8_lossy(text).as_bytes());
    }
}

fn valid(out: &mut Vec<u8>, text: &[u8]) {
    // `\.` alone on a line ends the data for PostgreSQL before 18.
    let quotes = text.is_empty()
        || text == b"\\."
        || memchr3(b'"', b',', b'\n', text).is_some()
        || memchr(b'\r', text).is_some();
    if !quotes {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=at]);
        out.push(b'"');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Cells(Vec<Option<Vec<u8>>>);

    impl Row for Cells {
        fn cells(&self, each: &mut dyn FnMut(Cell<'_>)) {
            for cell in &self.0 {
                each(cell.as_deref().map_or(Cell::Null, Cell::Text));
            }
        }
    }

    fn written(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut csv = Csv::new();
        for row in rows {
            csv.row(&Cells(row.clone()));
        }
        std::mem::take(&mut csv.sheet.out)
    }

    /// RFC 4180's grammar and no more; an empty field that is not quoted is none.
    fn read(mut text: &[u8]) -> Result<Vec<Vec<Option<Vec<u8>>>>, String> {
        let (mut records, mut record) = (Vec::new(), Vec::new());
        while !text.is_empty() {
            let (field, rest) = if text[0] == b'"' { quoted(&text[1..])? } else { bare(text)? };
            record.push(field);
            text = match rest {
                [b',', rest @ ..] => rest,
                [b'\r', b'\n', rest @ ..] => {
                    records.push(std::mem::take(&mut record));
                    rest
                }
                _ => return Err(format!("neither a comma nor a line's end: {:?}", String::from_utf8_lossy(rest))),
            };
            // A comma is always followed by a field.
            if text.is_empty() && !record.is_empty() {
                return Err("a record without an end".into());
            }
        }
        Ok(records)
    }

    type Field<'a> = (Option<Vec<u8>>, &'a [u8]);

    fn quoted(text: &[u8]) -> Result<Field<'_>, String> {
        let mut field = Vec::new();
        let mut at = 0;
        loop {
            match text.get(at..) {
                Some([b'"', b'"', ..]) => {
                    field.push(b'"');
                    at += 2;
                }
                Some([b'"', rest @ ..]) => return Ok((Some(field), rest)),
                Some([byte, ..]) => {
                    field.push(*byte);
                    at += 1;
                }
                _ => return Err("a quote that does not end".into()),
            }
        }
    }

    fn bare(text: &[u8]) -> Result<Field<'_>, String> {
        let end = text.iter().position(|byte| matches!(byte, b',' | b'\r' | b'\n')).ok_or("a field without an end")?;
        if text[..end].contains(&b'"') {
            return Err("a quote inside a bare field".into());
        }
        Ok(((end > 0).then(|| text[..end].to_vec()), &text[end..]))
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let row = [
            None,
            Some(""),
            Some("a b"),
            Some("a,b"),
            Some("a\"b"),
            Some("a\nb"),
            Some("\r"),
            Some("=1+1"),
            Some("\\."),
        ];
        let row = row.map(|text| text.map(|text| text.as_bytes().to_vec())).to_vec();
        let expected = ",\"\",a b,\"a,b\",\"a\"\"b\",\"a\nb\",\"\r\",=1+1,\"\\.\"\r\n";
        assert_eq!(String::from_utf8(written(&[row])).unwrap(), expected);
        let mut out = Vec::new();
        for cell in [Cell::Integer(i64::MIN), Cell::Real(1.5), Cell::Real(f64::NEG_INFINITY), Cell::Blob(&[0, 255])] {
            field(&mut out, cell);
            out.push(b'|');
        }
        assert_eq!(out, br"-9223372036854775808|1.5|-Infinity|\x00ff|");
        assert_eq!(written(&[vec![Some(b"a\xff".to_vec())]]), "a\u{fffd}\r\n".as_bytes());
    }

    #[test]
    fn the_reader_of_these_tests_is_strict() {
        for bad in ["a", "a,", "\"a", "a\"b\r\n", "\"a\"b\r\n", "a\n", "a\rb\r\n"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn rows_come_back_from_a_strict_reader(
            rows in (1..4_usize).prop_flat_map(|columns| prop::collection::vec(
                prop::collection::vec(prop::option::of("[a\",\r\n;=é 😀\\\\.]{0,6}"), columns), 0..8,
            )),
        ) {
            let rows: Vec<Vec<Option<Vec<u8>>>> =
                rows.into_iter().map(|row| row.into_iter().map(|cell| cell.map(String::into_bytes)).collect()).collect();
            prop_assert_eq!(read(&written(&rows)), Ok(rows));
        }

        #[test]
        fn any_bytes_make_a_record_of_utf8(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let out = written(&[vec![Some(bytes), None]]);
            prop_assert_eq!(read(&out).map(|records| records.len()), Ok(1));
            prop_assert!(String::from_utf8(out).is_ok());
        }
    }
}
