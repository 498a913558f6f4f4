//! The policy interfaces, built in, so that the builder works anywhere.

use anyhow::{Result, anyhow};
use wit_parser::{Resolve, SourceMap, WorldId};

/// The files of `wit/`, by name.
pub const FILES: [(&str, &str); 6] = [
    ("eviction.wit", include_str!("../../../wit/eviction.wit")),
    ("lifecycle.wit", include_str!("../../../wit/lifecycle.wit")),
    ("sizing.wit", include_str!("../../../wit/sizing.wit")),
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("validation.wit", include_str!("../../../wit/validation.wit")),
    ("worlds.wit", include_str!("../../../wit/worlds.wit")),
];

/// The package that a component must export interfaces of.
pub const PACKAGE: &str = "sluicegate:policy/";

/// The interfaces of which a component exports at least one.
pub const HOOKS: [&str; 3] = ["sizing", "eviction", "validation"];

/// The policy package with the one world of the WIT text `package` beside it.
///
/// # Errors
///
/// When `package` is not WIT, or names what is not there.
pub fn world(package: &str) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let mut sources = SourceMap::new();
    for (name, text) in FILES {
        sources.push_str(name, text);
    }
    let policies = sources.parse().map_err(|(_, error)| anyhow!("{error}"))?;
    resolve.push_group(policies)?;
    let package = resolve.push_source("world.wit", package)?;
    let world = resolve.select_world(&[package], None)?;
    Ok((resolve, world))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::{FILES, HOOKS, world};

    #[test]
    fn every_interface_file_is_built_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let present: BTreeSet<_> = fs::read_dir(folder)
            .expect("wit/ is there")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .filter(|name| name.ends_with(".wit"))
            .collect();
        assert_eq!(present, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn every_hook_is_an_interface() {
        for hook in HOOKS {
            let text = format!("package test:test; world w {{ export sluicegate:policy/{hook}@0.1.0; }}");
            assert!(world(&text).is_ok(), "{hook}");
        }
    }
}
