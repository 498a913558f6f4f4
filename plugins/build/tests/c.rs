//! The policies in C, from their source to components. Where clang is missing, `make` says so, and nothing is shown.

use std::fs;
use std::process::Command;

use plugin_builder::component::examine;
use plugin_builder::workspace;

#[test]
fn a_policy_in_c() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new("make")
        .arg("--directory")
        .arg(workspace::folder().join("c"))
        .arg(format!("BUILDER={}", env!("CARGO_BIN_EXE_build-plugins")))
        .args(["OUT", "DIST"].map(|variable| format!("{variable}={}", folder.path().join(variable).display())))
        .output()
        .expect("make runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    if said.contains("left out") {
        eprintln!("{said}");
        return;
    }
    let component = fs::read(folder.path().join("DIST/fixed-window.wasm")).expect("a component");
    assert_eq!(examine(&component).expect("a policy"), ["validation"]);
    assert!(component.len() < 2048, "{} bytes", component.len());
}
