//! `make bench`: what the README claims, measured.
//!
//! A claim is a ratio in one run on the same cores: every peer has one core, the load and the origin the other, and every peer
//! writes an access log and applies a limit that is never reached, as the gateway does. CPU is user and system time of all of
//! a peer's processes, from `/proc`. Peers that are not installed are left out.
//!
//! `bench [http] [query] [memory] [micro] [--seconds N]`; no words: all of them.

mod http;
mod latency;
mod memory;
mod micro;
mod peers;
mod process;
mod query;

use std::env;

/// Where the load and the origin run; the measured process has the other core.
const LOAD_CORE: &str = "0";
const MEASURED_CORE: &str = "1";

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let seconds = words.iter().position(|word| word == "--seconds").and_then(|at| words.get(at + 1)?.parse().ok());
    let seconds: u32 = seconds.unwrap_or(5);
    let named: Vec<&String> =
        words.iter().filter(|word| ["http", "query", "memory", "micro"].contains(&word.as_str())).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|word| *word == name);
    if wanted("micro") {
        micro::run()?;
    }
    if wanted("http") {
        http::run(seconds)?;
    }
    if wanted("query") {
        query::run(seconds)?;
    }
    if wanted("memory") {
        memory::run()?;
    }
    Ok(())
}

/// `0.87 of nginx`, and whether a budget is met.
fn verdict(ratio: f64, must: f64) -> String {
    format!("{ratio:.2} (must be at most {must:.2}: {})", if ratio <= must { "met" } else { "NOT met" })
}
