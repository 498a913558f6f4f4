//! When a policy that faults is asked again: three faults in a row, or more than one in five for a while, and it is left
//! alone for a while, ever longer, with one natural call between as a probe. A probe that succeeds clears all.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a fault weighs, in good answers that make up for it.
const FAULT: u32 = 4;
/// Weight that quarantines a policy: three faults in a row.
const MOST: u32 = 3 * FAULT;
/// The first rest. Long enough that a policy that traps at once costs less than a per mille of a worker.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest: a policy that works again is back within a minute.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// The state of one hook of one version.
#[derive(Debug, Default)]
struct Record {
    /// Of the faults, less what was made up for.
    weight: u32,
    quarantine: Option<Quarantine>,
}

#[derive(Clone, Copy, Debug)]
struct Quarantine {
    rest: Duration,
    until: Instant,
}

/// What a fault led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aftermath {
    /// It is asked again next time.
    Tolerated,
    /// It is left alone for so long.
    Quarantined(Duration),
}

impl Record {
    fn admits(&mut self, now: Instant) -> bool {
        match &mut self.quarantine {
            None => true,
            Some(quarantine) if now < quarantine.until => false,
            Some(quarantine) => {
                // This call is the probe. Should it never report, the next may try a rest later.
                quarantine.until = now + quarantine.rest;
                true
            }
        }
    }

    fn failed(&mut self, now: Instant) -> Aftermath {
        self.weight = self.weight.saturating_add(FAULT);
        let rest = match self.quarantine {
            Some(quarantine) => (quarantine.rest * 2).min(LONGEST_REST),
            None if self.weight >= MOST => FIRST_REST,
            None => return Aftermath::Tolerated,
        };
        self.quarantine = Some(Quarantine { rest, until: now + rest });
        Aftermath::Quarantined(rest)
    }

    /// True when that ends a quarantine.
    fn succeeded(&mut self) -> bool {
        let ended = self.quarantine.take().is_some();
        self.weight = if ended { 0 } else { self.weight.saturating_sub(1) };
        ended
    }
}

/// A [`Record`] that costs a healthy policy one load.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether there is anything in the record.
    marred: AtomicBool,
    record: Mutex<Record>,
}

impl Health {
    /// Whether to ask now.
    pub(super) fn admits(&self) -> bool {
        !self.marred.load(Ordering::Relaxed) || self.record.lock().admits(Instant::now())
    }

    /// The answer was good. True when that ends a quarantine.
    pub(super) fn succeeded(&self) -> bool {
        if !self.marred.load(Ordering::Relaxed) {
            return false;
        }
        let mut record = self.record.lock();
        let ended = record.succeeded();
        self.marred.store(record.weight > 0, Ordering::Relaxed);
        ended
    }

    /// There was no good answer.
    pub(super) fn failed(&self) -> Aftermath {
        let mut record = self.record.lock();
        self.marred.store(true, Ordering::Relaxed);
        record.failed(Instant::now())
    }

    /// Whether it is left alone.
    pub(super) fn is_quarantined(&self) -> bool {
        self.marred.load(Ordering::Relaxed) && self.record.lock().quarantine.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_faults_in_a_row_and_it_rests_ever_longer() {
        let mut record = Record::default();
        let mut now = Instant::now();
        assert_eq!(record.failed(now), Aftermath::Tolerated);
        assert_eq!(record.failed(now), Aftermath::Tolerated);
        assert!(record.admits(now));
        assert_eq!(record.failed(now), Aftermath::Quarantined(Duration::from_secs(1)));
        for rest in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Duration::from_secs) {
            assert!(!record.admits(now));
            assert!(!record.admits(now + rest - Duration::from_millis(1)));
            now += rest;
            assert!(record.admits(now), "the first call after {rest:?} is the probe");
            assert!(!record.admits(now), "there is one probe at a time");
            assert_eq!(record.failed(now), Aftermath::Quarantined((rest * 2).min(LONGEST_REST)));
        }
    }

    #[test]
    fn a_probe_that_never_reports_does_not_end_the_probing() {
        let mut record = Record::default();
        let now = Instant::now();
        for _ in 0..3 {
            record.failed(now);
        }
        assert!(record.admits(now + Duration::from_secs(1)));
        assert!(!record.admits(now + Duration::from_millis(1999)));
        assert!(record.admits(now + Duration::from_secs(2)));
    }

    #[test]
    fn one_that_faults_on_two_of_three_calls_rests_too() {
        let health = Health::default();
        let outcomes = std::iter::repeat_n([false, false, true], 3).flatten();
        let aftermaths = outcomes.filter(|good| !*good || health.succeeded()).map(|_| health.failed());
        let rests = aftermaths.filter(|aftermath| matches!(aftermath, Aftermath::Quarantined(_))).count();
        assert!(rests > 0, "three never come in a row, but most calls fail");
    }

    #[test]
    fn one_that_faults_now_and_then_is_asked_on() {
        let health = Health::default();
        for _ in 0..100 {
            assert_eq!(health.failed(), Aftermath::Tolerated);
            for _ in 0..5 {
                assert!(health.admits() && !health.succeeded());
            }
        }
    }

    #[test]
    fn good_answers_make_up_for_faults_and_a_probe_that_succeeds_clears_all() {
        let health = Health::default();
        health.failed();
        health.failed();
        for _ in 0..2 * FAULT {
            assert!(!health.succeeded(), "two faults are no quarantine");
        }
        assert!(!health.marred.load(Ordering::Relaxed), "and cost nothing any more");
        health.failed();
        health.failed();
        assert!(health.admits() && !health.is_quarantined());
        assert_eq!(health.failed(), Aftermath::Quarantined(FIRST_REST));
        assert!(!health.admits() && health.is_quarantined());
        assert!(health.succeeded());
        assert!(health.admits() && !health.is_quarantined());
    }
}
