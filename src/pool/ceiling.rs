//! What a full server leads to: a ceiling, below which the pool goes on as before.

use tokio::time::Instant;

use super::breaker::Backoff;

/// What a full server was seen to grant. It is believed for a pause, then tried again by one connection more.
#[derive(Debug, Default)]
pub(crate) struct Ceiling(Option<Seen>);

#[derive(Debug)]
struct Seen {
    size: u32,
    /// What it was when it was last refused.
    refused_at: u32,
    raise_at: Instant,
    step: u32,
}

impl Ceiling {
    /// The server was full with `live` of ours.
    pub(crate) fn refused(&mut self, now: Instant, live: u32, backoff: &Backoff, roll: f64) {
        let step = self.0.as_ref().map_or(0, |seen| seen.step + 1);
        let refused_at = self.0.as_ref().map_or(live, |seen| seen.size).max(live);
        self.0 = Some(Seen { size: live, refused_at, raise_at: now + backoff.pause(step, roll), step });
    }

    /// The server granted one more.
    pub(crate) fn granted(&mut self, live: u32) {
        if let Some(seen) = &mut self.0 {
            seen.size = seen.size.max(live);
            if live > seen.refused_at {
                seen.step = 0;
            }
        }
    }

    /// Raises it by one, if its time has come; it is forgotten when it no longer binds below `max`.
    pub(crate) fn raise(&mut self, now: Instant, max: u32, backoff: &Backoff) {
        if let Some(seen) = &mut self.0
            && seen.raise_at <= now
        {
            seen.size += 1;
            seen.raise_at = now + backoff.pause(seen.step, 0.0);
            if seen.size >= max {
                self.0 = None;
            }
        }
    }

    /// Connections that the server grants us; none, if it never refused.
    pub(crate) fn seen(&self) -> Option<u32> {
        self.0.as_ref().map(|seen| seen.size)
    }

    pub(crate) fn next_change(&self) -> Option<Instant> {
        self.0.as_ref().map(|seen| seen.raise_at)
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_ceiling_is_believed_for_a_pause_then_raised_by_one() {
        let backoff = Backoff { initial: MS(200), max: MS(10_000), jitter: 0.0 };
        let now = Instant::now();
        let mut ceiling = Ceiling::default();
        assert_eq!(ceiling.seen(), None);
        ceiling.refused(now, 7, &backoff, 0.0);
        ceiling.raise(now + MS(199), 10, &backoff);
        assert_eq!(ceiling.seen(), Some(7));
        ceiling.raise(now + MS(200), 10, &backoff);
        assert_eq!(ceiling.seen(), Some(8));
        ceiling.refused(now, 7, &backoff, 0.0);
        assert_eq!(ceiling.next_change(), Some(now + MS(400)), "still full: a longer pause");
        ceiling.granted(9);
        assert_eq!(ceiling.seen(), Some(9));
        ceiling.raise(now + MS(400), 10, &backoff);
        assert_eq!(ceiling.seen(), None, "it binds no longer");
    }
}
