//! When a watched file is to be read again: once it looks different from when it was last read, and has looked the same
//! for a while, so that a copy in progress is not taken for the file.

use std::time::Duration;

use tokio::time::Instant;

use super::content::Fingerprint;

/// How long a file must look the same.
const SETTLED: Duration = Duration::from_millis(100);
/// When to try again what failed for want of something in the machine; after each failure twice as long.
const RETRY: Duration = Duration::from_secs(10);
/// The longest wait between tries: a file whose compiler always dies costs little, and one is not given up.
const LONGEST_RETRY: Duration = Duration::from_mins(10);

/// What is known of a file; an absent one has no fingerprint.
#[derive(Debug, Default)]
pub(super) struct Watch {
    read: Option<Fingerprint>,
    moving: Option<Moving>,
    /// How long the file as it looks now was last left alone after a try.
    rest: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Moving {
    looks: Option<Fingerprint>,
    due: Instant,
}

impl Watch {
    /// A file that was just loaded, looking like that. It is read once more soon, in case it was being written.
    pub(super) fn loaded(looks: Option<Fingerprint>, now: Instant) -> Self {
        Self { read: None, moving: Some(Moving { looks, due: now + SETTLED }), rest: None }
    }

    /// A look at the file. True: read it now, and say so.
    pub(super) fn look(&mut self, looks: Option<Fingerprint>, now: Instant) -> bool {
        match self.moving {
            Some(moving) if moving.looks == looks => now >= moving.due,
            _ if looks == self.read => {
                self.moving = None;
                false
            }
            _ => {
                self.moving = Some(Moving { looks, due: now + SETTLED });
                false
            }
        }
    }

    /// The file was read, and looked like that.
    pub(super) fn was_read(&mut self, looks: Option<Fingerprint>) {
        let rest = self.rest.filter(|_| looks == self.read);
        *self = Self { read: looks, moving: None, rest };
    }

    /// The file was read, but the rest failed for no fault of the file's.
    pub(super) fn retry(&mut self, looks: Option<Fingerprint>, now: Instant) {
        let rest = self.rest.map_or(RETRY, |rest| (rest * 2).min(LONGEST_RETRY));
        self.rest = Some(rest);
        self.moving = Some(Moving { looks, due: now + rest });
    }

    /// The file is to be read again, as if it never had been. What is on its way to be read stays so.
    pub(super) fn forget(&mut self, now: Instant) {
        self.read = None;
        self.rest = None;
        if let Some(moving) = &mut self.moving {
            moving.due = moving.due.min(now + SETTLED);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn prints() -> (Option<Fingerprint>, Option<Fingerprint>) {
        let (one, other) = (Fingerprint::of(Path::new("/")), Fingerprint::of(Path::new("/proc")));
        assert_ne!(one, other);
        (one, other)
    }

    #[test]
    fn a_changed_file_is_read_once_when_it_has_settled() {
        let (one, other) = prints();
        let now = Instant::now();
        let mut watch = Watch::default();
        watch.was_read(one);
        assert!(!watch.look(one, now));
        assert!(!watch.look(other, now), "it may still be written");
        assert!(!watch.look(other, now + SETTLED / 2));
        assert!(watch.look(other, now + SETTLED));
        watch.was_read(other);
        assert!(!watch.look(other, now + SETTLED * 9));
    }

    #[test]
    fn a_file_that_keeps_changing_is_left_alone() {
        let (one, other) = prints();
        let mut now = Instant::now();
        let mut watch = Watch::default();
        for _ in 0..10 {
            now += SETTLED;
            assert!(!watch.look(one, now));
            now += SETTLED;
            assert!(!watch.look(other, now));
        }
    }

    #[test]
    fn a_change_taken_back_is_none() {
        let (one, other) = prints();
        let now = Instant::now();
        let mut watch = Watch::default();
        watch.was_read(one);
        assert!(!watch.look(other, now));
        assert!(!watch.look(one, now + SETTLED));
        assert!(!watch.look(one, now + SETTLED * 9));
    }

    #[test]
    fn a_file_just_loaded_is_read_once_more() {
        let (one, _) = prints();
        let now = Instant::now();
        let mut watch = Watch::loaded(one, now);
        assert!(!watch.look(one, now));
        assert!(watch.look(one, now + SETTLED));
        watch.was_read(one);
        assert!(!watch.look(one, now + SETTLED * 2));
    }

    #[test]
    fn a_missing_file_is_noticed_once_and_again_when_it_is_back() {
        let (one, _) = prints();
        let now = Instant::now();
        let mut watch = Watch::default();
        watch.was_read(one);
        assert!(!watch.look(None, now));
        assert!(watch.look(None, now + SETTLED));
        watch.was_read(None);
        assert!(!watch.look(None, now + SETTLED * 9));
        assert!(!watch.look(one, now + SETTLED * 9));
        assert!(watch.look(one, now + SETTLED * 10));
    }

    #[test]
    fn what_the_machine_failed_at_is_tried_again_later() {
        let (one, _) = prints();
        let now = Instant::now();
        let mut watch = Watch::loaded(one, now);
        watch.retry(one, now);
        assert!(!watch.look(one, now + RETRY / 2));
        assert!(watch.look(one, now + RETRY));
    }

    #[test]
    fn what_fails_again_and_again_is_tried_ever_less_often_until_the_file_changes() {
        let (one, other) = prints();
        let mut now = Instant::now();
        let mut watch = Watch::default();
        for rest in [10, 20, 40, 80, 160, 320, 600, 600].map(Duration::from_secs) {
            watch.was_read(one);
            watch.retry(one, now);
            assert!(!watch.look(one, now + rest - SETTLED));
            assert!(watch.look(one, now + rest));
            now += rest;
        }
        watch.was_read(other);
        watch.retry(other, now);
        assert!(watch.look(other, now + RETRY));
    }

    #[test]
    fn what_is_forgotten_is_read_again_soon() {
        let (one, _) = prints();
        let now = Instant::now();
        let mut watch = Watch::default();
        watch.was_read(one);
        watch.forget(now);
        assert!(!watch.look(one, now));
        watch.forget(now + SETTLED);
        assert!(watch.look(one, now + SETTLED), "to forget again does not put it off");
        watch.retry(one, now + SETTLED);
        watch.forget(now + SETTLED);
        assert!(watch.look(one, now + SETTLED * 2));
    }
}
