//! Plugins that loop, trap, grow, lie: service goes on, the cap holds as the server counts it, and the counters tell.

use std::{fs, ops::RangeInclusive, path::PathBuf, time::Instant};

use serde_json::{Value, json};

use crate::support::{
    config::{BASE, QUERY_ROUTE, pool},
    eventually,
    gateway::Gateway,
    load::Load,
    nginx::Nginx,
    postgres::{Postgres, REFUSED_AS_FULL},
    replace_file, testing_plugin,
};

const MAX: i64 = 6;

fn config(postgres: &Postgres, nginx: &Nginx, plugin: &str, mode: &str) -> String {
    let policies = format!(
        r#"
size = {{ min = 1, max = {MAX} }}
sizing = {{ plugin = "hostile", fallback = "fixed" }}
eviction = {{ plugin = "hostile", fallback = "lifetime" }}
validation = {{ plugin = "hostile", fallback = "bypass-window" }}
sizing_interval = "100ms"
sweep_interval = "100ms"
"#
    );
    let (pool, files) = (pool("main", &postgres.url(), &policies), nginx.files());
    format!(
        r#"{BASE}
[plugin.hostile]
path = "{plugin}"
config = {{ mode = "{mode}" }}
{pool}
{files}
{QUERY_ROUTE}"#
    )
}

/// A way to misbehave, and what must be seen of it.
struct Mode {
    name: &'static str,
    /// The kind of fault that the plugin's counters must show; none where the answers are merely bad.
    faults: Option<&'static str>,
    /// Hooks that must be left alone after it.
    quarantined: &'static [&'static str],
    /// Counters of the pool that must have moved: what the guards did.
    counted: &'static [&'static str],
    /// `size.max`.
    max: i64,
    /// `sizing_interval`.
    interval: &'static str,
    /// Sessions at the server under load, once the guards have done what they must.
    settles_at: RangeInclusive<i64>,
}

impl Mode {
    fn named(name: &'static str) -> Self {
        Self { name, faults: None, quarantined: &[], counted: &[], max: MAX, interval: "100ms", settles_at: 1..=MAX }
    }

    /// No hook of it answers.
    fn faulting(name: &'static str, kind: &'static str) -> Self {
        Self { faults: Some(kind), quarantined: &["sizing", "eviction", "validation"], ..Self::named(name) }
    }

    /// Whether `/status` shows what it must.
    fn is_told(&self, status: &Value) -> bool {
        let (pool, plugin) = (&status["pools"]["main"], &status["plugins"]["hostile"]);
        let count = |name: &str| {
            let counted = pool["counters"].pointer(name).and_then(Value::as_u64);
            counted.unwrap_or_else(|| panic!("no counter {name} in {pool:#}"))
        };
        plugin["calls"].as_u64() > Some(0)
            && self.faults.is_none_or(|kind| plugin["faults"][kind].as_u64() > Some(0))
            && self.quarantined.iter().all(|hook| plugin["hooks"][hook]["quarantined"] == true)
            && self.quarantined.iter().all(|hook| fell_back(&pool["decisions"], hook))
            && self.counted.iter().all(|name| count(name) > 0)
    }
}

/// Whether the native policy answered for a hook that is left alone.
fn fell_back(decisions: &Value, hook: &str) -> bool {
    let mut all = decisions.as_array().expect("decisions").iter();
    all.any(|decision| decision["hook"] == *hook && decision["by"] == "fallback quarantined")
}

/// Connections that a pool may make in one of these tests, whatever its policy wants, and one a sweep.
const MOST_CREATES: u64 = 60;

