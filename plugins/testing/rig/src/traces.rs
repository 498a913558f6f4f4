//! Recorded days and hours: what a pool reported, and what was decided. A trace is a text to be read: when the policy changes, the
//! test fails and prints it anew (with `RECORD_TRACES=1` it writes it instead), and the difference shows what changes for whom.
//!
//! A line is an input, and, behind `=>`, the answer. Empty lines and those that begin with `#` are for the reader.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Replays all traces in `tests/traces` of the crate whose manifest is in `folder`. Returns how many there were.
///
/// # Panics
///
/// When one is decided differently now, or cannot be read.
pub fn all(folder: &str, replay: impl Fn(&str) -> String) -> usize {
    let mut traces = 0;
    for entry in fs::read_dir(Path::new(folder).join("tests/traces")).expect("traces") {
        let path = entry.expect("an entry").path();
        let recorded = fs::read_to_string(&path).expect("a trace");
        let replayed = replay(&recorded);
        if env::var_os("RECORD_TRACES").is_some() {
            fs::write(&path, &replayed).expect("written");
        } else {
            assert!(replayed == recorded, "{} is decided differently now:\n\n{replayed}", path.display());
        }
        traces += 1;
    }
    traces
}

/// A trace anew: each input, padded to `width`, with what `answer` makes of it.
pub fn anew(trace: &str, width: usize, mut answer: impl FnMut(&str) -> String) -> String {
    let mut replayed = String::new();
    for line in trace.lines() {
        if line.is_empty() || line.starts_with('#') {
            writeln!(replayed, "{line}").expect("text");
            continue;
        }
        let input = line.split("=>").next().unwrap_or_default().trim_end();
        writeln!(replayed, "{input:<width$} => {}", answer(input)).expect("text");
    }
    replayed
}

/// A whole number of a trace.
///
/// # Panics
///
/// When it is none.
pub fn whole(word: &str) -> u32 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no whole number"))
}

#[cfg(test)]
mod tests {
    use super::{all, anew};

    #[test]
    fn answers_are_written_anew_and_comments_stay() {
        let trace = "# 1 => one\n\n1 2  => three\n22   => old\n";
        let replayed = anew(trace, 4, |input| input.len().to_string());
        assert_eq!(replayed, "# 1 => one\n\n1 2  => 3\n22   => 2\n");
    }

    #[test]
    fn traces_are_counted() {
        assert_eq!(all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixed"), str::to_owned), 2);
    }

    #[test]
    #[should_panic(expected = "is decided differently now")]
    fn another_answer_is_told() {
        all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixed"), |trace| anew(trace, 58, |_| "0 Fixed".to_owned()));
    }
}
