//! A component's file: what it holds, and whether it changed.

use std::{
    fmt,
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
};

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::PluginError;
use crate::config::model::Plugin;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// What a file's metadata say of its content: when they are the same, it is (unless it was written again within the
/// clock's grain, which is why a file is read only some time after they last changed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file that may be a component: small enough, the pinned one, and with a component's first bytes.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: Digest,
    /// Taken before reading.
    pub(super) fingerprint: Fingerprint,
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Fingerprint {
    /// The file's, if there is one.
    pub(super) fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().as_ref().map(Self::from)
    }
}

impl From<&Metadata> for Fingerprint {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Reads a plugin's file and checks what can be checked without compiling.
///
/// # Errors
/// Unreadable, too large, not the pinned one, or no component.
pub(super) fn read(settings: &Plugin) -> Result<Content, PluginError> {
    let path = &settings.path;
    let unreadable = |error| PluginError::unreadable(path, error);
    // Looked at before it is opened: opening a pipe would wait for a writer.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(PluginError::NotAFile { path: path.clone() });
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let limit = settings.max_size;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(limit.0)).unwrap_or(0));
    file.take(limit.0.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit.0 {
        return Err(PluginError::TooLarge { size: metadata.len().max(bytes.len() as u64), limit });
    }
    let sha256 = Digest::of(&bytes);
    check_pin(settings, sha256)?;
    check_magic(&bytes)?;
    Ok(Content { bytes, sha256, fingerprint: Fingerprint::from(&metadata) })
}

fn check_pin(settings: &Plugin, sha256: Digest) -> Result<(), PluginError> {
    match &settings.sha256 {
        Some(pinned) if !pinned.trim().eq_ignore_ascii_case(&sha256.to_string()) => {
            Err(PluginError::PinMismatch { pinned: pinned.clone(), found: sha256.to_string() })
        }
        _ => Ok(()),
    }
}

/// The first eight bytes tell a component from a core module (the Component Model's `Binary.md`).
fn check_magic(bytes: &[u8]) -> Result<(), PluginError> {
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    let found = match bytes {
        _ if bytes.starts_with(COMPONENT) => return Ok(()),
        _ if bytes.starts_with(MODULE) => "a core module (make it a component with `wasm-tools component new`)",
        _ if bytes.starts_with(b"\0asm") => "a component of another binary version",
        _ if bytes.trim_ascii_start().starts_with(b"(") => "WebAssembly text (assemble it first)",
        [] => "an empty file",
        _ => "some other kind of file",
    };
    Err(PluginError::NotAComponent { found })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn reading(content: &[u8], keys: serde_json::Value) -> Result<Content, PluginError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let mut settings: Plugin = serde_json::from_value(json!({ "path": file.path() })).unwrap();
        if let Some(size) = keys.get("max_size") {
            settings.max_size = serde_json::from_value(size.clone()).unwrap();
        }
        settings.sha256 = keys.get("sha256").map(|pin| pin.as_str().unwrap().to_owned());
        read(&settings)
    }

    fn refusal(content: &[u8], keys: serde_json::Value) -> String {
        reading(content, keys).err().expect("refused").to_string()
    }

    #[test]
    fn other_kinds_of_file_are_told_apart() {
        assert!(refusal(b"\0asm\x01\0\0\0", json!({})).contains("core module"));
        assert!(refusal(b"  (component)", json!({})).contains("text"));
        assert!(refusal(b"", json!({})).contains("empty"));
        assert!(refusal(b"\x7fELF", json!({})).contains("some other kind"));
        assert!(refusal(b"\0asm\x0e\0\x01\0", json!({})).contains("another binary version"));
        assert!(reading(EMPTY_COMPONENT, json!({})).is_ok());
    }

    #[test]
    fn a_file_may_be_as_large_as_max_size_and_no_larger() {
        let mut content = EMPTY_COMPONENT.to_vec();
        content.resize(64, 0);
        assert!(reading(&content, json!({ "max_size": "64B" })).is_ok());
        let refusal = refusal(&content, json!({ "max_size": "63B" }));
        assert_eq!(refusal, "the file has 64 bytes, more than max_size = \"63B\"");
    }

    #[test]
    fn a_pin_holds_in_either_case_of_letters() {
        let pin = Digest::of(EMPTY_COMPONENT).to_string();
        assert!(reading(EMPTY_COMPONENT, json!({ "sha256": pin.to_uppercase() })).is_ok());
        let refusal = refusal(EMPTY_COMPONENT, json!({ "sha256": "00" }));
        assert!(refusal.contains(&pin) && refusal.contains("pins 00"), "{refusal}");
    }

    #[test]
    fn what_is_not_a_readable_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let settings = |path: &Path| serde_json::from_value::<Plugin>(json!({ "path": path })).unwrap();
        assert!(matches!(read(&settings(dir.path())), Err(PluginError::NotAFile { .. })));
        let missing = read(&settings(&dir.path().join("missing"))).err().unwrap();
        assert!(missing.to_string().contains("No such file"), "{missing}");
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert!(matches!(read(&settings(&pipe)), Err(PluginError::NotAFile { .. })));
    }

    #[test]
    fn a_fingerprint_changes_with_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = Fingerprint::of(file.path()).unwrap();
        assert_eq!(Fingerprint::of(file.path()), Some(before));
        std::fs::write(file.path(), "longer").unwrap();
        assert_ne!(Fingerprint::of(file.path()), Some(before));
        assert_eq!(Fingerprint::of(Path::new("/nonexistent")), None);
    }
}
