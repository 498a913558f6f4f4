//! Results on their way from the blocking thread to the request: rows packed into one buffer, handed over some 64 KiB at a
//! time, so that neither side allocates for a row.

use rusqlite::types::ValueRef;

use crate::backend::{Cell, Columns, Row};

/// A chunk is handed over when its rows have grown to this.
pub(super) const CHUNK: usize = 64 << 10;

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

/// Some of an execution's results, in order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    items: Vec<Item>,
    rows: Vec<u8>,
}

/// What a chunk tells.
#[derive(Debug)]
pub(super) enum Item {
    /// A result begins.
    Columns(Columns),
    /// So many rows follow.
    Rows(u64),
    /// The result is complete.
    Complete {
        /// `SELECT`, `CREATE TABLE`.
        command: String,
        /// Rows returned or touched.
        row_count: Option<u64>,
    },
}

/// The row does not fit.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Chunk {
    /// Adds anything but a row.
    pub(super) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Adds a row: its length, then each value behind a byte that names its kind. `limit`: bytes that a row may have;
    /// SQLite bounds a value, but a row of thousands of them would fit.
    pub(super) fn row<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>, limit: usize) -> Result<(), TooLarge> {
        let start = self.rows.len();
        self.rows.extend_from_slice(&[0; 4]);
        for value in values {
            match value {
                ValueRef::Null => self.rows.push(NULL),
                ValueRef::Integer(number) => self.fixed(INTEGER, number.to_le_bytes()),
                ValueRef::Real(number) => self.fixed(REAL, number.to_le_bytes()),
                ValueRef::Text(text) => self.bytes(TEXT, text, start.saturating_add(limit))?,
                ValueRef::Blob(bytes) => self.bytes(BLOB, bytes, start.saturating_add(limit))?,
            }
        }
        let length = u32::try_from(self.rows.len() - start - 4).map_err(|_| TooLarge)?;
        self.rows[start..start + 4].copy_from_slice(&length.to_le_bytes());
        match self.items.last_mut() {
            Some(Item::Rows(count)) => *count += 1,
            _ => self.items.push(Item::Rows(1)),
        }
        Ok(())
    }

    /// Whether it is time to hand it over.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK
    }

    fn fixed(&mut self, kind: u8, bytes: [u8; 8]) {
        self.rows.push(kind);
        self.rows.extend_from_slice(&bytes);
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8], end: usize) -> Result<(), TooLarge> {
        let length = u32::try_from(bytes.len()).map_err(|_| TooLarge)?;
        if self.rows.len() + bytes.len() > end {
            return Err(TooLarge);
        }
        self.rows.push(kind);
        self.rows.extend_from_slice(&length.to_le_bytes());
        self.rows.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads a chunk, item by item and row by row. As a [`Row`], it is the row it stands on.
#[derive(Debug, Default)]
pub(super) struct Reader {
    items: std::vec::IntoIter<Item>,
    rows: Vec<u8>,
    rows_left: u64,
    row: std::ops::Range<usize>,
}

/// Where a reader stands.
#[derive(Debug)]
pub(super) enum Step {
    /// On the columns of a result.
    Columns(Columns),
    /// On a row.
    Row,
    /// At the end of a result.
    Complete(String, Option<u64>),
}

impl Reader {
    /// Takes up another chunk.
    pub(super) fn open(&mut self, chunk: Chunk) {
        *self = Self { items: chunk.items.into_iter(), rows: chunk.rows, rows_left: 0, row: 0..0 };
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.rows.capacity()
    }

    /// Goes on to the next step, or says that the chunk is read.
    pub(super) fn advance(&mut self) -> Option<Step> {
        loop {
            if self.rows_left > 0 {
                self.rows_left -= 1;
                let (length, start) = number::<4>(&self.rows, self.row.end)?;
                self.row = start..start + u32::from_le_bytes(length) as usize;
                return Some(Step::Row);
            }
            match self.items.next()? {
                Item::Columns(columns) => return Some(Step::Columns(columns)),
                Item::Rows(count) => self.rows_left = count,
                Item::Complete { command, row_count } => return Some(Step::Complete(command, row_count)),
            }
        }
    }
}

impl Row for Reader {
    fn cells(&self, each: &mut dyn FnMut(Cell<'_>)) {
        let mut rest = self.rows.get(self.row.clone()).unwrap_or_default();
        while let Some((cell, after)) = cell(rest) {
            each(cell);
            rest = after;
        }
    }
}

fn cell(from: &[u8]) -> Option<(Cell<'_>, &[u8])> {
    let (kind, rest) = from.split_first()?;
    match *kind {
        NULL => Some((Cell::Null, rest)),
        INTEGER => rest.split_first_chunk::<8>().map(|(n, rest)| (Cell::Integer(i64::from_le_bytes(*n)), rest)),
        REAL => rest.split_first_chunk::<8>().map(|(n, rest)| (Cell::Real(f64::from_le_bytes(*n)), rest)),
        kind => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((if kind == TEXT { Cell::Text(bytes) } else { Cell::Blob(bytes) }, rest))
        }
    }
}

fn number<const N: usize>(from: &[u8], at: usize) -> Option<([u8; N], usize)> {
    from.get(at..)?.first_chunk::<N>().map(|bytes| (*bytes, at + N))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-1e300_f64..1e300).prop_map(Value::Real),
            ".{0,20}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Blob),
        ]
    }

    fn owned(cell: Cell<'_>) -> Value {
        match cell {
            Cell::Null => Value::Null,
            Cell::Integer(number) => Value::Integer(number),
            Cell::Real(number) => Value::Real(number),
            Cell::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
            Cell::Blob(bytes) => Value::Blob(bytes.to_vec()),
        }
    }

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in(rows in prop::collection::vec(prop::collection::vec(value(), 0..6), 0..8)) {
            let mut chunk = Chunk::default();
            for row in &rows {
                chunk.row(row.iter().map(ValueRef::from), 10_000).unwrap();
            }
            chunk.push(Item::Complete { command: "SELECT".into(), row_count: Some(rows.len() as u64) });
            let mut reader = Reader::default();
            reader.open(chunk);
            for row in &rows {
                prop_assert!(matches!(reader.advance(), Some(Step::Row)));
                let mut got = Vec::new();
                reader.cells(&mut |cell| got.push(owned(cell)));
                prop_assert_eq!(&got, row);
            }
            prop_assert!(matches!(reader.advance(), Some(Step::Complete(..))));
            prop_assert!(reader.advance().is_none());
        }
    }

    #[test]
    fn a_row_has_a_bound() {
        let row = || std::iter::repeat_n(ValueRef::Blob(&[0; 50]), 3);
        assert!(Chunk::default().row(row(), 200).is_ok());
        assert!(Chunk::default().row(row(), 150).is_err());
    }
}
