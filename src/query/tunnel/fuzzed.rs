//! What a tunnel's client says before anybody knows who it is, for [`crate::fuzz`].

use bytes::BytesMut;

use super::{
    frames::{Close, Heard, Reader},
    startup::{self, First},
};

/// Bytes of a message that are taken at a time.
const MOST: usize = 64;

/// Frames of a WebSocket, the first byte of which says in what pieces they come: whatever the pieces, they hold the same bytes, and
/// end in the same way; and nothing is held beyond what came.
pub fn tunnel_frames(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    assert_eq!(heard(bytes, bytes.len().max(1)), heard(bytes, usize::from(*piece).max(1)), "pieces do not matter");
}

/// The packet that begins a session: it is read whole, from what is there of it, or refused in words of bounded length.
pub fn tunnel_startup(bytes: &[u8]) {
    match startup::parse(bytes) {
        Ok(None) => {}
        Ok(Some((first, length))) => {
            assert!((8..=startup::LONGEST).contains(&length) && length <= bytes.len());
            assert_eq!(startup::parse(&bytes[..length]), startup::parse(bytes), "what follows does not matter");
            assert_eq!(startup::parse(&bytes[..length - 1]).ok().flatten(), None, "half of it is not enough");
            if let First::Start(start) = first
                && let Ok(settings) = startup::wishes(start.settings.clone())
            {
                assert!(settings.len() <= start.settings.len());
            }
        }
        Err(refused) => assert!(refused.0.len() == 5 && refused.1.len() <= 2 * startup::LONGEST),
    }
}

/// What was said in all, and how it ended.
fn heard(bytes: &[u8], piece: usize) -> (Vec<u8>, usize, Option<Close>) {
    let (mut reader, mut raw, mut plain) = (Reader::default(), BytesMut::new(), BytesMut::new());
    let (mut said, mut pings) = (Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        raw.extend_from_slice(piece);
        loop {
            match reader.read(&mut raw, &mut plain, MOST) {
                Ok(Heard::Nothing) => break,
                Ok(Heard::Bytes) => {
                    assert!(plain.len() <= MOST);
                    said.extend_from_slice(&plain);
                    plain.clear();
                }
                Ok(Heard::Ping(payload)) => pings += payload.len() + 1,
                Ok(Heard::Close) => return (said, pings, Some(Close::Normal)),
                Err(why) => return (said, pings, Some(why)),
            }
        }
    }
    assert!(said.len() + raw.len() <= bytes.len());
    (said, pings, None)
}
