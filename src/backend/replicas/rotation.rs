//! Whether a replica is in rotation: what checks found, made into a standing.
//!
//! Out goes at once who is too far behind, cannot be connected to, or is no standby any more; who does not answer, at the second
//! time, since one connection may break for reasons of its own. Back comes who is less than half the allowed lag behind, or whom
//! two checks in a row found good. That a pool was full says nothing about its server, and changes nothing.

use std::time::Duration;

/// Checks in a row that found nothing wrong, after which a replica is believed; and without an answer, after which it is not.
const IN_A_ROW: u32 = 2;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A standby, so far behind; none: nothing is known of the primary.
    Standby { lag: Option<Duration> },
    /// A standby that does not tell its position.
    Unplaced,
    /// A server that takes writes.
    Promoted,
    /// No answer, or a broken connection.
    Silent,
    /// No connection could be made.
    Unreachable,
    /// The pool had no connection to spare.
    Busy,
}

/// Where a replica stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    /// Not looked at yet.
    #[default]
    Unknown = 0,
    In = 1,
    Lagging = 2,
    Unplaced = 3,
    Promoted = 4,
    Silent = 5,
    Unreachable = 6,
}

#[derive(Debug, Default)]
pub(super) struct Rotation {
    standing: Standing,
    good: u32,
    silent: u32,
}

impl Standing {
    pub(super) const ALL: [Self; 7] =
        [Self::Unknown, Self::In, Self::Lagging, Self::Unplaced, Self::Promoted, Self::Silent, Self::Unreachable];

    /// Why it is not in rotation, in logs and `/status`.
    pub(super) fn why(self) -> Option<&'static str> {
        match self {
            Self::In => None,
            Self::Unknown => Some("not checked yet"),
            Self::Lagging => Some("too far behind"),
            Self::Unplaced => Some("does not tell its position"),
            Self::Promoted => Some("not in recovery"),
            Self::Silent => Some("does not answer"),
            Self::Unreachable => Some("cannot be connected to"),
        }
    }

    /// Whether what is under way there may never end.
    pub(super) fn is_gone(self) -> bool {
        matches!(self, Self::Silent | Self::Unreachable)
    }

    pub(super) fn is_out(self) -> bool {
        !matches!(self, Self::In | Self::Unknown)
    }
}

impl Rotation {
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Takes note of what a check found. `most`: the lag that is allowed; zero: any.
    pub(super) fn see(&mut self, seen: Seen, most: Duration) {
        self.standing = match seen {
            Seen::Busy => return,
            Seen::Silent => {
                self.good = 0;
                self.silent += 1;
                if self.silent < IN_A_ROW {
                    return;
                }
                Standing::Silent
            }
            Seen::Standby { lag } => self.measured(if most.is_zero() { None } else { lag }, most),
            Seen::Unplaced if most.is_zero() => self.measured(None, most),
            Seen::Unplaced => self.wrong(Standing::Unplaced),
            Seen::Promoted => self.wrong(Standing::Promoted),
            Seen::Unreachable => self.wrong(Standing::Unreachable),
        };
    }

    fn measured(&mut self, lag: Option<Duration>, most: Duration) -> Standing {
        let lag = lag.unwrap_or_default();
        if lag > most {
            return self.wrong(Standing::Lagging);
        }
        self.silent = 0;
        self.good = (self.good + 1).min(IN_A_ROW);
        let caught_up = self.standing == Standing::Lagging && (lag < most / 2 || most.is_zero());
        if caught_up || self.good == IN_A_ROW || !self.standing.is_out() { Standing::In } else { self.standing }
    }

    fn wrong(&mut self, standing: Standing) -> Standing {
        (self.good, self.silent) = (0, 0);
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Standings after each of the checks, with a lag of 10 s allowed.
    fn after(seen: &[Seen]) -> Vec<Standing> {
        let mut rotation = Rotation::default();
        let each = seen.iter().map(|seen| {
            rotation.see(*seen, MS(10_000));
            rotation.standing()
        });
        each.collect()
    }

    fn behind(ms: u64) -> Seen {
        Seen::Standby { lag: Some(MS(ms)) }
    }

    #[test]
    fn the_first_good_check_puts_it_in_and_too_long_a_lag_out() {
        assert_eq!(Rotation::default().standing(), Standing::Unknown);
        assert_eq!(
            after(&[behind(0), behind(10_000), behind(10_001)]),
            [Standing::In, Standing::In, Standing::Lagging]
        );
        assert_eq!(after(&[behind(10_001)]), [Standing::Lagging]);
        assert_eq!(after(&[Seen::Standby { lag: None }]), [Standing::In], "nothing is known against it");
    }

    #[test]
    fn it_comes_back_below_half_the_lag_or_at_the_second_good_check() {
        use Standing::{In, Lagging};
        assert_eq!(after(&[behind(11_000), behind(4_999)]), [Lagging, In]);
        assert_eq!(after(&[behind(11_000), behind(5_000), behind(5_000)]), [Lagging, Lagging, In]);
        let swinging = [behind(11_000), behind(9_000), behind(11_000), behind(9_000), behind(11_000)];
        assert_eq!(after(&swinging), [Lagging; 5], "no coming and going about the bound");
    }

    #[test]
    fn one_that_was_gone_must_prove_itself_twice_however_little_it_is_behind() {
        for (seen, out) in [
            (Seen::Unreachable, Standing::Unreachable),
            (Seen::Promoted, Standing::Promoted),
            (Seen::Unplaced, Standing::Unplaced),
        ] {
            assert_eq!(after(&[behind(0), seen, behind(0), behind(0)]), [Standing::In, out, out, Standing::In]);
            let wavering = [seen, behind(0), seen, behind(0)];
            assert_eq!(after(&wavering), [out; 4]);
        }
    }

    #[test]
    fn the_second_silence_in_a_row_counts() {
        use Standing::{In, Silent};
        assert_eq!(after(&[behind(0), Seen::Silent, behind(0), Seen::Silent]), [In; 4]);
        assert_eq!(after(&[behind(0), Seen::Silent, Seen::Silent, behind(0), behind(0)]), [In, In, Silent, Silent, In]);
    }

    #[test]
    fn a_full_pool_changes_nothing_whatever_was_before() {
        use Standing::{In, Lagging, Unknown};
        assert_eq!(after(&[Seen::Busy; 9]), [Unknown; 9]);
        assert_eq!(after(&[behind(0), Seen::Busy, Seen::Busy, Seen::Busy]), [In; 4]);
        assert_eq!(after(&[behind(11_000), behind(6_000), Seen::Busy, behind(6_000)]), [Lagging, Lagging, Lagging, In]);
    }

    #[test]
    fn where_lag_is_not_looked_at_none_is_too_long() {
        let mut rotation = Rotation::default();
        rotation.see(behind(60_000), MS(1_000));
        assert_eq!(rotation.standing(), Standing::Lagging);
        rotation.see(behind(60_000), Duration::ZERO);
        assert_eq!(rotation.standing(), Standing::In, "at once, when the bound is taken away");
        rotation.see(Seen::Unplaced, Duration::ZERO);
        assert_eq!(rotation.standing(), Standing::In);
    }

    #[test]
    fn a_standing_is_told_from_its_number() {
        for standing in Standing::ALL {
            assert_eq!(Standing::ALL[standing as usize], standing);
            assert_eq!(standing.why().is_none(), standing == Standing::In);
        }
    }
}
