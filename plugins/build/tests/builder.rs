//! The builder as authors use it: its command line, outside this repository. Needs the target `wasm32-unknown-unknown`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plugin_builder::component::examine;
use plugin_builder::workspace;

/// The builder, sharing what this workspace has compiled.
fn builder(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_build-plugins"))
        .args(arguments)
        .env("CARGO_TARGET_DIR", target())
        // As a gateway's build might have them set; a component's own flags must hold.
        .env("RUSTFLAGS", "-Clink-arg=--this-is-no-flag")
        .output()
        .expect("the builder runs")
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace::folder().join("target"), PathBuf::from)
}

fn succeeds(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A new policy, tested natively and built, in a folder that is nobody's workspace.
fn a_first_policy(hook: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let into = folder.path().to_str().expect("text");
    let name = format!("first-{hook}");
    succeeds(&builder(&["new", &name, hook, "--into", into]));
    let policy = folder.path().join(&name);
    // The same versions as here: what was fetched and compiled once is enough.
    fs::copy(workspace::folder().join("Cargo.lock"), policy.join("Cargo.lock")).expect("copied");
    for arguments in [["fmt", "--check"], ["test", "--offline"]] {
        let mut cargo = Command::new(env::var_os("CARGO").expect("run by cargo"));
        cargo.args(arguments).current_dir(&policy).env("CARGO_TARGET_DIR", target()).env("RUSTFLAGS", "-Dwarnings");
        succeeds(&cargo.output().expect("cargo runs"));
    }

    let component = folder.path().join("out").join("policy.wasm");
    let printed =
        succeeds(&builder(&["component", policy.to_str().expect("text"), "-o", component.to_str().expect("text")]));
    let mut exports = [hook, "lifecycle"];
    exports.sort_unstable();
    assert!(printed.contains(&exports.join(", ")), "{printed}");
    let bytes = fs::read(&component).expect("a component");
    assert_eq!(examine(&bytes).expect("a policy"), exports);
    assert!(bytes.len() < 30_000, "{} bytes", bytes.len());
}

#[test]
fn a_first_sizing_policy() {
    a_first_policy("sizing");
}

#[test]
fn a_first_eviction_policy() {
    a_first_policy("eviction");
}

#[test]
fn a_first_validation_policy() {
    a_first_policy("validation");
}

#[test]
fn a_component_says_nothing_of_where_it_was_built() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("utilisation.wasm");
    let source = workspace::folder().join("utilisation");
    succeeds(&builder(&["component", source.to_str().expect("text"), "-o", output.to_str().expect("text")]));
    let bytes = fs::read(output).expect("a component");
    let home = env::var("HOME").unwrap_or_else(|_| "/home/".into());
    for place in [home.as_str(), workspace::folder().to_str().expect("text"), ".cargo", "registry"] {
        let found = bytes.windows(place.len()).any(|window| window == place.as_bytes());
        assert!(!found, "{place} is in the component: it would differ from one machine to the next");
    }
}

#[test]
fn a_module_of_any_language_will_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [source, output] = ["module.wat", "policy.wasm"].map(|name| folder.path().join(name));
    let module = r#"(module (func (export "sluicegate:policy/validation@0.1.0#check")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result f64) (f64.const 0)))"#;
    fs::write(&source, module).expect("written");
    let [source, output] = [&source, &output].map(|path| path.to_str().expect("text"));
    assert!(succeeds(&builder(&["component", source, "-o", output])).contains("validation"));
}

#[test]
fn misuse_is_told_from_failure() {
    let code = |arguments: &[&str]| builder(arguments).status.code();
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["component"]), Some(2));
    assert_eq!(code(&["component", "somewhere"]), Some(2), "no output named");
    assert_eq!(code(&["new", "a", "sizing"]), Some(2), "no folder named");
    assert_eq!(code(&["--unknown"]), Some(2));
    assert_eq!(code(&["no-such-policy"]), Some(1));
    assert_eq!(code(&["component", "/nowhere", "-o", "/nowhere/else"]), Some(1));
    let refusal = builder(&["no-such-policy"]);
    let refusal = String::from_utf8_lossy(&refusal.stderr);
    assert!(refusal.contains("there are ") && refusal.contains(" bypass-window, "), "{refusal}");
}

#[test]
fn a_crate_that_is_no_policy_is_refused_in_words() {
    let folder = workspace::folder().join("settings");
    let output = builder(&["component", folder.to_str().expect("text"), "-o", "/nowhere"]);
    let refusal = String::from_utf8_lossy(&output.stderr);
    assert!(refusal.contains("is not one crate with `crate-type = [\"cdylib\"]`"), "{refusal}");
    assert!(!Path::new("/nowhere").exists());
}
