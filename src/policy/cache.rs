//! The compiled components on disk, `<state>/aot/`: so that a restart compiles nothing, and the compiler process has a
//! place to write to.
//!
//! A file's name is its key: the component's SHA-256, and a digest of all that shapes the code (compiler, settings, CPU).
//! It is written under another name and renamed, so it is whole or not there; it is never changed after. The directory
//! is for this user alone, and a file that belongs to someone else, or that others may write to, is not loaded. What is
//! damaged is deleted and compiled again; what belongs to someone else is left alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{Hash, Hasher},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rustix::{fs::OFlags, process::geteuid};
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use super::{PluginError, artifact, content::Digest};

/// Entries kept; the least recently made go first.
const ENTRIES: usize = 64;
/// Bytes kept over all entries.
const BYTES: u64 = 1 << 30;
/// Largest entry: a 12 MB JavaScript component compiles to 37 MB.
pub(super) const ENTRY: u64 = 256 << 20;
/// A temporary file that is older belongs to a process that died.
const ABANDONED: Duration = Duration::from_hours(1);
const SUFFIX: &str = "cwasm";

/// The cache of compiled components.
pub(super) struct Cache {
    directory: PathBuf,
    compatibility: String,
}

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(String);

/// A file of the compiler's, deleted in the end unless it was renamed.
pub(super) struct Scratch(PathBuf);

impl Cache {
    pub(super) fn new(state: &Path, engine: &Engine) -> Self {
        Self { directory: state.join("aot"), compatibility: compatibility(engine) }
    }

    pub(super) fn key(&self, component: Digest) -> Key {
        Key(format!("{component}-{}", self.compatibility))
    }

    /// The component compiled earlier, if it is there and sound. What is there, unsound and ours is deleted.
    pub(super) fn load(&self, engine: &Engine, key: &Key) -> Option<Component> {
        let path = self.path(key);
        let loaded = read_own(&path).map_err(|error| error.to_string()).and_then(|bytes| match bytes {
            Some(bytes) => artifact::open(engine, &bytes).map(Some),
            None => Ok(None),
        });
        loaded.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), error = %error, "compiled policy is unusable, compiling it again");
            // A gateway's entry, if this is root: no harm must come to it.
            if fs::symlink_metadata(&path).is_ok_and(|found| found.uid() == geteuid().as_raw()) {
                let _ = fs::remove_file(&path);
            }
            None
        })
    }

    /// Prepares the directory and names a file in it for the compiler: `wasm` for what it reads, `cwasm` for what it writes.
    pub(super) fn scratch(&self, key: &Key, kind: &str) -> Result<Scratch, PluginError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.prepare()?;
        let unique = format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Scratch(self.directory.join(format!(".{}.{unique}.{kind}.tmp", key.0))))
    }

    /// Takes what the compiler wrote into the cache, and loads it.
    pub(super) fn admit(&self, engine: &Engine, key: &Key, made: &Scratch) -> Result<Component, PluginError> {
        let bytes = read_own(&made.0).map_err(|error| self.failed(error))?;
        let bytes = bytes.ok_or_else(|| self.failed("the compiler wrote nothing"))?;
        let component = artifact::open(engine, &bytes).map_err(|error| self.failed(error))?;
        fs::rename(&made.0, self.path(key)).map_err(|error| self.failed(error))?;
        self.prune(key);
        Ok(component)
    }

    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.{SUFFIX}", key.0))
    }

    pub(super) fn failed(&self, detail: impl ToString) -> PluginError {
        PluginError::Cache { path: self.directory.clone(), detail: detail.to_string() }
    }

    /// Makes the directory, for this user alone.
    fn prepare(&self) -> Result<(), PluginError> {
        let make = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            let found = fs::symlink_metadata(&self.directory)?;
            if !found.is_dir() || found.uid() != geteuid().as_raw() {
                return Err(io::Error::other("it is no directory of this user's"));
            }
            if found.mode() & 0o077 != 0 {
                fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o700))?;
            }
            Ok(())
        };
        make().map_err(|error| self.failed(error))
    }

    /// Deletes what is beyond the caps, the oldest first, but never `keep`; and what dead processes left.
    fn prune(&self, keep: &Key) {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(SUFFIX) if path != self.path(keep) => entries.push((modified, metadata.len(), path)),
                Some("tmp") if modified.elapsed().is_ok_and(|age| age > ABANDONED) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        entries.sort_unstable();
        let mut bytes = 0;
        for (place, (_, length, path)) in entries.into_iter().rev().enumerate() {
            bytes += length;
            if place + 1 >= ENTRIES || bytes > BYTES {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes `bytes` into the file, which must not be there yet, and makes them durable.
    pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Reads a file that this user owns and no one else can write to; none if it is not there.
fn read_own(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = match File::options().read(true).custom_flags(nofollow).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("it is not a file that only this user writes to"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(ENTRY)).unwrap_or(0));
    file.take(ENTRY + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ENTRY {
        return Err(io::Error::other("it is too large"));
    }
    Ok(Some(bytes))
}

/// A digest of everything that makes code of one engine unfit for another.
fn compatibility(engine: &Engine) -> String {
    struct Feed(Sha256);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut feed = Feed(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut feed);
    env!("CARGO_PKG_VERSION").hash(&mut feed);
    // 64 bits: it tells a few compilers and settings apart, and guards against nothing.
    Digest::from_bytes(feed.0.finalize().into()).to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::engine;

    /// Only root can give a file away; for others there is nothing to try.
    #[test]
    fn an_entry_that_belongs_to_somebody_else_is_neither_loaded_nor_deleted() {
        let state = tempfile::tempdir().unwrap();
        let engine = engine::compiling().unwrap();
        let cache = Cache::new(state.path(), &engine);
        let key = cache.key(Digest::of(b"x"));
        cache.prepare().unwrap();
        fs::write(cache.path(&key), "ours, and unsound").unwrap();
        assert!(cache.load(&engine, &key).is_none());
        assert!(!cache.path(&key).exists());
        fs::write(cache.path(&key), "theirs").unwrap();
        if std::os::unix::fs::chown(cache.path(&key), Some(65_534), None).is_ok() {
            assert!(cache.load(&engine, &key).is_none());
            assert_eq!(fs::read(cache.path(&key)).unwrap(), b"theirs");
        }
    }
}
