//! Builds policy crates: this workspace's, and any other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::component::{Component, from_core};
use crate::{cargo, output, testing};

/// The folder of this workspace.
pub fn folder() -> PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR"));
    build.parent().unwrap_or(build).to_path_buf()
}

/// Builds this workspace's policies, or those with the given names, into `dist/`; with `testing` also those of `testing/`,
/// into `dist/testing/`.
///
/// # Errors
///
/// When a name is unknown, a policy does not compile, or what comes out is no policy.
pub fn build(names: &[String], testing: bool) -> Result<()> {
    let workspace = folder();
    let members = cargo::members(&workspace)?;
    let is_test = |member: &cargo::Member| member.folder.starts_with(workspace.join("testing"));
    for name in names {
        ensure!(
            members.iter().any(|member| member.name == *name),
            "there is no policy {name}; there are {}",
            list(&members)
        );
    }
    let wanted = |member: &cargo::Member| names.is_empty() || names.contains(&member.name);
    let policies: Vec<_> = members.iter().filter(|member| !is_test(member) && wanted(member)).collect();
    let dist = workspace.join("dist");
    build_members(&workspace, &policies, &dist)?;

    let tests: Vec<_> = members.iter().filter(|member| is_test(member) && wanted(member)).collect();
    if testing || (!names.is_empty() && !tests.is_empty()) {
        let plain: Vec<_> = tests.iter().copied().filter(|member| member.name != testing::STEADY).collect();
        build_members(&workspace, &plain, &dist.join("testing"))?;
        if plain.len() < tests.len() {
            testing::build_steady(&workspace, &dist.join("testing"))?;
        }
    }
    if testing {
        testing::build_broken(&dist.join("testing"))?;
    }
    Ok(())
}

/// Builds the one policy crate in `folder`.
///
/// # Errors
///
/// When there is none or several, it does not compile, or what comes out is no policy.
pub fn build_crate(folder: &Path) -> Result<Component> {
    let folder = folder.canonicalize().with_context(|| format!("looking for {}", folder.display()))?;
    let modules = cargo::compile(&folder, &[], &[])?;
    let modules: Vec<_> = modules.iter().filter(|(package, _)| *package == folder).collect();
    let [(_, module)] = modules.as_slice() else {
        return Err(anyhow!("{} is not one crate with `crate-type = [\"cdylib\"]`", folder.display()));
    };
    component(module)
}

/// Wraps the core module in a file.
///
/// # Errors
///
/// When it cannot be read, or is no policy.
pub fn component(module: &Path) -> Result<Component> {
    let bytes = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    from_core(&bytes).with_context(|| format!("{} is no policy", module.display()))
}

/// All of them in one run of cargo, so that nothing is looked at twice.
fn build_members(workspace: &Path, members: &[&cargo::Member], dist: &Path) -> Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    let modules = cargo::compile(workspace, &packages, &[])?;
    for member in members {
        let (_, module) = modules
            .iter()
            .find(|(folder, _)| *folder == member.folder)
            .with_context(|| format!("cargo made no module of {}", member.name))?;
        output::write(&dist.join(&member.name).with_extension("wasm"), &component(module)?)?;
    }
    Ok(())
}

fn list(members: &[cargo::Member]) -> String {
    members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}
