//! Versions come and go under calls.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::json;

use super::fixture::{Bench, Guest, TRAP, reference};
use crate::{
    observe,
    policy::{
        Census, Compiler, DecidedBy, FaultKind, Hook, PluginError, Plugins, SizingInput, ValidationInput,
        compile::{CompileLimits, child},
    },
};

fn marked(mark: u32) -> Guest {
    Guest { mark, ..Guest::default() }
}

#[tokio::test]
async fn a_changed_file_is_swapped_in() {
    let bench = Bench::serving(&marked(1)).await;
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    assert_eq!(policy.check(&ValidationInput::default()).answer.valid_for_ms, 1);
    bench.place("p", &marked(2));
    bench.watch_until(|bench| bench.generation() == 2).await;
    let decision = policy.check(&ValidationInput::default());
    assert_eq!((decision.answer.valid_for_ms, decision.by), (2, DecidedBy::Plugin { version: 2 }));
    assert_eq!(bench.plugins.census(), Census { versions: 1, stores: 1 });
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_version_and_is_reported_once() {
    let bench = Bench::serving(&marked(1)).await;
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    let serves = || policy.check(&ValidationInput::default()).by == DecidedBy::Plugin { version: 1 };
    bench.place("p", &Guest { prologue: "unreachable", ..marked(2) });
    bench.watch_until(|bench| bench.last_error().is_some()).await;
    assert!(bench.last_error().unwrap().contains("trial"));
    assert!(serves() && bench.plugins.status()[0].is_degraded());
    std::fs::remove_file(bench.path("p")).unwrap();
    bench.watch_until(|bench| bench.last_error().unwrap().contains("No such file")).await;
    assert!(serves());
    bench.place("p", &marked(1));
    bench.watch_until(|bench| bench.last_error().is_none()).await;
    assert!(serves(), "the same content is no new version");
    bench.place("p", &marked(3));
    bench.watch_until(|bench| bench.generation() == 2).await;
    assert_eq!(bench.plugins.census().versions, 1);
}

#[tokio::test]
async fn a_version_without_a_hook_in_use_is_refused() {
    let bench = Bench::serving(&marked(1)).await;
    let sizing_only = Guest { hooks: &["sizing"], ..marked(2) };
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    bench.place("p", &sizing_only);
    bench.watch_until(|bench| bench.last_error().is_some()).await;
    assert_eq!(bench.last_error().unwrap(), "exports sizing, but pools use its validation");
    drop(policy);
    bench.place("p", &Guest { mark: 3, ..sizing_only });
    bench.watch_until(|bench| bench.generation() == 2).await;
}

#[tokio::test]
async fn a_version_refused_for_a_hook_serves_once_no_pool_asks_that() {
    let bench = Bench::serving(&marked(1)).await;
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    bench.place("p", &Guest { hooks: &["sizing"], ..marked(2) });
    bench.watch_until(|bench| bench.last_error().is_some()).await;
    drop(policy);
    bench.watch_until(|bench| bench.generation() == 2 && bench.last_error().is_none()).await;
}

#[tokio::test]
async fn carry_survives_a_swap_within_its_lineage_only() {
    let named = |version, carry, mark| Guest { lifecycle: Some(("counter", version, carry)), ..marked(mark) };
    let bench = Bench::serving(&named("1", 1, 1)).await;
    let mut policy = bench.plugins.sizing(&reference("fixed")).unwrap();
    let mut carried = || policy.decide(&SizingInput::default()).answer.carry;
    assert_eq!((carried(), carried()), (vec![1.0], vec![2.0]));
    bench.place("p", &named("2", 1, 2));
    bench.watch_until(|bench| bench.generation() == 2).await;
    assert_eq!(carried(), [3.0], "name and carry-version agree");
    bench.place("p", &named("3", 2, 3));
    bench.watch_until(|bench| bench.generation() == 3).await;
    assert_eq!(carried(), [1.0], "the carry-version changed");
    bench.place("p", &marked(4));
    bench.watch_until(|bench| bench.generation() == 4).await;
    assert_eq!((carried(), carried()), (vec![1.0], vec![2.0]), "a nameless one carries for itself");
    bench.place("p", &marked(5));
    bench.watch_until(|bench| bench.generation() == 5).await;
    assert_eq!(carried(), [1.0], "and for no other content");
}

#[test]
fn swaps_under_load_lose_no_call_and_leave_nothing_behind() {
    const SWAPS: u64 = 40;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = runtime.block_on(Bench::serving(&marked(1)));
    for mark in [1, 2] {
        bench.place(&format!("v{mark}"), &marked(mark));
    }
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let traps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // More threads than lanes, and some share one: two workers, two of no number.
        for worker in [0, 1, usize::MAX, usize::MAX] {
            let (policy, stop, calls, traps) = (&policy, &stop, &calls, &traps);
            scope.spawn(move || {
                observe::set_worker(worker);
                let mut at_least = 0;
                let mut nth = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    nth += 1;
                    let uses = if nth.is_multiple_of(500) { TRAP } else { 0 };
                    match policy.check(&ValidationInput { uses, ..Default::default() }).by {
                        DecidedBy::Plugin { version } => {
                            assert!(version >= at_least, "a thread never goes back to an older version");
                            at_least = version;
                        }
                        DecidedBy::Fallback(FaultKind::Trap) => drop(traps.fetch_add(1, Ordering::Relaxed)),
                        by => panic!("{by:?}"),
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let wanted = |mark| [("p".to_owned(), bench.settings(&format!("v{mark}"), json!({})))].into();
        runtime.block_on(async {
            for swap in 0..SWAPS {
                bench.plugins.apply(&wanted(2 - swap % 2)).await.unwrap();
                let before = calls.load(Ordering::Relaxed);
                while calls.load(Ordering::Relaxed) < before + 50 {
                    tokio::task::yield_now().await;
                }
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(bench.generation(), SWAPS + 1);
    let census = bench.plugins.census();
    assert_eq!(census.versions, 1);
    assert!(census.stores <= 3, "one a lane in use: {census:?}");
    let figures = &bench.plugins.status()[0].hooks[&Hook::Validation].figures;
    assert_eq!(figures.calls, calls.load(Ordering::Relaxed));
    assert_eq!(figures.faults.values().sum::<u64>(), traps.load(Ordering::Relaxed));
    drop(policy);
    runtime.block_on(bench.plugins.apply(&BTreeMap::new())).unwrap();
    assert_eq!(bench.plugins.census(), Census::default(), "back to nothing");
}

#[tokio::test]
async fn a_configuration_applies_whole_or_not_at_all() {
    let bench = Bench::serving(&marked(1)).await;
    bench.place("good", &marked(2));
    let good = bench.settings("good", json!({}));
    let bad = bench.settings("missing", json!({}));
    let wanted = BTreeMap::from([("p".to_owned(), good.clone()), ("q".to_owned(), bad.clone()), ("r".to_owned(), bad)]);
    let errors = bench.plugins.apply(&wanted).await.unwrap_err();
    assert_eq!(errors.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["q", "r"], "every error at once");
    assert_eq!((bench.generation(), bench.plugins.status().len()), (1, 1));
    let wanted = BTreeMap::from([("p".to_owned(), good)]);
    let prepared = bench.plugins.prepare(&wanted).await.unwrap();
    assert_eq!(bench.generation(), 1, "prepared is not in service");
    assert!(prepared.check(Hook::Sizing, &reference("fixed")).is_ok());
    assert!(prepared.check(Hook::Sizing, &reference("never")).is_err());
    bench.plugins.check_files().await;
    drop(prepared);
    assert_eq!((bench.generation(), bench.plugins.census().versions), (1, 1), "nothing happened");
    bench.plugins.apply(&wanted).await.unwrap();
    assert_eq!(bench.generation(), 2);
}

#[tokio::test]
async fn what_a_reload_does_not_change_goes_on() {
    let bench = Bench::serving(&marked(1)).await;
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    policy.check(&ValidationInput::default());
    bench.apply(json!({})).await.unwrap();
    bench.apply(json!({ "compile_deadline": "20s" })).await.unwrap();
    assert_eq!((bench.generation(), bench.plugins.census()), (1, Census { versions: 1, stores: 1 }));
    bench.apply(json!({ "deadline": "3ms" })).await.unwrap();
    assert_eq!(bench.generation(), 2, "another deadline is another version");
    let refused = bench.apply(json!({ "sha256": "00", "required": false })).await.unwrap_err();
    assert!(refused.contains("pins 00"), "one that serves is not let off: {refused}");
    assert_eq!(policy.check(&ValidationInput::default()).by, DecidedBy::Plugin { version: 2 });
}

#[tokio::test]
async fn a_plugin_that_is_not_required_may_come_later() {
    let bench = Bench::new();
    bench.apply(json!({ "required": false })).await.unwrap();
    let status = &bench.plugins.status()[0];
    assert!(status.is_degraded() && status.last_error.as_ref().unwrap().contains("No such file"), "{status:?}");
    let policy = bench.plugins.validation(&reference("never")).unwrap();
    assert_eq!(policy.check(&ValidationInput::default()).by, DecidedBy::Fallback(FaultKind::Missing));
    bench.place("p", &marked(1));
    bench.watch_until(|bench| bench.generation() == 1).await;
    assert_eq!(policy.check(&ValidationInput::default()).by, DecidedBy::Plugin { version: 1 });
    assert!(!bench.plugins.status()[0].is_degraded());
}

#[tokio::test]
async fn the_status_is_for_people_and_machines() {
    let bench = Bench::serving(&Guest { lifecycle: Some(("utilisation", "1.2.3", 1)), ..marked(1) }).await;
    bench.plugins.sizing(&reference("fixed")).unwrap().decide(&SizingInput::default());
    let status = serde_json::to_value(bench.plugins.status()).unwrap();
    let status = &status[0];
    assert_eq!(status["plugin"], "p");
    assert_eq!((&status["name"], &status["version"]), (&json!("utilisation"), &json!("1.2.3")));
    assert_eq!(status["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(status["hooks"]["sizing"]["calls"], 1);
    assert_eq!(status["hooks"]["sizing"]["exported"], true);
    assert!(status["hooks"]["sizing"]["p99_us"].as_f64().unwrap() > 0.0);
}

/// Registries that compile in a child: a script stands between, and runs this test program as the child.
mod in_a_child {
    use std::{os::unix::fs::PermissionsExt, path::Path};

    use super::*;

    fn script(bench: &Bench, body: &str) -> Compiler {
        let path = bench.directory.path().join("compiler");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        Compiler::Child(path)
    }

    /// `$3` is the component, `$5` the output, `$7` the memory, `$9` the deadline.
    fn real(bench: &Bench) -> Compiler {
        let test = "policy::tests::swapping::in_a_child::the_child";
        let program = std::env::current_exe().unwrap();
        let program = program.display();
        script(
            bench,
            &format!(
                r#"[ "$1 $2 $4 $6 $8" = "plugin compile -o --memory --deadline" ] || exit 2
                IN="$3" OUT="$5" MEMORY="$7" DEADLINE="$9" exec {program} --exact {test} --ignored --nocapture --test-threads 1"#
            ),
        )
    }

    /// Not a test: what [`real`] runs.
    #[test]
    #[ignore = "the child of other tests"]
    fn the_child() {
        let variable = |name| std::env::var(name).unwrap();
        let limits = CompileLimits {
            memory: variable("MEMORY").parse().unwrap(),
            deadline: variable("DEADLINE").parse().unwrap(),
        };
        if let Err(error) = child(Path::new(&variable("IN")), Path::new(&variable("OUT")), limits) {
            eprintln!("sluicegate: {error}");
            std::process::exit(1);
        }
    }

    /// As [`real`], but until the file `open` is there it says that it cannot, in these words of shell.
    fn barred(bench: &Bench, instead: &str) -> Compiler {
        let Compiler::Child(path) = real(bench) else { unreachable!() };
        let real = std::fs::read_to_string(path).unwrap();
        let open = bench.path("open");
        script(bench, &format!("[ -e {} ] || {{ {instead}; exit 1; }}\n{real}", open.display()))
    }

    #[tokio::test]
    async fn a_refused_content_is_tried_again_when_it_is_touched_and_at_a_reload() {
        let mut bench = Bench::serving(&marked(1)).await;
        bench.plugins = Plugins::new(barred(&bench, "echo no >&2"), bench.directory.path(), 1).unwrap();
        bench.apply(json!({})).await.unwrap();
        let refused = async |mark| {
            let _ = std::fs::remove_file(bench.path("open"));
            bench.place("p", &marked(mark));
            bench.watch_until(|bench| bench.last_error().is_some()).await;
            std::fs::write(bench.path("open"), "").unwrap();
        };
        refused(2).await;
        bench.place("p", &marked(2));
        bench.watch_until(|bench| bench.generation() == 2 && bench.last_error().is_none()).await;
        refused(3).await;
        bench.apply(json!({})).await.unwrap();
        bench.watch_until(|bench| bench.generation() == 3 && bench.last_error().is_none()).await;
    }

    #[tokio::test]
    async fn what_the_system_killed_is_tried_again_later() {
        let mut bench = Bench::new();
        bench.plugins = Plugins::new(barred(&bench, "kill -KILL $$"), bench.directory.path(), 1).unwrap();
        bench.place("p", &marked(1));
        bench.apply(json!({ "required": false })).await.unwrap();
        let error = bench.last_error().unwrap();
        assert!(error.contains("was killed (signal 9)"), "{error}");
        std::fs::write(bench.path("open"), "").unwrap();
        bench.plugins.check_files().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
        tokio::time::resume();
        bench.watch_until(|bench| bench.generation() == 1).await;
    }

    async fn applied(compiler: Compiler, bench: &Bench, keys: serde_json::Value) -> Result<(), PluginError> {
        let plugins = Plugins::new(compiler, bench.directory.path(), 1).unwrap();
        let wanted = [("p".to_owned(), bench.settings("p", keys))].into();
        let done = plugins.apply(&wanted).await.map_err(|mut errors| errors.remove(0).1);
        let left = std::fs::read_dir(bench.directory.path().join("aot")).unwrap();
        let left: Vec<_> =
            left.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "tmp").collect();
        assert!(left.is_empty(), "nothing temporary stays: {left:?}");
        done
    }

    #[tokio::test]
    async fn a_component_compiled_in_a_child_serves() {
        let bench = Bench::new();
        bench.place("p", &marked(1));
        applied(real(&bench), &bench, json!({})).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_compiled_is_refused_in_the_compilers_words() {
        let bench = Bench::new();
        bench.place_bytes("p", b"\0asm\x0d\0\x01\0\xff\xff\xff");
        let error = applied(real(&bench), &bench, json!({})).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, PluginError::Invalid { .. }) && !error.is_transient(), "{error:?}");
        assert_eq!(text.matches("cannot be compiled").count(), 1, "{text}");
    }

    #[tokio::test]
    async fn a_compilation_has_a_limit_of_memory() {
        let bench = Bench::new();
        let calls = "(drop (call $deep (i32.const 1)))".repeat(40_000);
        let extra = format!("(func $huge {calls})").leak();
        bench.place("p", &Guest { extra, ..marked(1) });
        let error = applied(real(&bench), &bench, json!({ "compile_memory": "16MiB" })).await.unwrap_err();
        assert!(matches!(error, PluginError::CompileTooHungry { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_compilation_has_a_deadline() {
        let bench = Bench::new();
        bench.place("p", &marked(1));
        let pid = bench.directory.path().join("pid");
        let endless = script(&bench, &format!("echo $$ > {}; while :; do :; done", pid.display()));
        let error = applied(endless, &bench, json!({ "compile_deadline": "300ms" })).await.unwrap_err();
        assert!(matches!(error, PluginError::CompileTooLong { .. }), "{error:?}");
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "killed, and waited for");
    }

    #[tokio::test]
    async fn a_compilers_death_is_told_apart_from_a_refusal() {
        let bench = Bench::new();
        bench.place("p", &marked(1));
        let refusal = |body: &'static str| {
            let bench = &bench;
            async move { applied(script(bench, body), bench, json!({})).await.unwrap_err() }
        };
        assert!(refusal("kill -KILL $$").await.is_transient(), "nobody knows why, so it may do next time");
        let late = refusal("kill -XCPU $$").await;
        assert!(matches!(late, PluginError::CompileTooLong { .. }) && late.is_transient());
        assert!(matches!(refusal("kill -SEGV $$").await, PluginError::Invalid { .. }));
        assert!(matches!(refusal("echo usage >&2; exit 2").await, PluginError::Compiler { .. }));
        let silent = refusal("exit 0").await;
        assert!(silent.to_string().contains("the compiler wrote nothing"), "{silent}");
        let chatty = refusal("yes | head -c 1000000 >&2; exit 1").await;
        assert!(chatty.to_string().len() < 1200, "bounded");
    }
}

#[tokio::test]
async fn files_are_not_looked_at_while_a_configuration_is_prepared() {
    let bench = Bench::serving(&marked(1)).await;
    let prepared = bench.plugins.prepare(&[("p".to_owned(), bench.settings("p", json!({})))].into()).await.unwrap();
    bench.place("p", &marked(2));
    for _ in 0..5 {
        bench.plugins.check_files().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.generation(), 1);
    bench.plugins.commit(prepared);
    bench.watch_until(|bench| bench.generation() == 2).await;
}
