//! Prepared statements of a client whose transactions run on whichever connection is free.
//!
//! Their texts are remembered here, and prepared anew, unseen by the client, on a connection that does not have them. At the
//! server they have names that nothing else has, and none is left when the connection goes back. What would outlast a
//! transaction on purpose is refused.

use std::collections::{HashMap, HashSet};

use bytes::{BufMut, BytesMut};
use sha2::{Digest, Sha256};

use crate::observe::trace::hex;

/// Statements remembered, and bytes of their texts. What is beyond works within its transaction.
const MOST: usize = 1000;
const MOST_BYTES: usize = 1 << 20;

/// In front of a client's names at the server.
const PREFIX: &[u8] = b"t:";

/// In front of what stands for a name that is too long, or begins like this one.
const DIGEST: u8 = b'#';

/// Bytes of a name that the server looks at (`NAMEDATALEN`, less the NUL): two that are equal so far are one to it.
const LONGEST_NAME: usize = 63;

/// What is sent instead of a statement that would outlast its transaction. The server itself then refuses it, in its turn.
pub(super) const REFUSAL: &str = "DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'this would outlast the \
                                  transaction, and the tunnel has a connection for a transaction only', HINT = 'Use a tunnel by \
                                  session, or SET LOCAL within the transaction.'; END$$";

/// What a client has prepared.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// By the client's names: the rest of the Parse behind the name.
    known: HashMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
    /// Those of them that the present connection has, and the one without a name if it has that.
    here: HashSet<Box<[u8]>>,
}

/// A message of the client that names a statement, as it is sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Renamed {
    /// Messages that go before it, whose replies the client does not see.
    pub(super) hidden: BytesMut,
    /// What stands in the place of its first bytes: those up to the end of the name.
    pub(super) head: BytesMut,
    /// How many first bytes that are.
    pub(super) replaced: usize,
    /// A statement is left at the server that has a name.
    pub(super) leaves: bool,
    /// The text that is prepared anew.
    pub(super) anew: Option<String>,
}

// === impl Statements ===

impl Statements {
    /// Another connection, which has none of them; or it is not known which this one has.
    pub(super) fn elsewhere(&mut self) {
        self.here.clear();
    }

    /// The text that a Bind which begins with `start` would run, if it is remembered.
    pub(super) fn bound(&self, start: &[u8]) -> Option<String> {
        let name = start.get(5..)?.split(|byte| *byte == 0).nth(1)?;
        self.known.get(name).map(|rest| text(rest))
    }

    /// Takes note of a message of `total` bytes that begins with `start`, and names its statement as the server knows it. None: it
    /// names none.
    pub(super) fn rename(&mut self, tag: u8, total: usize, start: &[u8]) -> Option<Renamed> {
        let at = match tag {
            b'P' => 5,
            b'B' => 6 + memchr::memchr(0, start.get(5..)?)?,
            b'D' | b'C' if start.get(5) == Some(&b'S') => 6,
            _ => return None,
        };
        let end = at + memchr::memchr(0, start.get(at..)?)?;
        let name = &start[at..end];
        let mut renamed = Renamed { replaced: end + 1, leaves: tag == b'P' && !name.is_empty(), ..Renamed::default() };
        let mut wire = at_server(name);
        match tag {
            b'P' => {
                if !name.is_empty() {
                    close(&wire, &mut renamed.hidden);
                }
                let remembered = self.remember(name, &start[end + 1..], start.len() == total);
                // Of the others nobody asks: they are passed on, and the server says whether they are there.
                if remembered || name.is_empty() {
                    self.here.insert(name.into());
                }
            }
            b'C' => self.forget(name),
            _ if self.here.contains(name) => {}
            _ => match self.known.get(name) {
                Some(rest) => {
                    close(&wire, &mut renamed.hidden);
                    message(b'P', &[&wire, &[0], rest], &mut renamed.hidden);
                    renamed.leaves = !name.is_empty();
                    renamed.anew = Some(text(rest));
                    self.here.insert(name.into());
                }
                // Or it would be what somebody else prepared last.
                None if name.is_empty() => wire = PREFIX.to_vec(),
                None => {}
            },
        }
        renamed.head.put_u8(tag);
        renamed.head.put_u32((total - 1 + wire.len() - name.len()) as u32);
        renamed.head.put_slice(&start[5..at]);
        renamed.head.put_slice(&wire);
        renamed.head.put_u8(0);
        Some(renamed)
    }

    /// False: there is no more room.
    fn remember(&mut self, name: &[u8], rest: &[u8], whole: bool) -> bool {
        self.forget(name);
        let fits = whole && self.known.len() < MOST && self.bytes + name.len() + rest.len() <= MOST_BYTES;
        if fits {
            self.bytes += name.len() + rest.len();
            self.known.insert(name.into(), rest.into());
        }
        fits
    }

    fn forget(&mut self, name: &[u8]) {
        self.here.remove(name);
        if let Some(rest) = self.known.remove(name) {
            self.bytes -= name.len() + rest.len();
        }
    }
}

/// A message.
pub(super) fn message(tag: u8, parts: &[&[u8]], out: &mut BytesMut) {
    out.put_u8(tag);
    out.put_u32(4 + parts.iter().map(|part| part.len()).sum::<usize>() as u32);
    for part in parts {
        out.put_slice(part);
    }
}

