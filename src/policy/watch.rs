//! When a watched file is to be read again: once it looks different from when it was last read, and has looked the same
//! for a while, so that a copy in progress is not taken for the file.

use std::time::Duration;

use tokio::time::Instant;

use super::content::Fingerprint;

/// How long a file must look the same.
const SETTLED: Duration = Duration::from_millis(100);
/// When to try again what failed for want of something in the machine.
const RETRY: Duration = Duration::from_secs(10);

/// What is known of a file; an absent one has no fingerprint.
#[derive(Debug, Default)]
pub(super) struct Watch {
    read: Option<Fingerprint>,
    moving: Option<Moving>,
}

#[derive(Clone, Copy, Debug)]
struct Moving {
    looks: Option<Fingerprint>,
    due: Instant,
}

impl Watch {
    /// A file that was just loaded, looking like that. It is read once more soon, in case it was being written.
    pub(super) fn loaded(looks: Option<Fingerprint>, now: Instant) -> Self {
        Self { read: None, moving: Some(Moving { looks, due: now + SETTLED }) }
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
        *self = Self { read: looks, moving: None };
    }

    /// The file was read, but the rest failed for no fault of the file's.
    pub(super) fn retry(&mut self, looks: Option<Fingerprint>, now: Instant) {
        self.moving = Some(Moving { looks, due: now + RETRY });
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
}
