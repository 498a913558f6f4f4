//! Replays recorded hours: what a pool reported sweep by sweep, and what became of its idle connections. A trace is a text to be
//! read: when the policy changes, the test prints it anew (and writes it, with `RECORD_TRACES=1`), and the difference shows what
//! changes for whom.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pressure::{Candidate, Memory, Settings, Signals, Verdict, review};

const COLUMNS: usize = 8;

/// A line of a trace: interval, made, creating, mean in use, peak, waiters, checkouts, cap. Then come events (`waited=N`,
/// `timeouts=N`, `failures=N`, `full=N`, `breaker=N`, `hold-us=N`, `create-us=N`), the idle connections, most recently used first, as
/// `[COUNTx]AGE/IDLE` in seconds (`-STALE` behind it: epochs), and, behind `=>`, the yield cost and a letter for each verdict.
fn sweep(line: &str, path: &Path) -> (Signals, Vec<Candidate>) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let whole = |word: &str| -> u32 { word.parse().unwrap_or_else(|_| panic!("{}: {word} in {line}", path.display())) };
    let mut signals = Signals {
        interval_ms: whole(words[0]),
        min_size: 2,
        size: whole(words[1]) + whole(words[2]),
        creating: whole(words[2]),
        in_use_mean: words[3].parse().expect("a number"),
        in_use_peak: whole(words[4]),
        waiters: whole(words[5]),
        checkouts: whole(words[6]),
        samples: whole(words[6]),
        server_cap: whole(words[7]),
        ..Signals::NONE
    };
    let mut idle = Vec::new();
    for word in &words[COLUMNS..] {
        let Some((event, value)) = word.split_once('=') else {
            let (many, one) = word.split_once('x').unwrap_or(("1", word));
            let (age, rest) = one.split_once('/').unwrap_or_else(|| panic!("{}: {word} in {line}", path.display()));
            let (unused, behind) = rest.split_once('-').unwrap_or((rest, "0"));
            let [age_ms, idle_ms] = [age, unused].map(|seconds| whole(seconds) * 1000);
            let candidate = Candidate { age_ms, idle_ms, epochs_behind: whole(behind), ..Candidate::default() };
            idle.extend(vec![candidate; whole(many) as usize]);
            continue;
        };
        let slot = match event {
            "waited" => &mut signals.waited,
            "timeouts" => &mut signals.timeouts,
            "failures" => &mut signals.create_failures,
            "full" => &mut signals.server_full,
            "breaker" => &mut signals.breaker,
            "hold-us" => &mut signals.hold_p99_us,
            "create-us" => &mut signals.create_mean_us,
            other => panic!("{}: no event {other}", path.display()),
        };
        *slot = whole(value);
    }
    (signals, idle)
}

const fn letter(verdict: Verdict) -> char {
    match verdict {
        Verdict::Keep => '.',
        Verdict::Close => 'C',
        Verdict::Probe => 'P',
        Verdict::Replace => 'R',
    }
}

fn replay(path: &Path, text: &str) -> String {
    let mut memory = Memory::default();
    let mut replayed = String::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            writeln!(replayed, "{line}").expect("text");
            continue;
        }
        let input = line.split("=>").next().unwrap_or_default().trim_end();
        let (signals, idle) = sweep(input, path);
        let review = review(&Settings::DEFAULT, &signals, &idle, Memory::recalled(&memory.carry()));
        memory = review.memory;
        let verdicts: String = review.verdicts.into_iter().map(letter).collect();
        writeln!(replayed, "{input:<92} => {:>4} {verdicts}", review.yield_cost).expect("text");
    }
    replayed
}

#[test]
fn recorded_hours_are_decided_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut traces = 0;
    for entry in fs::read_dir(folder).expect("traces") {
        let path = entry.expect("an entry").path();
        let recorded = fs::read_to_string(&path).expect("a trace");
        let replayed = replay(&path, &recorded);
        if env::var_os("RECORD_TRACES").is_some() {
            fs::write(&path, &replayed).expect("written");
            traces += 1;
            continue;
        }
        assert!(replayed == recorded, "{} is decided differently now:\n\n{replayed}", path.display());
        traces += 1;
    }
    assert!(traces >= 3, "{traces} traces");
}
