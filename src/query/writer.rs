//! The shape of an answer, written step by step: one JSON document, or a line for each step (NDJSON).

use bytes::Bytes;
use serde_json::Value;

use super::{escape::string, value::Cells};
use crate::backend::{Column, Row, Shape};

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"columns":…,"rows":…,"command":…,"row_count":…}`
    Single,
    /// `{"results":[…]}`, each as a single one.
    Batch,
    /// `{"columns":…}`, a line for each row, `{"command":…,"row_count":…}`; a batch has that for each statement.
    Lines,
}

/// An answer that is being written.
pub(super) struct Writer {
    form: Form,
    out: Vec<u8>,
    /// Bytes already taken.
    taken: u64,
    /// Rows of all results.
    rows: u64,
    /// Whether the next result, and the next row, is the first.
    first_result: bool,
    first_row: bool,
    shapes: Vec<Shape>,
    cells: Cells,
}

impl Writer {
    pub(super) fn new(form: Form) -> Self {
        let mut out = Vec::with_capacity(1024);
        if form == Form::Batch {
            out.extend_from_slice(b"{\"results\":[");
        }
        let cells = Cells::default();
        Self { form, out, taken: 0, rows: 0, first_result: true, first_row: true, shapes: Vec::new(), cells }
    }

    /// A result begins.
    pub(super) fn columns(&mut self, columns: &[Column]) {
        if self.form == Form::Batch && !self.first_result {
            self.out.push(b',');
        }
        (self.first_result, self.first_row) = (false, true);
        self.shapes.clear();
        self.out.extend_from_slice(b"{\"columns\":[");
        for (index, column) in columns.iter().enumerate() {
            self.shapes.push(column.shape.clone());
            self.out.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
            string(&mut self.out, column.name.as_bytes());
            self.out.extend_from_slice(b",\"type\":");
            match &column.type_name {
                Some(name) => string(&mut self.out, name.as_bytes()),
                None => self.out.extend_from_slice(b"null"),
            }
            self.out.push(b'}');
        }
        self.out.extend_from_slice(if self.form == Form::Lines { b"]}\n" } else { b"],\"rows\":[" });
    }

    /// A row of it.
    pub(super) fn row(&mut self, row: &dyn Row) {
        self.rows += 1;
        if self.form != Form::Lines && !self.first_row {
            self.out.push(b',');
        }
        self.first_row = false;
        self.out.push(b'[');
        let (out, cells, shapes) = (&mut self.out, &mut self.cells, &self.shapes);
        let mut index = 0;
        row.cells(&mut |cell| {
            if index > 0 {
                out.push(b',');
            }
            cells.cell(out, shapes.get(index).unwrap_or(&Shape::Text), cell);
            index += 1;
        });
        self.out.extend_from_slice(if self.form == Form::Lines { b"]\n" } else { b"]" });
    }

    /// The result is complete.
    pub(super) fn complete(&mut self, command: &str, row_count: Option<u64>) {
        self.out.extend_from_slice(if self.form == Form::Lines { b"{\"command\":" } else { b"],\"command\":" });
        string(&mut self.out, command.as_bytes());
        self.out.extend_from_slice(b",\"row_count\":");
        match row_count {
            Some(count) => self.out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes()),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.extend_from_slice(if self.form == Form::Lines { b"}\n" } else { b"}" });
    }

    /// All is done.
    pub(super) fn end(&mut self) {
        if self.form == Form::Batch {
            self.out.extend_from_slice(b"]}");
        }
    }

    /// The last line of an answer that went wrong.
    pub(super) fn error_line(&mut self, problem: Value) {
        self.out.extend_from_slice(&error_line(problem));
    }

    /// Forgets what was written since so many bytes waited.
    pub(super) fn back_to(&mut self, waiting: usize) {
        self.out.truncate(waiting);
    }

    /// Bytes that wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.taken + self.out.len() as u64
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes what is written. `next`: about how much will come before it is taken again.
    pub(super) fn take(&mut self, next: usize) -> Bytes {
        self.taken += self.out.len() as u64;
        std::mem::replace(&mut self.out, Vec::with_capacity(next)).into()
    }
}

/// The last line of an answer in lines that went wrong.
pub(super) fn error_line(problem: Value) -> Bytes {
    let mut line = serde_json::json!({ "error": problem }).to_string();
    line.push('\n');
    line.into()
}
