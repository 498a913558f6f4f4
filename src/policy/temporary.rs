//! A place for compiled components that nobody else has part in.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
};

/// A state directory of this process alone, for [`Plugins`](super::Plugins) that only look: what they compile neither goes
/// into a gateway's cache nor comes from it, whoever runs them. Deleted at the end.
#[derive(Debug)]
pub struct TemporaryState(PathBuf);

impl TemporaryState {
    /// A new directory, which nobody could have put there before.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> io::Result<Self> {
        let name = format!("sluicegate-{}-{:016x}", process::id(), rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryState {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
