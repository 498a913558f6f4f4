//! What is read here of strangers' bytes, for [`crate::fuzz`].

pub use super::{
    neon::fuzzed::{connection_string, neon_body},
    tunnel::fuzzed::{tunnel_frames, tunnel_startup},
};
use super::{request, value::Cells};
use crate::backend::{Cell, Shape};

/// Statements in a batch.
const MOST: usize = 16;

/// A request's body in the `json` dialect: what is taken is JSON, and no more than is allowed; what is refused is the caller's
/// mistake.
pub fn json_body(bytes: &[u8]) {
    match request::parse(bytes, MOST) {
        Ok(wish) => {
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok());
            assert!(wish.asks.len() <= MOST);
        }
        Err(problem) => assert_eq!(problem.status, http::StatusCode::BAD_REQUEST),
    }
}

/// A database's text of a value, the first byte of which says of what type it is: whatever it holds, what goes out is JSON.
pub fn cells(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let shapes = [Shape::Number, Shape::Float, Shape::Bool, Shape::Text];
    let shape = shapes[usize::from(kind % 4)].clone();
    let shape =
        if kind & 4 == 0 { shape } else { Shape::Array(Box::new(shape), if kind & 8 == 0 { b',' } else { b';' }) };
    let mut out = Vec::new();
    Cells::default().cell(&mut out, &shape, Cell::Text(text));
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
}
