//! Pools over reloads.

use std::{net::TcpListener, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::bench::{Bench, hello, on_background};
use crate::{
    backend::Kind,
    gateway::pools::budgets::budget_of,
    pool::{Budget, Holder},
};

/// A JWK Set.
const PUBLIC_KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A pool called `name` at `address`.
fn pool(name: &str, address: &str) -> String {
    let query =
        format!("[[route]]\npath = \"/q\"\nquery = {{ dialect = \"json\", pool = \"{name}\" }}\naccess = \"open\"\n");
    let url = format!("postgres://u@{address}/d");
    format!(
        "{}[pool.{name}]\nbackend = \"postgres\"\nurl = \"{url}\"\nsize = {{ min = 0, max = 3 }}\n{query}",
        hello("hi")
    )
}

fn budget(bench: &Bench, name: &str) -> Arc<Budget> {
    budget_of(bench.shared.generation().pools[name].database.kind())
}

#[test]
fn a_pool_by_another_name_shares_the_budget_of_the_one_it_follows() {
    on_background(async {
        let mut bench = Bench::serving(&pool("a", "127.0.0.1:1")).await;
        let first = budget(&bench, "a");
        bench.reconfigure(&pool("b", "127.0.0.1:1")).await.unwrap();
        assert!(Arc::ptr_eq(&first, &budget(&bench, "b")));
        bench.reconfigure(&pool("b", "127.0.0.2:1")).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &budget(&bench, "b")), "another server has a budget of its own");
    });
}

#[test]
fn a_pool_that_comes_back_while_it_drains_shares_its_budget() {
    on_background(async {
        // A server that accepts and says nothing: a connection is being made for as long as this lasts.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = silent.local_addr().unwrap().to_string();
        let mut bench = Bench::serving(&pool("a", &here)).await;
        let first = budget(&bench, "a");
        let Kind::Postgres(old) = bench.shared.generation().pools["a"].database.kind().clone() else { return };
        let waits =
            async move { old.checkout(Instant::now() + Duration::from_mins(1), Holder::default()).await.map(drop) };
        tokio::task::spawn_local(waits);
        while first.live() == 0 {
            tokio::task::yield_now().await;
        }
        bench.reconfigure(&pool("a", "127.0.0.2:1")).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &budget(&bench, "a")));
        bench.reconfigure(&pool("a", &here)).await.unwrap();
        assert!(Arc::ptr_eq(&first, &budget(&bench, "a")));
    });
}

#[test]
fn a_budget_goes_to_the_pool_of_its_name_before_any_other() {
    on_background(async {
        let pools = |first: &str, role: &str| {
            let pool = |name: &str, role: &str| {
                format!(
                    "[pool.{name}]\nbackend = \"postgres\"\nurl = \"postgres://{role}@127.0.0.1:1/d\"\nsize = {{ min = 0 }}\n"
                )
            };
            hello("hi") + first + &pool("main", role)
        };
        let stranger =
            "[pool.early]\nbackend = \"postgres\"\nurl = \"postgres://r@127.0.0.1:1/d\"\nsize = { min = 0, max = 1 }\n";
        let mut bench = Bench::serving(&pools("", "one")).await;
        let first = budget(&bench, "main");
        bench.reconfigure(&pools(stranger, "two")).await.unwrap();
        assert!(Arc::ptr_eq(&first, &budget(&bench, "main")), "another role, the same pool to its operator");
        assert!(!Arc::ptr_eq(&first, &budget(&bench, "early")));
    });
}

#[test]
fn a_pool_of_many_persons_resets_and_so_does_one_that_tunnels_alone_lead_to() {
    on_background(async {
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), PUBLIC_KEYS).unwrap();
        let consumer = |name: &str, shows: &str| format!("[consumer.{name}]\n{shows}\n");
        let key = |digit: &str| format!("key_sha256 = [\"{}\"]", digit.repeat(64));
        let issuer = format!(
            "[issuer.id]\nissuer = \"https://id.example.com\"\naudience = [\"a\"]\njwks = \"{}\"\n",
            keys.path().display()
        );
        let resets = |bench: &Bench, name: &str| match bench.shared.generation().pools[name].database.kind() {
            Kind::Postgres(pool) => pool.backend().always_resets(),
            Kind::Sqlite(_) => false,
        };
        let one = pool("a", "127.0.0.1:1").replace("access = \"open\"", "access = [\"one\"]");
        let bench = Bench::serving(&(one.clone() + &consumer("one", &key("0")))).await;
        assert!(!resets(&bench, "a"));
        let bench = Bench::serving(&(one.clone() + &consumer("one", "jwt = { issuer = \"id\" }") + &issuer)).await;
        assert!(resets(&bench, "a"), "each token may be somebody else");

        let tunnels = "[[route]]\npath = \"/neon\"\naccess = [\"two\"]\n\
                       query = { dialect = \"neon\", pool = \"a\", endpoints = { b = \"b\" } }\n";
        let other = "[pool.b]\nbackend = \"postgres\"\nurl = \"postgres://r@127.0.0.1:1/d\"\nsize = { min = 0 }\n";
        let both = one + &consumer("one", &key("0")) + &consumer("two", &key("1")) + other + tunnels;
        let bench = Bench::serving(&both).await;
        assert!(resets(&bench, "a") && !resets(&bench, "b"));
    });
}

#[test]
fn a_pool_that_changes_hands_resets_from_then_on() {
    on_background(async {
        let open = pool("a", "127.0.0.1:1");
        let keyed = |name: &str| {
            open.replace("access = \"open\"", &format!("access = [\"{name}\"]"))
                + &format!("[consumer.{name}]\nkey_sha256 = [\"{}\"]\n", "0".repeat(64))
        };
        let resets = |bench: &Bench| match bench.shared.generation().pools["a"].database.kind() {
            Kind::Postgres(pool) => pool.backend().always_resets(),
            Kind::Sqlite(_) => false,
        };
        let mut bench = Bench::serving(&keyed("first")).await;
        assert!(!resets(&bench));
        bench.reconfigure(&keyed("first").replace("hi", "hello")).await.unwrap();
        assert!(!resets(&bench));
        // One at a time, and yet what the first left may be there for the second.
        bench.reconfigure(&keyed("second")).await.unwrap();
        assert!(resets(&bench));
        bench.reconfigure(&keyed("second").replace("hi", "hello")).await.unwrap();
        assert!(resets(&bench));
        bench.reconfigure(&keyed("second").replace("127.0.0.1:1", "127.0.0.2:1")).await.unwrap();
        assert!(!resets(&bench), "another pool has served nobody else");
    });
}
