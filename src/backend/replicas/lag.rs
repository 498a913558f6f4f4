//! How far a replica is behind: how long ago the primary was seen to be beyond where the replica is now.
//!
//! That is right where the usual measures are not. `now() - pg_last_xact_replay_timestamp()` grows while the primary is idle;
//! received against replayed is nothing when the receiver is cut off. It needs no clock but ours. It never says too much, and
//! too little by one check's interval at most: the primary went on at some time since the look before.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Positions that are kept, all but evenly spread over the time that counts: what is then said is still not too much.
const MOST: u32 = 256;

/// Where the primary was, and when it was first seen there: both rise.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(Instant, u64)>);

impl History {
    /// The primary is at `lsn`. Lags beyond `horizon` need not be told apart. A position before the last one is another
    /// server's, after a failover: what was known of the old one is forgotten.
    pub(super) fn saw(&mut self, now: Instant, lsn: u64, horizon: Duration) {
        let near = |from: Instant, to: Instant| to.saturating_duration_since(from) < horizon / MOST;
        match (self.0.back(), self.0.iter().rev().nth(1)) {
            (Some((_, last)), _) if *last == lsn => return,
            (Some((_, last)), _) if *last > lsn => self.0.clear(),
            // The newest one moves on until it is far enough from the one before to be kept.
            (Some((at, _)), Some((before, _))) if near(*before, *at) => drop(self.0.pop_back()),
            _ => {}
        }
        self.0.push_back((now, lsn));
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) > horizon) {
            self.0.pop_front();
        }
    }

    /// How far one is behind that has replayed up to `lsn`; none, if nothing was ever heard of the primary.
    pub(super) fn lag(&self, now: Instant, lsn: u64) -> Option<Duration> {
        self.0.back()?;
        let beyond = self.0.partition_point(|(_, position)| *position <= lsn);
        Some(self.0.get(beyond).map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const FAR: Duration = Duration::from_secs(100);

    #[test]
    fn an_idle_primary_makes_nobody_late() {
        let (now, mut history) = (Instant::now(), History::default());
        assert_eq!(history.lag(now, 0), None, "nothing is known yet");
        for second in 0..1_000 {
            history.saw(now + S(second), 100, FAR);
        }
        assert_eq!(history.lag(now + S(1_000), 100), Some(S(0)));
        assert_eq!(history.lag(now + S(1_000), 99), Some(S(1_000)), "since it was first seen there");
    }

    #[test]
    fn a_lag_is_the_time_since_the_primary_was_seen_beyond() {
        let (now, mut history) = (Instant::now(), History::default());
        for second in 0..10 {
            history.saw(now + S(second), 100 + second * 10, FAR);
        }
        let lag = |lsn| history.lag(now + S(10), lsn);
        assert_eq!((lag(190), lag(250)), (Some(S(0)), Some(S(0))), "as far, or farther than was seen");
        assert_eq!((lag(189), lag(180), lag(150), lag(99)), (Some(S(1)), Some(S(1)), Some(S(4)), Some(S(10))));
    }

    #[test]
    fn while_the_primary_says_nothing_its_last_position_holds() {
        let (now, mut history) = (Instant::now(), History::default());
        history.saw(now, 100, FAR);
        history.saw(now + S(1), 200, FAR);
        assert_eq!(history.lag(now + S(500), 200), Some(S(0)));
        assert_eq!(history.lag(now + S(500), 150), Some(S(499)));
    }

    #[test]
    fn a_position_that_goes_back_is_a_new_primary_and_the_old_ones_are_forgotten() {
        let (now, mut history) = (Instant::now(), History::default());
        history.saw(now, 100, FAR);
        history.saw(now + S(1), 900, FAR);
        history.saw(now + S(2), 500, FAR);
        assert_eq!(history.lag(now + S(3), 500), Some(S(0)));
        assert_eq!(history.lag(now + S(3), 99), Some(S(1)));
    }

    proptest! {
        #[test]
        fn it_is_bounded_never_says_too_much_and_too_little_by_a_grain(
            steps in proptest::collection::vec((1_u64..500, 0_u64..3), 1..2_000),
            horizon in 1_u64..1_000,
            back in 0_usize..2_000,
        ) {
            let horizon = S(horizon);
            let (mut now, mut lsn, mut history, mut all) = (Instant::now(), 1, History::default(), Vec::new());
            for (ms, written) in steps {
                now += Duration::from_millis(ms);
                lsn += written;
                history.saw(now, lsn, horizon);
                all.push((now, lsn));
                prop_assert!(history.0.len() <= MOST as usize + 3, "{}", history.0.len());
            }
            let replayed = all[all.len() - 1 - back.min(all.len() - 1)].1;
            let told = history.lag(now, replayed).unwrap();
            let truth = all.iter().find(|(_, lsn)| *lsn > replayed).map_or(Duration::ZERO, |(at, _)| now - *at);
            prop_assert!(told <= truth, "{told:?} of {truth:?}");
            // A few looks of up to 500 ms may pass without anything written.
            let grain = horizon / MOST + Duration::from_secs(5);
            prop_assert!(told + grain >= truth.min(horizon), "{told:?} of {truth:?}");
        }
    }
}
