//! A pool whose connections are lost in silence, as behind a firewall that forgets: what callers meet, and what it takes to spare
//! them, with this policy and with fixed windows.
//!
//! The pool does as the gateway's: the last one returned is handed out first, the policy is asked outside the window it gave,
//! a failed ping is counted and the next connection tried, three bad pings in a row (or two for one caller, or the
//! policy's word) close the idle ones. A caller that is handed a dead connection is not counted by the pool: the policy learns from
//! pings alone. Time and chance are simulated, the same in each run.

use adaptive::{Adaptive, Settings};
use policy_validation::{Action, Policy as _, Signals};

/// Callers a second, at any time.
const CALLERS: f64 = 40.0;
/// How long one keeps its connection, on average, in milliseconds.
const HELD_MS: f64 = 100.0;
/// Callers that come at once, and how often.
const BURST: usize = 15;
const BURST_EVERY_MS: f64 = 7000.0;
/// Twenty minutes.
const END_MS: f64 = 1_200_000.0;

/// Whom the pool asks.
#[derive(Clone, Copy)]
enum Policy {
    Adaptive,
    Fixed(u32),
}

/// How connections are lost.
#[derive(Clone, Copy)]
struct Losses {
    /// Share of the idle connections lost each second.
    rate: f64,
    /// How often all idle ones are lost at once.
    all_every_ms: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    checkouts: f64,
    /// Callers that were handed a dead connection.
    met: f64,
    /// Callers that waited for a ping.
    pinged: f64,
}

fn run(policy: Policy, losses: Losses) -> Outcome {
    let mut pool = Pool::new(policy, losses);
    let mut next_caller = 0.0;
    let mut next_burst = BURST_EVERY_MS;
    while next_caller < END_MS {
        let now = f64::min(next_caller, next_burst);
        let callers = if next_burst < next_caller { BURST } else { 1 };
        if callers == BURST {
            next_burst += BURST_EVERY_MS;
        } else {
            next_caller += pool.chance.span(1000.0 / CALLERS);
        }
        pool.take_back(now);
        for _ in 0..callers {
            pool.check_out(now);
        }
    }
    pool.outcome
}

struct Pool {
    policy: Policy,
    losses: Losses,
    chance: Chance,
    /// The last one returned is the last.
    idle: Vec<Connection>,
    in_use: Vec<(f64, Connection)>,
    /// When pings failed, and when they were answered, lately.
    bad: Vec<f64>,
    good: Vec<f64>,
    bad_in_a_row: u32,
    outcome: Outcome,
}

#[derive(Clone, Copy)]
struct Connection {
    made: f64,
    returned: f64,
    validated: f64,
    lost: f64,
    window_ms: u32,
    uses: u32,
}

/// What is done before a connection is handed out.
struct Judgement {
    ping: bool,
    purge: bool,
    window_ms: u32,
}

impl Pool {
    fn new(policy: Policy, losses: Losses) -> Self {
        Self {
            policy,
            losses,
            chance: Chance(7),
            idle: Vec::new(),
            in_use: Vec::new(),
            bad: Vec::new(),
            good: Vec::new(),
            bad_in_a_row: 0,
            outcome: Outcome::default(),
        }
    }

    fn take_back(&mut self, now: f64) {
        self.in_use.sort_by(|one, other| one.0.total_cmp(&other.0));
        let back = self.in_use.iter().take_while(|(until, _)| *until <= now).count();
        for (until, mut connection) in self.in_use.drain(..back) {
            connection.returned = until;
            connection.lost = until + self.chance.span(1000.0 / self.losses.rate);
            let next = ((until / self.losses.all_every_ms).floor() + 1.0) * self.losses.all_every_ms;
            connection.lost = connection.lost.min(next);
            self.idle.push(connection);
        }
    }

    fn check_out(&mut self, now: f64) {
        self.outcome.checkouts += 1.0;
        let (mut pinged, mut failed) = (false, 0);
        while let Some(mut connection) = self.idle.pop() {
            let silent = now - connection.returned.max(connection.validated);
            let dead = connection.lost <= now;
            if silent >= f64::from(connection.window_ms) {
                let Judgement { ping, purge, window_ms } = self.judge(&connection, now);
                pinged |= ping;
                if ping && dead {
                    failed += 1;
                    self.fail(now, purge || failed == 2);
                    continue;
                }
                if ping {
                    self.good.push(now);
                    self.bad_in_a_row = 0;
                    connection.validated = now;
                }
                connection.window_ms = window_ms;
            }
            self.outcome.pinged += f64::from(u8::from(pinged));
            if dead {
                self.outcome.met += 1.0;
                return;
            }
            return self.lend(connection, now);
        }
        self.outcome.pinged += f64::from(u8::from(pinged));
        let mut made = Connection { made: now, returned: now, validated: now, lost: 0.0, window_ms: 0, uses: 0 };
        made.window_ms = self.ask(3, &made, now).window_ms;
        self.lend(made, now);
    }

    fn lend(&mut self, connection: Connection, now: f64) {
        let until = now + self.chance.span(HELD_MS);
        self.in_use.push((until, Connection { uses: connection.uses + 1, ..connection }));
    }