async fn survive(mode: Mode) {
    let name = mode.name;
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let admin = postgres.admin().await;
    postgres.grant_sessions(&admin, mode.max).await;
    let plugin = testing_plugin("hostile");
    let config = config(&postgres, &nginx, plugin.to_str().unwrap(), name)
        .replace(&format!("max = {MAX} }}"), &format!("max = {} }}", mode.max))
        .replace("sizing_interval = \"100ms\"", &format!("sizing_interval = \"{}\"", mode.interval));
    let gateway = Gateway::start(&config).await;
    let begun = Instant::now();
    let load = Load::start(&gateway, 16).await;
    let sessions = || async { postgres.sessions(&admin).await };
    let mut most = 0;
    for _ in 0..40 {
        load.advance(20).await;
        most = most.max(sessions().await);
    }
    eventually(name, || gateway.status(), |status| mode.is_told(status)).await;
    eventually("sessions at the server", sessions, |seen| mode.settles_at.contains(seen)).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{name}: {:#?}", report.failures);
    assert!(report.requests > 800);
    assert!((1..=mode.max).contains(&most), "{name}: {most} sessions at the server, {} allowed", mode.max);
    for full in ["server_full", "account_full"] {
        assert_eq!(gateway.figure(&format!("/pools/main/counters/create_failures/{full}")).await, 0, "{name}");
    }
    assert_eq!(postgres.logged(&REFUSED_AS_FULL), 0, "{name}: the server had to hold the cap:\n{}", postgres.log());
    let creates = gateway.figure("/pools/main/counters/creates").await;
    let sweeps = begun.elapsed().as_millis() as u64 / 100;
    assert!(creates <= MOST_CREATES + sweeps, "{name}: {creates} connections were made in {sweeps} sweeps");
}

macro_rules! modes {
    ($($name:ident: $mode:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        async fn $name() {
            survive($mode).await;
        }
    )*};
}

modes! {
    a_policy_that_loops_is_stopped: Mode::faulting("loop", "deadline");
    a_policy_that_traps_is_answered_for: Mode::faulting("trap", "trap");
    a_policy_that_eats_memory_is_stopped: Mode::faulting("memory", "memory");
    a_policy_that_answers_not_a_number_is_answered_for: Mode::faulting("nan", "invalid");
    a_policy_that_wants_every_connection_gets_the_maximum: Mode {
        counted: &["/clamped/sizing/bounds", "/clamped/sizing/extras"],
        settles_at: MAX..=MAX,
        ..Mode::named("max")
    };
    a_policy_that_wants_none_gets_the_minimum: Mode {
        counted: &["/clamped/sizing/bounds"],
        settles_at: 1..=1,
        ..Mode::named("zero")
    };
    // It wants 5 and 10 in turn, and the maximum lets it; it is still at it when the load begins.
    a_policy_that_cannot_decide_does_not_churn_connections: Mode {
        counted: &["/clamped/sizing/frozen"],
        max: 12,
        interval: "200ms",
        settles_at: 1..=10,
        ..Mode::named("oscillate")
    };
    a_policy_that_closes_everything_leaves_the_minimum: Mode {
        counted: &["/clamped/eviction/closing", "/closes/policy"],
        ..Mode::named("close-all")
    };
    a_policy_that_trusts_nothing_does_not_stop_service: Mode {
        counted: &["/clamped/validation/discarding", "/closes/discarded"],
        ..Mode::named("discard")
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broken_replacement_is_refused_and_the_old_policy_serves_on() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("policy.wasm");
    fs::copy(testing_plugin("hostile"), &path).unwrap();
    let mut gateway = Gateway::start(&config(&postgres, &nginx, path.to_str().unwrap(), "none")).await;
    let first = gateway.status().await["plugins"]["hostile"]["sha256"].clone();
    let broken: [(&str, Vec<u8>, &str); 7] = [
        ("not a component", b"not wasm at all".to_vec(), "not a WebAssembly component"),
        ("wrong interface", fs::read(testing_plugin("wrong-interface")).unwrap(), "export"),
        ("imports something", fs::read(testing_plugin("imports-something")).unwrap(), "import"),
        ("loops at start", fs::read(testing_plugin("loops-at-start")).unwrap(), "cannot be started: deadline"),
        ("too much memory", fs::read(testing_plugin("too-much-memory")).unwrap(), "more than memory"),
        ("traps at once", fs::read(testing_plugin("traps-at-once")).unwrap(), "trap"),
        ("too large", vec![0; 2 << 20], "max_size"),
    ];
    for (name, bytes, reason) in broken {
        replace_file(&path, &bytes);
        let told = |error: &Value| error.as_str().is_some_and(|text| text.contains(reason));
        gateway.status_until("/plugins/hostile/last_error", told).await;
        let mut client = gateway.h1().await;
        assert_eq!(client.query("select 1::int", json!([])).await.unwrap().status, 200, "{name}");
        assert_eq!(gateway.status().await["plugins"]["hostile"]["sha256"], first, "{name}: the old one serves on");
    }
    gateway.logged("refused").await;
    // The first version comes back as if nothing had been.
    replace_file(&path, &fs::read(testing_plugin("hostile")).unwrap());
    gateway.status_until("/plugins/hostile/last_error", Value::is_null).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broken_plugin_at_first_start_is_refused_unless_it_is_not_required() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let broken = testing_plugin("traps-at-once");
    let config = config(&postgres, &nginx, broken.to_str().unwrap(), "none");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), &config).unwrap();
    let output = crate::support::gateway::run(dir.path(), &["serve", "--config", "c.toml"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("plugin.hostile") && text.contains("trap"), "{text}");

    let config = config.replace("config = { mode", "required = false\nconfig = { mode");
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.h2().await.query("select 1::int", json!([])).await.unwrap().status, 200);
    assert_eq!(gateway.status().await["health"], "degraded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_decision_is_shown_with_who_made_it() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let plugin = testing_plugin("steady-3");
    let config = config(&postgres, &nginx, plugin.to_str().unwrap(), "none")
        .replace("config = { mode = \"none\" }\n", "")
        .replace("eviction = { plugin = \"hostile\", fallback = \"lifetime\" }\n", "")
        .replace("validation = { plugin = \"hostile\", fallback = \"bypass-window\" }\n", "");
    let gateway = Gateway::start(&config).await;
    let admin = postgres.admin().await;
    let sessions = || async { postgres.sessions(&admin).await };
    eventually("the target is seen at the server", sessions, |seen| *seen == 3).await;
    let pool = gateway.status_until("/pools/main/target", |target| *target == 3).await;
    assert_eq!(pool, 3);
    assert!(gateway.figure("/pools/main/sizing/by/plugin/version").await >= 1);
    let sizing = gateway.status().await["pools"]["main"]["sizing"].clone();
    assert_eq!((&sizing["proposed"], &sizing["target"], &sizing["clamped"]), (&json!(3), &json!(3), &json!([])));
}
