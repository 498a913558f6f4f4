//! What load to put on a pool.

use std::{str::FromStr, time::Duration};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::config::{model::PoolSize, value::Span};

/// Longest run: each tenth of a second is kept.
const LONGEST: Duration = Duration::from_hours(1);
/// Shortest run of which anything can be said.
const SHORTEST: Duration = Duration::from_millis(100);
/// Longest pause of a client, and longest use of a connection.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// As many connections as a pool may have; more clients only queue.
const MOST_CONNECTIONS: u32 = 65_536;

/// The load.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Clients, each with one statement at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) clients: u32,
    /// How long they go on, 100ms to 1h.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(super) duration: Span,
    /// What they run.
    #[arg(long, value_name = "SQL", default_value = "select 1", value_parser = statement)]
    pub(super) reads: String,
    /// What they run now and then instead; it is committed.
    #[arg(long, value_name = "SQL", value_parser = statement)]
    pub(super) writes: Option<String>,
    /// How much of it, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, requires = "writes", value_parser = share)]
    pub(super) write_share: f64,
    /// How long each client pauses between statements.
    #[arg(long, default_value = "0ms", value_parser = pause)]
    pub(super) think: Span,
    /// How long it keeps the connection when the statement is done.
    #[arg(long, default_value = "0ms", value_parser = pause)]
    pub(super) hold: Span,
}

/// `MIN..MAX`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds(pub(super) PoolSize);

/// Which statement of a client is a write: evenly spread, and the same in every run.
pub(super) struct Mix {
    share: f64,
    due: f64,
}

fn duration(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if (SHORTEST..=LONGEST).contains(&span.0) { Ok(span) } else { Err("must be between 100ms and 1h".into()) }
}

fn pause(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0 <= LONGEST_PAUSE { Ok(span) } else { Err("must be at most 1m".into()) }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be between 0 and 1".into())
}

fn statement(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("must not be empty".into()) } else { Ok(text.into()) }
}

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` are not bounds; write them like 2..20");
        let (min, max) = text.split_once("..").ok_or_else(wrong)?;
        let (min, max) = (min.parse().map_err(|_| wrong())?, max.parse().map_err(|_| wrong())?);
        match (min, max) {
            (_, 0) => Err("a pool of no connections serves nobody".into()),
            _ if min > max => Err(format!("the minimum is {min}, more than the maximum, which is {max}")),
            _ if max > MOST_CONNECTIONS => Err(format!("must be at most {MOST_CONNECTIONS}")),
            _ => Ok(Self(PoolSize { min, max: Some(max), ..PoolSize::default() })),
        }
    }
}

impl Plan {
    /// The mix of one client; they do not all begin with a write.
    pub(super) fn mix(&self, client: u32) -> Mix {
        let share = if self.writes.is_some() { self.write_share } else { 0.0 };
        Mix { share, due: f64::from(client) / f64::from(self.clients.max(1)) }
    }
}

impl Mix {
    /// Whether the next statement is a write.
    pub(super) fn writes_next(&mut self) -> bool {
        self.due += self.share;
        let writes = self.due >= 1.0;
        if writes {
            self.due -= 1.0;
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        plan: Plan,
    }

    fn plan(words: &[&str]) -> Result<Plan, String> {
        let parsed = Line::try_parse_from([&["bench"], words].concat());
        parsed.map(|line| line.plan).map_err(|error| error.to_string())
    }

    #[test]
    fn bad_words_are_refused_with_the_reason() {
        assert_eq!(plan(&[]).unwrap().clients, 16);
        for (words, why) in [
            (&["--clients", "0"][..], "1..=10000"),
            (&["--clients", "10001"], "1..=10000"),
            (&["--duration", "2h"], "between 100ms and 1h"),
            (&["--duration", "0s"], "between 100ms and 1h"),
            (&["--duration", "ten"], "250ms"),
            (&["--reads", " "], "must not be empty"),
            (&["--think", "2m"], "at most 1m"),
            (&["--writes", "x", "--write-share", "1.1"], "between 0 and 1"),
            (&["--writes", "x", "--write-share", "NaN"], "between 0 and 1"),
            (&["--write-share", "0.5"], "--writes"),
        ] {
            let said = plan(words).unwrap_err();
            assert!(said.contains(why), "{words:?}: {said}");
        }
    }

    #[test]
    fn bounds_are_two_numbers_in_order() {
        assert_eq!("2..20".parse(), Ok(Bounds(PoolSize { min: 2, max: Some(20), ..PoolSize::default() })));
        for (text, why) in [
            ("20", "like 2..20"),
            ("a..b", "like 2..20"),
            ("3..2", "more than"),
            ("0..0", "nobody"),
            ("1..65537", "65536"),
        ] {
            assert!(text.parse::<Bounds>().unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn writes_come_as_often_as_they_should() {
        let of = |words: &[&str]| {
            let plan = plan(words).unwrap();
            let count = |mut mix: Mix| (0..100).filter(|_| mix.writes_next()).count();
            (0..plan.clients).map(|client| count(plan.mix(client))).sum::<usize>()
        };
        assert_eq!(of(&["--clients", "1"]), 0);
        assert_eq!(of(&["--clients", "1", "--writes", "x", "--write-share", "1"]), 100);
        assert_eq!(of(&["--clients", "1", "--writes", "x", "--write-share", "0"]), 0);
        assert!((159..=161).contains(&of(&["--writes", "x"])), "a tenth of 1600");
    }
}
