//! The house keeps to its plan: a room imports only from rooms above it, and some crates are named in one room alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Files beside the rooms: they say which there are, and start them.
const NO_ROOMS: [&str; 3] = ["lib", "main", "fuzz"];

/// Crates and modules of them, and the only places that may name them.
const OWNED: [(&str, &[&str]); 21] = [
    ("figment", &["config"]),
    ("toml_edit", &["config"]),
    ("tracing_subscriber", &["observe", "config/check"]),
    ("prometheus_client", &["observe"]),
    ("rustls", &["net"]),
    ("tokio_rustls", &["net", "edge"]),
    ("rcgen", &["net"]),
    ("hyper::server", &["edge"]),
    ("hyper::client", &["proxy", "net/fetch"]),
    ("jsonwebtoken", &["access"]),
    ("wasmtime", &["policy"]),
    ("deadpool", &["pool"]),
    ("deadpool_postgres", &["backend/postgres"]),
    ("tokio_postgres", &["backend/postgres"]),
    ("postgres_protocol", &["backend/postgres"]),
    ("rusqlite", &["backend/sqlite"]),
    ("governor", &["limit"]),
    ("flate2", &["query"]),
    ("tokio_tungstenite", &["query/tunnel"]),
    ("zstd", &["query"]),
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
    let (rooms, mut wrong) = (rooms(), Vec::new());
    for source in sources().filter(|source| !NO_ROOMS.contains(&source.room.as_str())) {
        let Some(floor) = rooms.iter().position(|room| *room == source.room) else {
            wrong.push(format!("{} is in no room of ARCHITECTURE.md", source.path));
            continue;
        };
        for room in &rooms[floor + 1..] {
            if names(&source.code, &format!("crate::{room}")) {
                wrong.push(format!("{} ({}) imports {room}", source.path, source.room));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_import_is_seen_however_it_is_written() {
    for code in [
        "use crate::access;",
        "use crate::access as door;",
        "use crate::access::Consumers;",
        "let consumers = crate::access::Consumers::new();",
        "use crate::{access, config::Config};",
        "use crate::{\n    config::{Config, model::{Pool, Route}},\n    access as door,\n};",
    ] {
        assert!(names(code, "crate::access"), "{code}");
    }
    for code in ["use crate::access_log;", "use crate::{config::access, accessible};", "use super::access;"] {
        assert!(!names(code, "crate::access"), "{code}");
    }
    assert!(names("use hyper::{Request, client::conn::http1};", "hyper::client"));
    assert!(names("use governor;", "governor") && names("governor::Quota", "governor"));
    assert!(!names("let governor = 1;", "governor"));
}

#[test]
fn a_crate_is_named_in_its_own_room_alone() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, owners) in OWNED {
            let at_home = owners.iter().any(|owner| source.path.starts_with(owner));
            if !at_home && names(&source.code, name) {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The gateway's, its plugins', and the benchmarks'. A component's entry points are unsafe, and written by a macro.
#[test]
fn one_module_alone_is_unsafe() {
    const MODULE: &str = "src/policy/artifact.rs";
    let (mut by_itself, mut allowed) = (Vec::new(), Vec::new());
    for (path, text) in ["src", "plugins", "benches"].into_iter().flat_map(files_of) {
        let lines: Vec<&str> = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).collect();
        let writes = |line: &&str| ["export!(", "component!("].iter().any(|entry_points| line.contains(entry_points));
        let exports =
            path.ends_with("/component.rs") && (lines.iter().any(writes) || text.contains("macro_rules! component"));
        if has_word(&code_of(&text), "unsafe") {
            by_itself.push(path.clone());
        }
        if !exports && lines.iter().any(|line| line.contains("allow(unsafe_code")) {
            allowed.push(path);
        }
    }
    assert_eq!((by_itself, allowed), (vec![MODULE.to_owned()], vec![MODULE.to_owned()]));
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = sources()
        .filter(|source| source.code.lines().count() > 800)
        .map(|source| format!("{}: {} lines", source.path, source.code.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// A promise in `docs/faults.md` names the test that shows it.
#[test]
fn every_promise_about_faults_has_its_test() {
    let page = fs::read_to_string(root().join("docs/faults.md")).unwrap();
    let code: String = ["src", "tests"].into_iter().flat_map(files_of).map(|(_, text)| text).collect();
    // As a function, or as an entry of the table of hostile policies.
    let there_is = |name: &str| code.contains(&format!("fn {name}(")) || code.contains(&format!("    {name}: Mode"));
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what ")).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = shown_by.split(", ").map(|name| name.trim_matches('`')).collect();
        wrong.extend(names.into_iter().filter(|name| !there_is(name)).map(|name| format!("{name} of {row}")));
    }
    assert!(rows.len() > 40 && wrong.is_empty(), "{wrong:#?}");
}

/// What `deny.toml` says, for where `cargo deny` is not installed.
#[test]
fn dependencies_are_licensed_not_banned_and_come_from_the_registry() {
    let cargo = |words: &[&str]| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        let output = cargo.args(words).args(["--locked", "--offline"]).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])).unwrap();
    let deny = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    let allowed = |term: &str| deny.contains(&format!("    \"{}\",", term.trim_matches(['(', ')', ' '])));
    let banned = |name: &str| deny.contains(&format!("{{ name = \"{name}\", reason"));
    assert!(banned("openssl-sys"), "the list is read as it is written");
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
    // What is in the lock file may be a choice that nobody makes.
    for line in cargo(&["tree", "--prefix", "none", "--edges", "normal,build,dev", "--target", "all"]).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if banned(name) {
            wrong.push(format!("{name} is banned in deny.toml"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The rooms of the table in ARCHITECTURE.md, ground floor first. A room may import from those before it.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, table) = text.split_once("\n## The rooms of `src/`\n").expect("a chapter on the rooms");
    let lines = table.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let rooms: Vec<String> = lines.map(|line| line.split('`').nth(1).unwrap().to_owned()).collect();
    for room in &rooms {
        assert!(root().join(format!("src/{room}.rs")).exists(), "{room} is in ARCHITECTURE.md alone");
    }
    rooms
}

/// The gateway's own files, less those that are only compiled for tests.
fn sources() -> impl Iterator<Item = Source> {
    files_of("src").into_iter().filter(|(path, _)| !is_test(Path::new(path))).map(|(path, text)| {
        let path = path.strip_prefix("src/").unwrap().to_owned();
        let room = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        Source { code: code_of(&text), path, room }
    })
}

/// The Rust files below a directory: their paths from the root, and what they hold.
fn files_of(dir: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&root().join(dir), &mut files);
    files.sort();
    assert!(!files.is_empty(), "nothing in {dir}");
    let named = |file: PathBuf| (file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), file);
    files.into_iter().map(named).map(|(path, file)| (path, fs::read_to_string(file).unwrap())).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
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
    let end = text.find("\nmod tests {").unwrap_or(text.len());
    let lines =
        text[..end].lines().map(str::trim_start).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether `path`, a crate or something in one, is imported or used.
fn names(code: &str, path: &str) -> bool {
    match path.rsplit_once("::") {
        Some((root, name)) => has_word(code, path) || grouped(code, root, name),
        None => has_word(code, &format!("{path}::")) || has_word(code, &format!("use {path}")),
    }
}

/// `use crate::{config::…, pool::…}`.
fn grouped(code: &str, root: &str, name: &str) -> bool {
    code.split(&format!("{root}::{{")).skip(1).any(|rest| {
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
        top_level(group).iter().any(|item| item.split([':', ' ', '\n']).find(|word| !word.is_empty()) == Some(name))
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

/// Whether `text` stands there, and is not part of a longer word.
fn has_word(code: &str, text: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(text).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + text.len()..].chars().next();
        !before.is_some_and(in_word) && (text.ends_with(':') || !after.is_some_and(in_word))
    })
}
