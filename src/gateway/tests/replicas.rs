//! Replicas over reloads.

use std::sync::Arc;

use super::bench::{Bench, hello, on_background};
use crate::backend::{Kind, Replicas};

/// Pools `main`, `a`, `b` and `c`; those in `replicas` are the first one's. Nothing is there to connect to.
fn pools(replicas: &str, more: &str) -> String {
    let pool = |(port, name): (usize, &&str)| {
        format!(
            "[pool.{name}]\nbackend = \"postgres\"\nurl = \"postgres://u@127.0.0.1:{}/d\"\nsize = {{ max = 2 }}\n",
            port + 1
        )
    };
    let all: String = ["main", "a", "b", "c"].iter().enumerate().map(pool).collect();
    format!("{}{all}[pool.main.replicas]\npools = [{replicas}]\n{more}\n", hello("hi"))
}

fn set(bench: &Bench) -> Option<Arc<Replicas>> {
    bench.shared.generation().pools["main"].database.replicas().cloned()
}

fn resets(bench: &Bench, pool: &str) -> bool {
    match bench.shared.generation().pools[pool].database.kind() {
        Kind::Postgres(pool) => pool.backend().always_resets(),
        Kind::Sqlite(_) => false,
    }
}

#[test]
fn a_set_that_has_not_changed_is_the_same_and_one_task_checks() {
    on_background(async {
        let mut bench = Bench::serving(&pools("\"a\", \"b\"", "")).await;
        let (first, tasks) = (set(&bench).unwrap(), bench.shared.tasks());
        bench.reconfigure(&pools("\"a\", \"b\"", "").replace("hi", "hello")).await.unwrap();
        assert!(Arc::ptr_eq(&first, &set(&bench).unwrap()));
        for (replicas, more) in [
            ("\"a\"", ""),
            ("\"a\"", "max_lag = \"1s\""),
            ("\"a\", \"b\", \"c\"", ""),
            ("\"a\", \"b\"", "fallback = false"),
        ] {
            bench.reconfigure(&pools(replicas, more)).await.unwrap();
            assert!(!Arc::ptr_eq(&first, &set(&bench).unwrap()), "{replicas} {more}");
            tokio::task::yield_now().await;
            assert_eq!(bench.shared.tasks(), tasks, "{replicas} {more}");
        }
        bench.reconfigure(&pools("", "")).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!((set(&bench).is_none(), bench.shared.tasks()), (true, tasks - 1));
    });
}

#[test]
fn what_is_known_of_a_replica_passes_on_and_another_server_is_another_replica() {
    on_background(async {
        let mut bench = Bench::serving(&pools("\"a\", \"b\"", "")).await;
        let order = |bench: &Bench| {
            let status = set(bench).unwrap().status();
            status.pools.into_iter().map(|replica| (replica.pool.to_string(), replica.ejections)).collect::<Vec<_>>()
        };
        // There is no server: the first check puts both out.
        let out = async {
            while order(&bench).iter().any(|(_, ejections)| *ejections == 0) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), out).await.unwrap();
        bench.reconfigure(&pools("\"b\", \"c\", \"a\"", "")).await.unwrap();
        let known: Vec<_> =
            order(&bench).into_iter().filter(|(_, ejections)| *ejections == 1).map(|(name, _)| name).collect();
        assert_eq!(known, ["b", "a"]);
        bench.reconfigure(&pools("\"b\", \"a\"", "").replace(":2/d", ":7/d")).await.unwrap();
        assert_eq!(order(&bench)[0], ("b".to_owned(), 1));
        assert_eq!(order(&bench)[1], ("a".to_owned(), 0), "it has moved");
    });
}

#[test]
fn a_replica_that_runs_what_two_consumers_send_to_its_primary_resets_its_sessions() {
    on_background(async {
        let route = |name: &str| {
            let key = "0".repeat(63) + &name.len().to_string();
            format!(
                "[[route]]\npath = \"/{name}\"\nquery = {{ dialect = \"json\", pool = \"main\" }}\naccess = [\"{name}\"]\n\
                 [consumer.{name}]\nkey_sha256 = [\"{key}\"]\n"
            )
        };
        let mut bench = Bench::serving(&(pools("\"a\"", "") + &route("one"))).await;
        assert!(!resets(&bench, "main") && !resets(&bench, "a"));
        bench.reconfigure(&(pools("\"a\"", "") + &route("one") + &route("three"))).await.unwrap();
        assert!(resets(&bench, "main") && resets(&bench, "a"));
        assert!(!resets(&bench, "b"), "which is nobody's replica");
    });
}
