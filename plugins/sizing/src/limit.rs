//! A limit that moves in fractions, and the whole number that stands for it.
//!
//! A rule that steers by measurements moves by fractions of a connection, up and down with their noise. Its answer should
//! not: each change of direction closes a connection and opens another, and the host freezes a target that turns more than six
//! times in a minute. So the target follows upwards as soon as a whole connection is gained, and downwards only when a part of
//! it, and one connection at least, is lost.
//!
//! The host may do otherwise than was answered: bounds move, it lets a target down slowly while callers wait. Then what was remembered
//! means nothing, and counting on from it would end in a jump when the hold ends ("wind-up", in a controller's words): the
//! limit goes on from where the target is. Only where it wants to begin it insists: a new pool aims at its maximum, and a single
//! caller who waits for the first connection must not make that the beginning.

use crate::Signals;

/// A limit on connections, in fractions of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The limit; 1 or more.
    pub value: f64,
    /// What of the target must be lost before it follows downwards: 0.125 an eighth.
    slack: f64,
    /// Whether the target has not stood where the limit begins yet.
    begins: bool,
}

impl Limit {
    /// The limit as it was left in `carry`, if the host did as it was told; else the target as it is. It begins with `start`, or
    /// with what is in use, but with no more than the target: a pool in use must not be cut.
    pub fn recall(carry: &[f64], place: usize, start: u32, slack: f64, signals: &Signals) -> Self {
        let current = signals.current();
        let least = f64::from(signals.within_bounds(1).max(1));
        let limit = |value: f64, begins: bool| Self { value: value.max(least), slack, begins };
        let begin = limit(f64::from(start.max(signals.in_use_peak).max(signals.in_use).min(current)), true);
        let Some(kept) = carry.get(place).copied().filter(|kept| kept.is_finite()) else { return begin };
        let before = limit(kept.abs(), false);
        match (before.stands_for(current), kept < 0.0) {
            (true, _) => before,
            (false, true) => begin,
            (false, false) => limit(f64::from(current), false),
        }
    }

    /// For `carry`; negative while it begins.
    pub fn keep(&self) -> f64 {
        if self.begins { -self.value } else { self.value }
    }

    /// Moves to `value`; what is no number does not move it.
    pub fn set(&mut self, value: f64) {
        if value.is_finite() {
            self.value = value.clamp(1.0, f64::from(u32::MAX));
        }
    }

    /// The target that stands for it. Where connections cannot be had it is no more than the present one.
    pub fn target(&self, signals: &Signals) -> u32 {
        let current = signals.current();
        let grows = self.value >= f64::from(current) + 1.0;
        if self.stands_for(current) || (grows && signals.failing()) {
            return current;
        }
        signals.within_bounds(self.value as u32)
    }

    /// Whether a target of `current` is near enough not to be touched.
    fn stands_for(&self, current: u32) -> bool {
        let current = f64::from(current);
        self.value < current + 1.0 && current - self.value < (self.slack * current).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;
    use crate::Signals;

    fn pool(target: u32) -> Signals {
        Signals { max_size: 100, target, ..Signals::default() }
    }

    fn limit(value: f64, slack: f64) -> Limit {
        Limit { value, slack, begins: false }
    }

    #[test]
    fn upwards_it_follows_by_whole_connections_and_downwards_by_an_eighth() {
        let target = |value, current| limit(value, 0.125).target(&pool(current));
        assert_eq!((target(20.9, 20), target(21.0, 20)), (20, 21));
        assert_eq!((target(17.6, 20), target(17.5, 20)), (20, 17));
        assert_eq!((target(1.1, 2), target(1.0, 2)), (2, 1), "one connection at least");
    }

    #[test]
    fn it_is_remembered_while_the_host_does_as_it_was_told() {
        let recall = |kept, signals: &Signals| Limit::recall(&[kept], 0, 10, 0.125, signals).value;
        assert_eq!(recall(19.3, &pool(20)), 19.3);
        assert_eq!(recall(24.0, &pool(20)), 20.0, "the host held it down");
        assert_eq!(recall(9.0, &pool(20)), 20.0, "the host held it up");
        assert_eq!(recall(20.0, &Signals { max_size: 12, ..pool(20) }), 12.0, "the bound came down");
    }

    #[test]
    fn it_begins_small_but_does_not_cut_what_is_in_use() {
        let begin = |signals: &Signals| Limit::recall(&[], 0, 10, 0.125, signals).value;
        assert_eq!(begin(&pool(50)), 10.0);
        assert_eq!(begin(&pool(4)), 4.0);
        assert_eq!(begin(&Signals { in_use_peak: 22, ..pool(50) }), 22.0);
    }

    #[test]
    fn it_insists_on_its_beginning() {
        let begun = Limit::recall(&[], 0, 10, 0.125, &pool(50));
        let held = Limit::recall(&[begun.keep()], 0, 10, 0.125, &pool(50));
        assert_eq!(held.target(&pool(50)), 10, "the host held it up: again");
        let taken = Limit::recall(&[held.keep()], 0, 10, 0.125, &pool(10));
        assert_eq!((taken.value, taken.keep()), (10.0, 10.0));
    }

    #[test]
    fn it_does_not_grow_against_a_wall() {
        let wall = Signals { server_full: 1, ..pool(20) };
        assert_eq!(limit(30.0, 0.0).target(&wall), 20);
        assert_eq!(limit(15.0, 0.0).target(&wall), 15);
    }

    #[test]
    fn what_is_no_number_does_not_move_it() {
        let mut limit = limit(5.0, 0.0);
        limit.set(f64::NAN);
        assert_eq!(limit.value, 5.0);
        limit.set(-3.0);
        assert_eq!(limit.value, 1.0);
    }
}
