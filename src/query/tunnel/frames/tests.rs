//! Frames as any client may write them.

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{Role, WebSocket, WebSocketConfig},
};

use super::*;

const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CONTINUED: u8 = 0x80;
const PING: u8 = 0x89;

/// A masked frame, its length written in one of the three ways.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..65_536 => {
            out.push(0xfe);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0xff);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

/// Everything that is heard of `bytes`, which come in pieces.
fn hear(bytes: &[u8], piece: usize, most: usize) -> Result<(Vec<u8>, Vec<Heard>), Close> {
    let (mut reader, mut raw, mut plain) = (Reader::default(), BytesMut::new(), BytesMut::new());
    let (mut all, mut heard) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        raw.extend_from_slice(piece);
        loop {
            match reader.read(&mut raw, &mut plain, most)? {
                Heard::Nothing => break,
                Heard::Bytes => {
                    assert!(!plain.is_empty() && plain.len() <= most, "bounded, and moving");
                    all.extend_from_slice(&plain.split());
                }
                other => heard.push(other),
            }
        }
        assert!(raw.len() < 150, "what is not whole is short: {}", raw.len());
    }
    Ok((all, heard))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_comes_out_however_it_was_cut(
        messages in prop::collection::vec(
            (prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..4), any::<[u8; 4]>(), any::<bool>()), 0..8,
        ),
        piece in 1..500_usize, most in 1..300_usize,
    ) {
        let (mut wire, mut expected, mut pings) = (Vec::new(), Vec::new(), 0);
        for (parts, mask, ping) in &messages {
            for (at, part) in parts.iter().enumerate() {
                let kind = if at == 0 { BINARY } else { CONTINUED };
                let last = at + 1 == parts.len();
                wire.extend(frame(if last { kind } else { kind & 0x7f }, part, *mask));
                expected.extend_from_slice(part);
                if *ping {
                    wire.extend(frame(PING, b"are you there", *mask));
                    pings += 1;
                }
            }
        }
        let (all, heard) = hear(&wire, piece, most).unwrap();
        prop_assert_eq!(all, expected);
        prop_assert_eq!(heard, (0..pings).map(|_| Heard::Ping(b"are you there".to_vec())).collect::<Vec<_>>());
    }

    #[test]
    fn what_we_write_is_what_a_client_reads(payload in prop::collection::vec(any::<u8>(), 1..70_000)) {
        let mut sealed = BytesMut::zeroed(ROOM);
        sealed.extend_from_slice(&payload);
        seal(&mut sealed);
        pong(b"yes", &mut sealed);
        close(Close::Policy, &mut sealed);
        let stream = Cursor::new(sealed.to_vec());
        let mut client = WebSocket::from_raw_socket(stream, Role::Client, Some(WebSocketConfig::default()));
        prop_assert_eq!(client.read().unwrap().into_data(), payload);
        prop_assert!(client.read().unwrap().is_pong());
        let closed = client.read().unwrap();
        let Message::Close(Some(told)) = closed else { panic!("{closed:?}") };
        prop_assert_eq!(u16::from(told.code), 1008);
    }
}

/// Cheap cases, and many of them.
#[test]
fn a_million_wild_frames_neither_panic_nor_grow() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut reader, mut raw, mut plain) = (Reader::default(), BytesMut::new(), BytesMut::new());
    let (mut bytes, mut breaches) = (0, 0);
    for _ in 0..1_000_000 {
        // A head as clients write it, mostly, and a payload as long as it says, mostly.
        let word = random().to_be_bytes();
        let first = [BINARY, BINARY, CONTINUED, 0x02, 0x00, PING, word[0], BINARY][usize::from(word[1] % 8)];
        let length = word[2] % 126;
        raw.extend_from_slice(&[first, if word[3] > 2 { 0x80 | length } else { word[4] }]);
        raw.extend_from_slice(&word[4..]);
        raw.resize(raw.len() + usize::from(length), word[5]);
        loop {
            match reader.read(&mut raw, &mut plain, 64) {
                Ok(Heard::Nothing) => break,
                Ok(Heard::Bytes) => {
                    bytes += plain.len();
                    assert!(plain.len() <= 64);
                    plain.clear();
                }
                Ok(_) => {}
                Err(_) => {
                    breaches += 1;
                    (reader, raw) = (Reader::default(), BytesMut::new());
                }
            }
        }
        assert!(raw.len() < 300, "{}", raw.len());
    }
    assert!(bytes > 1_000_000 && breaches > 100_000, "{bytes} {breaches}");
}

#[test]
fn a_breach_is_told_from_text() {
    let mask = [1, 2, 3, 4];
    let mut unmasked = frame(BINARY, b"", mask);
    unmasked[1] = 0;
    for (wire, expected) in [
        (frame(TEXT, b"select 1", mask), Close::Unsupported),
        (frame(0xc2, b"deflated", mask), Close::Protocol),
        (frame(CONTINUED, b"of nothing", mask), Close::Protocol),
        (frame(0x83, b"reserved", mask), Close::Protocol),
        (frame(PING & 0x7f, b"a fragment", mask), Close::Protocol),
        (frame(PING, &[0; 126], mask), Close::Protocol),
        ([frame(0x02, b"more comes", mask), frame(BINARY, b"another", mask)].concat(), Close::Protocol),
        ([&[BINARY, 0xff][..], &[255; 8], &mask].concat(), Close::Protocol),
        (unmasked, Close::Protocol),
    ] {
        assert_eq!(hear(&wire, 7, 64), Err(expected), "{wire:?}");
    }
    assert_eq!(hear(&frame(0x88, &[3, 232], mask), 1, 9), Ok((vec![], vec![Heard::Close])));
    assert_eq!(hear(&frame(0x8a, b"unasked", mask), 3, 9), Ok((vec![], vec![])));
}

#[test]
fn a_frame_of_a_gigabyte_is_not_held() {
    let mut raw = BytesMut::from(&[BINARY, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0][..]);
    let (mut reader, mut plain, mut moved) = (Reader::default(), BytesMut::new(), 0);
    while moved < 1 << 20 {
        raw.resize(raw.len() + 1000, 7);
        while reader.read(&mut raw, &mut plain, 512) == Ok(Heard::Bytes) {
            moved += plain.split().len();
        }
        assert!(raw.is_empty() && plain.is_empty());
    }
}
