//! What an answer is written by, whatever its shape.

use bytes::Bytes;
use http::HeaderValue;

use super::problem::Problem;
use crate::backend::{Columns, Row};

/// One shape of an answer, written step by step into a [`Sheet`]. Steps come in the order that
/// [`crate::backend::Event`] has them. What is written between two steps is never sent by itself, and a step that makes the
/// answer too long is taken back.
pub(super) trait Writer: Send + 'static {
    /// The answer's `Content-Type`.
    fn content_type(&self) -> HeaderValue;
    /// A result begins.
    fn columns(&mut self, columns: &Columns);
    /// A row of it. [`super::stream::respond`] counts it.
    fn row(&mut self, row: &dyn Row);
    /// The result is complete.
    fn complete(&mut self, command: &str, row_count: Option<u64>);
    /// All is done.
    fn end(&mut self);
    /// Something went wrong behind the head. True: the shape can tell it in its last bytes, and they are written. False: the
    /// body must break off.
    fn failed(&mut self, problem: Problem) -> bool;
    /// Where it is written.
    fn sheet(&mut self) -> &mut Sheet;
}

/// What is written of an answer and waits to be taken, and what was taken of it.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    /// What waits.
    pub(super) out: Vec<u8>,
    /// Bytes already taken.
    taken: u64,
    /// Rows of all results.
    pub(super) rows: u64,
}

impl Sheet {
    /// With room for a small answer.
    pub(super) fn new() -> Self {
        Self { out: Vec::with_capacity(1024), taken: 0, rows: 0 }
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

    /// Takes what is written. `next`: about how much will come before it is taken again.
    pub(super) fn take(&mut self, next: usize) -> Bytes {
        self.taken += self.out.len() as u64;
        std::mem::replace(&mut self.out, Vec::with_capacity(next)).into()
    }
}
