//! What is refused, and how it is said; what the cache keeps.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::fixture::{Bench, Guest};
use crate::policy::{Census, Compiler, Digest, Hook, Plugins};

async fn refusal(guest: &Guest) -> String {
    refusal_with(guest, json!({})).await
}

async fn refusal_with(guest: &Guest, keys: serde_json::Value) -> String {
    let bench = Bench::new();
    bench.place("p", guest);
    let refusal = bench.apply(keys).await.unwrap_err();
    assert_eq!(bench.plugins.census(), Census::default(), "nothing of it stays: {refusal}");
    assert!(bench.plugins.status().is_empty());
    refusal
}

#[tokio::test]
async fn every_hook_is_found_by_itself() {
    for (hooks, found) in [
        (&["sizing"][..], &[Hook::Sizing][..]),
        (&["eviction"], &[Hook::Eviction]),
        (&["validation"], &[Hook::Validation]),
        (&["validation", "sizing"], &[Hook::Sizing, Hook::Validation]),
    ] {
        let bench = Bench::serving(&Guest { hooks, ..Guest::default() }).await;
        let status = &bench.plugins.status()[0];
        let exported = status.hooks.iter().filter(|(_, status)| status.exported);
        assert_eq!(exported.map(|(hook, _)| *hook).collect::<Vec<_>>(), found);
    }
}

#[tokio::test]
async fn a_component_that_imports_is_refused_with_what_it_wants() {
    let guest = Guest {
        imports: (
            "import steal: func(); import clock: interface { now: func() -> u64; }",
            r#"(import "$root" "steal" (func)) (import "clock" "now" (func (result i64)))"#,
        ),
        ..Guest::default()
    };
    let refusal = refusal(&guest).await;
    assert!(refusal.starts_with("imports clock, steal; a policy gets nothing"), "{refusal}");
}

#[tokio::test]
async fn a_component_without_a_policy_is_refused_with_what_it_has_and_what_is_wanted() {
    let wit = "package sluicegate:policy@0.1.0; interface other { f: func(); }";
    let guest = Guest {
        hooks: &[],
        wit: Some(wit),
        imports: ("export sluicegate:policy/other@0.1.0;", ""),
        extra: r#"(func (export "sluicegate:policy/other@0.1.0#f"))"#,
        ..Guest::default()
    };
    let refusal = refusal(&guest).await;
    assert!(refusal.contains("found sluicegate:policy/other@0.1.0"), "{refusal}");
    assert!(refusal.contains("sluicegate:policy/sizing@0.1.0, sluicegate:policy/eviction@0.1.0"), "{refusal}");
}