    fn fail(&mut self, now: f64, purge: bool) {
        self.bad.push(now);
        self.bad_in_a_row += 1;
        if purge || self.bad_in_a_row == 3 {
            self.bad_in_a_row = 0;
            self.idle.clear();
        }
    }

    fn judge(&mut self, connection: &Connection, now: f64) -> Judgement {
        for proofs in [&mut self.bad, &mut self.good] {
            proofs.retain(|then| now - then < 10_000.0);
        }
        self.ask(0, connection, now)
    }

    fn ask(&self, trigger: u32, connection: &Connection, now: f64) -> Judgement {
        if let Policy::Fixed(window_ms) = self.policy {
            return Judgement { ping: trigger == 0, purge: false, window_ms };
        }
        let signals = Signals {
            trigger,
            age_ms: (now - connection.made) as u32,
            idle_ms: (now - connection.returned) as u32,
            uses: connection.uses,
            since_validated_ms: (now - connection.validated) as u32,
            last_valid_for_ms: connection.window_ms,
            recent_bad: self.bad.len() as u32,
            recent_good: self.good.len() as u32,
            deadline_left_ms: 5000,
            ..Signals::EMPTY
        };
        let verdict = Adaptive::check(&Settings::DEFAULT, &signals);
        Judgement { ping: verdict.action == Action::Ping, purge: verdict.purge, window_ms: verdict.valid_for_ms }
    }
}

/// Numbers by chance, the same in each run (splitmix64).
struct Chance(u64);

impl Chance {
    /// Exponentially spread, with this mean; never, where the mean is infinite.
    fn span(&mut self, mean: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((mixed ^ (mixed >> 31)) >> 11) as f64 / 9_007_199_254_740_992.0;
        -(1.0 - unit).ln() * mean
    }
}

const NEVER: f64 = f64::INFINITY;
const ADAPTIVE: Policy = Policy::Adaptive;
const SHORT: Policy = Policy::Fixed(500);
const LONG: Policy = Policy::Fixed(30_000);

/// The share of callers that met a dead connection, and the share that waited for a ping, in percent.
fn shares(policy: Policy, rate: f64) -> (f64, f64) {
    let outcome = run(policy, Losses { rate, all_every_ms: NEVER });
    (outcome.met / outcome.checkouts * 100.0, outcome.pinged / outcome.checkouts * 100.0)
}

#[test]
fn whatever_the_rate_of_losses_few_meet_one_and_few_are_pinged() {
    // Lost a second, then the most that meet one and that are pinged; all in percent.
    let bounds =
        [(0.0, 0.0, 1.5), (0.1, 0.03, 2.5), (1.0, 0.1, 6.5), (3.0, 0.25, 8.0), (10.0, 0.6, 9.0), (30.0, 1.5, 9.0)];
    for (rate, most_met, most_pinged) in bounds {
        let (met, pinged) = shares(ADAPTIVE, rate / 100.0);
        println!("{rate:>4} % lost a second: {met:.3} % met one, {pinged:.2} % pinged");
        for (name, fixed) in [("500 ms", SHORT), ("30 s", LONG)] {
            let (met, pinged) = shares(fixed, rate / 100.0);
            println!("{name:>20} fixed: {met:.3} % met one, {pinged:.2} % pinged");
        }
        assert!(met <= most_met, "{met:.3} % met a dead one where {rate} % are lost a second");
        assert!(pinged <= most_pinged, "{pinged:.2} % pinged where {rate} % are lost a second");
    }
}

#[test]
fn where_nothing_is_lost_it_is_cheaper_than_a_short_window() {
    let (_, pinged) = shares(ADAPTIVE, 0.0);
    let (_, short) = shares(SHORT, 0.0);
    assert!(pinged * 5.0 < short, "{pinged:.2} % against {short:.2} %");
}

#[test]
fn where_much_is_lost_it_is_safer_than_a_long_window() {
    for rate in [0.01, 0.03, 0.1, 0.3] {
        let (met, _) = shares(ADAPTIVE, rate);
        let (long, _) = shares(LONG, rate);
        assert!(met * 3.0 < long, "{met:.3} % against {long:.3} % at {rate}");
    }
}

#[test]
fn where_much_is_lost_it_is_nearly_as_safe_as_a_short_window() {
    for rate in [0.01, 0.03, 0.1, 0.3] {
        let (met, pinged) = shares(ADAPTIVE, rate);
        let (short_met, short_pinged) = shares(SHORT, rate);
        assert!(met < short_met * 1.5, "{met:.3} % against {short_met:.3} % at {rate}");
        assert!(pinged < short_pinged * 1.6, "{pinged:.2} % against {short_pinged:.2} % at {rate}");
    }
}

/// What it cannot help: nobody warns it, and windows given on a good day hold.
#[test]
fn when_all_are_lost_at_once_it_costs_more_than_a_short_window_and_less_than_a_long_one() {
    let all_every_ms = 61_300.0;
    let times = (END_MS / all_every_ms).floor();
    let met = |policy| run(policy, Losses { rate: 0.0, all_every_ms }).met / times;
    let [adaptive, short, long] = [ADAPTIVE, SHORT, LONG].map(met);
    println!("all lost at once: {adaptive:.1} callers, {short:.1} with 500 ms, {long:.1} with 30 s");
    assert!(short <= adaptive && adaptive * 2.0 < long, "{adaptive:.1} against {short:.1} and {long:.1}");
}
