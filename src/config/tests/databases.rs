//! What is said of a pool for each database or role, and of routes to it, that cannot be.

use super::report;

fn pool(name: &str, url: &str, keys: &str) -> String {
    let backend = url.split(':').next().unwrap();
    format!("[pool.{name}]\nbackend = \"{backend}\"\nurl = \"{url}\"\n{keys}\n")
}

fn route(at: &str, query: &str) -> String {
    format!("[[route]]\n{at}\nquery = {{ dialect = \"json\", {query} }}\naccess = \"open\"\n")
}

#[test]
fn a_pool_for_each_database_has_one_star_where_the_name_goes() {
    let each = "per = \"database\"";
    let text = [
        pool("none", "postgres://u@h/d", each),
        pool("two", "postgres://u@h/a_*_*", each),
        pool("option", "postgres://u@h/d?application_name=*", each),
        pool("open", "sqlite:data/db-*?mode=rw", each),
        pool("plain", "postgres://u@h/d_*", ""),
        pool("many", "sqlite:data/*.db", "per = \"database\"\nmax_pools = 0\npool_idle_timeout = \"0s\""),
        pool("good", "postgres://u@h/d_*?sslmode=disable", each),
        pool("main", "postgres://u@h/d", "[pool.main.replicas]\npools = [\"good\"]"),
        pool("replicated", "postgres://u@h/d_*", "per = \"database\"\n[pool.replicated.replicas]\npools = [\"none\"]"),
        "[admin]\naddress = \"127.0.0.1:0\"\nready_requires = [\"good\"]\n".into(),
        route("path = \"/a\"", "pool = \"good\""),
        route("exact = \"/b\"", "pool = \"good\", database = \"path\""),
        route("path = \"/c\"", "pool = \"main\", database = \"header:X-Name\""),
        route("path = \"/d\"", "pool = \"good\", database = \"header:X-Name\""),
    ];
    let report = report(&text.concat());
    let lines: Vec<_> = report.lines().collect();
    let star = "with `per`, the database (the file) has one `*` where the name goes, as in `tenant_*`";
    let expected = [
        format!("pool.none.url: {star}"),
        format!("pool.two.url: {star}"),
        format!("pool.option.url: {star}"),
        "pool.open.url: with `per`, a file has an ending behind the `*`, as in `data/*.db`: a name could else be that of another's log".into(),
        "admin.ready_requires[0]: `good` stands for many (`per`): there may be none yet".into(),
        "pool.plain.url: has a `*`: for a pool for each database, write `per = \"database\"`; for each role, `\"role\"`".into(),
        "pool.many.max_pools: must be from 1 to 65536".into(),
        "pool.many.pool_idle_timeout: must be more than 0s".into(),
        "pool.main.replicas.pools[0]: `good` stands for many (`per`), and cannot be a replica".into(),
        "pool.replicated.replicas.pools: a pool that stands for many (`per`) has no replicas".into(),
        "pool.replicated.replicas.pools[0]: `none` stands for many (`per`), and cannot be a replica".into(),
        "route[0].query.database: the pool is one for each database: say where a request names it, `path` or `header:NAME`".into(),
        "route[1].query.database: `path` needs a route with `path`: behind `exact` there is nothing".into(),
        "route[2].query.database: the pool has one database: `per` is not set for it".into(),
    ];
    for line in &expected {
        assert!(lines.iter().any(|found| found.ends_with(line)), "{line}\nin\n{report}");
    }
    assert_eq!(lines.len(), expected.len(), "{report}");
}

