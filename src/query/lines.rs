//! An answer as lines, each a JSON document (NDJSON).

use http::HeaderValue;

use super::{
    document::ending,
    problem::Problem,
    table::Table,
    writer::{Sheet, Writer},
};
use crate::backend::{Columns, Row};

/// `{"columns":…}`, a line for each row, `{"command":…,"row_count":…}`; a batch has that for each statement.
pub(super) struct Lines {
    sheet: Sheet,
    table: Table,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { sheet: Sheet::new(), table: Table::default() }
    }
}

impl Writer for Lines {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("application/x-ndjson")
    }

    fn columns(&mut self, columns: &Columns) {
        let out = &mut self.sheet.out;
        out.extend_from_slice(b"{\"columns\":");
        self.table.columns(out, columns);
        out.extend_from_slice(b"}\n");
    }

    fn row(&mut self, row: &dyn Row) {
        self.table.row(&mut self.sheet.out, row);
        self.sheet.out.push(b'\n');
    }

    fn complete(&mut self, command: &str, row_count: Option<u64>) {
        let out = &mut self.sheet.out;
        out.push(b'{');
        ending(out, command, row_count);
        out.extend_from_slice(b"}\n");
    }

    fn end(&mut self) {}

    /// A last line that says why there are no more.
    fn failed(&mut self, problem: Problem) -> bool {
        let line = serde_json::json!({ "error": problem.into_object() }).to_string();
        self.sheet.out.extend_from_slice(line.as_bytes());
        self.sheet.out.push(b'\n');
        true
    }

    fn sheet(&mut self) -> &mut Sheet {
        &mut self.sheet
    }
}
