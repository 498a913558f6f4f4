//! An answer as one JSON document.

use http::HeaderValue;

use super::{
    escape::string,
    problem::Problem,
    table::Table,
    writer::{Sheet, Writer},
};
use crate::backend::{Columns, Row};

/// `{"columns":…,"rows":…,"command":…,"row_count":…}`, or for a batch `{"results":[…]}` of such ones.
pub(super) struct Document {
    sheet: Sheet,
    batch: bool,
    /// Whether the next result, and the next row, is the first.
    first_result: bool,
    first_row: bool,
    table: Table,
}

impl Document {
    /// Of one statement.
    pub(super) fn single() -> Self {
        Self { sheet: Sheet::new(), batch: false, first_result: true, first_row: true, table: Table::default() }
    }

    /// Of the statements of a batch.
    pub(super) fn batch() -> Self {
        let mut document = Self { batch: true, ..Self::single() };
        document.sheet.out.extend_from_slice(b"{\"results\":[");
        document
    }
}

impl Writer for Document {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("application/json")
    }

    fn columns(&mut self, columns: &Columns) {
        let out = &mut self.sheet.out;
        if self.batch && !self.first_result {
            out.push(b',');
        }
        (self.first_result, self.first_row) = (false, true);
        out.extend_from_slice(b"{\"columns\":");
        self.table.columns(out, columns);
        out.extend_from_slice(b",\"rows\":[");
    }

    fn row(&mut self, row: &dyn Row) {
        if !self.first_row {
            self.sheet.out.push(b',');
        }
        self.first_row = false;
        self.table.row(&mut self.sheet.out, row);
    }

    fn complete(&mut self, command: &str, row_count: Option<u64>) {
        self.sheet.out.extend_from_slice(b"],");
        ending(&mut self.sheet.out, command, row_count);
        self.sheet.out.push(b'}');
    }

    fn end(&mut self) {
        if self.batch {
            self.sheet.out.extend_from_slice(b"]}");
        }
    }

    fn failed(&mut self, _: Problem) -> bool {
        false
    }

    fn sheet(&mut self) -> &mut Sheet {
        &mut self.sheet
    }
}

/// Appends `"command":…,"row_count":…`.
pub(super) fn ending(out: &mut Vec<u8>, command: &str, row_count: Option<u64>) {
    out.extend_from_slice(b"\"command\":");
    string(out, command.as_bytes());
    out.extend_from_slice(b",\"row_count\":");
    match row_count {
        Some(count) => out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}
