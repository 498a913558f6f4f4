//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): a `traceparent` is passed on with a span of ours, or begun.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header's name.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A trace that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace's id; never zero.
    pub trace_id: u128,
    /// The id of our span in it; never zero.
    pub span_id: u64,
    /// Flags: bit 0 is "sampled".
    pub flags: u8,
}

impl Trace {
    /// Goes on with the request's trace, or begins one that is not sampled.
    pub fn of(headers: &HeaderMap) -> Self {
        let parent = headers.get(TRACEPARENT).and_then(|value| parse(value.as_bytes()));
        match parent {
            Some((trace_id, flags)) => Self { trace_id, span_id: fresh64(), flags },
            None => {
                Self { trace_id: u128::from(fresh64()) << 64 | u128::from(fresh64()), span_id: fresh64(), flags: 0 }
            }
        }
    }

    /// The header that the next server gets.
    pub fn header(&self) -> HeaderValue {
        let mut text = [0_u8; 55];
        text[..3].copy_from_slice(b"00-");
        hex(&mut text[3..35], &self.trace_id.to_be_bytes());
        text[35] = b'-';
        hex(&mut text[36..52], &self.span_id.to_be_bytes());
        text[52] = b'-';
        hex(&mut text[53..], &[self.flags]);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes make a header value")
    }
}

/// Writes `bytes` into `out` as lower-case hexadecimal; `out` is twice as long.
pub(crate) fn hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn fresh64() -> u64 {
    loop {
        let id = rand::random::<u64>();
        if id != 0 {
            return id;
        }
    }
}

/// `version "-" trace-id "-" parent-id "-" flags`; a later version may go on after another dash.
fn parse(text: &[u8]) -> Option<(u128, u8)> {
    let version = hex_value(text.get(..2)?)?;
    let well_formed = text.get(2) == Some(&b'-') && text.get(35) == Some(&b'-') && text.get(52) == Some(&b'-');
    let length_fits = if version == 0 { text.len() == 55 } else { text.len() == 55 || text.get(55) == Some(&b'-') };
    if version == 0xff || !well_formed || !length_fits {
        return None;
    }
    let trace_id = hex_value(text.get(3..35)?)?;
    let parent_id = hex_value(text.get(36..52)?)?;
    let flags = hex_value(text.get(53..55)?)? as u8;
    (trace_id != 0 && parent_id != 0).then_some((trace_id, flags & 1))
}

fn hex_value(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |value, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(nibble))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, text.parse().unwrap());
        headers
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_ours() {
        let trace = Trace::of(&headers("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert_eq!(trace.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(trace.flags, 1);
        let next = trace.header();
        let next = next.to_str().unwrap();
        assert!(next.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(!next.contains("00f067aa0ba902b7"));
        assert_eq!(Trace::of(&headers(next)).trace_id, trace.trace_id);
    }

    #[test]
    fn a_malformed_parent_begins_a_new_trace() {
        for text in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(Trace::of(&headers(text)).flags, 0, "{text}");
            assert_ne!(Trace::of(&headers(text)).trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
