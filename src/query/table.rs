//! A result's columns and rows in JSON, as both of the `json` dialect's JSON shapes have them.

use super::{escape::string, value::Cells};
use crate::backend::{Column, Columns, Rendering, Row, Shape};

/// What the current result's columns are.
#[derive(Default)]
pub(super) struct Table {
    shapes: Vec<Shape>,
    cells: Cells,
}

impl Table {
    /// A result begins: appends `[{"name":…,"type":…},…]`.
    pub(super) fn columns(&mut self, out: &mut Vec<u8>, columns: &Columns) {
        self.shapes.clear();
        self.shapes.extend(columns.iter().map(|column| column.shape.clone()));
        out.extend_from_slice(columns.rendered(Rendering::Json, describe));
    }

    /// Appends a row of it: `[…]`.
    pub(super) fn row(&mut self, out: &mut Vec<u8>, row: &dyn Row) {
        let (cells, shapes) = (&mut self.cells, &self.shapes);
        let mut index = 0;
        out.push(b'[');
        row.cells(&mut |cell| {
            if index > 0 {
                out.push(b',');
            }
            cells.cell(out, shapes.get(index).unwrap_or(&Shape::Text), cell);
            index += 1;
        });
        out.push(b']');
    }
}

fn describe(columns: &[Column], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, column) in columns.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
        string(out, column.name.as_bytes());
        out.extend_from_slice(b",\"type\":");
        match &column.type_name {
            Some(name) => string(out, name.as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
    }
    out.push(b']');
}
