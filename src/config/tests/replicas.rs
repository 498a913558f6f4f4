//! What is said of replicas that cannot be some.

use super::report;

fn pool(name: &str, url: &str, replicas: &str) -> String {
    let backend = url.split(':').next().unwrap();
    format!("[pool.{name}]\nbackend = \"{backend}\"\nurl = \"{url}\"\n[pool.{name}.replicas]\n{replicas}\n")
}

#[test]
fn replicas_are_other_pools_of_postgresql_without_replicas_of_their_own() {
    let text = [
        pool(
            "main",
            "postgres://u@h/d",
            "pools = [\"one\", \"one\", \"main\", \"lite\", \"chain\", \"writer\", \"on\"]",
        ),
        pool("one", "postgres://u@one/d?target_session_attrs=read-only", ""),
        pool("chain", "postgres://u@two/d", "pools = [\"one\"]"),
        pool("writer", "postgres://u@three/d?sslmode=disable&target_session_attrs=read-write", ""),
        pool("lite", "sqlite:a.db", "pools = [\"one\"]\ncheck_interval = \"99ms\""),
    ];
    let report = report(&text.concat());
    let lines: Vec<_> = report.lines().collect();
    let expected = [
        "pool.lite.replicas.check_interval: must be at least 100ms",
        "pool.lite.replicas.pools: replicas are for PostgreSQL: SQLite reads side by side from one pool",
        "pool.main.replicas.pools[1]: `one` is there already",
        "pool.main.replicas.pools[2]: a pool is not a replica of its own",
        "pool.main.replicas.pools[3]: `lite` is no PostgreSQL",
        "pool.main.replicas.pools[4]: `chain` has replicas of its own: name them here, side by side",
        "pool.main.replicas.pools[5]: `writer` takes only servers that take writes (target_session_attrs), which no replica does",
        "pool.main.replicas.pools[6]: there is no pool `on`; did you mean `one`?",
    ];
    for line in expected {
        assert!(lines.iter().any(|found| found.ends_with(line)), "{line}\nin\n{report}");
    }
    assert_eq!(lines.len(), expected.len(), "{report}");
}

#[test]
fn sound_replicas_are_not_reported() {
    let main = pool("main", "postgres://u@h/d", "pools = [\"one\", \"two\"]\nmax_lag = \"0s\"\nfallback = false");
    let standby = |name| pool(name, "postgres://u@g/d?target_session_attrs=read-only", "");
    assert_eq!(report(&(main + &standby("one") + &standby("two"))), "");
}
