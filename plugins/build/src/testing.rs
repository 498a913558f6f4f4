//! Components for the gateway's tests: one policy in two versions, and some that no gateway should install.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::component::{Component, encode, typed};
use crate::{cargo, output, workspace};

/// The crate that is built once for each of [`TARGETS`].
pub const STEADY: &str = "steady";

/// What its versions aim at.
pub const TARGETS: [u32; 2] = [3, 7];

/// A component made of text, to be refused.
struct Broken {
    name: &'static str,
    module: &'static str,
    world: &'static str,
}

const BROKEN: [Broken; 5] = [
    Broken {
        name: "imports-something",
        module: include_str!("../broken/imports-something.wat"),
        world: "package sluicegate:testing; interface outside { look: func() -> u32; }
            world broken { import outside; export sluicegate:policy/sizing@0.1.0; }",
    },
    Broken {
        name: "loops-at-start",
        module: include_str!("../broken/loops-at-start.wat"),
        world: "package sluicegate:testing; world broken { export sluicegate:policy/validation@0.1.0; }",
    },
    Broken {
        name: "too-much-memory",
        module: include_str!("../broken/too-much-memory.wat"),
        world: "package sluicegate:testing; world broken { export sluicegate:policy/validation@0.1.0; }",
    },
    Broken {
        name: "traps-at-once",
        module: include_str!("../broken/traps-at-once.wat"),
        world: "package sluicegate:testing; world broken { export sluicegate:policy/sizing@0.1.0;
            export sluicegate:policy/eviction@0.1.0; export sluicegate:policy/validation@0.1.0;
            export sluicegate:policy/lifecycle@0.1.0; }",
    },
    Broken {
        name: "wrong-interface",
        module: include_str!("../broken/wrong-interface.wat"),
        world: "package sluicegate:testing; interface greeting { hello: func() -> u32; } world broken { export greeting; }",
    },
];

/// Builds `steady-N.wasm` for each of [`TARGETS`]. Cargo would compile the crate anew each time the number changes, so what is
/// newer than all it is made of is left as it is.
///
/// # Errors
///
/// When it does not compile, or cannot be written.
pub fn build_steady(folder: &Path, dist: &Path) -> Result<()> {
    let sources = sources(folder)?;
    for target in TARGETS {
        let path = dist.join(format!("{STEADY}-{target}.wasm"));
        if is_newer(&path, &sources) {
            continue;
        }
        let modules = cargo::compile(folder, &[STEADY], &[("STEADY_TARGET", &target.to_string())])?;
        let (_, module) = modules.last().context("cargo made no module of steady")?;
        output::write(&path, &workspace::component(module)?)?;
        File::open(&path).and_then(|file| file.set_modified(SystemTime::now())).context("dating the component")?;
    }
    Ok(())
}

/// Makes the components that a gateway must refuse.
///
/// # Errors
///
/// When one cannot be made or written.
pub fn build_broken(dist: &Path) -> Result<()> {
    for broken in &BROKEN {
        let bytes = broken.component().with_context(|| format!("making {}", broken.name))?;
        let component = Component { bytes, exports: vec!["(to be refused)".to_owned()] };
        output::write(&dist.join(broken.name).with_extension("wasm"), &component)?;
    }
    Ok(())
}

impl Broken {
    fn component(&self) -> Result<Vec<u8>> {
        encode(&typed(&wat::parse_str(self.module)?, self.world)?)
    }
}

/// All that a build of `steady` depends on, this program among it.
fn sources(workspace: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = vec![std::env::current_exe().context("finding this program")?];
    for file in
        ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "../rust-toolchain.toml", "testing/steady/Cargo.toml"]
    {
        sources.push(workspace.join(file));
    }
    for folder in ["../wit", "testing/steady/src"] {
        for entry in fs::read_dir(workspace.join(folder)).with_context(|| format!("listing {folder}"))? {
            sources.push(entry?.path());
        }
    }
    Ok(sources)
}

fn is_newer(path: &Path, sources: &[PathBuf]) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    modified(path).is_ok_and(|made| sources.iter().all(|source| modified(source).is_ok_and(|source| source < made)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::{BROKEN, is_newer};
    use crate::component::examine;

    #[test]
    fn the_broken_ones_are_components_and_broken_as_they_say() {
        for broken in &BROKEN {
            let component = broken.component().unwrap_or_else(|error| panic!("{}: {error:#}", broken.name));
            let verdict = examine(&component).map_err(|error| error.to_string());
            let expected = match broken.name {
                "imports-something" => "sluicegate:testing/outside",
                "wrong-interface" => "exports none",
                _ => {
                    assert!(verdict.is_ok(), "{}: only running it shows the fault", broken.name);
                    continue;
                }
            };
            assert!(verdict.is_err_and(|refusal| refusal.contains(expected)), "{}", broken.name);
        }
    }

    #[test]
    fn a_product_is_newer_than_its_sources_or_made_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [source, product] = ["source", "product"].map(|name| folder.path().join(name));
        fs::write(&source, "").expect("written");
        assert!(!is_newer(&product, std::slice::from_ref(&source)), "not there");
        fs::write(&product, "").expect("written");
        let date = |path, time| File::open(path).and_then(|file| file.set_modified(time)).expect("dated");
        let now = SystemTime::now();
        date(&source, now);
        date(&product, now + Duration::from_secs(1));
        assert!(is_newer(&product, std::slice::from_ref(&source)));
        date(&source, now + Duration::from_secs(2));
        assert!(!is_newer(&product, &[source]));
        assert!(!is_newer(&product, &[folder.path().join("gone")]));
    }
}
