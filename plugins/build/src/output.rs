//! Writes components where they are watched.

use std::fs;
use std::path::Path;
use std::process;

use anyhow::{Context as _, Result};

use crate::component::Component;

/// Puts `component` in the place of `path` at once, unless it is there already, and prints its name, size and interfaces.
///
/// # Errors
///
/// When the folder cannot be made, or the file cannot be written.
pub fn write(path: &Path, component: &Component) -> Result<()> {
    let changed = replace(path, &component.bytes)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let state = if changed { "" } else { " (unchanged)" };
    println!("{name:<28} {:>6} bytes  {}{state}", component.bytes.len(), component.exports.join(", "));
    Ok(())
}

/// Replaces the file's content by writing beside it and renaming; false when it has that content already.
fn replace(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let temporary = folder.join(format!(".{}.{}", path.file_name().unwrap_or_default().display(), process::id()));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("writing {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::replace;

    #[test]
    fn a_file_is_written_whole_and_only_for_cause() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("deep").join("policy.wasm");
        assert!(replace(&path, b"one").expect("written"));
        let before = fs::metadata(&path).and_then(|file| file.modified()).expect("a time");
        assert!(!replace(&path, b"one").expect("compared"));
        assert_eq!(fs::metadata(&path).and_then(|file| file.modified()).expect("a time"), before);
        assert!(replace(&path, b"two").expect("written"));
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(
            fs::read_dir(path.parent().expect("a folder")).expect("listed").count(),
            1,
            "nothing is left behind"
        );
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("taken");
        fs::create_dir(&path).expect("made");
        assert!(replace(&path, b"one").is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
