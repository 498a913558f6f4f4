//! What all pools of this gateway on one database server may open together, and how one in need takes from its sisters.
//!
//! The cap is the operator's number, or a share of what the server says it grants; and below that, what the server was seen to
//! grant when it refused. A refusal takes a tenth off (other clients of the server, another gateway say, need room as well) and
//! the cap comes back one by one.
//!
//! A pool whose callers wait, and for which there is no room, *claims* a permit: one that comes free is kept for it. Then a
//! sister gives one up: of those with idle connections the one whom its eviction policy says it hurts least (`yield-cost`);
//! where nobody has one idle and the pool has less than its fair share, the largest sister owes the next that comes back; to a
//! pool that has none at all, even one that has no more than its share, but not twice in a second. So nobody starves while others
//! are served, and nothing in use is closed. What is owed and not yet given is taken back whenever the pool asks anew: by then
//! something may lie idle elsewhere.
//!
//! While nothing is known of a server a few connections are begun at a time, until one of them has come to an end: many pools
//! that start at once would else open more than their share before they hear of it. Pools that have never had a connection (a caller
//! may have named a database that there is not) count in nobody's share, and ask one at a time.
//!
//! **Left out.** Two names of one server are two servers. What others than this gateway have open is known by refusals only.

mod choice;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) use self::choice::Offer;
use self::choice::{Gift, Need, choose};
use super::{breaker::Backoff, ceiling::Ceiling};

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
    /// What it has, without its [`Offer::cost`].
    fn offer(&self) -> Offer;
    /// What giving one up would hurt, 0 to 1000: its eviction policy is asked.
    fn cost(&self) -> u32;
    /// Closes the connection that has been idle longest. Returns whether there was one.
    fn give(self: Arc<Self>) -> bool;
    /// The next connection that comes back is closed.
    fn owe(&self);
    /// It owes one less. Returns whether it still did.
    fn forgive(&self) -> bool;
    /// There may be room.
    fn ring(&self);
}

/// A member of the server's pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberId(u64);

struct Books {
    terms: ServerTerms,
    grants: Option<u32>,
    ceiling: Ceiling,
    live: u32,
    /// An attempt to connect has come to an end.
    tried: bool,
    members: Vec<Member>,
    joined: u64,
}

/// Connections begun on a server of which nothing is known yet.
const FEW: u32 = 4;

struct Member {
    id: MemberId,
    /// One, and those whose place it takes and that still drain.
    pools: Vec<Weak<dyn Sister>>,
    /// It has had a connection.
    proven: bool,
    /// Callers of it wait for want of a permit.
    wants: bool,
    /// Permits that are kept for it as they come free.
    claims: u32,
    /// Who owes it one of them, and has not given it yet as far as is known.
    debtors: Vec<Weak<dyn Sister>>,
}

impl ServerTerms {
    /// The least of both. A number comes before a share.
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
        Arc::new(Self(Mutex::new(Books {
            terms,
            grants,
            ceiling,
            live: 0,
            tried: false,
            members: Vec::new(),
            joined: 0,
        })))
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
        books.members.push(Member {
            id,
            pools: Vec::new(),
            proven: false,
            wants: false,
            claims: 0,
            debtors: Vec::new(),
        });
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
        let cap = books.cap().unwrap_or(if books.tried { u32::MAX } else { FEW });
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

