//! What all pools of this gateway on one database server may open together, and how one in need takes from its sisters.
//!
//! The cap is the operator's number, or a share of what the server says it grants; and below that, what the server was seen to
//! grant when it refused. A refusal takes a tenth off (other clients of the server, another gateway say, need room as well) and
//! the cap comes back one by one.
//!
//! A pool whose callers wait, and for which there is no room, *claims* a permit: one that comes free is kept for it. Then a
//! sister gives one up: of those with idle connections the one whom its eviction policy says it hurts least (`yield-cost`);
//! where nobody has one idle and the pool has less than its fair share, the largest sister owes the next that comes back. So
//! nobody starves while others are served, and nothing in use is closed.
//!
//! **Left out.** Two names of one server are two servers. What others than this gateway have open is known by refusals only.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{breaker::Backoff, ceiling::Ceiling};
use crate::policy::EvictionOutput;

/// What the operator says of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerTerms {
    /// Connections of all pools together; none: as many as `share` of what the server grants.
    pub connections: Option<u32>,
    /// The part of what the server grants that the pools may use, 0 to 1.
    pub share: f64,
}

/// A server's connections, as far as they are ours. Locked when a connection is begun or ends, never for a checkout.
pub struct ServerBudget(Mutex<Books>);

/// What a server has granted, at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ServerStatus {
    /// Connections of all pools of this gateway.
    pub connections: u32,
    /// At most; none while nothing is known.
    pub cap: Option<u32>,
    /// What the server said that it grants to all its clients.
    pub grants: Option<u32>,
    /// What it was seen to grant, while that is believed.
    pub ceiling: Option<u32>,
    /// Pools that share it, those that drain among them.
    pub pools: u32,
}

/// A pool, as its sisters see it.
pub(super) trait Sister: Send + Sync {
    /// What it has. Its eviction policy is asked what giving would hurt.
    fn offer(&self) -> Offer;
    /// Closes the connection that has been idle longest. Returns whether there was one.
    fn give(self: Arc<Self>) -> bool;
    /// The next connection that comes back is closed.
    fn owe(&self);
    /// Nothing is owed any more.
    fn forgive(&self);
    /// There may be room.
    fn ring(&self);
}

/// What a pool has, and could give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// Connections that serve, now or soon, less those it owes already.
    pub(super) size: u32,
    pub(super) min: u32,
    /// Idle ones above the minimum.
    pub(super) spare: u32,
    /// Those of them that have been idle for a while.
    pub(super) rested: u32,
    /// What giving one up would hurt, 0 to 1000.
    pub(super) cost: u32,
    /// Whether it has, or wants, anything.
    pub(super) active: bool,
}

/// A member of the server's pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberId(u64);

struct Books {
    terms: ServerTerms,
    grants: Option<u32>,
    ceiling: Ceiling,
    live: u32,
    members: Vec<Member>,
    joined: u64,
}

struct Member {
    id: MemberId,
    /// One, and those whose place it takes and that still drain.
    pools: Vec<Weak<dyn Sister>>,
    /// Callers of it wait for want of a permit.
    wants: bool,
    /// Permits that are kept for it as they come free.
    claims: u32,
}

/// Who gives, by its place among the offers, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gift {
    Idle(usize),
    NextReturned(usize),
}

impl ServerTerms {
    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let connections = match (self.connections, other.connections) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { connections, share: self.share.min(other.share) }
    }
}

impl ServerBudget {
    /// A server of which nothing is known but what the operator says.
    pub fn new(terms: ServerTerms) -> Arc<Self> {
        let (grants, ceiling) = (None, Ceiling::default());
        Arc::new(Self(Mutex::new(Books { terms, grants, ceiling, live: 0, members: Vec::new(), joined: 0 })))
    }

    /// Changes what the operator says. Connections above a lower cap stay until they are given back.
    pub fn set_terms(&self, terms: ServerTerms) {
        self.0.lock().terms = terms;
        self.ring();
    }

    /// The server at this moment.
    pub fn status(&self) -> ServerStatus {
        let books = self.0.lock();
        let alive = |member: &Member| member.pools.iter().filter(|pool| pool.strong_count() > 0).count();
        ServerStatus {
            connections: books.live,
            cap: books.cap(),
            grants: books.grants,
            ceiling: books.ceiling.seen(),
            pools: books.members.iter().map(alive).sum::<usize>() as u32,
        }
    }

