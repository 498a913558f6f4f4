//! One line: a JSON object, member by member, without the machinery of `fmt`, which would cost more than the rest of the line.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::observe::trace::hex;

/// A line being formatted. It is an object from its making, and whole when it is dropped.
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    clock: &'a mut Clock,
}

/// The last second that was formatted: most lines of a busy worker share it with the line before.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: u64,
    /// `2026-11-21T03:01:37`, once a line has been written.
    text: String,
}

impl<'a> Line<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>, clock: &'a mut Clock) -> Self {
        out.push(b'{');
        Self { out, clock }
    }

    /// A time of day, in UTC, to the millisecond (RFC 3339).
    pub fn time(&mut self, key: &str, at: SystemTime) {
        self.key(key);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let millis = since.subsec_millis();
        let digit = |place| b'0' + (millis / place % 10) as u8;
        self.out.push(b'"');
        self.out.extend_from_slice(self.clock.second(since.as_secs()).as_bytes());
        self.out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1), b'Z', b'"']);
    }

    /// Text, escaped.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.push(b'"');
        escape_into(self.out, value);
        self.out.push(b'"');
    }

    /// A whole number.
    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.digits(value);
    }

    /// Yes or no.
    pub fn truth(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// An address.
    pub fn address(&mut self, key: &str, value: IpAddr) {
        self.key(key);
        self.out.push(b'"');
        self.ip(value);
        self.out.push(b'"');
    }

    /// An address with its port.
    pub fn socket(&mut self, key: &str, value: SocketAddr) {
        self.key(key);
        self.out.push(b'"');
        match value {
            SocketAddr::V4(_) => self.ip(value.ip()),
            SocketAddr::V6(_) => {
                self.out.push(b'[');
                self.ip(value.ip());
                self.out.push(b']');
            }
        }
        self.out.push(b':');
        self.digits(value.port().into());
        self.out.push(b'"');
    }

    /// A number of 128 bits, as 32 hexadecimal digits.
    pub fn id(&mut self, key: &str, value: u128) {
        self.key(key);
        let mut digits = [0; 32];
        hex(&mut digits, &value.to_be_bytes());
        self.out.push(b'"');
        self.out.extend_from_slice(&digits);
        self.out.push(b'"');
    }

    fn key(&mut self, key: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn digits(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn ip(&mut self, value: IpAddr) {
        match value {
            IpAddr::V4(address) => {
                for (place, octet) in address.octets().into_iter().enumerate() {
                    if place > 0 {
                        self.out.push(b'.');
                    }
                    self.digits(octet.into());
                }
            }
            IpAddr::V6(address) => self.out.extend_from_slice(address.to_string().as_bytes()),
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }
}

impl Clock {
    fn second(&mut self, second: u64) -> &str {
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second)).to_string();
            self.text.truncate(self.text.len() - "Z".len());
        }
        &self.text
    }
}

/// Appends `text` as the inside of a JSON string. Control characters and the Unicode controls that reorder text on a
/// terminal are escaped: these bytes come from strangers.
fn escape_into(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(is_plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|character| escape(out, character));
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn escape(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\0'..='\x1f'
        | '\x7f'..='\u{9f}' => {
            let mut digits = [0; 4];
            hex(&mut digits, &(character as u16).to_be_bytes());
            out.extend_from_slice(b"\\u");
            out.extend_from_slice(&digits);
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line(fill: impl Fn(&mut Line<'_>)) -> Value {
        let (mut out, mut clock) = (Vec::new(), Clock::default());
        fill(&mut Line::begin(&mut out, &mut clock));
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    fn escaped(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        escape_into(&mut out, text);
        out
    }

    #[test]
    fn a_line_is_one_object() {
        let line = line(|line| {
            line.time("time", UNIX_EPOCH + Duration::from_millis(1_795_230_097_042));
            line.address("client", "192.0.2.10".parse().unwrap());
            line.socket("peer", "[2001:db8::1]:443".parse().unwrap());
            line.socket("near", "10.0.0.1:80".parse().unwrap());
            line.text("path", "/a?b=\"c\"");
            line.number("bytes", u64::MAX);
            line.truth("complete", false);
            line.id("trace", 0xabc);
        });
        let expected = serde_json::json!({
            "time": "2026-11-21T03:01:37.042Z", "client": "192.0.2.10", "peer": "[2001:db8::1]:443", "near": "10.0.0.1:80",
            "path": "/a?b=\"c\"", "bytes": u64::MAX, "complete": false, "trace": "00000000000000000000000000000abc",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_terminal_is_not_fooled() {
        let out = escaped("a\u{202e}b\x1b[31m\u{85}é");
        assert_eq!(String::from_utf8(out).unwrap(), "a\\u202eb\\u001b[31m\\u0085é");
    }

    proptest! {
        #[test]
        fn any_text_is_valid_json(text: String) {
            let quoted = [b"\"", &*escaped(&text), b"\""].concat();
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
        }

        #[test]
        fn any_time_is_as_a_library_writes_it(millis in 0_u64..4_102_444_800_000, later in 0_u64..3_000) {
            let mut clock = Clock::default();
            for millis in [millis, millis + later] {
                let at = UNIX_EPOCH + Duration::from_millis(millis);
                let mut out = Vec::new();
                Line::begin(&mut out, &mut clock).time("t", at);
                let expected = format!("{{\"t\":\"{}\"}}\n", humantime::format_rfc3339_millis(at));
                prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }
}
