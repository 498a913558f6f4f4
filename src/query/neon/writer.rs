//! The answer: `{"fields", "rows", "command", "rowCount", "rowAsArray"}`, of a batch such in `{"results": […]}`. The keys stand in
//! this order, so that it can be written while the rows come.

use http::HeaderValue;

use crate::{
    backend::{Cell, Column, Columns, Rendering, Row, Shape},
    query::{
        escape::string,
        problem::Problem,
        value::Cells,
        writer::{Sheet, Writer},
    },
};

/// OID of `oid`, which the drivers take as text, though it is a number.
const OID: u32 = 26;
/// OID of `oid[]`.
const OIDS: u32 = 1028;

/// An answer in the `neon` dialect.
pub(super) struct Results {
    sheet: Sheet,
    batch: bool,
    raw: bool,
    /// Whether rows are lists, query by query.
    arrays: Box<[bool]>,
    /// Results begun.
    begun: usize,
    first_row: bool,
    /// Of the columns; none where values are text.
    shapes: Vec<Shape>,
    /// The columns' names as keys of an object, and where each ends; none where rows are lists.
    keys: Vec<u8>,
    ends: Vec<usize>,
    cells: Cells,
}

impl Results {
    /// Of one query. `raw`: values are PostgreSQL's text; `array`: rows are lists.
    pub(super) fn single(raw: bool, array: bool) -> Self {
        Self::new(false, raw, Box::new([array]))
    }

    /// Of a batch, each query of which says whether its rows are lists.
    pub(super) fn batch(raw: bool, arrays: Box<[bool]>) -> Self {
        let mut results = Self::new(true, raw, arrays);
        results.sheet.out.extend_from_slice(b"{\"results\":[");
        results
    }

    fn new(batch: bool, raw: bool, arrays: Box<[bool]>) -> Self {
        Self {
            sheet: Sheet::new(),
            batch,
            raw,
            arrays,
            begun: 0,
            first_row: true,
            shapes: Vec::new(),
            keys: Vec::new(),
            ends: Vec::new(),
            cells: Cells::default(),
        }
    }

    /// Whether the rows of the current result are lists.
    fn array(&self) -> bool {
        self.begun.checked_sub(1).and_then(|current| self.arrays.get(current)).copied().unwrap_or_default()
    }

    fn keys(&mut self, columns: &[Column]) {
        for column in columns {
            string(&mut self.keys, column.name.as_bytes());
            self.keys.push(b':');
            self.ends.push(self.keys.len());
        }
    }
}

impl Writer for Results {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("application/json")
    }

    fn columns(&mut self, columns: &Columns) {
        if self.begun > 0 {
            self.sheet.out.push(b',');
        }
        self.begun += 1;
        self.first_row = true;
        self.shapes.clear();
        self.keys.clear();
        self.ends.clear();
        if !self.raw {
            self.shapes.extend(columns.iter().map(shape));
        }
        if !self.array() {
            self.keys(columns);
        }
        self.sheet.out.extend_from_slice(columns.rendered(Rendering::Neon, head));
    }

    fn row(&mut self, row: &dyn Row) {
        let array = self.array();
        let Self { sheet: Sheet { out, .. }, raw, shapes, keys, ends, cells, .. } = self;
        if !std::mem::replace(&mut self.first_row, false) {
            out.push(b',');
        }
        out.push(if array { b'[' } else { b'{' });
        let (mut index, mut key) = (0, 0);
        row.cells(&mut |cell| {
            if index > 0 {
                out.push(b',');
            }
            if let Some(&end) = ends.get(index) {
                out.extend_from_slice(&keys[key..end]);
                key = end;
            }
            match cell {
                Cell::Text(text) if *raw => string(out, text),
                cell => cells.cell(out, shapes.get(index).unwrap_or(&Shape::Text), cell),
            }
            index += 1;
        });
        out.push(if array { b']' } else { b'}' });
    }

    fn complete(&mut self, command: &str, row_count: Option<u64>) {
        let array = self.array();
        let out = &mut self.sheet.out;
        out.extend_from_slice(b"],\"command\":");
        string(out, command.split(' ').next().unwrap_or_default().as_bytes());
        out.extend_from_slice(b",\"rowCount\":");
        match row_count {
            Some(count) => out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"rowAsArray\":");
        out.extend_from_slice(if array { b"true}" } else { b"false}" });
    }

    fn end(&mut self) {
        if self.batch {
            self.sheet.out.extend_from_slice(b"]}");
        }
    }

    /// Half a document is no document: that is how the driver knows.
    fn failed(&mut self, _problem: Problem) -> bool {
        false
    }

    fn sheet(&mut self) -> &mut Sheet {
        &mut self.sheet
    }
}

