//! Which file a `sqlite:` URL names, and how it is opened.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;

use super::SqliteFailure;

/// A database file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As written, relative to the working directory.
    pub(super) path: PathBuf,
    /// What may be done to it.
    pub(super) mode: Mode,
    /// Promised not to change while it is open: no locks, no look at the WAL.
    pub(super) immutable: bool,
}

/// What may be done to a database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Read only.
    Read,
    /// Read and write, if the file is there.
    Write,
    /// Read, write, and make the file (and its directory) if it is not there.
    Create,
}

impl Address {
    /// Reads `sqlite:path`, `sqlite://path` (the path may begin with a third slash), with `?mode=ro|rw|rwc` and
    /// `&immutable=1`. Percent sequences in the path stand for bytes, so that `%3F` is a question mark in a name.
    pub(super) fn parse(url: &str) -> Result<Self, SqliteFailure> {
        let wrong = |why: &str| SqliteFailure::Address(format!("{why}; write it like sqlite:var/demo.db?mode=ro"));
        let rest =
            url.strip_prefix("sqlite:").ok_or_else(|| wrong("the URL of a SQLite pool begins with `sqlite:`"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = percent_decode_str(path).decode_utf8().map_err(|_| wrong("the path is not UTF-8"))?;
        if path.is_empty() || path.contains('\0') {
            return Err(wrong("the URL names no file"));
        }
        if path.starts_with(":memory:") || query.contains("mode=memory") {
            return Err(wrong("every connection to a database in memory would see a database of its own: name a file"));
        }
        if path.starts_with("file:") {
            return Err(wrong("`file:` is not part of the path"));
        }
        let mut address = Self { path: PathBuf::from(path.as_ref()), mode: Mode::Create, immutable: false };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair {
                "mode=ro" => address.mode = Mode::Read,
                "mode=rw" => address.mode = Mode::Write,
                "mode=rwc" => address.mode = Mode::Create,
                "immutable=1" => address.immutable = true,
                "immutable=0" => address.immutable = false,
                _ => return Err(wrong("options are mode=ro, mode=rw, mode=rwc and immutable=1")),
            }
        }
        if address.immutable && address.mode != Mode::Read {
            return Err(wrong("immutable=1 goes with mode=ro"));
        }
        Ok(address)
    }

    /// The URI that SQLite opens (<https://www.sqlite.org/uri.html>).
    pub(super) fn uri(&self) -> String {
        let mut uri = String::from("file:");
        // `file://x/y` would name a host.
        let path = self.path.to_string_lossy();
        let path = if path.starts_with("//") { path.trim_start_matches('/') } else { &path };
        if self.path.has_root() && !path.starts_with('/') {
            uri.push('/');
        }
        for byte in path.bytes() {
            if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
        uri.push_str(match self.mode {
            Mode::Read => "?mode=ro",
            Mode::Write => "?mode=rw",
            Mode::Create => "?mode=rwc",
        });
        if self.immutable {
            uri.push_str("&immutable=1");
        }
        uri
    }

    /// The directory of the file, if it is not the working directory.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_files() {
        for (url, uri) in [
            ("sqlite:var/demo.db", "file:var/demo.db?mode=rwc"),
            ("sqlite:/srv/a b.db?mode=rw", "file:/srv/a%20b.db?mode=rw"),
            ("sqlite:///srv/a.db", "file:/srv/a.db?mode=rwc"),
            ("sqlite:////srv/a.db", "file:/srv/a.db?mode=rwc"),
            ("sqlite://a.db?mode=ro&immutable=1", "file:a.db?mode=ro&immutable=1"),
            ("sqlite:what%3F%23.db", "file:what%3F%23.db?mode=rwc"),
        ] {
            assert_eq!(Address::parse(url).unwrap().uri(), uri, "{url}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_reason() {
        for (url, reason) in [
            ("sqlite::memory:", "of its own"),
            ("sqlite:x?mode=memory", "of its own"),
            ("postgres://x", "begins with"),
            ("sqlite:", "names no file"),
            ("sqlite:a%00b", "names no file"),
            ("sqlite:x?cache=shared", "options are"),
            ("sqlite:x?immutable=1", "goes with"),
            ("sqlite:file:x", "not part"),
        ] {
            let text = Address::parse(url).unwrap_err().to_string();
            assert!(text.contains(reason), "{url}: {text}");
        }
    }
}
