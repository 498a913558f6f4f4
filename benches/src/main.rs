//! `make bench`: what the README claims, measured.
//!
//! A claim is a ratio in one run on the same cores: every peer has one core, the load and the origin the other, and every peer
//! writes an access log and applies a limit that is never reached, as the gateway does. CPU is user and system time of all of
//! a peer's processes, from `/proc`. Peers that are not installed are left out.
//!
//! `bench [http] [query] [memory] [pool] [--seconds N]`; no words: all of them. `bench policies [--seconds N] [--into FILE]` compares
//! sizing policies on recorded loads, `bench loads` records those anew.

mod figures;
mod http;
mod memory;
mod peers;
mod policies;
mod pool;
mod pooled;
mod process;
mod query;
mod server;

use std::env;

/// Where the load and the origin run; the measured process has the other core.
const LOAD_CORE: &str = "0";
const MEASURED_CORE: &str = "1";
/// Where what is measured shares the machine with its load.
const BOTH_CORES: &str = "0,1";

/// What may be named.
const PARTS: [&str; 6] = ["pool", "http", "query", "memory", "policies", "loads"];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let value = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1));
    let given: Option<u32> = value("--seconds").map(|text| text.parse()).transpose()?;
    let named = |name: &str| words.iter().any(|word| word == name);
    let unknown = words.iter().enumerate().find(|(at, word)| {
        let is_value = *at > 0 && words[at - 1].starts_with("--");
        !is_value && !PARTS.contains(&word.as_str()) && !["--seconds", "--into"].contains(&word.as_str())
    });
    if let Some((_, word)) = unknown {
        anyhow::bail!("there is no `{word}`; there is {}", PARTS.join(", "));
    }
    if named("loads") {
        return policies::load::write_all();
    }
    if named("policies") {
        return policies::run(given, value("--into").map(String::as_str));
    }
    let seconds = given.unwrap_or(5);
    let all = !PARTS.into_iter().any(named);
    if all || named("pool") {
        pool::run(seconds)?;
    }
    if all || named("http") {
        http::run(seconds)?;
    }
    if all || named("query") {
        query::run(seconds)?;
    }
    if all || named("memory") {
        memory::run()?;
    }
    Ok(())
}
