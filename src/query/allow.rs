//! SQL of callers' own that passes by its text: recorded while it is learnt, then held to.
//!
//! A text is known by the SHA-256 of its normal form ([`text::normal`]): comments and white space do not count, literals do, as
//! programs that compose SQL put values into parameters, and send the same text each time. The file has a JSON object a
//! line: `{"sql": "…", "first_seen": "…", "consumer": "…"}`; `sql` is enough, and `sha256` of a normal form will do instead.
//!
//! **When things go wrong.** A file that cannot be read, or has a line that is none, is not taken: what was read before
//! holds, the log says so, and nothing is written over it. When learning, what is beyond [`MOST`] texts or [`MOST_BYTES`] is counted, and not recorded.
//!
//! **Left out**: who may use which text: that is the route's `access`.

mod file;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::file::Line;
use crate::{config::model::AllowMode, net::certs::FileWatch};

pub use file::FileError;

/// Most texts that are learnt.
const MOST: usize = 10_000;

/// Most bytes that the texts of a learnt file have together.
const MOST_BYTES: usize = 32 << 20;

/// What a text is known by.
type Digest = [u8; 32];

/// A file of texts. Kept over reloads as long as a route names it.
pub struct AllowFile {
    path: PathBuf,
    must_be: bool,
    known: ArcSwap<HashSet<Digest>>,
    records: Mutex<Records>,
    /// Apart from the records: a look may read the whole file, and no request waits for that.
    watch: Mutex<FileWatch>,
    /// What is there now is no such file: it is somebody's, and is left alone.
    broken: AtomicBool,
    writing: AtomicBool,
    figures: Figures,
}

/// What the file is to hold.
struct Records {
    lines: BTreeMap<Digest, Arc<Line>>,
    /// Of them those that it does not hold yet.
    unwritten: BTreeSet<Digest>,
    bytes: usize,
}

/// A route's list: a file, and what it is for.
#[derive(Clone)]
pub struct AllowList {
    file: Arc<AllowFile>,
    mode: AllowMode,
}

/// Why a text does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this statement is not on the route's list of those that are allowed")]
pub struct NotAllowed;

#[derive(Debug, Default)]
struct Figures {
    learnt: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

/// What a list has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct AllowStatus {
    /// Texts that are known.
    pub texts: usize,
    /// Texts recorded since the start.
    pub learnt: u64,
    /// Texts that were new, and for which there was no room.
    pub dropped: u64,
    /// Statements refused.
    pub refused: u64,
}

impl AllowList {
    /// The list of a route.
    pub fn new(file: Arc<AllowFile>, mode: AllowMode) -> Self {
        Self { file, mode }
    }

    /// Whether a statement of a caller's own passes; while learning, all do. `consumer`: who sends it, for the record.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, sql: &str, consumer: Option<&str>) -> Result<(), NotAllowed> {
        let digest = text::digest(sql);
        if self.file.known.load().contains(&digest) {
            return Ok(());
        }
        match self.mode {
            AllowMode::Learn => {
                self.file.learn(digest, sql, consumer, SystemTime::now());
                Ok(())
            }
            AllowMode::Enforce => {
                self.file.figures.refused.fetch_add(1, Ordering::Relaxed);
                Err(NotAllowed)
            }
        }
    }
}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllowList").field("file", &self.file.path).field("mode", &self.mode).finish()
    }
}