    /// Whether there is no room for `id`, or only what it has claimed.
    pub(super) fn is_pressed(&self, id: MemberId) -> bool {
        let mut books = self.0.lock();
        let full = books.cap().is_some_and(|cap| books.live >= cap);
        full || books.member(id).is_some_and(|member| member.claims > 0)
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

    /// The server granted one more, to `id`. What is open and being made beside it proves no more than that.
    pub(super) fn made(&self, id: MemberId) {
        self.hear();
        let mut books = self.0.lock();
        let proved = books.ceiling.seen().map_or(u32::MAX, |seen| seen.saturating_add(1));
        let live = books.live.min(proved);
        books.ceiling.granted(live);
        if let Some(member) = books.member(id) {
            member.proven = true;
        }
    }

    /// An attempt to connect has come to an end. Whoever held back until then goes on.
    pub(super) fn hear(&self) {
        let mut books = self.0.lock();
        if std::mem::replace(&mut books.tried, true) {
            return;
        }
        drop(books);
        for pool in self.pools(|_| true) {
            pool.ring();
        }
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
        // Where nobody has said a number, it is forgotten when it is far above what is open.
        let most = books.most().unwrap_or(books.live.saturating_mul(2).saturating_add(8));
        books.ceiling.raise(now, most, backoff);
    }

    pub(super) fn next_change(&self) -> Option<Instant> {
        self.0.lock().ceiling.next_change()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.lock().ceiling.seen().is_some()
    }

    // === giving ===

    /// Has sisters give up what `asker`, who has `own`, needs: `need` permits in all. Returns whether anybody gave what lay idle.
    /// Never called with a lock of a pool held.
    pub(super) fn relieve(&self, asker: MemberId, own: u32, need: u32) -> bool {
        self.take_back(asker);
        let Some((cap, claims)) = self.0.lock().want(asker) else { return false };
        let mut given = false;
        for claimed in claims..need {
            let sisters = self.sisters(asker);
            let mut offers: Vec<Offer> = sisters.iter().map(|sister| sister.offer()).collect();
            let active = offers.iter().filter(|offer| offer.active).count() as u32 + 1;
            let fair = (cap / active).max(1);
            let wants = match own + claimed {
                0 => Need::Starving,
                few if few < fair => Need::Hungry,
                _ => Need::More,
            };
            for (offer, sister) in offers.iter_mut().zip(&sisters).filter(|(offer, _)| offer.lends_to(wants)) {
                offer.cost = sister.cost();
            }
            let Some(gift) = choose(&offers, fair, wants) else { return given };
            // First the claim: what comes free is no longer for everybody.
            self.claim(asker, claimed + 1);
            match gift {
                Gift::Idle(at) if Arc::clone(&sisters[at]).give() => given = true,
                Gift::Idle(_) => {
                    self.claim(asker, claimed);
                    return given;
                }
                Gift::NextReturned(at) => {
                    sisters[at].owe();
                    if let Some(member) = self.0.lock().member(asker) {
                        member.debtors.push(Arc::downgrade(&sisters[at]));
                    }
                }
            }
        }
        given
    }

    /// `asker` needs nothing any more.
    pub(super) fn calm(&self, asker: MemberId) {
        self.take_back(asker);
        let mut books = self.0.lock();
        let Some(member) = books.member(asker) else { return };
        let claimed = std::mem::take(&mut member.claims) > 0;
        member.wants = false;
        drop(books);
        if claimed {
            self.ring();
        }
    }

    /// What is owed to `asker` and not yet given is owed no longer, and claimed no longer.
    fn take_back(&self, asker: MemberId) {
        let debtors = self.0.lock().member(asker).map(|member| std::mem::take(&mut member.debtors)).unwrap_or_default();
        let open = debtors.iter().filter_map(Weak::upgrade).filter(|debtor| debtor.forgive()).count() as u32;
        // Of one that is gone nothing comes.
        let lost = debtors.iter().filter(|debtor| debtor.strong_count() == 0).count() as u32;
        if let Some(member) = self.0.lock().member(asker) {
            member.claims = member.claims.saturating_sub(open + lost);
        }
    }

    /// Where the server grants less than is open: one idle connection less, of the pool whom it hurts least.
    pub(super) fn settle(&self) {
        let Some(cap) = self.0.lock().overdrawn() else { return };
        let pools = self.pools(|_| true);
        let mut offers: Vec<Offer> = pools.iter().map(|pool| pool.offer()).collect();
        // Those on their way out count no more.
        if offers.iter().map(|offer| offer.size).sum::<u32>() <= cap {
            return;
        }
        for (offer, pool) in offers.iter_mut().zip(&pools).filter(|(offer, _)| offer.lends_to(Need::More)) {
            offer.cost = pool.cost();
        }
        if let Some(Gift::Idle(at)) = choose(&offers, 0, Need::More) {
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

    /// The cap, and what the member has claimed, where there is a cap to press against. Of those that have never had a
    /// connection one claims at a time.
    fn want(&mut self, id: MemberId) -> Option<(u32, u32)> {
        let cap = self.cap()?;
        let strangers = self.members.iter().any(|member| member.id != id && !member.proven && member.claims > 0);
        let member = self.member(id).filter(|member| member.proven || !strangers)?;
        member.wants = true;
        Some((cap, member.claims))
    }

    /// The cap, where more is open.
    fn overdrawn(&self) -> Option<u32> {
        self.cap().filter(|cap| self.live > *cap)
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use std::time::Duration;

    use super::*;

    const TERMS: ServerTerms = ServerTerms { connections: None, share: 0.8 };
    const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(200), max: Duration::from_secs(10), jitter: 0.0 };

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
    fn of_a_server_that_nothing_is_known_of_a_few_are_begun_until_one_has_ended() {
        let server = ServerBudget::new(TERMS);
        let id = server.join();
        assert_eq!((0..9).filter(|_| server.try_take(id)).count() as u32, FEW);
        server.hear();
        assert!(server.try_take(id), "it says nothing: then nothing holds");
    }

    #[test]
    fn a_ceiling_is_forgotten_though_nobody_said_a_number() {
        let (server, now) = (ServerBudget::new(TERMS), Instant::now());
        let id = server.join();
        server.hear();
        while server.status().connections < 5 {
            assert!(server.try_take(id));
        }
        server.refused(now, &BACKOFF, 0.0);
        server.give_back(1);
        assert!(server.is_full());
        for step in 1..=30_u32 {
            server.raise(now + BACKOFF.max * step, &BACKOFF);
        }
        assert!(!server.is_full(), "{:?}", server.status());
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
}
