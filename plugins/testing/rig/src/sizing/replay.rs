//! Recorded days: what a pool reported tick by tick, and the target that followed ([`traces`]).
//!
//! A line is: trigger, interval, made, creating, in use, mean, peak, waiters, oldest wait. Then come events and latencies, as
//! `name=number` (`hold` and `rtt` are milliseconds and come from as many checkouts and round trips as there were checkouts,
//! unless `samples` says otherwise), and, behind `=>`, the target and the reason. `# start N` sets the target to begin with,
//! `# config {…}` the configuration.

use policy_settings::Configuration as _;
use policy_sizing::{Policy, Signals};

use crate::traces::{self, whole};

const COLUMNS: usize = 9;

/// Replays all traces in `tests/traces` of the crate whose manifest is in `folder`. Returns how many there were.
///
/// # Panics
///
/// When a day is decided differently now, or a trace cannot be read.
pub fn all<P: Policy>(folder: &str) -> usize {
    traces::all(folder, replay::<P>)
}

fn replay<P: Policy>(trace: &str) -> String {
    let says = |key: &str| trace.lines().find_map(|line| line.strip_prefix(key));
    let settings =
        says("# config ").map_or(P::Settings::DEFAULT, |json| P::Settings::parse(json).expect("a configuration"));
    let mut target = says("# start ").map_or(0, whole);
    let mut carry = Vec::new();
    traces::anew(trace, 58, |input| {
        let decision = P::decide(&settings, &signals(input, target), &carry);
        target = decision.target;
        carry = decision.carry;
        let reserve = if decision.reserve > 0 { format!(" + {}", decision.reserve) } else { String::new() };
        format!("{target}{reserve} {:?}", decision.reason)
    })
}

fn signals(line: &str, target: u32) -> Signals {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut signals = Signals {
        trigger: whole(words[0]),
        interval_ms: whole(words[1]),
        min_size: 2,
        max_size: 40,
        target,
        size: whole(words[2]) + whole(words[3]),
        creating: whole(words[3]),
        in_use: whole(words[4]),
        in_use_mean: words[5].parse().expect("a number"),
        in_use_peak: whole(words[6]),
        waiters: whole(words[7]),
        oldest_wait_ms: whole(words[8]),
        ..Signals::default()
    };
    for word in &words[COLUMNS..] {
        let (name, number) = word.split_once('=').expect("name=number");
        note(&mut signals, name, whole(number));
    }
    signals
}

fn note(signals: &mut Signals, name: &str, number: u32) {
    match name {
        "timeouts" => signals.timeouts = number,
        "refused" => signals.refused = number,
        "failures" => signals.create_failures = number,
        "full" => signals.server_full = number,
        "breaker" => signals.breaker = number,
        "checkouts" => (signals.checkouts, signals.samples, signals.rtt_samples) = (number, number, number),
        "samples" => (signals.samples, signals.rtt_samples) = (number, number),
        "hold" => signals.hold_mean_us = number * 1000,
        "rtt" => signals.rtt_mean_us = number * 1000,
        other => panic!("nothing is called {other}"),
    }
}