impl AllowFile {
    /// Reads a file; one that is not there is empty, if it need not be there.
    ///
    /// # Errors
    /// It cannot be read, or a line is none.
    pub fn open(path: &Path, must_be: bool) -> Result<Arc<Self>, FileError> {
        let watch = FileWatch::new([path.to_owned()]);
        let lines = match file::read(path) {
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound && !must_be => BTreeMap::new(),
            read => read?,
        };
        let bytes = lines.values().map(|line| line.len()).sum();
        Ok(Arc::new(Self {
            path: path.to_owned(),
            must_be,
            known: ArcSwap::from_pointee(lines.keys().copied().collect()),
            records: Mutex::new(Records { lines, unwritten: BTreeSet::new(), bytes }),
            watch: Mutex::new(watch),
            broken: AtomicBool::new(false),
            writing: AtomicBool::new(false),
            figures: Figures::default(),
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it serves a route that enforces it. One that was learnt is read anew for that, without what is not in the file.
    pub fn must_be(&self) -> bool {
        self.must_be
    }

    /// What it has done.
    pub fn status(&self) -> AllowStatus {
        let figure = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Figures { learnt, dropped, refused } = &self.figures;
        AllowStatus {
            texts: self.known.load().len(),
            learnt: figure(learnt),
            dropped: figure(dropped),
            refused: figure(refused),
        }
    }

    fn learn(&self, digest: Digest, sql: &str, consumer: Option<&str>, now: SystemTime) {
        let mut records = self.records.lock();
        if records.lines.contains_key(&digest) {
            return;
        }
        let line = Line::new(sql, consumer, now);
        if records.lines.len() >= MOST || records.bytes + line.len() > MOST_BYTES {
            self.figures.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        records.bytes += line.len();
        records.lines.insert(digest, Arc::new(line));
        records.unwritten.insert(digest);
        self.figures.learnt.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks whether the file was changed by others, and whether there is something to write to it. Called now and then by one
    /// thread that may block for a moment; what is written is handed to `aside`, which may block for longer.
    pub fn look(self: &Arc<Self>, aside: impl FnOnce(Box<dyn FnOnce() + Send>)) {
        if self.writing.load(Ordering::Acquire) {
            return;
        }
        if self.watch.lock().changed() {
            self.read_again();
        }
        if !self.broken.load(Ordering::Relaxed) && !self.records.lock().unwritten.is_empty() {
            self.publish();
            self.writing.store(true, Ordering::Release);
            let this = self.clone();
            aside(Box::new(move || this.write()));
        }
    }

    /// What was changed by others holds; what was learnt and not written yet is kept.
    fn read_again(&self) {
        match file::read(&self.path) {
            Ok(mut lines) => {
                self.broken.store(false, Ordering::Relaxed);
                let mut records = self.records.lock();
                let Records { lines: before, unwritten, bytes, .. } = &mut *records;
                unwritten.retain(|digest| !lines.contains_key(digest));
                lines.extend(unwritten.iter().filter_map(|digest| before.remove_entry(digest)));
                *bytes = lines.values().map(|line| line.len()).sum();
                *before = lines;
                drop(records);
                self.publish();
                tracing::info!(file = %self.path.display(), texts = self.known.load().len(), "allow-list read");
            }
            Err(error) => {
                let gone = matches!(&error, FileError::Io(error) if error.kind() == io::ErrorKind::NotFound);
                self.broken.store(!gone, Ordering::Relaxed);
                tracing::error!(file = %self.path.display(), %error, "allow-list not read, the last one holds");
            }
        }
    }

    /// What is recorded is known from now on.
    fn publish(&self) {
        let known = self.records.lock().lines.keys().copied().collect();
        self.known.store(Arc::new(known));
    }

    fn write(&self) {
        let lines = self.records.lock().lines.clone();
        match file::write(&self.path, lines.values(), || !self.watch.lock().changed()) {
            Ok(Some(content)) => {
                self.watch.lock().wrote(&self.path, content);
                self.records.lock().unwritten.retain(|digest| !lines.contains_key(digest));
            }
            // Others changed it meanwhile: what they wrote is taken up first.
            Ok(None) => self.read_again(),
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "allow-list not written, it is tried again");
            }
        }
        self.writing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn at_once(write: Box<dyn FnOnce() + Send>) {
        write();
    }

    fn lists(path: &Path) -> (Arc<AllowFile>, AllowList, AllowList) {
        let file = AllowFile::open(path, false).unwrap();
        let list = |mode| AllowList::new(file.clone(), mode);
        (file.clone(), list(AllowMode::Learn), list(AllowMode::Enforce))
    }

    #[test]
    fn what_is_learnt_is_written_and_then_enforced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queries.txt");
        let (file, learn, enforce) = lists(&path);
        assert_eq!(learn.check("select $1", Some("app")), Ok(()));
        assert_eq!(learn.check("select  $1 -- again", None), Ok(()));
        assert_eq!(enforce.check("select $1", None), Err(NotAllowed), "not before it is published");
        file.look(at_once);
        assert_eq!(enforce.check("select $1", None), Ok(()));
        assert_eq!(enforce.check("select $1, 2", None), Err(NotAllowed));
        assert_eq!(file.status(), AllowStatus { texts: 1, learnt: 1, dropped: 0, refused: 2 });
        let (_, _, enforce) = lists(&path);
        assert_eq!(enforce.check("select $1", None), Ok(()), "from the file");
        assert!(fs::read_to_string(&path).unwrap().contains("\"consumer\":\"app\""));
    }

    #[test]
    fn a_file_that_others_change_is_read_again_unless_it_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queries.txt");
        let (file, learn, enforce) = lists(&path);
        learn.check("select 1", None).unwrap();
        file.look(at_once);
        learn.check("select 2", None).unwrap();
        fs::write(&path, "{\"sql\":\"select 3\"}\n").unwrap();
        file.look(at_once);
        let passes = |sql| enforce.check(sql, None).is_ok();
        assert_eq!(["select 1", "select 2", "select 3"].map(passes), [false, true, true]);
        assert!(fs::read_to_string(&path).unwrap().contains("select 2"), "what was learnt meanwhile is written");
        fs::write(&path, "nonsense\n").unwrap();
        file.look(at_once);
        assert!(passes("select 3"), "the last good one holds");
        learn.check("select 4", None).unwrap();
        file.look(at_once);
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense\n", "it is somebody's, who is not done yet");
        fs::write(&path, "").unwrap();
        file.look(at_once);
        assert!(!passes("select 3") && passes("select 4"));
    }

    #[test]
    fn an_edit_is_kept_whenever_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queries.txt");
        let (file, learn, enforce) = lists(&path);
        let passes = |sql| enforce.check(sql, None).is_ok();
        learn.check("select 1", None).unwrap();
        // Between the look and the writing: what others wrote is taken up, and then written with ours.
        file.look(|write| {
            fs::write(&path, "{\"sql\":\"select 2\"}\n").unwrap();
            write();
        });
        assert_eq!(["select 1", "select 2"].map(passes), [true, true]);
        file.look(at_once);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("select 1") && text.contains("select 2"), "{text}");
        // Behind the writing, before anybody looks.
        learn.check("select 3", None).unwrap();
        file.look(|write| {
            write();
            fs::write(&path, "{\"sql\":\"select 4\"}\n").unwrap();
        });
        file.look(at_once);
        assert_eq!(["select 1", "select 3", "select 4"].map(passes), [false, false, true]);
        // A place that cannot be written: what was learnt waits until it can.
        learn.check("select 5", None).unwrap();
        fs::create_dir(directory.path().join("queries.txt.new")).unwrap();
        file.look(at_once);
        fs::write(&path, "").unwrap();
        file.look(at_once);
        fs::remove_dir(directory.path().join("queries.txt.new")).unwrap();
        file.look(at_once);
        assert!(passes("select 5") && fs::read_to_string(&path).unwrap().contains("select 5"));
    }

    #[test]
    fn no_more_is_learnt_than_there_is_room_for() {
        let directory = tempfile::tempdir().unwrap();
        let (file, learn, _) = lists(&directory.path().join("queries.txt"));
        for n in 0..MOST + 5 {
            learn.check(&format!("select {n}"), None).unwrap();
        }
        file.look(at_once);
        assert_eq!(file.status(), AllowStatus { texts: MOST, learnt: MOST as u64, dropped: 5, refused: 0 });
    }

    #[test]
    fn a_file_that_must_be_there_is_missed() {
        assert!(AllowFile::open(Path::new("/nowhere/queries.txt"), true).is_err());
        assert!(AllowFile::open(Path::new("/nowhere/queries.txt"), false).is_ok());
    }
}
