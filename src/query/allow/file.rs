//! The file: a JSON object a line, so that it can be read, cut and put together with a text editor.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Digest, MOST_BYTES, text};
use crate::config::value::sha256;

/// Longest file that is read: the texts, and what stands around them.
const LONGEST: u64 = 4 * MOST_BYTES as u64;

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    /// In hex; goes by the text where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_seen: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is none.
    #[error("line {line}: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

impl Line {
    pub(super) fn new(sql: &str, consumer: Option<&str>, now: SystemTime) -> Self {
        Self {
            sql: Some(sql.to_owned()),
            sha256: None,
            first_seen: Some(humantime::format_rfc3339_seconds(now).to_string()),
            consumer: consumer.map(ToOwned::to_owned),
        }
    }

    /// About how many bytes it takes.
    pub(super) fn len(&self) -> usize {
        self.sql.as_ref().map_or(0, String::len) + 128
    }

    fn digest(&self) -> Result<Digest, String> {
        let wrong = || "`sha256` is not 64 hex digits".to_owned();
        let told = self.sha256.as_deref().map(|hex| sha256(hex).ok_or_else(wrong)).transpose()?;
        let read = self.sql.as_deref().map(text::digest);
        match (read, told) {
            (Some(read), Some(told)) if read != told => Err("`sha256` is not that of `sql`".to_owned()),
            (Some(digest), _) | (None, Some(digest)) => Ok(digest),
            (None, None) => Err("has neither `sql` nor `sha256`".to_owned()),
        }
    }
}

/// Reads a file. Empty lines, and those that begin with `#`, are left out.
pub(super) fn read(path: &Path) -> Result<BTreeMap<Digest, Arc<Line>>, FileError> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(FileError::Line { line: 1, why: format!("the file has more than {LONGEST} bytes") });
    }
    parse(&fs::read_to_string(path)?)
}

fn parse(content: &str) -> Result<BTreeMap<Digest, Arc<Line>>, FileError> {
    let mut lines = BTreeMap::new();
    for (index, text) in content.lines().enumerate() {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let wrong = |why| FileError::Line { line: index + 1, why };
        let line: Line = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        lines.entry(line.digest().map_err(wrong)?).or_insert_with(|| Arc::new(line));
    }
    Ok(lines)
}

/// Writes a file, oldest texts first, beside its place, and puts it there when it is whole, if it still `may` be. Returns the
/// SHA-256 of what is there now.
pub(super) fn write<'a>(
    path: &Path,
    lines: impl Iterator<Item = &'a Arc<Line>>,
    may: impl FnOnce() -> bool,
) -> io::Result<Option<Digest>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let _ = fs::remove_file(beside);
    // Literals may stand in it.
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    let (mut out, mut digest) = (BufWriter::new(file), Sha256::new());
    let mut lines: Vec<&Line> = lines.map(|line| &**line).collect();
    lines.sort_by(|a, b| (&a.first_seen, &a.sql).cmp(&(&b.first_seen, &b.sql)));
    for line in lines {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        digest.update(&text);
        out.write_all(&text)?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    if !may() {
        fs::remove_file(beside)?;
        return Ok(None);
    }
    fs::rename(beside, path)?;
    Ok(Some(digest.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_by_their_text_or_its_digest() {
        let by_text = parse("# reviewed\n\n{\"sql\":\"select 1\"}\n").unwrap();
        // As `printf 'select 1' | sha256sum` has it.
        let hex = "822ae07d4783158bc1912bb623e5107cc9002d519e1143a9c200ed6ee18b6d0f";
        let by_digest = parse(&format!("{{\"sha256\":\"{hex}\",\"consumer\":\"app\"}}")).unwrap();
        assert_eq!(by_text.keys().collect::<Vec<_>>(), by_digest.keys().collect::<Vec<_>>());
        assert_eq!(parse("{\"sql\":\"select 1 -- x\"}\n{\"sql\":\" select 1\"}").unwrap().len(), 1);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (content, line, why) in [
            ("{\"sql\":\"a\"}\nselect 1\n", 2, "expected value"),
            ("{}", 1, "neither"),
            ("{\"sql\":\"a\",\"sqls\":1}", 1, "unknown field"),
            ("{\"sha256\":\"zz\"}", 1, "64 hex digits"),
            (&format!("{{\"sha256\":\"{}\"}}", "+f".repeat(32)), 1, "64 hex digits"),
            (&format!("{{\"sql\":\"a\",\"sha256\":\"{}\"}}", "0".repeat(64)), 1, "is not that of"),
        ] {
            let error = parse(content).unwrap_err();
            assert!(
                matches!(&error, FileError::Line { line: at, why: said } if *at == line && said.contains(why)),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("var/queries.txt");
        let line = Line::new("select 'a\nb'", Some("app"), SystemTime::UNIX_EPOCH);
        let lines = BTreeMap::from([(line.digest().unwrap(), Arc::new(line))]);
        for _ in 0..2 {
            write(&path, lines.values(), || true).unwrap();
            assert_eq!(read(&path).unwrap(), lines);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().contains("1970-01-01T00:00:00Z"));
        assert_eq!(write(&path, [].into_iter(), || false).unwrap(), None);
        assert_eq!(read(&path).unwrap(), lines);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
}
