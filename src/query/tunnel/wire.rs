//! What a PostgreSQL server says, written by us.

use bytes::{BufMut, BytesMut};

use super::startup::Key;
use crate::backend::DatabaseError;

/// How grave an error is: whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Fatal,
}

/// `ErrorResponse`.
pub(super) fn error(severity: Severity, code: &str, message: &str, out: &mut BytesMut) {
    let severity = severity.as_str();
    write(b'E', out, |out| {
        for (kind, text) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)] {
            out.put_u8(kind);
            string(text, out);
        }
        out.put_u8(0);
    });
}

/// An error of the database, as fatal.
pub(super) fn database_error(error: &DatabaseError, out: &mut BytesMut) {
    let code = error.sqlstate.as_deref().unwrap_or("XX000");
    write(b'E', out, |out| {
        let fields = [
            (b'S', Some("FATAL")),
            (b'V', Some("FATAL")),
            (b'C', Some(code)),
            (b'M', Some(error.message.as_str())),
            (b'D', error.detail.as_deref()),
            (b'H', error.hint.as_deref()),
        ];
        for (kind, text) in fields.into_iter().filter_map(|(kind, text)| Some((kind, text?))) {
            out.put_u8(kind);
            string(text, out);
        }
        out.put_u8(0);
    });
}

/// `AuthenticationOk`.
pub(super) fn authenticated(out: &mut BytesMut) {
    authentication(0, &[], out);
}

/// `AuthenticationCleartextPassword`.
pub(super) fn ask_password(out: &mut BytesMut) {
    authentication(3, &[], out);
}

/// `ParameterStatus`.
pub(super) fn parameter(name: &str, value: &str, out: &mut BytesMut) {
    write(b'S', out, |out| {
        string(name, out);
        string(value, out);
    });
}

/// `BackendKeyData`.
pub(super) fn key(key: Key, out: &mut BytesMut) {
    write(b'K', out, |out| {
        out.put_i32(key.process);
        out.put_i32(key.secret);
    });
}

/// `ReadyForQuery`, outside of a transaction.
pub(super) fn ready(out: &mut BytesMut) {
    write(b'Z', out, |out| out.put_u8(b'I'));
}

/// `NegotiateProtocolVersion`: 3.0, and none of these options.
pub(super) fn negotiate(unknown: &[String], out: &mut BytesMut) {
    write(b'v', out, |out| {
        out.put_u32(0);
        out.put_u32(unknown.len() as u32);
        for name in unknown {
            string(name, out);
        }
    });
}

fn authentication(kind: u32, more: &[u8], out: &mut BytesMut) {
    write(b'R', out, |out| {
        out.put_u32(kind);
        out.put_slice(more);
    });
}

fn write(tag: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Ends at the first NUL, which no string of the protocol can hold.
fn string(text: &str, out: &mut BytesMut) {
    out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}
