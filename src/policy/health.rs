//! When a policy that faults is asked again: three faults in a row and it is left alone for a while, ever longer, with one
//! natural call between as a probe. A success clears all.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Faults in a row that quarantine a policy.
const FAULTS: u32 = 3;
/// The first rest. Long enough that a policy that traps at once costs less than a per mille of a worker.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest: a policy that works again is back within a minute.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// The state of one hook of one version.
#[derive(Debug, Default)]
struct Record {
    in_row: u32,
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
        self.in_row = self.in_row.saturating_add(1);
        let rest = match self.quarantine {
            Some(quarantine) => (quarantine.rest * 2).min(LONGEST_REST),
            None if self.in_row >= FAULTS => FIRST_REST,
            None => return Aftermath::Tolerated,
        };
        self.quarantine = Some(Quarantine { rest, until: now + rest });
        Aftermath::Quarantined(rest)
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
        self.marred.store(false, Ordering::Relaxed);
        std::mem::take(&mut *record).quarantine.is_some()
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
    fn a_success_clears_the_record() {
        let health = Health::default();
        health.failed();
        health.failed();
        assert!(!health.succeeded(), "two faults are no quarantine");
        health.failed();
        health.failed();
        assert!(health.admits() && !health.is_quarantined());
        assert_eq!(health.failed(), Aftermath::Quarantined(FIRST_REST));
        assert!(!health.admits() && health.is_quarantined());
        assert!(health.succeeded());
        assert!(health.admits() && !health.is_quarantined());
    }
}
