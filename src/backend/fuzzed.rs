//! What is read here of strangers' bytes, for [`crate::fuzz`].

use super::{fingerprint, lex};

pub use super::postgres::fuzzed::server_messages;

/// A statement's text: what it is logged as, and what its words tell. Both are of bounded length.
pub fn sql(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let shown = fingerprint(&text);
    assert!(shown.len() <= 4 * text.len() + 64, "a fingerprint is no longer than its text: {shown}");
    let words = lex::first_words::<3>(&text);
    assert!(words.iter().all(|word| word.len() <= 3 * text.len()));
    super::postgres::fuzzed::traits(&text);
}