#[test]
fn a_pool_for_each_role_lists_them_and_each_consumer_has_one() {
    let each = "per = \"role\"\nroles.app = { password = \"x\" }";
    let consumer = |name: &str, digit: &str, keys: &str| {
        format!("[consumer.{name}]\nkey_sha256 = [\"{}\"]\n{keys}\n", digit.repeat(64))
    };
    let text = [
        pool("user", "postgres://u@h/d", each),
        pool("word", "postgres://*:p@h/d", each),
        pool("database", "postgres://u@h/*", each),
        pool("file", "sqlite:*.db", each),
        pool("none", "postgres://*@h/d", "per = \"role\""),
        pool("secret", "postgres://*@h/d", "password = \"p\"\nper = \"role\"\nroles.\"\" = {}"),
        pool("plain", "postgres://u@h/d", "roles.app = {}"),
        pool("good", "postgres://*@h/d?sslmode=disable", each),
        consumer("app", "0", ""),
        consumer("other", "1", ""),
        consumer("as_app", "2", "role = \"app\""),
        route("path = \"/a\"", "pool = \"good\""),
        route("path = \"/b\"", "pool = \"good\", database = \"path\"").replace("\"open\"", "[\"app\"]"),
        route("path = \"/c\"", "pool = \"good\"").replace("\"open\"", "[\"app\", \"other\", \"as_app\"]"),
    ];
    let report = report(&text.concat());
    let lines: Vec<_> = report.lines().collect();
    let star = "with `per = \"role\"`, the URL's user is `*`, without a password: those are in `roles`";
    let expected = [
        format!("pool.user.url: {star}"),
        format!("pool.word.url: {star}"),
        format!("pool.database.url: {star}"),
        "pool.file.url: SQLite knows no roles: `per` cannot be `role`".into(),
        "pool.none: connects as no role: name some, `roles.NAME = { password = … }`".into(),
        "pool.secret.password: each role has its own: `roles.NAME.password`".into(),
        "pool.secret.roles.\"\": a role's name has 1 to 63 bytes, none of them a control character".into(),
        "pool.plain.roles: are for a pool with `per = \"role\"`".into(),
        "route[0].access: the pool is one for each role: name consumers, of whom each has one".into(),
        "route[1].query.database: the pool has one database: it is one for each role".into(),
        "route[2].access[1]: `other` has the role `other`, which is none of `pool.good.roles`".into(),
    ];
    for line in &expected {
        assert!(lines.iter().any(|found| found.ends_with(line)), "{line}\nin\n{report}");
    }
    assert_eq!(lines.len(), expected.len(), "{report}");
}

#[test]
fn the_neon_dialect_is_postgresqls_and_its_connection_string_names_the_database() {
    let neon = |at: &str, query: &str| route(at, query).replace("dialect = \"json\"", "dialect = \"neon\"");
    let text = [
        pool("main", "postgres://u@h/d", ""),
        pool("many", "postgres://u@h/d_*", "per = \"database\""),
        pool("lite", "sqlite:a.db", ""),
        neon("path = \"/good\"", "pool = \"main\", endpoints = { db1 = \"main\", db-2 = \"many\" }"),
        neon("path = \"/many\"", "pool = \"many\""),
        neon("exact = \"/whole/sql\"", "pool = \"main\""),
        neon("path = \"/a\"", "pool = \"lite\""),
        neon("path = \"/b\"", "pool = \"main\", endpoints = { one = \"lite\", DB = \"main\", two = \"non\" }"),
        neon("path = \"/c\"", "pool = \"many\", database = \"path\""),
        neon("exact = \"/query\"", "pool = \"main\""),
        route("path = \"/d\"", "pool = \"main\", endpoints = { db1 = \"main\" }"),
    ];
    let report = report(&text.concat());
    let lines: Vec<_> = report.lines().collect();
    let expected = [
        "route[3].query.dialect: dialect `neon` is PostgreSQL's, and `pool.lite` is not",
        "route[4].query.dialect: dialect `neon` is PostgreSQL's, and `pool.lite` is not",
        "route[4].query.endpoints.DB: is the first label of a host: 1 to 63 small letters, digits, `-` and `_`",
        "route[4].query.endpoints.two: there is no pool `non`; there is `lite`, `main` and `many`",
        "route[5].query.database: dialect `neon` has the database's name in the connection string",
        "route[6].exact: drivers of dialect `neon` send to `/sql`: end with it, or give `path`, below which it is",
        "route[7].query.endpoints: are for dialect `neon`: a `json` request has no connection string to name one",
    ];
    for line in &expected {
        assert!(lines.iter().any(|found| found.ends_with(line)), "{line}\nin\n{report}");
    }
    assert_eq!(lines.len(), expected.len(), "{report}");
}