    /// Connections at most; none while nothing is known.
    pub fn cap(&self) -> Option<u32> {
        self.0.lock().cap()
    }

    /// What is left of that for a pool with `own` connections, those included.
    pub(super) fn left_for(&self, own: u32) -> Option<u32> {
        let books = self.0.lock();
        books.cap().map(|cap| cap.saturating_sub(books.live.saturating_sub(own)).max(1))
    }

    // === members ===

    pub(super) fn join(&self) -> MemberId {
        let mut books = self.0.lock();
        books.joined += 1;
        let id = MemberId(books.joined);
        books.members.push(Member { id, pools: Vec::new(), wants: false, claims: 0 });
        id
    }

    pub(super) fn leave(&self, id: MemberId) {
        self.0.lock().members.retain(|member| member.id != id);
    }

    pub(super) fn introduce(&self, id: MemberId, pool: Weak<dyn Sister>) {
        if let Some(member) = self.0.lock().member(id) {
            member.pools.retain(|pool| pool.strong_count() > 0);
            member.pools.push(pool);
        }
    }

    // === permits ===

    /// Counts one more connection, if there is room beside what others have claimed.
    pub(super) fn try_take(&self, id: MemberId) -> bool {
        let mut books = self.0.lock();
        let cap = books.cap().unwrap_or(u32::MAX);
        let others: u32 = books.members.iter().filter(|member| member.id != id).map(|member| member.claims).sum();
        let claimed = books.member(id).is_some_and(|member| member.claims > 0);
        let kept = if claimed { 0 } else { others };
        let go = books.live.saturating_add(kept) < cap;
        if go {
            books.live += 1;
            if let Some(member) = books.member(id) {
                member.claims = member.claims.saturating_sub(1);
            }
        }
        go
    }

    /// Whether there is no room, claims left aside.
    pub(super) fn has_no_room(&self) -> bool {
        let books = self.0.lock();
        books.cap().is_some_and(|cap| books.live >= cap)
    }

    /// Counts `n` connections less. Who waits for them is told by [`Self::ring`], outside locks.
    pub(super) fn give_back(&self, n: u32) {
        self.0.lock().live -= n;
    }

    /// Tells the pools that want something that there is room.
    pub(super) fn ring(&self) {
        let books = self.0.lock();
        let told = books.members.iter().filter(|member| member.wants);
        let pools: Vec<_> = told.flat_map(|member| member.pools.iter().filter_map(Weak::upgrade)).collect();
        drop(books);
        for pool in pools {
            pool.ring();
        }
    }

    // === what the server grants ===

    /// The server said how many connections it grants to all its clients.
    pub(super) fn granted(&self, connections: u32) {
        self.0.lock().grants = Some(connections);
    }

    /// The server granted one more.
    pub(super) fn made(&self) {
        let mut books = self.0.lock();
        let live = books.live;
        books.ceiling.granted(live);
    }

    /// The server was full; the connection that it refused is still counted. `roll`: -1 to 1, at random.
    pub(super) fn refused(&self, now: Instant, backoff: &Backoff, roll: f64) {
        let mut books = self.0.lock();
        let live = books.live.saturating_sub(1);
        books.ceiling.refused(now, live - live / 10, backoff, roll);
    }

    /// Raises the ceiling by one, if its time has come.
    pub(super) fn raise(&self, now: Instant, backoff: &Backoff) {
        let mut books = self.0.lock();
        let most = books.most().unwrap_or(u32::MAX);
        books.ceiling.raise(now, most, backoff);
    }

    pub(super) fn next_change(&self) -> Option<Instant> {
        self.0.lock().ceiling.next_change()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.lock().ceiling.seen().is_some()
    }

    // === giving ===

    /// Has sisters give up what `asker`, who has and wants what `own` says, needs: `need` permits in all. Never called with a
    /// lock of a pool held.
    pub(super) fn relieve(&self, asker: MemberId, own: Offer, need: u32) {
        let Some((cap, claims)) = self.0.lock().want(asker) else { return };
        for claimed in claims..need {
            let sisters = self.sisters(asker);
            let offers: Vec<Offer> = sisters.iter().map(|sister| sister.offer()).collect();
            let active = offers.iter().filter(|offer| offer.active).count() as u32 + 1;
            let fair = (cap / active).max(1);
            let Some(gift) = choose(&offers, fair, own.size + claimed < fair) else { return };
            // First the claim: what comes free is no longer for everybody.
            self.claim(asker, claimed + 1);
            let given = match gift {
                Gift::Idle(at) => Arc::clone(&sisters[at]).give(),
                Gift::NextReturned(at) => {
                    sisters[at].owe();
                    true
                }
            };
            if !given {
                return self.claim(asker, claimed);
            }
        }
    }

