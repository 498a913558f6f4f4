//! What a server still owes an answer to, when somebody else speaks to it.
//!
//! A client's messages pass as they are; only their types are noted, in order, and struck off as the replies come. The rules are
//! those of the server's main loop (`PostgresMain`): behind an error in the extended protocol all is passed over up to the next
//! Sync, and while the server copies in it swallows Syncs. So it is always known how many `ReadyForQuery` are to come, and
//! whether the connection is at rest: which is what its next user relies on.
//!
//! Where what the server did cannot be told from what it says, the conversation is *unsure*, for good: its connection is not used
//! by anybody else. That takes a Sync in the middle of a copy that then fails, which no driver sends on purpose.

use std::collections::VecDeque;

use super::super::failure::Violation;

/// Messages that may be unanswered. Beyond, nothing is taken from the client until a reply comes. The server writes replies out
/// by itself from 8 KiB on, and the shortest has 5 bytes: so many are never held back for want of a Flush.
pub(super) const MOST_UNANSWERED: usize = 4096;

/// How a reply is shown to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Show {
    /// As it is.
    #[default]
    Pass,
    /// Not at all: it answers a message that the client did not send.
    Hide,
}

/// A message that was sent, and how its replies are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    tag: u8,
    show: Show,
}

/// The state of a conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    unanswered: VecDeque<Sent>,
    /// The transaction's state at the last `ReadyForQuery`.
    status: u8,
    /// Messages of the extended protocol were sent behind the last Sync.
    unsynced: bool,
    /// The server passes everything over up to the next Sync.
    skipping: bool,
    /// The server takes copy data for the message at the front.
    copying: bool,
    /// It swallowed a Sync while it did.
    swallowed: bool,
    unsure: bool,
}

// === impl Conversation ===

impl Conversation {
    /// With a server that is at rest, in this state of its transaction.
    pub(super) fn new(status: u8) -> Self {
        Self {
            unanswered: VecDeque::new(),
            status,
            unsynced: false,
            skipping: false,
            copying: false,
            swallowed: false,
            unsure: false,
        }
    }

    /// The transaction's state at the last `ReadyForQuery`: `I`, `T` or `E`.
    pub(super) fn status(&self) -> u8 {
        self.status
    }

    /// Nothing is under way, and nothing is to come.
    pub(super) fn is_at_rest(&self) -> bool {
        self.unanswered.is_empty() && !self.is_open()
    }

    /// Its end cannot be made out: a Sync is missing, or nobody knows.
    pub(super) fn is_open(&self) -> bool {
        self.unsynced || self.skipping || self.copying || self.unsure
    }

    /// No more is to be sent before a reply comes.
    pub(super) fn is_full(&self) -> bool {
        self.unanswered.len() >= MOST_UNANSWERED
    }

    /// How many `ReadyForQuery` are to come.
    pub(super) fn owed(&self) -> u32 {
        self.unanswered.iter().filter(|sent| ends_in_ready(sent.tag)).count() as u32
    }

    /// Takes note of a message that goes to the server.
    pub(super) fn sent(&mut self, tag: u8, show: Show) {
        match tag {
            b'S' if self.copying => {
                self.swallowed = true;
                return;
            }
            b'c' | b'f' if self.copying => {
                self.copying = false;
                return;
            }
            // Outside of a copy they mean nothing, unless one begins by what is still unanswered.
            b'c' | b'f' if self.unanswered.back().is_none_or(|last| last.tag == b'c') => return,
            b'S' => (self.unsynced, self.skipping) = (false, false),
            b'P' | b'B' | b'D' | b'C' | b'E' => self.unsynced = true,
            b'Q' | b'F' | b'c' | b'f' => {}
            // Copy data, Flush.
            _ => return,
        }
        if !self.skipping {
            let tag = if tag == b'f' { b'c' } else { tag };
            self.unanswered.push_back(Sent { tag, show });
        }
        // A message in the midst of copy data ends the copy with an error, and is used up by that.
        self.unsure |= self.copying;
    }

