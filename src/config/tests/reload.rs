//! What a reload is told: changes by key, each with its class, and no secret.

use std::fs;

use super::{environment, text};
use crate::config::{Change, Class, diff, load::load_content};

const BASE: &str = r#"
[listener.l]
address = "127.0.0.1:0"
tls = { self_signed = ["localhost"] }
[plugin.x]
path = "x.wasm"
config = { a = 1, b = 2 }
[pool.p]
backend = "postgres"
url = "postgres://u:one@h/d"
size = { max = 5 }
sizing = { plugin = "x", fallback = "fixed" }
[upstream.u]
endpoints = ["http://a"]
[[route]]
path = "/a"
respond = { status = 200 }
[[route]]
path = "/b"
proxy = { upstream = "u" }
"#;

fn changes(from: &str, to: &str) -> Vec<String> {
    let (old, new) = (text(from).unwrap(), text(to).unwrap());
    assert_eq!(new.changes_since(&old), diff(&old.config, &new.config));
    new.changes_since(&old).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_changes(edits: &[(&str, &str)], expected: &[&str]) {
    let edited = edits.iter().fold(BASE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    assert_eq!(changes(BASE, &edited), expected);
}

#[test]
fn nothing_changed_is_nothing() {
    assert_changes(&[], &[]);
    assert_changes(&[("size = { max = 5 }", "# a comment\nsize.max = 5")], &[]);
}

#[test]
fn each_change_has_its_class() {
    assert_changes(
        &[
            ("max = 5", "max = 8, min = 1"),
            ("\"127.0.0.1:0\"", "\"127.0.0.1:8443\"\nbacklog = 10"),
            ("{ self_signed = [\"localhost\"] }", "[{ certificate = \"a\", key = \"b\" }]"),
            ("[plugin.x]", "[log]\nfilter = \"debug\"\n[server]\nworkers = 3\n[plugin.x]"),
            ("config = { a = 1, b = 2 }", "config = { a = 5 }"),
            ("{ plugin = \"x\", fallback = \"fixed\" }", "{ native = \"fixed\" }"),
            ("[\"http://a\"]", "[\"http://a\", \"http://b\"]"),
        ],
        &[
            r#"listener.l.address: "127.0.0.1:0" -> "127.0.0.1:8443" (rebind)"#,
            "listener.l.backlog: 4096 -> 10 (rebind)",
            r#"listener.l.tls: {"self_signed":["localhost"]} -> [{"certificate":"a","key":"b"}] (live)"#,
            r#"log.filter: "info" -> "debug" (restart)"#,
            "plugin.x.config.a: 1 -> 5 (live)",
            "plugin.x.config.b: 2 -> unset (live)",
            "pool.p.size.max: 5 -> 8 (live)",
            "pool.p.size.min: 0 -> 1 (live)",
            r#"pool.p.sizing: {"fallback":"fixed","plugin":"x"} -> {"native":"fixed"} (live)"#,
            "server.workers: unset -> 3 (restart)",
            r#"upstream.u.endpoints: ["http://a"] -> ["http://a","http://b"] (live)"#,
        ],
    );
}

#[test]
fn tables_and_routes_come_and_go() {
    let old = text(BASE).unwrap();
    let first = "[[route]]\npath = \"/a\"\n";
    let added = "[admin]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/new\"\nredirect = { to = \"/a\" }\n";
    let new = text(&BASE.replace(first, &format!("{added}{first}"))).unwrap();
    let changes = new.changes_since(&old);
    let brief: Vec<_> =
        changes.iter().map(|change| (change.key.as_str(), change.class, change.old.is_some())).collect();
    assert_eq!(brief, [("admin", Class::Restart, false), ("route[0]", Class::Live, false)]);
    assert!(changes[1].new.as_ref().unwrap().chars().count() <= 121);
    let back = old.changes_since(&new);
    assert!(back.iter().all(|change| change.old.is_some() && change.new.is_none()));
}

#[test]
fn a_route_that_changed_is_found_among_others() {
    assert_changes(&[("status = 200", "status = 201")], &["route[0].respond.status: 200 -> 201 (live)"]);
}

#[test]
fn a_password_changes_unseen_and_noticed() {
    let live = [r#"pool.p.url: "***" -> "***" (live)"#];
    assert_changes(&[("u:one@", "u:two@")], &live);
    assert_changes(&[("u:one@", "u@")], &live);
    let replaced = [r#"pool.p.url: "***" -> "***" (replaced)"#];
    assert_changes(&[("u:one@", "v:one@")], &replaced);
    assert_changes(&[("@h/d", "@g/d")], &replaced);
    assert_changes(
        &[("u:one@", "u@"), ("size = ", "password = \"one\"\nsize = ")],
        &[r#"pool.p.password: unset -> "***" (live)"#, r#"pool.p.url: "***" -> "***" (live)"#],
    );
}

#[test]
fn a_secret_that_rotates_behind_its_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let config = BASE.replace("u:one@", "u@").replace("size = ", &format!("password = {{ file = {file:?} }}\nsize = "));
    let load = |password: &str| {
        fs::write(&file, password).unwrap();
        text(&config).unwrap()
    };
    let (first, same, second) = (load("one"), load("one"), load("two"));
    assert_eq!(first.files, std::slice::from_ref(&file));
    assert!(first.has_same_inputs(&same) && !first.has_same_inputs(&second));
    assert_eq!(same.changes_since(&first), []);
    let hidden = Some("\"***\"".to_owned());
    let expected = Change { key: "pool.p.password".into(), class: Class::Live, old: hidden.clone(), new: hidden };
    assert_eq!(second.changes_since(&first), [expected]);
}

#[test]
fn a_ca_file_that_is_replaced_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let tls = format!("tls.ca = {file:?}\n");
    let config = BASE.replace("[upstream.u]\n", &format!("[upstream.u]\n{tls}"));
    let config = config.replace("[pool.p]\n", &format!("[pool.p]\n{tls}"));
    let load = |content: &str| {
        fs::write(&file, content).unwrap();
        text(&config).unwrap()
    };
    let (first, same, second) = (load("one"), load("one"), load("two"));
    assert_eq!(first.files, std::slice::from_ref(&file), "it is watched");
    assert!(first.has_same_inputs(&same) && !first.has_same_inputs(&second));
    assert_eq!(same.changes_since(&first), []);
    let changes: Vec<_> = second.changes_since(&first).into_iter().map(|change| change.key).collect();
    assert_eq!(changes, ["pool.p.tls.ca", "upstream.u.tls.ca"]);
}

#[test]
fn tls_that_comes_or_goes_binds_a_listener_anew() {
    let tls = "tls = { self_signed = [\"localhost\"] }\n";
    assert_changes(&[(tls, "")], &[r#"listener.l.tls: {"self_signed":["localhost"]} -> unset (rebind)"#]);
    let back = changes(&BASE.replace(tls, ""), BASE);
    assert_eq!(back, [r#"listener.l.tls: unset -> {"self_signed":["localhost"]} (rebind)"#]);
}

#[test]
fn the_hash_is_of_what_is_in_force_and_the_inputs_of_what_was_read() {
    let load = |text: &str, variables: &[(&str, &str)]| load_content(text.as_bytes(), &environment(variables)).unwrap();
    let base = load(BASE, &[]);
    assert_eq!(base.hash().len(), 64);
    let commented = load(&format!("# x\n{BASE}"), &[]);
    assert!(base.hash() == commented.hash() && !base.has_same_inputs(&commented));
    let password = load(&BASE.replace("u:one@", "u:two@"), &[]);
    assert!(base.hash() == password.hash() && !base.has_same_inputs(&password), "the hash says nothing of a secret");
    let set = load(BASE, &[("SLUICEGATE_POOL__P__QUEUE", "7")]);
    assert!(base.hash() != set.hash() && !base.has_same_inputs(&set));
    assert!(base.has_same_inputs(&load(BASE, &[("OTHER", "x")])));
}

#[test]
fn nothing_that_is_printed_holds_a_secret() {
    let loaded = text(BASE).unwrap();
    assert!(!format!("{:?}", loaded.config).contains("one@"));
    assert!(!serde_json::to_string(&loaded.config).unwrap().contains("one@"));
}

#[test]
fn what_is_kept_of_keys_changes_unseen() {
    let scram = |digit: &str| {
        let sum = format!("{}=", digit.repeat(43));
        format!("SCRAM-SHA-256$4096:{}==${sum}:{sum}", digit.repeat(22))
    };
    let kept = |digits: &[&str], verifier: &str| {
        let digests: Vec<String> = digits.iter().map(|digit| digit.repeat(64)).collect();
        format!("{BASE}[consumer.app]\nkey_sha256 = {digests:?}\nscram = \"{}\"\n", scram(verifier))
    };
    let (one, other) = (kept(&["a"], "A"), kept(&["a", "b"], "B"));
    assert_eq!(
        changes(&one, &other),
        [r#"consumer.app.key_sha256: ["***"] -> ["***","***"] (live)"#, r#"consumer.app.scram: "***" -> "***" (live)"#,]
    );
    for (from, to) in [(BASE, &*other), (&*other, BASE)] {
        let told = changes(from, to).join("\n");
        assert!(told.contains(r#""key_sha256":["**"#), "as far as it is shown: {told}");
    }
}
