//! One writer at a time for each database file. SQLite admits one; a second would poll for the lock and could starve
//! (`SQLITE_BUSY`). A permit in the order of asking serves writers fairly, and lets them wait without a thread.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// The permit to write to one file. Pools that serve the same file share it.
pub(super) type Writer = Arc<Semaphore>;

static WRITERS: LazyLock<Mutex<HashMap<PathBuf, Weak<Semaphore>>>> = LazyLock::new(Mutex::default);

/// The permit for the file at `path`, whose directory exists.
pub(super) fn writer(path: &Path) -> Writer {
    let path = canonical(path);
    let mut writers = WRITERS.lock();
    if let Some(writer) = writers.get(&path).and_then(Weak::upgrade) {
        return writer;
    }
    writers.retain(|_, writer| writer.strong_count() > 0);
    let writer = Arc::new(Semaphore::new(1));
    writers.insert(path, Arc::downgrade(&writer));
    writer
}

/// The path without links and dots, also where the file is still to be made.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match (directory.canonicalize(), path.file_name()) {
            (Ok(directory), Some(name)) => directory.join(name),
            _ => path.to_path_buf(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_file_has_one_writer_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let before = writer(&path);
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, dir.path().join("b.db")).unwrap();
        assert!(Arc::ptr_eq(&before, &writer(&path)));
        assert!(Arc::ptr_eq(&before, &writer(&dir.path().join("b.db"))));
        assert!(Arc::ptr_eq(
            &before,
            &writer(&dir.path().join("../").join(dir.path().file_name().unwrap()).join("a.db"))
        ));
        assert!(!Arc::ptr_eq(&before, &writer(&dir.path().join("c.db"))));
    }
}
