//! WebSocket frames (RFC 6455, section 5), as a server reads and writes them.
//!
//! What the client sends is a stream of bytes: messages and frames mean nothing in it. So no frame is ever held, however long it
//! says it is; its payload passes as it comes. Control frames alone are held, and have 125 bytes at most. No extension is agreed
//! on, so that a reserved bit is an error. Headers are read and written by `tungstenite`.

use std::io::Cursor;

use bytes::{Buf, BufMut, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// Longest payload of a control frame (section 5.5).
const LONGEST_CONTROL: u64 = 125;

/// The longest header that a server writes.
pub(super) const ROOM: usize = 10;

/// Why a WebSocket is closed (section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// All is done.
    Normal = 1000,
    /// The gateway goes away.
    Away = 1001,
    /// The client broke the WebSocket protocol.
    Protocol = 1002,
    /// Text, where there are only bytes.
    Unsupported = 1003,
    /// Not allowed any longer, or not at all.
    Policy = 1008,
    /// The database has failed.
    Failed = 1011,
}

/// What the client said, beyond its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing that is whole.
    Nothing,
    /// Bytes were moved.
    Bytes,
    /// It wants an answer with the same payload.
    Ping(Vec<u8>),
    /// It closes.
    Close,
}

/// Reads frames, one piece at a time.
#[derive(Debug, Default)]
pub(super) struct Reader {
    frame: Option<Frame>,
    /// A message's last frame is still to come.
    fragmented: bool,
}

/// The frame that is being read.
#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    left: u64,
    mask: [u8; 4],
}

// === impl Reader ===

impl Reader {
    /// Takes the next thing off the front of `raw`. At most `most` bytes of a message go to `plain`.
    pub(super) fn read(&mut self, raw: &mut BytesMut, plain: &mut BytesMut, most: usize) -> Result<Heard, Close> {
        loop {
            let Some(frame) = &mut self.frame else {
                if self.header(raw)? {
                    continue;
                }
                return Ok(Heard::Nothing);
            };
            if let OpCode::Control(control) = frame.opcode {
                let length = frame.left as usize;
                if raw.len() < length {
                    return Ok(Heard::Nothing);
                }
                unmask(&mut raw[..length], &mut frame.mask);
                let payload = raw[..length].to_vec();
                raw.advance(length);
                self.frame = None;
                match control {
                    Control::Ping => return Ok(Heard::Ping(payload)),
                    Control::Close => return Ok(Heard::Close),
                    _ => continue,
                }
            }
            let here = raw.len().min(most).min(usize::try_from(frame.left).unwrap_or(usize::MAX));
            unmask(&mut raw[..here], &mut frame.mask);
            plain.extend_from_slice(&raw[..here]);
            raw.advance(here);
            frame.left -= here as u64;
            if frame.left == 0 {
                self.frame = None;
            }
            if here > 0 {
                return Ok(Heard::Bytes);
            }
            if self.frame.is_some() {
                return Ok(Heard::Nothing);
            }
        }
    }

    fn header(&mut self, raw: &mut BytesMut) -> Result<bool, Close> {
        let mut cursor = Cursor::new(&raw[..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Close::Protocol)? else {
            return Ok(false);
        };
        let taken = cursor.position() as usize;
        let extended = header.rsv1 || header.rsv2 || header.rsv3;
        // A client's frames are masked, always (section 5.1).
        let Some(mask) = header.mask.filter(|_| !extended) else { return Err(Close::Protocol) };
        match header.opcode {
            OpCode::Control(_) if header.is_final && length <= LONGEST_CONTROL => {}
            OpCode::Data(Data::Continue) if self.fragmented => self.fragmented = !header.is_final,
            OpCode::Data(Data::Binary) if !self.fragmented => self.fragmented = !header.is_final,
            OpCode::Data(Data::Text) if !self.fragmented => return Err(Close::Unsupported),
            _ => return Err(Close::Protocol),
        }
        // The first bit is 0 (section 5.2).
        if length > i64::MAX as u64 {
            return Err(Close::Protocol);
        }
        raw.advance(taken);
        self.frame = Some(Frame { opcode: header.opcode, left: length, mask });
        Ok(true)
    }
}

/// Takes the mask off, and turns it so that it fits the bytes that come next.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let key = u32::from_ne_bytes(*mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    let turn = rest.len();
    rest.iter_mut().zip(*mask).for_each(|(byte, key)| *byte ^= key);
    mask.rotate_left(turn);
}

// === writing ===

/// Makes one binary frame of `payload`, which has [`ROOM`] bytes in front that are free.
pub(super) fn seal(payload: &mut BytesMut) {
    let length = payload.len() - ROOM;
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    let mut front = Vec::with_capacity(ROOM);
    // Writing into memory does not fail.
    let _ = header.format(length as u64, &mut front);
    payload.advance(ROOM - front.len());
    payload[..front.len()].copy_from_slice(&front);
}

/// Writes a control frame's answer to a ping.
pub(super) fn pong(payload: &[u8], out: &mut BytesMut) {
    control(Control::Pong, payload, out);
}

/// Writes a close frame.
pub(super) fn close(why: Close, out: &mut BytesMut) {
    control(Control::Close, &(why as u16).to_be_bytes(), out);
}

fn control(control: Control, payload: &[u8], out: &mut BytesMut) {
    let header = FrameHeader { opcode: OpCode::Control(control), ..FrameHeader::default() };
    let mut front = Vec::with_capacity(2);
    let _ = header.format(payload.len() as u64, &mut front);
    out.put_slice(&front);
    out.put_slice(payload);
}

#[cfg(test)]
mod tests;
