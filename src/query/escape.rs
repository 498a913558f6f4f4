//! JSON strings (RFC 8259 section 7), written fast: most cells of a result need no escape at all, so the text is looked at in
//! blocks that the compiler turns into vector instructions, and copied in runs.

/// Bytes looked at together. A multiple of every vector register; a longer block finds its escapes again byte by byte.
const BLOCK: usize = 32;

/// What a byte becomes: 0 itself, `u` a `\u00XX`, anything else that letter behind a backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0c] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

pub(super) const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as a JSON string. What is not UTF-8 becomes U+FFFD.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if text.is_ascii() || std::str::from_utf8(text).is_ok() {
        escape(out, text);
    } else {
        for chunk in text.utf8_chunks() {
            escape(out, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// Appends the inside of a JSON string.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut run = Run { out, text, copied: 0 };
    let mut at = 0;
    while let Some(block) = text[at..].first_chunk::<BLOCK>() {
        if !is_plain(block) {
            for start in (at..at + BLOCK).step_by(8) {
                run.word(start);
            }
        }
        at += BLOCK;
    }
    while at + 8 <= text.len() {
        run.word(at);
        at += 8;
    }
    for rest in at..text.len() {
        if ESCAPES[usize::from(text[rest])] != 0 {
            run.escape(rest);
        }
    }
    run.out.extend_from_slice(&text[run.copied..]);
}

/// Whether a block needs no escape. Without a branch for each byte, so that it is vectorised.
fn is_plain(block: &[u8; BLOCK]) -> bool {
    let special = |byte: u8| u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    block.iter().fold(0, |found, byte| found | special(*byte)) == 0
}

/// Bit 7 of every byte that needs an escape ("Bit Twiddling Hacks": the exact test for zero bytes).
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const LOW: u64 = ONES * 0x7f;
    let zero = |word: u64| !(((word & LOW) + LOW) | word | LOW);
    zero(word & (ONES * 0xe0)) | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c))
}

/// A text on its way: what lies before `copied` is written.
struct Run<'a> {
    out: &'a mut Vec<u8>,
    text: &'a [u8],
    copied: usize,
}

impl Run<'_> {
    fn word(&mut self, start: usize) {
        let Some(word) = self.text[start..].first_chunk::<8>() else { return };
        let mut found = specials(u64::from_le_bytes(*word));
        while found != 0 {
            self.escape(start + found.trailing_zeros() as usize / 8);
            found &= found - 1;
        }
    }

    fn escape(&mut self, at: usize) {
        self.out.extend_from_slice(&self.text[self.copied..at]);
        self.copied = at + 1;
        let byte = self.text[at];
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
            letter => self.out.extend_from_slice(&[b'\\', letter]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> String {
        let mut out = b"before".to_vec();
        string(&mut out, text);
        serde_json::from_slice(&out[6..]).unwrap()
    }

    #[test]
    fn every_byte_round_trips_at_every_place() {
        for byte in 0..0x80_u8 {
            for place in 0..70 {
                let mut text = vec![b'x'; 70];
                text[place] = byte;
                assert_eq!(read(&text).as_bytes(), text, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(read(b"a\xff\"b\xc3"), "a\u{fffd}\"b\u{fffd}");
        assert_eq!(read("grün".as_bytes()), "grün");
    }

    proptest! {
        #[test]
        fn any_text_round_trips(text in "[\\x00-\\x7fäöü€😀\"\\\\]{0,100}") {
            prop_assert_eq!(read(text.as_bytes()), text);
        }

        #[test]
        fn any_bytes_become_a_string(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(read(&bytes), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn specials_are_exact(word in any::<u64>()) {
            let bytes = word.to_le_bytes();
            for (lane, byte) in bytes.iter().enumerate() {
                prop_assert_eq!((specials(word) >> (lane * 8)) & 0xff == 0x80, ESCAPES[usize::from(*byte)] != 0);
            }
        }
    }
}
