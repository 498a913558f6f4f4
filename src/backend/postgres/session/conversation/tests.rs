//! The conversation against a model of the server's main loop.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What becomes of a message that can fail or begin a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Error,
    CopyIn,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    tag: u8,
    fate: Fate,
}

/// `PostgresMain`, as far as replies go.
#[derive(Default)]
struct Server {
    skipping: bool,
    copying: Option<u8>,
    /// A Sync was swallowed and the copy failed: what the client can know ends here.
    unknowable: bool,
    swallowed: bool,
    /// It has copied.
    copied: bool,
    replies: VecDeque<(u8, &'static [u8])>,
}

impl Server {
    fn say(&mut self, tags: &[u8]) {
        self.replies.extend(tags.iter().map(|tag| (*tag, if *tag == b'Z' { &b"I"[..] } else { b"" })));
    }

    fn fail(&mut self, origin: u8) {
        self.unknowable |= self.swallowed;
        self.copying = None;
        if origin == b'Q' {
            self.say(b"EZ");
        } else {
            self.say(b"E");
            self.skipping = true;
        }
    }

    fn read(&mut self, message: Message) {
        if let Some(origin) = self.copying {
            return self.read_in_copy(message, origin);
        }
        if self.skipping && message.tag != b'S' {
            return;
        }
        match (message.tag, message.fate) {
            (b'c' | b'f' | b'd' | b'H', _) => {}
            (b'S', Fate::Error) if !self.skipping => self.say(b"EZ"),
            (b'S', _) => {
                self.skipping = false;
                self.say(b"Z");
            }
            (tag @ (b'E' | b'Q'), Fate::CopyIn) => {
                (self.copying, self.swallowed, self.copied) = (Some(tag), false, true);
                self.say(b"G");
            }
            (tag, Fate::Error) => self.fail(tag),
            (b'P', _) => self.say(b"1"),
            (b'B', _) => self.say(b"2"),
            (b'C', _) => self.say(b"3"),
            (b'D', _) => self.say(b"tT"),
            (b'E', _) => self.say(b"DC"),
            (_, _) => self.say(b"TDCCZ"),
        }
    }

    fn read_in_copy(&mut self, message: Message, origin: u8) {
        match message.tag {
            b'd' if message.fate == Fate::Error => self.fail(origin),
            b'd' | b'H' => {}
            b'S' => self.swallowed = true,
            b'c' => {
                (self.copying, self.swallowed) = (None, false);
                self.say(if origin == b'Q' { b"CZ" } else { b"C" });
            }
            b'f' => self.fail(origin),
            // Used up, and the copy has failed: whether the client's next words are heard depends on the origin.
            _ => {
                self.unknowable = true;
                self.fail(origin);
            }
        }
    }
}

fn message() -> impl Strategy<Value = Message> {
    let tag = prop::sample::select(b"QQPBDCESSSHdccf".to_vec());
    let fate = prop_oneof![6 => Just(Fate::Done), 1 => Just(Fate::Error), 1 => Just(Fate::CopyIn)];
    (tag, fate).prop_map(|(tag, fate)| Message { tag, fate })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// However far the server is behind the client, and its replies behind it.
    #[test]
    fn what_is_owed_is_what_comes(messages in prop::collection::vec((message(), 0..4_usize, 0..6_usize), 0..40)) {
        let (mut server, mut talk) = (Server::default(), Conversation::new(b'I'));
        let mut wire = VecDeque::new();
        let hear = |server: &mut Server, talk: &mut Conversation, most: usize| {
            for _ in 0..most {
                let Some((tag, body)) = server.replies.pop_front() else { break };
                talk.received(tag, body).expect("the server keeps to the protocol");
            }
        };
        for (message, read, heard) in messages {
            talk.sent(message.tag, Show::Pass);
            wire.push_back(message);
            for _ in 0..read {
                if let Some(message) = wire.pop_front() {
                    server.read(message);
                }
            }
            hear(&mut server, &mut talk, heard);
        }
        for message in wire {
            server.read(message);
        }
        let ready = server.replies.iter().filter(|(tag, _)| *tag == b'Z').count();
        // What a connection goes by that is left like this: too many would cost it its life, too few another the answer. It is closed
        // when it meets the beginning of a copy.
        let copy = server.replies.iter().any(|(tag, _)| *tag == b'G');
        prop_assert!(talk.is_open() || copy || talk.owed() as usize >= ready);
        hear(&mut server, &mut talk, usize::MAX);
        if server.unknowable {
            prop_assert!(!talk.is_at_rest());
            return Ok(());
        }
        if talk.unsure {
            // More was sent behind a copy than its data: which of it the copy used up is known to the server alone.
            prop_assert!(server.copied && !talk.is_at_rest());
            return Ok(());
        }
        // A copy by a simple query is still to be ended.
        prop_assert_eq!(talk.owed(), u32::from(server.copying == Some(b'Q')));
        prop_assert_eq!(talk.copying, server.copying.is_some());
        prop_assert_eq!(talk.skipping, server.skipping);
        if !talk.unsynced {
            prop_assert_eq!(talk.is_at_rest(), server.copying.is_none() && !server.skipping);
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec((any::<bool>(), any::<u8>()), 0..100)) {
        let mut talk = Conversation::new(b'I');
        for (ours, tag) in noise {
            if ours {
                talk.sent(tag, Show::Pass);
            } else {
                let _ = talk.received(tag, b"I");
            }
            prop_assert!(talk.owed() as usize <= talk.unanswered.len());
        }
    }
}

fn send(talk: &mut Conversation, tags: &[u8]) {
    for tag in tags {
        talk.sent(*tag, Show::Pass);
    }
}

fn hear(talk: &mut Conversation, tags: &[u8]) {
    for tag in tags {
        talk.received(*tag, b"I").unwrap();
    }
}

#[test]
fn a_copy_in_as_drivers_do_it_ends_at_rest() {
    // By Execute and Sync, which is swallowed; then data, its end, and another Sync.
    for (first, replies) in [(&b"BES"[..], &b"2GCZ"[..]), (b"Q", b"GCZ")] {
        let mut talk = Conversation::new(b'I');
        send(&mut talk, first);
        let (before, after) = replies.split_at(replies.len() - 2);
        hear(&mut talk, before);
        assert!(!talk.is_at_rest());
        send(&mut talk, b"ddc");
        if first.len() > 1 {
            talk.sent(b'S', Show::Pass);
        }
        hear(&mut talk, after);
        assert!(talk.is_at_rest(), "{first:?}");
    }
}

#[test]
fn what_the_client_did_not_send_is_not_answered_to_it() {
    let mut talk = Conversation::new(b'I');
    for (tag, show) in [(b'P', Show::Hide), (b'B', Show::Pass), (b'C', Show::Hide), (b'S', Show::Pass)] {
        talk.sent(tag, show);
    }
    let shown: Vec<Show> = b"123".iter().map(|tag| talk.received(*tag, b"").unwrap()).collect();
    assert_eq!(shown, [Show::Hide, Show::Pass, Show::Hide]);
    assert_eq!(talk.received(b'Z', b"T"), Ok(Show::Pass));
    assert_eq!((talk.status(), talk.is_at_rest()), (b'T', true));
    assert!(talk.received(b'Z', b"I").is_err(), "nobody asked");
}
