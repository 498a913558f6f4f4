//! What came of it, in Markdown.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};

use super::{contestant::ROOM, load::Load, replay::Outcome};
use crate::server::Postgres;

/// Between these lines of a file stand the tables.
const MARKS: [&str; 2] =
    ["<!-- written by `make compare-policies`: begin -->\n", "<!-- written by `make compare-policies`: end -->\n"];

/// Tables, one a load.
pub struct Report {
    text: String,
}

impl Report {
    /// With where and when.
    pub fn new(postgres: &Postgres, seconds: Option<u32>) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cpu = cpu().unwrap_or_else(|| "an unknown processor".into());
        let short = seconds.map_or_else(String::new, |seconds| format!(", the first {seconds} s of each load"));
        let bouncer = version("pgbouncer").map_or_else(String::new, |version| format!(", {version}"));
        let text = format!(
            "`make compare-policies` on {}: {cores} cores of {cpu}, PostgreSQL {}{bouncer}{short}; room for {ROOM} \
             connections.\n",
            today()?,
            postgres.version()?
        );
        Ok(Self { text })
    }

    /// Begins a table.
    pub fn load(&mut self, words: &str, load: &Load) {
        let _ = write!(
            self.text,
            "\n**`{}`**: {words}. Needs {:.1} connections in the mean (Little's law).\n\n\
             | | p99 wait, ms | p99 answer, ms | held, mean | held, peak | opened | failed | answers/s |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n",
            load.name,
            load.need()
        );
    }

    /// A line of it.
    pub fn row(&mut self, name: &str, outcome: &Outcome) {
        let (mean, peak) = outcome.held(Duration::ZERO);
        let _ = writeln!(
            self.text,
            "| {name} | {:.1} | {:.0} | {mean:.1} | {peak:.0} | {} | {} | {:.0} |",
            outcome.p99_wait(Duration::ZERO),
            outcome.p99_answer(),
            outcome.opened,
            outcome.failed,
            outcome.throughput()
        );
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Puts it between the marks of a file.
    pub fn write_into(&self, path: &Path) -> Result<()> {
        let old = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let new = between_marks(&old, &self.text).with_context(|| format!("no marks in {}", path.display()))?;
        fs::write(path, new)?;
        eprintln!("{}", path.display());
        Ok(())
    }
}

/// `old` with `text` between the marks; none, if they are not there.
fn between_marks(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}\n{text}\n{}{after}", MARKS[0], MARKS[1]))
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The first line that a program says of its version.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

/// As the calendar has it, in UTC (Howard Hinnant's `civil_from_days`).
fn today() -> Result<String> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    Ok(date(seconds / 86_400))
}

fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let in_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{in_month:02}", year + era * 400 + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let dates = [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (20_088, "2024-12-31")];
        for (days, wanted) in dates {
            assert_eq!(date(days), wanted);
        }
    }

    #[test]
    fn what_stands_between_the_marks_is_replaced_and_nothing_else() {
        let file = format!("a\n{}old\n{}b\n", MARKS[0], MARKS[1]);
        let once = between_marks(&file, "new").expect("marks");
        assert!(once.starts_with("a\n<!--") && once.ends_with("-->\nb\n") && once.contains("\nnew\n"), "{once}");
        assert!(!once.contains("old"));
        assert_eq!(between_marks(&once, "new"), Some(once.clone()), "the second time nothing changes");
        assert_eq!(between_marks("a", "new"), None);
    }
}
