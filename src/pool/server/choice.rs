//! Which pool gives, and how: pure.

use crate::policy::EvictionOutput;

/// What a pool has, and could give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::pool) struct Offer {
    /// Connections that serve, now or soon, less those it owes already.
    pub(in crate::pool) size: u32,
    pub(in crate::pool) min: u32,
    pub(in crate::pool) idle: u32,
    /// Idle ones above the minimum.
    pub(in crate::pool) spare: u32,
    /// Those of them that have been idle for a while.
    pub(in crate::pool) rested: u32,
    /// What giving one up would hurt, 0 to 1000.
    pub(in crate::pool) cost: u32,
    /// Whether it has, or wants, anything, and has ever had a connection.
    pub(in crate::pool) active: bool,
    /// Whether its last connection was made a while ago.
    pub(in crate::pool) settled: bool,
}

/// How much a pool that asks lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// It has its fair share.
    More,
    /// It has less.
    Hungry,
    /// It has nothing.
    Starving,
}

/// Who gives, by its place among the offers, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gift {
    Idle(usize),
    NextReturned(usize),
}

impl Offer {
    /// Whether an idle connection could go to one in need.
    pub(super) fn lends_to(&self, need: Need) -> bool {
        let idle = match need {
            Need::More => self.rested,
            Need::Hungry => self.spare,
            Need::Starving => self.idle,
        };
        idle > 0
    }
}

/// Who gives to a pool in need, where `fair` is the share of each.
pub(super) fn choose(offers: &[Offer], fair: u32, need: Need) -> Option<Gift> {
    let willing =
        |offer: &Offer| offer.lends_to(need) && (need > Need::More || offer.cost < EvictionOutput::YIELD_COST_MAX);
    let of_idle = offers.iter().enumerate().filter(|(_, offer)| willing(offer));
    if let Some((at, _)) = of_idle.min_by_key(|(_, offer)| (offer.cost, std::cmp::Reverse(offer.spare))) {
        return Some(Gift::Idle(at));
    }
    // A pool at its share gives its last to one that has none, in turns.
    let gives = |offer: &Offer| match need {
        Need::More => false,
        Need::Hungry => offer.size > fair.max(offer.min),
        Need::Starving => offer.size > fair.max(offer.min) || (offer.size > 0 && offer.size >= fair && offer.settled),
    };
    let of_used = offers.iter().enumerate().filter(|(_, offer)| gives(offer));
    of_used.max_by_key(|(_, offer)| offer.size).map(|(at, _)| Gift::NextReturned(at))
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    fn offer(size: u32, spare: u32, cost: u32) -> Offer {
        Offer { size, spare, idle: spare, rested: spare, cost, min: 0, active: true, settled: true }
    }

    #[test]
    fn the_sister_gives_whom_it_hurts_least() {
        assert_eq!(choose(&[offer(5, 1, 300), offer(5, 2, 100), offer(9, 5, 900)], 3, Need::More), Some(Gift::Idle(1)));
        assert_eq!(choose(&[offer(5, 1, 100), offer(5, 2, 100)], 3, Need::More), Some(Gift::Idle(1)), "it has more");
        assert_eq!(choose(&[offer(5, 1, 1000), offer(5, 0, 0)], 9, Need::More), None, "nobody can do without");
        assert_eq!(
            choose(&[offer(5, 1, 1000)], 9, Need::Hungry),
            Some(Gift::Idle(0)),
            "but one who has little comes first"
        );
        let busy = [Offer { rested: 0, ..offer(5, 1, 100) }];
        assert_eq!(choose(&busy, 9, Need::More), None, "what was in use a moment ago will be again");
        assert_eq!(choose(&busy, 9, Need::Hungry), Some(Gift::Idle(0)));
    }

    #[test]
    fn where_nothing_is_idle_the_largest_owes_to_one_below_its_share() {
        let busy = [offer(4, 0, 1000), offer(6, 0, 1000), offer(3, 0, 1000)];
        assert_eq!(choose(&busy, 3, Need::Hungry), Some(Gift::NextReturned(1)));
        assert_eq!(choose(&busy, 3, Need::More), None, "a fair share is enough");
        assert_eq!(choose(&busy, 6, Need::Hungry), None, "nobody has more than its own");
        let kept = [Offer { min: 6, ..offer(6, 0, 1000) }, offer(4, 0, 1000)];
        assert_eq!(choose(&kept, 3, Need::Hungry), Some(Gift::NextReturned(1)), "a minimum is kept");
        let ones = [offer(1, 0, 1000), Offer { settled: false, ..offer(1, 0, 1000) }];
        assert_eq!(
            (choose(&ones, 1, Need::Hungry), choose(&ones[1..], 1, Need::Starving)),
            (None, None),
            "not at once"
        );
        assert_eq!(choose(&ones, 1, Need::Starving), Some(Gift::NextReturned(0)), "its last, to one that has none");
        let at_minimum = [Offer { spare: 0, rested: 0, min: 1, idle: 1, ..offer(1, 0, 1000) }];
        assert_eq!(choose(&at_minimum, 1, Need::Starving), Some(Gift::Idle(0)), "nor is a minimum kept from it");
    }
}
