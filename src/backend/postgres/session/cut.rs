//! A stream of PostgreSQL messages, cut as it passes: a long message is never held whole.

/// Type and length, in front of every message but the first.
pub(crate) const HEADER: usize = 5;

/// Where the next message of a stream begins.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// Bytes of the message that has begun, still to come.
    left: usize,
}

/// What stands at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Not enough to tell.
    More,
    /// More of the message that has begun: so many bytes, at least one.
    Rest(usize),
    /// A message begins.
    Message {
        /// Its type.
        tag: u8,
        /// Its length with the header.
        total: usize,
    },
}

/// A message's length that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLength;

// === impl Cutter ===

impl Cutter {
    /// What `buffer` begins with. A message is shown when it is there whole, or the first `look` bytes of it.
    pub(crate) fn look(&self, buffer: &[u8], look: usize) -> Result<Cut, BadLength> {
        if self.left > 0 {
            let here = self.left.min(buffer.len());
            return Ok(if here == 0 { Cut::More } else { Cut::Rest(here) });
        }
        let Some(&[tag, a, b, c, d]) = buffer.first_chunk::<HEADER>() else { return Ok(Cut::More) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..i32::MAX as usize).contains(&length) {
            return Err(BadLength);
        }
        let total = length + 1;
        Ok(if buffer.len() < total.min(look) { Cut::More } else { Cut::Message { tag, total } })
    }

    /// A message of `total` bytes begins, and `here` of them are taken.
    pub(crate) fn begin(&mut self, total: usize, here: usize) {
        self.left = total.saturating_sub(here);
    }

    /// So many more are taken.
    pub(crate) fn go_on(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Bytes of the message that has begun, still to come.
    pub(crate) fn left(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_cut_where_they_begin_however_they_come(
            bodies in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)), 0..20),
            chunk in 1..200_usize, look in HEADER..64_usize,
        ) {
            let mut all = Vec::new();
            for (tag, body) in &bodies {
                all.push(*tag);
                all.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
                all.extend(body);
            }
            let (mut cutter, mut buffer, mut found) = (Cutter::default(), Vec::new(), Vec::<(u8, Vec<u8>)>::new());
            for piece in all.chunks(chunk) {
                buffer.extend_from_slice(piece);
                loop {
                    let taken = match cutter.look(&buffer, look).unwrap() {
                        Cut::More => break,
                        Cut::Rest(here) => {
                            found.last_mut().unwrap().1.extend_from_slice(&buffer[..here]);
                            cutter.go_on(here);
                            here
                        }
                        Cut::Message { tag, total } => {
                            let here = total.min(buffer.len());
                            found.push((tag, buffer[HEADER..here].to_vec()));
                            cutter.begin(total, here);
                            here
                        }
                    };
                    buffer.drain(..taken);
                }
                prop_assert!(buffer.len() < look, "what can be told is not held back");
            }
            prop_assert!(buffer.is_empty() && cutter.left() == 0);
            prop_assert_eq!(found, bodies);
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..40)) {
            let cut = Cutter::default().look(&noise, 16);
            prop_assert!(!matches!(cut, Ok(Cut::Rest(_))));
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        for length in [0_u32, 3, i32::MAX as u32, u32::MAX] {
            let [a, b, c, d] = length.to_be_bytes();
            assert_eq!(Cutter::default().look(&[b'Q', a, b, c, d], 16), Err(BadLength), "{length}");
        }
    }
}
