//! Recorded hours: what a pool reported sweep by sweep, and what became of its idle connections.

use policy_eviction::{Candidate, Policy as _, Signals, Verdict};
use policy_rig::traces::{self, whole};
use pressure::{Pressure, Settings};

const COLUMNS: usize = 8;

/// A line of a trace: interval, made, creating, mean in use, peak, waiters, checkouts, cap. Then come events (`waited=N`,
/// `timeouts=N`, `failures=N`, `full=N`, `breaker=N`, `hold-us=N`, `create-us=N`), the idle connections, most recently used first, as
/// `[COUNTx]AGE/IDLE` in seconds (`-STALE` behind it: epochs), and, behind `=>`, the yield cost and a letter for each verdict.
fn sweep(line: &str) -> (Signals, Vec<Candidate>) {
    let words: Vec<&str> = line.split_whitespace().collect();
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
        ..Signals::EMPTY
    };
    let mut idle = Vec::new();
    for word in &words[COLUMNS..] {
        let Some((event, value)) = word.split_once('=') else {
            let (many, one) = word.split_once('x').unwrap_or(("1", word));
            let (age, rest) = one.split_once('/').unwrap_or_else(|| panic!("{word} in {line}"));
            let (unused, behind) = rest.split_once('-').unwrap_or((rest, "0"));
            let [age_ms, idle_ms] = [age, unused].map(|seconds| whole(seconds) * 1000);
            let candidate = Candidate { age_ms, idle_ms, epochs_behind: whole(behind), ..Candidate::FRESH };
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
            other => panic!("there is no event {other}"),
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

fn replay(trace: &str) -> String {
    let mut carry = Vec::new();
    traces::anew(trace, 92, |input| {
        let (signals, idle) = sweep(input);
        let review = Pressure::review(&Settings::DEFAULT, &signals, &idle, &carry);
        carry = review.carry;
        let verdicts: String = review.verdicts.into_iter().map(letter).collect();
        format!("{:>4} {verdicts}", review.yield_cost)
    })
}

#[test]
fn recorded_hours_are_decided_as_they_were() {
    let traces = traces::all(env!("CARGO_MANIFEST_DIR"), replay);
    assert!(traces >= 3, "{traces} traces");
}
