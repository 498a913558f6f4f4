//! Runs cargo, and reads what it says.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What policies are compiled for: no operating system, so nothing to import.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A crate that can become a component.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its package name.
    pub name: String,
    /// Folder of its manifest.
    pub folder: PathBuf,
}

/// The packages of the workspace in `folder` that compile to a module of their own, by name.
///
/// # Errors
///
/// When cargo cannot be run, or refuses.
pub fn members(folder: &Path) -> Result<Vec<Member>> {
    let output =
        cargo(folder).args(["metadata", "--no-deps", "--format-version=1"]).output().context("running cargo")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo's metadata")?;
    let mut members: Vec<_> = array(&metadata["packages"]).filter_map(member).collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(members)
}

/// Compiles `packages` (or the one in `folder`, when empty) and returns the core modules, each with its package's folder.
///
/// # Errors
///
/// When cargo cannot be run, or the crates do not compile; cargo has said why.
pub fn compile(folder: &Path, packages: &[&str], environment: &[(&str, &str)]) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut command = cargo(folder);
    command.args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    for package in packages {
        command.args(["--package", package]);
    }
    let output =
        command.envs(environment.iter().copied()).stderr(Stdio::inherit()).output().context("running cargo")?;
    if !output.status.success() {
        bail!("cargo could not build the policy for {TARGET}{}", hint());
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not text")?;
    Ok(messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|message| module(&message))
        .collect())
}

fn cargo(folder: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    // In the crate's folder, so that its `.cargo/config.toml` counts; flags meant for the gateway must not replace it.
    command
        .current_dir(folder)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    command
}

fn member(package: &Value) -> Option<Member> {
    let compiles = array(&package["targets"]).any(|target| array(&target["crate_types"]).any(|kind| kind == "cdylib"));
    let manifest = Path::new(package["manifest_path"].as_str()?);
    compiles
        .then(|| package["name"].as_str())?
        .map(|name| Member { name: name.into(), folder: manifest.parent().map(PathBuf::from).unwrap_or_default() })
}

fn module(message: &Value) -> Option<(PathBuf, PathBuf)> {
    let built = message["reason"] == "compiler-artifact";
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let file = array(&message["filenames"]).filter_map(Value::as_str).find(|name| name.ends_with(".wasm"))?;
    built.then(|| (manifest.parent().map(PathBuf::from).unwrap_or_default(), PathBuf::from(file)))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The usual cause, when it is that.
fn hint() -> &'static str {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let folder = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    match folder {
        Some(folder) if !Path::new(folder.trim()).exists() => {
            "; add the target: rustup target add wasm32-unknown-unknown"
        }
        _ => "",
    }
}
