//! What is wrong with a configuration, and where.

use std::{fmt, sync::Arc};

/// A place in a file, or the name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file as it was named, or `$NAME` for an environment variable.
    pub source: Arc<str>,
    /// Line and column, both from 1, the column in characters; none for a variable or a whole file.
    pub line_column: Option<(usize, usize)>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; none if no layer sets the key or a table around it.
    pub position: Option<Position>,
    /// The key's place, such as `pool.demo.size.max` or `route[0].path`; empty for a whole file.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Everything that is wrong, in order of place. Printed one a line: `config/gateway.toml:12:5: pool.demo.size: …`.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    problems: Vec<Problem>,
}

/// Something wrong at a key whose place is not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key's place.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Position {
    /// A file or a variable as a whole.
    pub(super) fn whole(source: Arc<str>) -> Self {
        Self { source, line_column: None }
    }
}

impl Problem {
    /// What stands between `://` and `@` in the message is hidden: it may be a password in the wrong place.
    pub fn new(position: Option<Position>, key: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self { position, key: key.into(), message: one_line(&hide_userinfo(message.as_ref())) }
    }
}

impl Finding {
    /// Something wrong at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl Report {
    /// Sorts the problems by source, line, column and key.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (&a.position, &a.key, &a.message).cmp(&(&b.position, &b.key, &b.message)));
        problems.dedup();
        Self { problems }
    }

    /// The problems, sorted.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line_column {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.source),
            None => f.write_str(&self.source),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

/// Replaces `://user:password@` by `://***@`.
fn hide_userinfo(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // A password may hold `@`, `/` or `:`; only what ends a quoted value ends the search.
        let word = after.find(|c: char| c.is_whitespace() || c == '`' || c == '"').unwrap_or(after.len());
        rest = after[..word].rfind('@').map_or(after, |end| {
            shown.push_str("***");
            &after[end..]
        });
    }
    shown + rest
}

/// Keeps a report one line a problem, and a terminal safe from what a file holds.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_sorted_and_says_where() {
        let at = |line, column| Some(Position { source: "a.toml".into(), line_column: Some((line, column)) });
        let report = Report::new(vec![
            Problem::new(at(12, 5), "pool.demo.size.mx", "unknown key; did you mean `max`?"),
            Problem::new(at(2, 1), "", "not\nTOML"),
            Problem::new(Some(Position::whole("$SLUICEGATE_LOG__LEVEL".into())), "log.level", "unknown key"),
            Problem::new(None, "listener", "none"),
        ]);
        let expected = "listener: none\n\
                        $SLUICEGATE_LOG__LEVEL: log.level: unknown key\n\
                        a.toml:2:1: not TOML\n\
                        a.toml:12:5: pool.demo.size.mx: unknown key; did you mean `max`?";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn a_password_in_the_wrong_place_is_not_repeated() {
        let shown = |text: &str| Problem::new(None, "", text).message;
        assert_eq!(shown("`postgres://u:p@h/d` is not a duration"), "`postgres://***@h/d` is not a duration");
        assert_eq!(shown("http://u:p@ss/@h http://b/c@d"), "http://***@h http://***@d");
        assert_eq!(shown("use `http://host:port`"), "use `http://host:port`");
    }
}
