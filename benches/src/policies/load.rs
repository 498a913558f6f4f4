//! Recorded loads: when each statement comes, and how long it takes on a database that nothing slows down.
//!
//! They lie in `benches/loads` as text, a line a statement, and were made by [`Shape::record`] from a fixed seed; a trace of one's
//! own can take their place. `bench loads` writes them anew.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// A load.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Its name, that of its file.
    pub name: String,
    /// Statements at once beyond which the database grows slower; 0: it never does.
    pub knee: u32,
    /// In the order of their coming.
    pub statements: Vec<Timed>,
}

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// When it comes, after the beginning.
    pub at: Duration,
    /// How long it takes.
    pub ms: f64,
}

/// What a load is recorded from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// In words, for its file.
    pub words: &'static str,
    knee: u32,
    seed: u64,
    /// One after another.
    stretches: &'static [Stretch],
    /// Statements that come at once beside the others: second, and how many.
    crowds: &'static [(f64, u32)],
}

/// Independent callers for a while.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    seconds: f64,
    /// A second, at its beginning and at its end.
    rate: (f64, f64),
    /// Mean of a statement.
    ms: f64,
}

const fn stretch(seconds: f64, from: f64, to: f64, ms: f64) -> Stretch {
    Stretch { seconds, rate: (from, to), ms }
}

/// How long those of a crowd take to come, in seconds.
const CROWDING: f64 = 0.1;

/// All that are recorded.
pub const SHAPES: [Shape; 5] = [
    Shape {
        name: "steady",
        words: "200 statements of 30 ms a second: six at a time in the mean",
        knee: 0,
        seed: 1,
        stretches: &[stretch(15.0, 200.0, 200.0, 30.0)],
        crowds: &[],
    },
    Shape {
        name: "ramp",
        words: "from 50 to 500 statements of 30 ms a second in ten seconds, and back in five: up to fifteen at a time",
        knee: 0,
        seed: 2,
        stretches: &[stretch(10.0, 50.0, 500.0, 30.0), stretch(5.0, 500.0, 50.0, 30.0)],
        crowds: &[],
    },
    Shape {
        name: "burst",
        words: "70 statements of 30 ms a second, and three times 150 more within a tenth of a second",
        knee: 0,
        seed: 3,
        stretches: &[stretch(15.0, 70.0, 70.0, 30.0)],
        crowds: &[(3.0, 150), (7.0, 150), (11.0, 150)],
    },
    Shape {
        name: "slow",
        words: "130 statements a second of 30 ms, of 90 ms from the fifth to the tenth second: four at a time, then twelve",
        knee: 0,
        seed: 4,
        stretches: &[
            stretch(5.0, 130.0, 130.0, 30.0),
            stretch(5.0, 130.0, 130.0, 90.0),
            stretch(5.0, 130.0, 130.0, 30.0),
        ],
        crowds: &[],
    },
    Shape {
        name: "limit",
        words: "the database bears eight statements at once, 267 of 30 ms a second; 160 a second come, 300 from the fourth to the ninth",
        knee: 8,
        seed: 5,
        stretches: &[
            stretch(4.0, 160.0, 160.0, 30.0),
            stretch(5.0, 300.0, 300.0, 30.0),
            stretch(6.0, 160.0, 160.0, 30.0),
        ],
        crowds: &[],
    },
];

/// Thirty statements at a time in the mean: enough that chance is a small part of what a pool needs.
pub const LARGE: Shape = Shape {
    name: "steady, large",
    words: "600 statements of 50 ms a second",
    knee: 0,
    seed: 6,
    stretches: &[stretch(15.0, 600.0, 600.0, 50.0)],
    crowds: &[],
};

