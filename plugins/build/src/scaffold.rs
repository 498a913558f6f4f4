//! Starts a policy crate, anywhere.
//!
//! What it writes stands alone: the interfaces, the reader of configurations and the versions that go together are copied from
//! this repository, as they were when the builder was built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::wit;

/// This workspace's manifest, of which a scaffold's is made: versions and profile are written down once.
const MANIFEST: &str = include_str!("../../Cargo.toml");

const SETTINGS: &str = include_str!("../../settings/src/reader.rs");

/// The component's face, which is the same for all hooks but for its guest.
const COMPONENT: &str = include_str!("../templates/component.rs");

/// A hook's sources.
struct Template {
    hook: &'static str,
    lib_rs: &'static str,
    /// The hook's part of the component: what it imports, then the interface.
    guest: &'static str,
    /// 0 where nothing is carried.
    carry_version: &'static str,
    describes: &'static str,
    /// A native policy to stand in.
    fallback: &'static str,
}

const TEMPLATES: [Template; 3] = [
    Template {
        hook: "sizing",
        lib_rs: include_str!("../templates/sizing/lib.rs"),
        guest: include_str!("../templates/sizing/guest.rs"),
        carry_version: "1",
        describes: "how many connections a pool should have",
        fallback: "fixed",
    },
    Template {
        hook: "eviction",
        lib_rs: include_str!("../templates/eviction/lib.rs"),
        guest: include_str!("../templates/eviction/guest.rs"),
        carry_version: "0",
        describes: "which idle connections should leave a pool",
        fallback: "lifetime",
    },
    Template {
        hook: "validation",
        lib_rs: include_str!("../templates/validation/lib.rs"),
        guest: include_str!("../templates/validation/guest.rs"),
        carry_version: "0",
        describes: "whether a connection may be trusted",
        fallback: "always",
    },
];

/// Writes a policy crate `name` for `hook` to a new folder in `into`, and returns that folder.
///
/// # Errors
///
/// When the name is no crate's, the hook is unknown, the folder is there already, or cannot be written.
pub fn create(name: &str, hook: &str, into: &Path) -> Result<PathBuf> {
    ensure!(
        is_crate_name(name),
        "a policy's name is small letters, digits and single hyphens, and begins with a letter"
    );
    let template = TEMPLATES.iter().find(|template| template.hook == hook);
    let template = template.with_context(|| format!("there is no hook {hook}; there are {}", wit::HOOKS.join(", ")))?;
    let folder = into.join(name);
    ensure!(!folder.exists(), "{} is there already", folder.display());
    for (path, text) in template.files(name) {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(folder)
}

impl Template {
    fn files(&self, name: &str) -> Vec<(String, String)> {
        let fill = |text: &str| {
            text.replace("{{name}}", name)
                .replace("{{hook}}", self.hook)
                .replace("{{describes}}", self.describes)
                .replace("{{fallback}}", self.fallback)
                .replace("{{dependencies}}", &dependencies())
                .replace("{{profile}}", section(MANIFEST, "[profile.release]"))
        };
        let (uses, guest) = self.guest.split_once("\nimpl ").unwrap_or_default();
        let component = COMPONENT
            .replace("{{uses}}", uses.trim_end())
            .replace("{{guest}}", &format!("impl {}", guest.trim_end()))
            .replace("{{carry_version}}", self.carry_version);
        // The tests need crates that a policy does not.
        let settings = SETTINGS.split("\n#[cfg(test)]").next().unwrap_or(SETTINGS);
        let mut files = vec![
            ("Cargo.toml".into(), fill(include_str!("../templates/Cargo.toml.in"))),
            (".cargo/config.toml".into(), include_str!("../../.cargo/config.toml").into()),
            (".gitignore".into(), "/target\n".into()),
            ("rustfmt.toml".into(), include_str!("../../../rustfmt.toml").into()),
            ("README.md".into(), fill(include_str!("../templates/README.md.in"))),
            ("src/lib.rs".into(), fill(self.lib_rs)),
            ("src/component.rs".into(), fill(&component)),
            ("src/settings.rs".into(), settings.into()),
        ];
        files.extend(wit::FILES.map(|(file, text)| (format!("wit/{file}"), text.to_owned())));
        files
    }
}

/// What a component needs, as this workspace has it.
fn dependencies() -> String {
    let lines: Vec<_> =
        MANIFEST.lines().filter(|line| line.starts_with("wit-bindgen = ") || line.starts_with("talc = ")).collect();
    lines.join("\n")
}

/// A section of a manifest, to the next empty line.
fn section<'a>(manifest: &'a str, heading: &str) -> &'a str {
    let start = manifest.find(heading).unwrap_or(manifest.len());
    let rest = &manifest[start..];
    rest.split("\n\n").next().unwrap_or(rest).trim_end()
}

fn is_crate_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{create, is_crate_name};

    #[test]
    fn a_scaffold_takes_its_versions_from_this_workspace() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let policy = create("my-policy", "sizing", folder.path()).expect("made");
        let manifest = fs::read_to_string(policy.join("Cargo.toml")).expect("a manifest");
        for line in
            ["name = \"my-policy\"", "wit-bindgen = { version = \"=", "talc = ", "panic = \"abort\"", "strip = true"]
        {
            assert!(manifest.contains(line), "{line} in\n{manifest}");
        }
        for entry in ["Cargo.toml", "README.md", "src/lib.rs", "src/component.rs"] {
            let text = fs::read_to_string(policy.join(entry)).expect(entry);
            assert!(!text.contains("{{"), "{entry} is filled in");
        }
        assert!(policy.join("wit/types.wit").exists());
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        create("twice", "eviction", folder.path()).expect("made");
        let refusal = create("twice", "eviction", folder.path()).expect_err("there already");
        assert!(refusal.to_string().contains("is there already"), "{refusal}");
    }

    #[test]
    fn only_hooks_that_there_are() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let refusal = create("filter", "request", folder.path()).expect_err("no such hook");
        assert_eq!(refusal.to_string(), "there is no hook request; there are sizing, eviction, validation");
        assert!(!folder.path().join("filter").exists());
    }

    #[test]
    fn names_of_crates() {
        for good in ["a", "my-policy", "p2"] {
            assert!(is_crate_name(good), "{good}");
        }
        for bad in ["", "2p", "My", "a_b", "-a", "a-", "a--b", "../a", "a/b", "a b"] {
            assert!(!is_crate_name(bad), "{bad}");
        }
    }
}
