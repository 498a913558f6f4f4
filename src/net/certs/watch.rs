//! Noticing that certificate files changed, by cheap looks.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use super::{Certificate, unix};
use crate::config::model::{ClientCertificates, Tls};

/// File times are as coarse as a kernel tick; a file that was written this shortly before we read it may have been written
/// again within the same tick, so its content is read once more at the next look.
const UNSETTLED: Duration = Duration::from_millis(100);

/// Seconds until a leaf of our own is tried again that could not be renewed: it is good for weeks yet.
const RENEW_AGAIN: i64 = 60;

/// Watches files by content: a look costs one `stat` a file, and reads only those whose metadata moved.
#[derive(Debug, Default)]
pub struct FileWatch {
    files: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    stamp: Option<Stamp>,
    settled: bool,
    content: Option<[u8; 32]>,
}

/// What `stat` says; follows symbolic links, since Kubernetes swaps a link to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Nobody can put this one back, as `touch -r` and `rsync -t` do with the other.
    changed: (i64, i64),
}

/// Says when the certificates of a listener should be loaded again.
#[derive(Debug)]
pub struct CertWatch {
    files: FileWatch,
    renew_at: Option<i64>,
}

// === impl FileWatch ===

impl FileWatch {
    /// Watches `paths` from their state now. Create it before reading the files, so that a change in between is noticed.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let files = paths.into_iter().map(Watched::new).collect();
        Self { files }
    }

    /// Takes note of what the watcher wrote itself: content of this SHA-256 is no news.
    pub fn wrote(&mut self, path: &Path, content: [u8; 32]) {
        for file in self.files.iter_mut().filter(|file| file.path == path) {
            // The next look reads it, as somebody may have written it again since.
            (file.stamp, file.content) = (None, Some(content));
        }
    }

    /// Whether any content differs from the last look. A file that vanished has changed, too.
    pub fn changed(&mut self) -> bool {
        let mut any = false;
        for file in &mut self.files {
            any |= file.changed();
        }
        any
    }
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        let mut file = Self { path, stamp: None, settled: true, content: None };
        file.changed();
        file
    }

    fn changed(&mut self) -> bool {
        self.differs(digest)
    }

    /// A file that is there and cannot be read is tried at every look: what kept us from it (no file descriptor left, say) may
    /// pass without a trace in its metadata.
    fn differs(&mut self, read: impl FnOnce(&Path) -> Option<[u8; 32]>) -> bool {
        let metadata = std::fs::metadata(&self.path).ok();
        let stamp = metadata.as_ref().map(Stamp::of);
        if stamp == self.stamp && self.settled {
            return false;
        }
        self.stamp = stamp;
        let content = read(&self.path);
        self.settled = metadata.is_none_or(|metadata| content.is_some() && is_settled(&metadata));
        std::mem::replace(&mut self.content, content) != content
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn is_settled(metadata: &Metadata) -> bool {
    let since = Duration::new(metadata.ctime().try_into().unwrap_or(0), metadata.ctime_nsec().try_into().unwrap_or(0));
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since).ok();
    age.is_some_and(|age| age > UNSETTLED)
}

fn digest(path: &Path) -> Option<[u8; 32]> {
    std::fs::read(path).ok().map(|content| Sha256::digest(content).into())
}

// === impl CertWatch ===

impl CertWatch {
    /// Watches the files that `tls` names. Create it before loading them, so that a change in between is noticed. For the local
    /// authority there is nothing to watch but the clock; tell it with [`CertWatch::loaded`].
    /// `clients` are those whose certificates are asked for.
    pub fn new(tls: &Tls, clients: Option<&ClientCertificates>) -> Self {
        let mut paths: Vec<PathBuf> = match tls {
            Tls::Files(pairs) => pairs.iter().flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]).collect(),
            Tls::SelfSigned(_) => Vec::new(),
        };
        paths.extend(clients.map(|clients| clients.ca.clone()));
        Self { files: FileWatch::new(paths), renew_at: None }
    }

    /// Takes note of what was loaded.
    pub fn loaded(&mut self, certificates: &[Certificate]) {
        self.renew_at = certificates.iter().filter_map(|certificate| certificate.renew_at).min();
    }

    /// Takes note that nothing could be loaded: a file is tried again when it changes, a leaf of our own after a minute.
    pub fn refused(&mut self, now: SystemTime) {
        if let Some(at) = &mut self.renew_at {
            *at = (*at).max(unix(now) + RENEW_AGAIN);
        }
    }

    /// Whether to load again: a file changed since the last look, or a leaf of our own is to be renewed.
    pub fn due(&mut self, now: SystemTime) -> bool {
        self.files.changed() || self.renew_at.is_some_and(|at| unix(now) >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_watcher_wrote_is_no_news_and_what_others_wrote_over_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        let mut watch = FileWatch::new([path.clone()]);
        std::fs::write(&path, "ours").unwrap();
        watch.wrote(&path, Sha256::digest("ours").into());
        assert!(!watch.changed());
        std::fs::write(&path, "theirs, at once").unwrap();
        watch.wrote(&path, Sha256::digest("ours").into());
        assert!(watch.changed() && !watch.changed());
    }

    #[test]
    fn a_file_that_could_not_be_read_once_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pem");
        std::fs::write(&path, "one").unwrap();
        while !is_settled(&path.metadata().unwrap()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut file = Watched { path, stamp: None, settled: true, content: None };
        assert!(!file.differs(|_| None));
        assert!(file.changed());
        assert!(!file.differs(|_| panic!("nothing has moved since it was read")));
    }
}