    /// Takes note of a reply, and says how it is shown. `body`: its beginning.
    pub(super) fn received(&mut self, tag: u8, body: &[u8]) -> Result<Show, Violation> {
        let show = self.front().map_or(Show::Pass, |front| front.show);
        match tag {
            b'1' => self.strike(b'P'),
            b'2' => self.strike(b'B'),
            b'3' => self.strike(b'C'),
            b'T' | b'n' => self.strike(b'D'),
            b'C' | b'I' | b's' => {
                (self.copying, self.swallowed) = (false, false);
                self.strike(b'E');
            }
            b'G' => self.copy_in()?,
            b'E' => {
                self.failed();
                return Ok(Show::Pass);
            }
            b'Z' => return self.ready(body),
            // At any time, and of no effect here.
            b'N' | b'A' | b'S' => return Ok(Show::Pass),
            b't' | b'D' | b'd' | b'c' | b'H' | b'V' => {}
            _ => return Err(Violation("a message that does not belong into a session")),
        }
        Ok(show)
    }

    fn front(&mut self) -> Option<Sent> {
        while let Some(Sent { tag: b'c', .. }) = self.unanswered.front() {
            self.unanswered.pop_front();
        }
        self.unanswered.front().copied()
    }

    /// The message at the front is answered, if it is one of these; a simple query has many such replies.
    fn strike(&mut self, tag: u8) {
        if self.unanswered.front().is_some_and(|front| front.tag == tag) {
            self.unanswered.pop_front();
        }
    }

    /// The server takes copy data, for the message at the front. What was sent behind it is read as part of the copy.
    fn copy_in(&mut self) -> Result<(), Violation> {
        if !self.unanswered.front().is_some_and(|front| matches!(front.tag, b'E' | b'Q')) {
            return if self.unsure { Ok(()) } else { Err(Violation("a copy that nobody asked for")) };
        }
        self.copying = true;
        while let Some(next) = self.unanswered.get(1).map(|sent| sent.tag) {
            match next {
                b'S' => self.swallowed = true,
                b'c' => self.copying = false,
                _ => self.unsure = true,
            }
            if matches!(next, b'S' | b'c') {
                self.unanswered.remove(1);
            }
            if next != b'S' {
                break;
            }
        }
        // A Sync that was swallowed ended nothing.
        self.unsynced |= self.swallowed && self.unanswered[0].tag == b'E' && self.owed() == 0;
        Ok(())
    }

    fn failed(&mut self) {
        self.unsure |= self.swallowed;
        (self.copying, self.swallowed) = (false, false);
        let extended = match self.front().map(|front| front.tag) {
            Some(b'Q' | b'F') => return,
            Some(tag) => tag != b'S',
            None => self.unsynced,
        };
        while self.unanswered.front().is_some_and(|front| front.tag != b'S') {
            self.unanswered.pop_front();
        }
        self.skipping = extended && self.unanswered.is_empty();
    }

    fn ready(&mut self, body: &[u8]) -> Result<Show, Violation> {
        let Some(status @ (b'I' | b'T' | b'E')) = body.first().copied() else {
            return Err(Violation("ready in a state that there is not"));
        };
        (self.copying, self.swallowed) = (false, false);
        self.status = status;
        let show = loop {
            match self.unanswered.pop_front() {
                Some(sent) if ends_in_ready(sent.tag) => break sent.show,
                Some(_) => {}
                None if self.unsure => break Show::Pass,
                None => return Err(Violation("ready for a query that nobody sent")),
            }
        };
        // A simple query ends what is before it as a Sync does, if the server comes to it.
        self.unsynced &= self.front().is_some();
        Ok(show)
    }
}

fn ends_in_ready(tag: u8) -> bool {
    matches!(tag, b'Q' | b'S' | b'F')
}

#[cfg(test)]
mod tests;