#[tokio::test]
async fn an_interface_of_another_shape_is_refused() {
    let wit = "package sluicegate:policy@0.1.0; interface validation { check: func(age: u32) -> u32; }";
    let guest = Guest {
        hooks: &[],
        wit: Some(wit),
        imports: ("export sluicegate:policy/validation@0.1.0;", ""),
        extra: r#"(func (export "sluicegate:policy/validation@0.1.0#check") (param i32) (result i32) (i32.const 0))"#,
        ..Guest::default()
    };
    let refusal = refusal(&guest).await;
    assert!(refusal.starts_with("exports sluicegate:policy/validation@0.1.0, but not as"), "{refusal}");
    let wit = "package sluicegate:policy@0.1.0; interface validation { judge: func(); }";
    let guest =
        Guest { wit: Some(wit), extra: r#"(func (export "sluicegate:policy/validation@0.1.0#judge"))"#, ..guest };
    assert!(self::refusal(&guest).await.contains("does not have export `check`"));
}

#[tokio::test]
async fn a_patch_version_of_the_interface_is_the_same_interface() {
    let ours = std::fs::read_to_string("wit/validation.wit").unwrap();
    let theirs: &'static str = ours.replacen("@0.1.0", "@0.1.7", 1).leak();
    let guest = Guest {
        hooks: &[],
        wit: Some(theirs),
        imports: ("export sluicegate:policy/validation@0.1.7;", ""),
        extra: r#"(func (export "sluicegate:policy/validation@0.1.7#check")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result f64) (f64.const 0))"#,
        ..Guest::default()
    };
    Bench::serving(&guest).await;
}

#[tokio::test]
async fn a_component_that_fails_ordinary_questions_is_refused() {
    let guest = |prologue| Guest { hooks: &["sizing"], prologue, ..Guest::default() };
    let trapping = refusal(&guest("unreachable")).await;
    assert!(trapping.starts_with("failed a trial call of sizing: trap: "), "{trapping}");
    let looping = refusal(&guest("(loop $l (br $l))")).await;
    assert!(looping.starts_with("failed a trial call of sizing: deadline: "), "{looping}");
    let lying = Guest { hooks: &["eviction"], mark: 1001, ..Guest::default() };
    let lying = refusal(&lying).await;
    assert!(lying.contains("trial call of eviction: invalid: yield-cost 1001"), "{lying}");
}

#[tokio::test]
async fn a_component_that_cannot_start_is_refused() {
    let start = |extra| Guest { extra, ..Guest::default() };
    let trapping = refusal(&start("(func $s unreachable) (start $s)")).await;
    assert!(trapping.starts_with("cannot be started: trap: "), "{trapping}");
    let looping = refusal(&start("(func $s (loop $l (br $l))) (start $s)")).await;
    assert!(looping.starts_with("cannot be started: deadline: "), "{looping}");
    let large = refusal(&Guest { pages: 100, ..Guest::default() }).await;
    assert_eq!(large, "starts with 6553600 bytes of memory, more than memory = \"4MiB\"");
}

#[tokio::test]
async fn a_component_may_refuse_its_configuration_or_itself() {
    let base = Guest { lifecycle: Some(("picky", "1.0", 1)), ..Guest::default() };
    let picky = Guest { configure: "(i32.const 3016)", ..base.clone() };
    assert_eq!(refusal(&picky).await, "refuses its configuration: no thanks");
    let doubtful = Guest { self_check: "(i32.const 3016)", ..base.clone() };
    assert_eq!(refusal(&doubtful).await, "its self-check failed: no thanks");
    let crashing = Guest { self_check: "unreachable", ..base.clone() };
    assert!(refusal(&crashing).await.starts_with("its self-check failed: trap: "));
    // The configuration's length, as the component sees it, decides.
    let reading =
        "(if (result i32) (i32.eq (local.get 1) (i32.const 7)) (then (i32.const 3000)) (else (i32.const 3016)))";
    let reading = Guest { configure: reading, ..base };
    assert!(refusal(&reading).await.contains("no thanks"));
    let bench = Bench::new();
    bench.place("p", &reading);
    bench.apply(json!({ "config": { "a": 1 } })).await.unwrap();
}

#[tokio::test]
async fn a_configuration_that_nobody_would_read_is_refused() {
    let refusal = refusal_with(&Guest::default(), json!({ "config": { "step": 5 } })).await;
    assert!(refusal.contains("takes none"), "{refusal}");
}

#[tokio::test]
async fn what_is_no_component_or_broken_is_refused() {
    let bench = Bench::new();
    let missing = bench.apply(json!({})).await.unwrap_err();
    assert!(missing.contains("No such file"), "{missing}");
    bench.place_bytes("p", b"\0asm\x01\0\0\0");
    assert!(bench.apply(json!({})).await.unwrap_err().contains("a core module"));
    let mut broken = Guest::default().build();
    let middle = broken.len() / 2;
    broken[middle..].fill(0xff);
    bench.place_bytes("p", &broken);
    let refusal = bench.apply(json!({})).await.unwrap_err();
    assert!(refusal.starts_with("cannot be compiled: "), "{refusal}");
    bench.place("p", &Guest::default());
    let pinned = bench.apply(json!({ "sha256": "00" })).await.unwrap_err();
    assert!(pinned.contains("pins 00"), "{pinned}");
}

#[tokio::test]
async fn a_second_start_finds_the_component_compiled() {
    let bench = Bench::serving(&Guest::default()).await;
    let aot = bench.directory.path().join("aot");
    let entries = || std::fs::read_dir(&aot).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(entries().len(), 1, "one entry and nothing temporary: {:?}", entries());
    assert_eq!(aot.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(entries()[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // A compiler that cannot run proves that none was needed.
    let hopeless = Compiler::Child("/nonexistent/compiler".into());
    let second = Plugins::new(hopeless.clone(), bench.directory.path(), 1).unwrap();
    let wanted = [("p".to_owned(), bench.settings("p", json!({})))].into();
    second.apply(&wanted).await.unwrap();
    std::fs::remove_file(&entries()[0]).unwrap();
    let third = Plugins::new(hopeless, bench.directory.path(), 1).unwrap();
    let errors = third.apply(&wanted).await.unwrap_err();
    assert!(errors[0].1.to_string().contains("compiler cannot be run: /nonexistent/compiler"), "{errors:?}");
    assert!(errors[0].1.is_transient());
}

#[tokio::test]
async fn a_damaged_or_foreign_cache_entry_is_compiled_again() {
    let bench = Bench::serving(&Guest::default()).await;
    let entry = std::fs::read_dir(bench.directory.path().join("aot")).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&entry).unwrap();
    let wanted = [("p".to_owned(), bench.settings("p", json!({})))].into();
    let spoilers: [&dyn Fn(); 4] = [
        &|| std::fs::write(&entry, &good[..good.len() - 1]).unwrap(),
        &|| std::fs::write(&entry, [&good[..good.len() - 1], &[!good[good.len() - 1]]].concat()).unwrap(),
        &|| std::fs::write(&entry, "garbage").unwrap(),
        &|| std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o666)).unwrap(),
    ];
    for spoil in spoilers {
        spoil();
        let again = Plugins::new(Compiler::InProcess, bench.directory.path(), 1).unwrap();
        again.apply(&wanted).await.unwrap();
        let metadata = entry.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (good.len() as u64, 0o600));
    }
}

