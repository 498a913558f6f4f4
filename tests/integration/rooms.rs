//! The house keeps to its plan: a room imports only from rooms above it, and some crates are named in one room alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Ground floor first. A room may import from those before it.
const ROOMS: [&str; 15] = [
    "config", "observe", "net", "edge", "policy", "pool", "backend", "limit", "access", "query", "proxy", "route",
    "gateway", "admin", "cli",
];

/// Crates, and the only places that may name them.
const OWNED: [(&str, &[&str]); 14] = [
    ("figment", &["config"]),
    ("toml_edit", &["config"]),
    ("tracing_subscriber", &["observe", "config/check"]),
    ("rustls", &["net"]),
    ("tokio_rustls", &["net", "edge"]),
    ("rcgen", &["net"]),
    ("wasmtime", &["policy"]),
    ("deadpool", &["pool"]),
    ("deadpool_postgres", &["backend/postgres"]),
    ("tokio_postgres", &["backend/postgres"]),
    ("postgres_protocol", &["backend/postgres"]),
    ("rusqlite", &["backend/sqlite"]),
    ("governor", &["limit"]),
    ("clap", &["cli"]),
];

struct Source {
    /// `pool/core.rs`.
    path: String,
    room: String,
    /// Without its tests and comments.
    code: String,
}

#[test]
fn a_room_imports_only_from_rooms_above_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(floor) = ROOMS.iter().position(|room| *room == source.room) else { continue };
        for (lower, room) in ROOMS.iter().enumerate() {
            let names = source.code.contains(&format!("crate::{room}::")) || grouped(&source.code, room);
            if lower > floor && names {
                wrong.push(format!("{} ({}) imports {room}", source.path, source.room));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_crate_is_named_in_its_own_room_alone() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, owners) in OWNED {
            let at_home = owners.iter().any(|owner| source.path.starts_with(owner));
            if !at_home && mentions(&source.code, name) {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_module_alone_is_unsafe() {
    let unsafe_files: Vec<String> =
        sources().filter(|source| mentions(&source.code, "unsafe")).map(|source| source.path).collect();
    assert_eq!(unsafe_files, ["policy/artifact.rs"]);
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = sources()
        .filter(|source| source.code.lines().count() > 800)
        .map(|source| format!("{}: {} lines", source.path, source.code.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// What `deny.toml` says, for where `cargo deny` is not installed.
#[test]
fn dependencies_are_licensed_and_come_from_the_registry() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let deny = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    let allowed = |term: &str| deny.contains(&format!("    \"{}\",", term.trim_matches(['(', ')', ' '])));
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let license = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        if !license.split(" AND ").all(|part| part.split(" OR ").any(&allowed)) {
            wrong.push(format!("{name}: licence {license:?}"));
        }
        let source = package["source"].as_str().unwrap_or("registry+ours");
        if !source.starts_with("registry+") {
            wrong.push(format!("{name} from {source}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn sources() -> impl Iterator<Item = Source> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    files.into_iter().map(move |file| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let room = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        Source { code: code_of(&fs::read_to_string(&file).unwrap()), path, room }
    })
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !is_test(&path) {
            files.push(path);
        }
    }
}

/// Modules that are only compiled for tests.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    stem.ends_with("tests") || stem.ends_with("testkit") || path.components().any(|part| part.as_os_str() == "tests")
}

/// Up to the inline tests, without comments and attributes.
fn code_of(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines =
        text[..end].lines().map(str::trim_start).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// `use crate::{config::…, pool::…}`.
fn grouped(code: &str, room: &str) -> bool {
    code.split("crate::{").skip(1).any(|rest| {
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        let group = &rest[..end.unwrap_or(rest.len())];
        top_level(group).iter().any(|item| item.split("::").next().unwrap().trim() == room)
    })
}

/// Splits at the commas that are not inside braces.
fn top_level(group: &str) -> Vec<String> {
    let (mut depth, mut items) = (0, vec![String::new()]);
    for c in group.chars() {
        match c {
            ',' if depth == 0 => items.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                items.last_mut().unwrap().push(c);
            }
        }
    }
    items
}

/// Whether `name` stands there as a word.
fn mentions(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        !before.is_some_and(word) && !after.is_some_and(word) && (name == "unsafe" || after == Some(':'))
    })
}
