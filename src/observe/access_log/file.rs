//! The access log's file: opened again when another file has its name, as after a rotation that renames.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::sink::{Sink, Stream};

/// How often the name is looked up, at most.
const LOOK: Duration = Duration::from_secs(1);

/// A file that is appended to.
pub(super) struct LogFile {
    path: PathBuf,
    file: Stream<File>,
    every: Duration,
    looked: Instant,
}

impl LogFile {
    /// Opens it, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Stream::new(append(path)?), every: LOOK, looked: Instant::now() })
    }

    /// Goes over to the file of that name, if it is another one than ours.
    fn follow(&mut self) {
        self.looked = Instant::now();
        if self.is_in_place() {
            return;
        }
        match append(&self.path) {
            Ok(file) => self.file = Stream::new(file),
            Err(error) => tracing::warn!(%error, "cannot open the access log again, the old file goes on"),
        }
    }

    fn is_in_place(&self) -> bool {
        let Ok(ours) = self.file.get_ref().metadata() else { return true };
        // Nobody rotates a pipe or a terminal, and to open one may wait.
        let here = |now: fs::Metadata| (now.dev(), now.ino()) == (ours.dev(), ours.ino());
        !ours.is_file() || fs::metadata(&self.path).is_ok_and(here)
    }
}

impl Sink for LogFile {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        // Only between buffers, so that no line is torn between two files; after a failure, too: a rotation makes room.
        if self.looked.elapsed() >= self.every {
            self.follow();
        }
        self.file.write_lines(lines)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_rotation_lines_go_to_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        let mut log = LogFile { every: Duration::ZERO, ..LogFile::open(&path).unwrap() };
        log.write_lines(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        log.write_lines(b"two\n").unwrap();
        log.write_lines(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\nthree\n");
    }

    #[test]
    fn while_the_name_cannot_be_had_the_old_file_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (here, away) = (directory.path().join("here"), directory.path().join("away"));
        fs::create_dir(&here).unwrap();
        let mut log = LogFile { every: Duration::ZERO, ..LogFile::open(&here.join("log")).unwrap() };
        fs::rename(&here, &away).unwrap();
        log.write_lines(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(away.join("log")).unwrap(), "one\n");
    }
}