#[tokio::test]
async fn inspection_tells_what_a_refused_component_wants() {
    let bench = Bench::new();
    let guest = Guest { lifecycle: Some(("looker", "2.1", 7)), ..Guest::default() };
    bench.place("p", &guest);
    let seen = bench.plugins.inspect(&bench.path("p")).await.unwrap();
    assert_eq!(seen.hooks, Hook::ALL);
    assert_eq!((seen.imports, seen.refusal), (vec![], None));
    assert_eq!(seen.sha256, Digest::of(&guest.build()));
    let description = seen.description.unwrap();
    assert_eq!((&*description.name, &*description.version, description.carry_version), ("looker", "2.1", 7));
    let imports = ("import steal: func();", r#"(import "$root" "steal" (func))"#);
    bench.place("p", &Guest { imports, ..guest });
    let seen = bench.plugins.inspect(&bench.path("p")).await.unwrap();
    assert_eq!(seen.imports, ["steal"]);
    assert!(seen.refusal.unwrap().starts_with("imports steal"));
    assert_eq!(bench.plugins.census(), Census::default());
}

#[tokio::test]
async fn a_check_goes_all_the_way_and_times_each_hook() {
    let bench = Bench::new();
    bench.place("p", &Guest { hooks: &["eviction", "validation"], ..Guest::default() });
    let report = bench.plugins.check(&bench.path("p")).await.unwrap();
    assert_eq!(report.pace_us.iter().map(|(hook, _)| *hook).collect::<Vec<_>>(), [Hook::Eviction, Hook::Validation]);
    assert!(report.pace_us.iter().all(|(_, pace)| *pace > 0.0));
    bench.place("p", &Guest { prologue: "unreachable", ..Guest::default() });
    assert!(bench.plugins.check(&bench.path("p")).await.is_err());
}
