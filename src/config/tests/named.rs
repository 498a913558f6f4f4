//! What is said of named queries, and of routes to them, that cannot be.

use super::report;

#[test]
fn what_cannot_be_a_named_query_is_told_with_its_place() {
    let text = r#"[pool.main]
backend = "postgres"
url = "postgres://u@h/d"
[pool.file]
backend = "sqlite"
url = "sqlite:a.db"
[limit.few]
key = "all"
rate = "5/m"
[named.good]
sql = "select $1"
params = [{ name = "a", type = "int4[]", max_length = 3, nullable = true }]
role = "web_anon"
claims = ["sub"]
cache = "10s"
on_exhausted = "stale"
read_only = true
cost = 5
[named.dear]
sql = "select 1"
cost = 6
[named.bad]
sql = " "
role = "none"
claims = []
cost = 0
cache = "1s"
on_exhausted = "stale"
timeout = "0s"
params = [{ name = "a b", type = "int4" }, { name = "c", type = "" }, { name = "c", type = "bool", max_length = 1 }]
[[route]]
path = "/a"
query = { dialect = "json", pool = "main", named = ["good", "god", "good", "dear"], raw = false }
access = ["slow", "fast"]
limits = ["few"]
[[route]]
path = "/b"
query = { dialect = "json", pool = "file", named = ["good"], allow = { mode = "learn", file = "" } }
access = "open"
[[route]]
path = "/c"
query = { dialect = "json", pool = "main", raw = false, allow = { mode = "enforce", file = "a" } }
access = "open"
[[route]]
path = "/d"
query = { dialect = "neon", pool = "main", named = "*", tunnel = "session", allow = { mode = "enforce", file = "a" } }
access = "open"
[[route]]
path = "/f"
query = { dialect = "json", pool = "main", allow = { mode = "learn", file = "a" } }
access = "open"
[consumer.slow]
key_sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"]
rate = "4/m"
[consumer.fast]
key_sha256 = ["1111111111111111111111111111111111111111111111111111111111111111"]
rate = "1/m"
burst = 6
[[route]]
path = "/e"
query = { dialect = "json", pool = "main", named = "good" }
access = "open"
"#;
    let told = report(text);
    for expected in [
        "named.bad.sql: must not be empty",
        "named.bad.role: `none` is no role: leave `role` out instead",
        "named.bad.claims: the list is empty: write `true` for all, or `false`",
        "named.bad.cost: must be from 1 to 1048576",
        "named.bad.cache: needs `read_only = true`: what writes must reach the database",
        "named.bad.on_exhausted: `stale` needs `read_only = true`",
        "named.bad.timeout: must be more than 0s",
        "named.bad.params[0].name: a name has letters, digits, `-` and `_`, and at most 64 of them",
        "named.bad.params[1].type: must be the name of a type",
        "named.bad.params[2].name: `c` is there already",
        "named.bad.params[2].max_length: is for texts and arrays",
        "route[0].query.named[1]: there is no named `god`; did you mean `good`?",
        "route[0].query.named[2]: `good` is there already",
        "route[0].query.named: `dear` costs 6, more than limit `few` ever has (5)",
        "route[0].query.named: `dear` costs 6, more than consumer `slow` ever has (4)",
        "route[0].query.named: `good` costs 5, more than consumer `slow` ever has (4)",
        "route[1].query.named: `good` sets a role or claims, which SQLite has not",
        "route[1].query.allow.file: must not be empty",
        "route[2].query.raw: without SQL of callers' own, and without `named`, nothing could be asked",
        "route[2].query.allow: `raw = false` refuses all that it would let through",
        "route[3].query.named: named queries are of the dialect `json`",
        "route[3].query.tunnel: not all SQL of callers' own passes, to which a tunnel cannot be held",
        "route[3].query.allow.mode: another route has this file in the other mode: what it learns would pass here at once",
        "route[4].query.allow.mode: another route has this file in the other mode",
        "route[5].query.named: `good` is no list; write \"*\" for all, or [\"good\"]",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    assert!(!told.contains("named.good") && !told.contains("`fast`"), "{told}");
}