    /// `asker` needs nothing any more. Whoever owed something for it owes it no longer, if nobody else is in need.
    pub(super) fn calm(&self, asker: MemberId) {
        let mut books = self.0.lock();
        let Some(member) = books.member(asker).filter(|member| member.wants) else { return };
        let claimed = std::mem::take(&mut member.claims) > 0;
        member.wants = false;
        let in_need = books.members.iter().any(|member| member.claims > 0);
        drop(books);
        if !in_need {
            for sister in self.sisters(asker) {
                sister.forgive();
            }
        }
        if claimed {
            self.ring();
        }
    }

    /// Where the server grants less than is open: one idle connection less, of the pool whom it hurts least.
    pub(super) fn settle(&self) {
        let Some(cap) = self.0.lock().overdrawn() else { return };
        let pools = self.pools(|_| true);
        let offers: Vec<Offer> = pools.iter().map(|pool| pool.offer()).collect();
        // Those on their way out count no more.
        if offers.iter().map(|offer| offer.size).sum::<u32>() > cap
            && let Some(Gift::Idle(at)) = choose(&offers, 0, false)
        {
            Arc::clone(&pools[at]).give();
        }
    }

    fn claim(&self, id: MemberId, claims: u32) {
        if let Some(member) = self.0.lock().member(id) {
            member.claims = claims;
        }
    }

    fn sisters(&self, of: MemberId) -> Vec<Arc<dyn Sister>> {
        self.pools(|id| id != of)
    }

    fn pools(&self, which: impl Fn(MemberId) -> bool) -> Vec<Arc<dyn Sister>> {
        let books = self.0.lock();
        let members = books.members.iter().filter(|member| which(member.id));
        members.flat_map(|member| member.pools.iter().filter_map(Weak::upgrade)).collect()
    }
}

impl Books {
    /// What the operator and the server have said.
    fn most(&self) -> Option<u32> {
        let share = |grants: u32| ((f64::from(grants) * self.terms.share) as u32).max(1);
        self.terms.connections.or_else(|| self.grants.map(share))
    }

    fn cap(&self) -> Option<u32> {
        match (self.most(), self.ceiling.seen()) {
            (Some(most), Some(seen)) => Some(most.min(seen.max(1))),
            (most, seen) => most.or_else(|| seen.map(|seen| seen.max(1))),
        }
    }

    fn member(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// The cap, and what the member has claimed, where there is a cap to press against.
    fn want(&mut self, id: MemberId) -> Option<(u32, u32)> {
        let cap = self.cap()?;
        let member = self.member(id)?;
        member.wants = true;
        Some((cap, member.claims))
    }

    /// The cap, where more is open.
    fn overdrawn(&self) -> Option<u32> {
        self.cap().filter(|cap| self.live > *cap)
    }
}

/// Who gives to a pool in need. `hungry`: it has less than `fair`, the share of each.
fn choose(offers: &[Offer], fair: u32, hungry: bool) -> Option<Gift> {
    let calm = |offer: &Offer| offer.rested > 0 && offer.cost < EvictionOutput::YIELD_COST_MAX;
    let willing = |offer: &Offer| if hungry { offer.spare > 0 } else { calm(offer) };
    let of_idle = offers.iter().enumerate().filter(|(_, offer)| willing(offer));
    if let Some((at, _)) = of_idle.min_by_key(|(_, offer)| (offer.cost, std::cmp::Reverse(offer.spare))) {
        return Some(Gift::Idle(at));
    }
    let of_used = offers.iter().enumerate().filter(|(_, offer)| offer.size > fair.max(offer.min));
    let largest = of_used.max_by_key(|(_, offer)| offer.size).map(|(at, _)| Gift::NextReturned(at));
    largest.filter(|_| hungry)
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use std::time::Duration;

    use super::*;

    const TERMS: ServerTerms = ServerTerms { connections: None, share: 0.8 };
    const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(200), max: Duration::from_secs(10), jitter: 0.0 };

    fn offer(size: u32, spare: u32, cost: u32) -> Offer {
        Offer { size, spare, rested: spare, cost, min: 0, active: true }
    }