impl Load {
    /// Reads a recorded one.
    pub fn read(name: &str) -> Result<Self> {
        let path = file_of(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::parse(name, &text).with_context(|| path.display().to_string())
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let mut load = Self { name: name.to_owned(), knee: 0, statements: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            if let Some(knee) = line.strip_prefix("# knee: ") {
                load.knee = knee.parse()?;
            } else if !line.starts_with('#') && !line.starts_with("at_ms") {
                let timed = Timed::parse(line).with_context(|| format!("line {}: {line}", number + 1))?;
                let last = load.statements.last().map_or(Duration::ZERO, |last| last.at);
                ensure!(timed.at >= last, "line {}: earlier than the line before", number + 1);
                load.statements.push(timed);
            }
        }
        ensure!(!load.statements.is_empty(), "nobody comes");
        Ok(load)
    }

    fn text(&self, shape: &Shape) -> String {
        let mut text =
            format!("# {}\n# seed: {}\n# knee: {}\nat_ms,statement_ms\n", shape.words, shape.seed, self.knee);
        for timed in &self.statements {
            let _ = writeln!(text, "{:.1},{:.1}", timed.at.as_secs_f64() * 1e3, timed.ms);
        }
        text
    }

    /// From its beginning to the last statement's coming.
    pub fn length(&self) -> Duration {
        self.statements.last().map_or(Duration::ZERO, |last| last.at)
    }

    /// Connections that are needed in the mean, if nobody waits (Little's law).
    pub fn need(&self) -> f64 {
        let busy: f64 = self.statements.iter().map(|timed| timed.ms / 1e3).sum();
        busy / self.length().as_secs_f64()
    }

    /// Its beginning alone.
    pub fn first(mut self, length: Duration) -> Self {
        self.statements.retain(|timed| timed.at < length);
        self
    }
}

impl Timed {
    fn parse(line: &str) -> Result<Self> {
        let (at, ms) = line.split_once(',').context("two numbers, with a comma between")?;
        let (at, ms): (f64, f64) = (at.parse()?, ms.parse()?);
        if !(0.0..3_600_000.0).contains(&at) || !(0.0..60_000.0).contains(&ms) {
            bail!("out of range");
        }
        Ok(Self { at: Duration::from_secs_f64(at / 1e3), ms })
    }
}

impl Shape {
    /// The load: callers come independently of each other (a Poisson process), and a statement takes its mean, give or take
    /// a third.
    pub fn record(&self) -> Load {
        let mut dice = Dice(self.seed);
        let mut at_ms = Vec::new();
        let mut begins = 0.0;
        for stretch in self.stretches {
            let mut at = dice.gap(stretch.rate.0);
            while at < stretch.seconds {
                at_ms.push((begins + at) * 1e3);
                at += dice.gap(stretch.rate_at(at));
            }
            begins += stretch.seconds;
        }
        for (second, count) in self.crowds {
            at_ms.extend((0..*count).map(|_| (second + dice.roll() * CROWDING) * 1e3));
        }
        at_ms.sort_by(f64::total_cmp);
        // As it is written, so that what was read is what was recorded.
        let tenths = |ms: f64| (ms * 10.0).round() / 10.0;
        let timed = |at: f64| {
            let ms = tenths(self.ms_at(at / 1e3) * (2.0 + 2.0 * dice.roll()) / 3.0);
            Timed { at: Duration::from_secs_f64(tenths(at) / 1e3), ms }
        };
        Load { name: self.name.to_owned(), knee: self.knee, statements: at_ms.into_iter().map(timed).collect() }
    }

    fn ms_at(&self, second: f64) -> f64 {
        let mut ends = 0.0;
        let among = self.stretches.iter().find(|stretch| {
            ends += stretch.seconds;
            second < ends
        });
        among.or(self.stretches.last()).map_or(0.0, |stretch| stretch.ms)
    }
}

impl Stretch {
    fn rate_at(&self, second: f64) -> f64 {
        self.rate.0 + (self.rate.1 - self.rate.0) * second / self.seconds
    }
}

/// The same numbers in every run (Steele, Lea, Flood 2014: SplitMix64).
struct Dice(u64);

impl Dice {
    /// 0 to less than 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Seconds to the next of those who come at `rate`.
    fn gap(&mut self, rate: f64) -> f64 {
        -(1.0 - self.roll()).ln() / rate
    }
}

/// Writes all of them.
pub fn write_all() -> Result<()> {
    for shape in &SHAPES {
        let path = file_of(shape.name);
        fs::write(&path, shape.record().text(shape))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn file_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("loads").join(name).with_extension("csv")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_what_was_recorded() {
        for shape in &SHAPES {
            let load = Load::read(shape.name).expect(shape.name);
            assert!(load == shape.record(), "{}: `make bench BENCH=loads` writes it anew", shape.name);
            assert!((13.0..=15.2).contains(&load.length().as_secs_f64()), "{}", shape.name);
        }
    }

    #[test]
    fn loads_need_what_their_words_say() {
        let need = |name: &str| SHAPES.iter().find(|shape| shape.name == name).expect(name).record().need();
        assert!((5.4..6.6).contains(&need("steady")), "{}", need("steady"));
        assert!((5.5..8.8).contains(&need("limit")), "{}", need("limit"));
        assert!((27.0..33.0).contains(&LARGE.record().need()));
        let slow = SHAPES[3].record();
        let mean = |from: f64, to: f64| {
            let of = |timed: &&Timed| (from..to).contains(&timed.at.as_secs_f64());
            let ms: Vec<f64> = slow.statements.iter().filter(of).map(|timed| timed.ms).collect();
            ms.iter().sum::<f64>() / ms.len() as f64
        };
        assert!((2.7..3.3).contains(&(mean(5.0, 10.0) / mean(0.0, 5.0))), "three times as slow");
    }

    #[test]
    fn a_trace_that_makes_no_sense_is_refused_with_its_line() {
        let why = |text: &str| format!("{:#}", Load::parse("x", text).expect_err(text));
        assert!(why("# words\n").contains("nobody"));
        assert!(why("1,2\n0.5,2\n").contains("line 2"));
        assert!(why("1;2\n").contains("comma"));
        assert!(why("1,-2\n").contains("range"));
        assert_eq!(Load::parse("x", "# knee: 4\nat_ms,statement_ms\n1.5,2\n").expect("sound").knee, 4);
    }
}
