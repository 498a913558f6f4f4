//! Replays recorded days: what a pool reported tick by tick, and the target that followed. A trace is a text to be read: when the
//! policy changes, the test prints it anew (and writes it, with `RECORD_TRACES=1`), and the difference shows what changes for whom.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use utilisation::{Settings, Signals, decide};

const COLUMNS: usize = 9;

/// A line of a trace: trigger, interval, made, creating, in use, mean, peak, waiters, oldest wait. Then come events
/// (`timeouts=N`, `failures=N`, `full=N`, `breaker=N`) and, behind `=>`, the target and the reason.
fn signals(line: &str, target: u32, path: &Path) -> Signals {
    let words: Vec<&str> = line.split_whitespace().collect();
    let whole =
        |column: usize| -> u32 { words[column].parse().unwrap_or_else(|_| panic!("{}: {line}", path.display())) };
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
    for event in &words[COLUMNS..] {
        let (name, count) = event.split_once('=').expect("an event");
        let count = count.parse().expect("a count");
        match name {
            "timeouts" => signals.timeouts = count,
            "failures" => signals.create_failures = count,
            "full" => signals.server_full = count,
            "breaker" => signals.breaker = count,
            other => panic!("{}: no event {other}", path.display()),
        }
    }
    signals
}

fn replay(path: &Path, text: &str) -> String {
    let (mut target, mut carry) = (0, Vec::new());
    let mut replayed = String::new();
    for line in text.lines() {
        if let Some(start) = line.strip_prefix("# start ") {
            target = start.parse().expect("a number");
        }
        if line.is_empty() || line.starts_with('#') {
            writeln!(replayed, "{line}").expect("text");
            continue;
        }
        let input = line.split("=>").next().unwrap_or_default().trim_end();
        let decision = decide(&Settings::DEFAULT, &signals(input, target, path), &carry);
        target = decision.target;
        carry = decision.carry.to_vec();
        writeln!(replayed, "{input:<58} => {target} {:?}", decision.reason).expect("text");
    }
    replayed
}

#[test]
fn recorded_days_are_decided_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut traces = 0;
    for entry in fs::read_dir(folder).expect("traces") {
        let path = entry.expect("an entry").path();
        let recorded = fs::read_to_string(&path).expect("a trace");
        let replayed = replay(&path, &recorded);
        if env::var_os("RECORD_TRACES").is_some() {
            fs::write(&path, &replayed).expect("written");
        }
        assert!(replayed == recorded, "{} is decided differently now:\n\n{replayed}", path.display());
        traces += 1;
    }
    assert!(traces >= 3, "{traces} traces");
}
