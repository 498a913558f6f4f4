//! Bodies of the server's messages, read in place.

use super::{failure::Violation, types::TypeId};
use crate::backend::{error::DatabaseError, work::Origin};

/// Reads an `ErrorResponse` or a `NoticeResponse`. Unknown fields are passed over, as the protocol asks.
pub(super) fn error(body: &[u8]) -> DatabaseError {
    let mut error = DatabaseError::default();
    let mut severity = None;
    for field in body.split(|b| *b == 0) {
        let Some((kind, value)) = field.split_first() else { break };
        let text = String::from_utf8_lossy(value).into_owned();
        let slot = match kind {
            b'S' => &mut severity,
            b'V' => &mut error.severity,
            b'C' => &mut error.sqlstate,
            b'D' => &mut error.detail,
            b'H' => &mut error.hint,
            b'q' => &mut error.internal_query,
            b'W' => &mut error.context,
            b's' => &mut error.schema,
            b't' => &mut error.table,
            b'c' => &mut error.column,
            b'd' => &mut error.data_type,
            b'n' => &mut error.constraint,
            b'F' => &mut error.file,
            b'L' => &mut error.line,
            b'R' => &mut error.routine,
            other => {
                match other {
                    b'M' => error.message = text,
                    b'P' => error.position = text.parse().ok(),
                    b'p' => error.internal_position = text.parse().ok(),
                    _ => {}
                }
                continue;
            }
        };
        *slot = Some(text);
    }
    // `V` is `S` untranslated; servers before 9.6 have `S` alone.
    error.severity = error.severity.or(severity);
    error
}

/// Takes the name that we gave to a statement out of a complaint about the count of its parameters, whatever language that is in: to
/// its caller it has none, and the text is the same whether it was prepared already or not.
pub(super) fn unname(error: &mut DatabaseError) {
    if error.sqlstate.as_deref() != Some("08P01") || error.routine.as_deref() != Some("exec_bind_message") {
        return;
    }
    let digits = |at: usize| error.message[at..].bytes().take_while(u8::is_ascii_digit).count();
    let names = error.message.match_indices("sg").map(|(at, _)| at..at + 2 + digits(at + 2));
    if let Some(name) = names.filter(|name| name.len() > 2).last() {
        error.message.replace_range(name, "");
    }
}

/// Whether the server ends the session with this error.
pub(super) fn is_fatal(error: &DatabaseError) -> bool {
    matches!(error.severity.as_deref(), Some("FATAL" | "PANIC"))
}

/// A column, as `RowDescription` tells of it.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) origin: Origin,
}

impl Field {
    pub(super) fn type_id(&self) -> TypeId {
        TypeId { oid: self.origin.type_id, modifier: self.origin.modifier }
    }
}

/// Reads a `RowDescription`.
pub(super) fn fields(body: &[u8]) -> Result<Vec<Field>, Violation> {
    let short = Violation("a row description is cut short");
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or(short)?;
    let count = usize::from(u16::from_be_bytes(*count));
    let mut fields = Vec::with_capacity(count.min(2048));
    for _ in 0..count {
        let (name, after) = cstr(rest).ok_or(short)?;
        // table (4), column (2), type (4), size (2), modifier (4), format (2)
        let (numbers, after) = after.split_first_chunk::<18>().ok_or(short)?;
        let word = |at: usize| [numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]];
        let half = |at: usize| i16::from_be_bytes([numbers[at], numbers[at + 1]]);
        let origin = Origin {
            table_id: u32::from_be_bytes(word(0)),
            column_id: half(4),
            type_id: u32::from_be_bytes(word(6)),
            size: half(10),
            modifier: i32::from_be_bytes(word(12)),
        };
        fields.push(Field { name: String::from_utf8_lossy(name).into_owned(), origin });
        rest = after;
    }
    if rest.is_empty() { Ok(fields) } else { Err(Violation("a row description is too long")) }
}

/// Reads a `ParameterStatus`: name and value.
pub(super) fn parameter(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = cstr(body)?;
    let (value, _) = cstr(rest)?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

/// Splits a command tag into its words and its count of rows: `INSERT 0 5` is `INSERT` and 5.
pub(super) fn tag(body: &[u8]) -> (&str, Option<u64>) {
    let text = cstr(body).and_then(|(text, _)| std::str::from_utf8(text).ok()).unwrap_or_default();
    let command = text.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let count = text[command.len()..].rsplit(' ').next().and_then(|count| count.parse().ok());
    (command, count)
}

fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_split_into_words_and_count() {
        for (text, expected) in [
            ("SELECT 3", ("SELECT", Some(3))),
            ("INSERT 0 5", ("INSERT", Some(5))),
            ("CREATE TABLE", ("CREATE TABLE", None)),
            ("COPY 12", ("COPY", Some(12))),
            ("", ("", None)),
        ] {
            assert_eq!(tag(format!("{text}\0").as_bytes()), expected);
        }
    }

    #[test]
    fn an_old_servers_severity_is_taken_as_it_is() {
        assert_eq!(error(b"SERROR\0C42601\0Msyntax\0\0").severity.as_deref(), Some("ERROR"));
        let error = error(b"SFEHLER\0VERROR\0C42601\0Msyntax\0P8\0ZX\0\0");
        assert_eq!((error.severity.as_deref(), error.position), (Some("ERROR"), Some(8)));
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = error(&noise);
            let _ = fields(&noise);
            let _ = parameter(&noise);
            let _ = tag(&noise);
        }
    }
}