/// A text that ends with a NUL, or with what there is of it.
pub(super) fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// A client's name as the server has it: never cut short there, and no other's.
fn at_server(name: &[u8]) -> Vec<u8> {
    if name.is_empty() {
        return Vec::new();
    }
    let mut wire = PREFIX.to_vec();
    if wire.len() + name.len() > LONGEST_NAME || name[0] == DIGEST {
        let mut digits = [0; 32];
        hex(&mut digits, &Sha256::digest(name)[..16]);
        wire.push(DIGEST);
        wire.extend_from_slice(&digits);
    } else {
        wire.extend_from_slice(name);
    }
    wire
}

fn close(name: &[u8], out: &mut BytesMut) {
    message(b'C', &[b"S", name, &[0]], out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, sql: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        message(b'P', &[name.as_bytes(), &[0], sql.as_bytes(), &[0, 0, 0]], &mut out);
        out.to_vec()
    }

    fn bind(name: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        message(b'B', &[b"portal\0", name.as_bytes(), &[0; 7]], &mut out);
        out.to_vec()
    }

    fn sent(statements: &mut Statements, whole: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let renamed = statements.rename(whole[0], whole.len(), whole).unwrap();
        let rest = &whole[renamed.replaced..];
        (renamed.hidden.to_vec(), [&renamed.head[..], rest].concat())
    }

    #[test]
    fn a_statement_is_prepared_anew_where_it_is_missing() {
        let mut statements = Statements::default();
        let (hidden, first) = sent(&mut statements, &parse("s0", "select 1"));
        assert_eq!(first, parse("t:s0", "select 1"));
        assert_eq!(hidden, b"C\0\0\0\x0aSt:s0\0");
        assert_eq!(sent(&mut statements, &bind("s0")), (vec![], bind("t:s0")), "it is here");
        statements.elsewhere();
        let (hidden, again) = sent(&mut statements, &bind("s0"));
        assert_eq!(again, bind("t:s0"));
        assert_eq!(hidden, [&b"C\0\0\0\x0aSt:s0\0"[..], &parse("t:s0", "select 1")].concat());
        assert!(sent(&mut statements, &bind("s0")).0.is_empty());
        let mut gone = BytesMut::new();
        message(b'C', &[b"Ss0\0"], &mut gone);
        sent(&mut statements, &gone);
        statements.elsewhere();
        assert_eq!(sent(&mut statements, &bind("s0")), (vec![], bind("t:s0")), "the server says that there is none");
        assert_eq!(statements.bytes, 0);
    }

    #[test]
    fn nobody_meets_what_another_prepared_without_a_name() {
        let mut statements = Statements::default();
        assert_eq!(sent(&mut statements, &bind("")), (vec![], bind("t:")), "there is no such statement");
        assert_eq!(sent(&mut statements, &parse("", "select 2")), (vec![], parse("", "select 2")));
        assert_eq!(sent(&mut statements, &bind("")), (vec![], bind("")));
        statements.elsewhere();
        let (hidden, again) = sent(&mut statements, &bind(""));
        assert!(hidden.ends_with(&parse("", "select 2")) && again == bind(""));
        assert_eq!(sent(&mut statements, &bind("sg1")).1, bind("t:sg1"), "nor what the pool did");
    }

    #[test]
    fn a_name_at_the_server_fits_and_is_no_other() {
        let mut statements = Statements::default();
        let long = |end: &str| format!("{}{end}", "n".repeat(61));
        let digest = "#0123456789abcdef0123456789abcdef";
        let names = ["a", "t:a", "#", digest, &long(""), &long("a"), &long("b"), &"é".repeat(31)];
        let mut at_server = HashSet::new();
        for name in names {
            let (hidden, anew) = sent(&mut statements, &parse(name, "select 1"));
            let wire = anew[5..].split(|byte| *byte == 0).next().unwrap().to_vec();
            assert!(wire.starts_with(b"t:") && wire.len() <= 63, "{name}");
            assert!(hidden[6..].starts_with(&wire), "{name}: it is closed under the same name");
            let bound = sent(&mut statements, &bind(name)).1;
            assert!(bound.windows(wire.len()).any(|part| part == wire), "{name}: and bound");
            assert!(at_server.insert(wire), "{name}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut statements = Statements::default();
        for name in 0..3000 {
            sent(&mut statements, &parse(&name.to_string(), &"x".repeat(2000)));
        }
        assert!(statements.known.len() <= MOST && statements.bytes <= MOST_BYTES);
        assert!(statements.here.len() <= MOST + 1, "{} names", statements.here.len());
        assert_eq!(sent(&mut statements, &bind("2999")), (vec![], bind("t:2999")), "it may be there");
        let long = "x".repeat(MOST_BYTES);
        assert_eq!(sent(&mut statements, &parse("", &long)), (vec![], parse("", &long)));
        assert_eq!(sent(&mut statements, &bind("")), (vec![], bind("")), "it is here");
        for noise in [&b"P"[..], b"P\0\0\0\x09abc", b"B\0\0\0\x09ab\0c", b"D\0\0\0\x05S", b"E\0\0\0\x09\0\0\0\0\0"] {
            assert_eq!(statements.rename(noise[0], 10, noise), None);
        }
    }
}