    #[test]
    fn the_cap_is_the_operators_number_or_a_share_of_what_the_server_grants() {
        let server = ServerBudget::new(TERMS);
        assert_eq!(server.cap(), None, "nothing is known yet");
        server.granted(97);
        assert_eq!(server.cap(), Some(77));
        server.set_terms(ServerTerms { connections: Some(5), share: 0.8 });
        assert_eq!(server.cap(), Some(5));
        server.set_terms(TERMS);
        server.granted(1);
        assert_eq!(server.cap(), Some(1), "never none at all");
        let both = TERMS.and(ServerTerms { connections: Some(9), share: 0.5 });
        assert_eq!((both.connections, both.share), (Some(9), 0.5));
    }

    #[test]
    fn a_refusal_takes_a_tenth_off_and_it_comes_back_one_by_one() {
        let (server, now) = (ServerBudget::new(TERMS), Instant::now());
        server.granted(100);
        let id = server.join();
        while server.try_take(id) {}
        assert_eq!(server.status().connections, 80);
        server.refused(now, &BACKOFF, 0.0);
        server.give_back(1);
        assert_eq!((server.cap(), server.try_take(id)), (Some(72), false));
        for step in 1..=8_u32 {
            server.raise(now + BACKOFF.initial * step, &BACKOFF);
        }
        assert_eq!(server.cap(), Some(80), "and then it is forgotten: {:?}", server.status());
        assert!(!server.is_full());
    }

    #[test]
    fn what_is_left_for_one_is_what_the_others_do_not_have() {
        let server = ServerBudget::new(ServerTerms { connections: Some(5), ..TERMS });
        let (one, other) = (server.join(), server.join());
        assert!(server.try_take(one) && server.try_take(other) && server.try_take(other));
        assert_eq!((server.left_for(1), server.left_for(2)), (Some(3), Some(4)));
        server.set_terms(ServerTerms { connections: Some(1), ..TERMS });
        assert_eq!(server.left_for(1), Some(1), "never none at all");
    }

    #[test]
    fn what_comes_free_is_kept_for_the_one_who_claims_it() {
        let server = ServerBudget::new(ServerTerms { connections: Some(2), ..TERMS });
        let (rich, poor) = (server.join(), server.join());
        assert!(server.try_take(rich) && server.try_take(rich) && !server.try_take(poor));
        server.claim(poor, 1);
        server.give_back(1);
        assert!(!server.try_take(rich), "it is not for everybody");
        assert!(server.try_take(poor));
        server.give_back(1);
        assert!(server.try_take(rich), "and one is kept only once");
        server.claim(poor, 1);
        server.leave(poor);
        server.give_back(1);
        assert!(server.try_take(rich), "nor for one who has left");
    }

    #[test]
    fn the_sister_gives_whom_it_hurts_least() {
        assert_eq!(choose(&[offer(5, 1, 300), offer(5, 2, 100), offer(9, 5, 900)], 3, false), Some(Gift::Idle(1)));
        assert_eq!(choose(&[offer(5, 1, 100), offer(5, 2, 100)], 3, false), Some(Gift::Idle(1)), "it has more");
        assert_eq!(choose(&[offer(5, 1, 1000), offer(5, 0, 0)], 9, false), None, "nobody can do without");
        assert_eq!(choose(&[offer(5, 1, 1000)], 9, true), Some(Gift::Idle(0)), "but one who has little comes first");
        let busy = [Offer { rested: 0, ..offer(5, 1, 100) }];
        assert_eq!(choose(&busy, 9, false), None, "what was in use a moment ago will be again");
        assert_eq!(choose(&busy, 9, true), Some(Gift::Idle(0)));
    }

    #[test]
    fn where_nothing_is_idle_the_largest_owes_to_one_below_its_share() {
        let busy = [offer(4, 0, 1000), offer(6, 0, 1000), offer(3, 0, 1000)];
        assert_eq!(choose(&busy, 3, true), Some(Gift::NextReturned(1)));
        assert_eq!(choose(&busy, 3, false), None, "a fair share is enough");
        assert_eq!(choose(&busy, 6, true), None, "nobody has more than its own");
        let kept = [Offer { min: 6, ..offer(6, 0, 1000) }, offer(4, 0, 1000)];
        assert_eq!(choose(&kept, 3, true), Some(Gift::NextReturned(1)), "a minimum is kept");
    }
}
