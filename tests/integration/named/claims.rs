//! What a verified token says reaches the statement, and an answer is nobody else's.

use std::fs;

use jsonwebtoken::Algorithm::ES256;
use serde_json::{Value, json};

use super::{config, server};
use crate::{
    access::{Pair, jwks, now},
    support::{
        client::{Answer, Client},
        gateway::Gateway,
    },
};

const QUERIES: &str = r#"
[issuer.auth]
jwks = "KEYS"
issuer = "https://auth.test/"
audience = ["gateway"]
[consumer.people]
jwt = { issuer = "auth" }
[named.mine]
sql = "select current_setting('request.jwt.claims'), clock_timestamp()::text"
claims = ["sub", "tenant"]
role = "web_anon"
cache = "1h"
read_only = true
[named.all]
sql = "select current_setting('request.jwt.claims')::json ->> 'sub', clock_timestamp()::text"
claims = true
cache = "1h"
read_only = true
[[route]]
path = "/query"
query = { dialect = "json", pool = "main", named = ["mine", "all"], raw = false }
access = ["people", "app"]
"#;

async fn ask(client: &mut Client, token: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let answer = client.send("GET", path, &[("authorization", &bearer)], "").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn claims_reach_the_statement_and_an_answer_is_for_who_has_them() {
    let postgres = server().await;
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::ec(dir.path(), "e");
    fs::write(dir.path().join("keys.json"), jwks(&[&pair])).unwrap();
    let queries = QUERIES.replace("KEYS", dir.path().join("keys.json").to_str().unwrap());
    let gateway = Gateway::start(&config(&postgres, &queries)).await;
    let token = |sub: &str, id: u64| {
        let claims = json!({"iss": "https://auth.test/", "aud": "gateway", "exp": now() + 600, "jti": id, "sub": sub});
        pair.token(ES256, "e", &claims)
    };
    let mut client = gateway.h1().await;
    let alice = ask(&mut client, &token("alice", 1), "/query/mine").await;
    assert_eq!(alice.json()["rows"][0][0], "{\"sub\":\"alice\"}", "those that are named, and no others");
    assert!(alice.header("cache-status").contains("stored"));
    let bob = ask(&mut client, &token("bob", 2), "/query/mine").await;
    assert_eq!(
        (&bob.json()["rows"][0][0], bob.header("cache-status").contains("stored")),
        (&json!("{\"sub\":\"bob\"}"), true)
    );
    let again = ask(&mut client, &token("alice", 3), "/query/mine").await;
    assert!(again.header("cache-status").contains("hit"), "a new token of the same person");
    assert_eq!(again.body, alice.body);
    // Where all claims are given, each of them counts.
    for (sub, id, hit) in [("alice", 1, false), ("alice", 2, false), ("bob", 1, false)] {
        let answer = ask(&mut client, &token(sub, id), "/query/all").await;
        assert_eq!((&answer.json()["rows"][0][0], answer.header("cache-status").contains("hit")), (&json!(sub), hit));
    }
    let odd = "x\"}', role = 'boss";
    let answer = ask(&mut client, &token(odd, 4), "/query/mine").await;
    let told: Value = serde_json::from_str(answer.json()["rows"][0][0].as_str().unwrap()).unwrap();
    assert_eq!(told, json!({"sub": odd}));
    // Who shows a key has no claims, and gets nobody's answer.
    let keyed = client.send("GET", "/query/mine", &[("x-api-key", "key-app")], "").await.unwrap();
    assert_eq!((&keyed.json()["rows"][0][0], keyed.header("cache-status").contains("stored")), (&json!("{}"), true));
    let forged = client.send("GET", "/query/mine", &[("authorization", "Bearer a.b.c")], "").await.unwrap();
    assert_eq!(forged.status, 401, "and what is kept is not given to who has none");
}