/// What a result begins with.
fn head(columns: &[Column], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"fields\":[");
    let mut digits = itoa::Buffer::new();
    for (index, Column { name, origin, .. }) in columns.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
        string(out, name.as_bytes());
        for (key, number) in [
            ("dataTypeID", i64::from(origin.type_id)),
            ("tableID", i64::from(origin.table_id)),
            ("columnID", i64::from(origin.column_id)),
            ("dataTypeSize", i64::from(origin.size)),
            ("dataTypeModifier", i64::from(origin.modifier)),
        ] {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(digits.format(number).as_bytes());
        }
        out.extend_from_slice(b",\"format\":\"text\"}");
    }
    out.extend_from_slice(b"],\"rows\":[");
}

/// How a column's text becomes JSON.
fn shape(column: &Column) -> Shape {
    match (column.origin.type_id, &column.shape) {
        (OID, _) => Shape::Text,
        (OIDS, Shape::Array(_, delimiter)) => Shape::Array(Box::new(Shape::Text), *delimiter),
        (_, shape) => shape.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Origin;

    struct Texts<'a>(&'a [Option<&'a str>]);

    impl Row for Texts<'_> {
        fn cells(&self, each: &mut dyn FnMut(Cell<'_>)) {
            for text in self.0 {
                each(text.map_or(Cell::Null, |text| Cell::Text(text.as_bytes())));
            }
        }
    }

    fn columns(columns: &[(&str, u32, Shape)]) -> Columns {
        let column = |(name, type_id, shape): &(&str, u32, Shape)| Column {
            name: (*name).to_owned(),
            type_name: None,
            shape: shape.clone(),
            origin: Origin { type_id: *type_id, table_id: 16_384, column_id: -1, size: -1, modifier: 1_310_726 },
        };
        columns.iter().map(column).collect()
    }

    fn written(mut results: Results) -> String {
        results.end();
        String::from_utf8(results.sheet.out).unwrap()
    }

    const FIELD: &str =
        r#","tableID":16384,"columnID":-1,"dataTypeSize":-1,"dataTypeModifier":1310726,"format":"text"}"#;

    #[test]
    fn raw_rows_are_lists_of_text() {
        let mut results = Results::single(true, true);
        results.columns(&columns(&[("a", 23, Shape::Number), ("q\"", 16, Shape::Bool)]));
        results.row(&Texts(&[Some("1"), Some("t")]));
        results.row(&Texts(&[None, Some("a\"\n")]));
        results.complete("SELECT", Some(2));
        let expected = format!(
            "{{\"fields\":[{{\"name\":\"a\",\"dataTypeID\":23{FIELD},{{\"name\":\"q\\\"\",\"dataTypeID\":16{FIELD}],{}",
            r#""rows":[["1","t"],[null,"a\"\n"]],"command":"SELECT","rowCount":2,"rowAsArray":true}"#
        );
        assert_eq!(written(results), expected);
    }

    #[test]
    fn typed_rows_are_objects_of_what_json_has() {
        let mut results = Results::single(false, false);
        let numbers = || Shape::Array(Box::new(Shape::Number), b',');
        results.columns(&columns(&[
            ("n", 23, Shape::Number),
            ("o", OID, Shape::Number),
            ("os", OIDS, numbers()),
            ("ns", 1007, numbers()),
            ("b", 16, Shape::Bool),
        ]));
        results.row(&Texts(&[Some("1"), Some("2"), Some("{3}"), Some("{4,NULL}"), Some("f")]));
        results.complete("INSERT", Some(1));
        let text = written(results);
        let (_, rows) = text.split_once("\"rows\":").unwrap();
        let expected = r#"[{"n":1,"o":"2","os":["3"],"ns":[4,null],"b":false}],"command":"INSERT","rowCount":1,"rowAsArray":false}"#;
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_batch_has_a_result_for_each_query_and_each_its_own_rows() {
        let mut results = Results::batch(true, Box::new([false, true, false]));
        results.columns(&columns(&[]));
        results.complete("CREATE TABLE", None);
        for _ in 0..2 {
            results.columns(&columns(&[("a", 25, Shape::Text)]));
            results.row(&Texts(&[Some("x")]));
            results.complete("SELECT", Some(1));
        }
        let field = format!("{{\"name\":\"a\",\"dataTypeID\":25{FIELD}");
        let expected = format!(
            "{{\"results\":[{},{{\"fields\":[{field}],{},{{\"fields\":[{field}],{}]}}",
            r#"{"fields":[],"rows":[],"command":"CREATE","rowCount":null,"rowAsArray":false}"#,
            r#""rows":[["x"]],"command":"SELECT","rowCount":1,"rowAsArray":true}"#,
            r#""rows":[{"a":"x"}],"command":"SELECT","rowCount":1,"rowAsArray":false}"#
        );
        assert_eq!(written(results), expected);
        assert_eq!(written(Results::batch(true, Box::new([]))), r#"{"results":[]}"#);
    }
}
