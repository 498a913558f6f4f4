//! What a server says, and what is read into a statement's text: [`crate::fuzz`].

use std::task::{Context, Poll, Waker};

use super::{
    inbox::{Inbox, Next},
    messages, statement,
};
use crate::backend::work::Row;

/// A row longer than this is passed over.
const LONGEST_ROW: usize = 256;

/// A server's bytes, the first of which says in what pieces they come: they are the same messages in all pieces, no message is
/// longer than what came, and each is read or refused.
pub fn server_messages(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, usize::from(*piece).max(1)), "pieces do not matter");
}

/// The traits of a text.
pub(crate) fn traits(sql: &str) {
    let _ = statement::traits(sql);
}

fn read(bytes: &[u8], piece: usize) -> Vec<(u8, usize)> {
    let (mut inbox, mut seen) = (Inbox::default(), Vec::new());
    for mut piece in bytes.chunks(piece) {
        while !piece.is_empty() {
            let Poll::Ready(Ok(_)) = inbox.poll_fill(&mut piece, &mut Context::from_waker(Waker::noop())) else {
                return seen;
            };
        }
        let _ = inbox.foresee_ready();
        loop {
            match inbox.next(LONGEST_ROW) {
                Ok(Next::Incomplete) => break,
                Ok(Next::LongRow) => seen.push((0, 0)),
                Ok(Next::Message(tag)) => seen.push((tag, look(&inbox, tag))),
                Err(_) => return seen,
            }
        }
    }
    seen
}

/// Reads a message as that of its type, and tells its length.
fn look(inbox: &Inbox, tag: u8) -> usize {
    let body = inbox.body();
    match tag {
        b'E' | b'N' => drop(messages::is_fatal(&messages::error(body)).then_some(())),
        b'T' => assert!(messages::fields(body).is_ok_and(|fields| fields.len() <= body.len()) || body.len() < 1 << 20),
        b'S' => assert!(messages::parameter(body).is_none_or(|(name, value)| name.len() + value.len() < body.len())),
        b'C' => assert!(messages::tag(body).0.len() <= body.len()),
        b'D' => {
            let mut cells = 0;
            inbox.cells(&mut |_| cells += 1);
            assert!(!inbox.is_row_of(cells + 1) && cells <= body.len());
        }
        _ => {}
    }
    body.len()
}
