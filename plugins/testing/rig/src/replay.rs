//! Replays recorded days: what a pool reported tick by tick, and the target that followed. A trace is a text to be read: when the
//! policy changes, the test prints it anew (and writes it, with `RECORD_TRACES=1`), and the difference shows what changes for whom.
//!
//! A line is: trigger, interval, made, creating, in use, mean, peak, waiters, oldest wait. Then come events and latencies, as
//! `name=number` (`hold` and `rtt` are milliseconds and come from as many checkouts and round trips as there were checkouts,
//! unless `samples` says otherwise), and, behind `=>`, the target and the reason. `# start N` sets the target to begin with,
//! `# config {…}` the configuration.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use policy_sizing::{Policy, Signals};

const COLUMNS: usize = 9;

/// Replays all traces in `tests/traces` of the crate whose manifest is in `folder`. Returns how many there were.
///
/// # Panics
///
/// When a day is decided differently now, or a trace cannot be read.
pub fn all<P: Policy>(folder: &str) -> usize {
    let mut traces = 0;
    for entry in fs::read_dir(Path::new(folder).join("tests/traces")).expect("traces") {
        let path = entry.expect("an entry").path();
        let recorded = fs::read_to_string(&path).expect("a trace");
        let replayed = replay::<P>(&recorded);
        if env::var_os("RECORD_TRACES").is_some() {
            fs::write(&path, &replayed).expect("written");
        }
        assert!(replayed == recorded, "{} is decided differently now:\n\n{replayed}", path.display());
        traces += 1;
    }
    traces
}

fn replay<P: Policy>(text: &str) -> String {
    let (mut settings, mut target, mut carry) = (P::DEFAULT, 0, Vec::new());
    let mut replayed = String::new();
    for line in text.lines() {
        if let Some(start) = line.strip_prefix("# start ") {
            target = start.parse().expect("a number");
        }
        if let Some(config) = line.strip_prefix("# config ") {
            settings = P::parse(config).expect("a configuration");
        }
        if line.is_empty() || line.starts_with('#') {
            writeln!(replayed, "{line}").expect("text");
            continue;
        }
        let input = line.split("=>").next().unwrap_or_default().trim_end();
        let decision = P::decide(&settings, &signals(input, target), &carry);
        target = decision.target;
        carry = decision.carry;
        let reserve = if decision.reserve > 0 { format!(" + {}", decision.reserve) } else { String::new() };
        writeln!(replayed, "{input:<58} => {target}{reserve} {:?}", decision.reason).expect("text");
    }
    replayed
}

fn signals(line: &str, target: u32) -> Signals {
    let words: Vec<&str> = line.split_whitespace().collect();
    let whole = |column: usize| -> u32 { words[column].parse().unwrap_or_else(|_| panic!("no number: {line}")) };
    let mut signals = Signals {
        trigger: whole(0),
        interval_ms: whole(1),
        min_size: 2,
        max_size: 40,
        target,
        size: whole(2) + whole(3),
        creating: whole(3),
        in_use: whole(4),
        in_use_mean: words[5].parse().expect("a number"),
        in_use_peak: whole(6),
        waiters: whole(7),
        oldest_wait_ms: whole(8),
        ..Signals::default()
    };
    for word in &words[COLUMNS..] {
        let (name, number) = word.split_once('=').expect("name=number");
        note(&mut signals, name, number.parse().expect("a number"));
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
