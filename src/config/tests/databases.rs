//! What is said of a pool for each database, and of routes to it, that cannot be.

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
        "admin.ready_requires[0]: `good` is one for each database (`per`): there may be none yet".into(),
        "pool.plain.url: has a `*`: for a pool for each database, write `per = \"database\"`".into(),
        "pool.many.max_pools: must be from 1 to 65536".into(),
        "pool.many.pool_idle_timeout: must be more than 0s".into(),
        "pool.main.replicas.pools[0]: `good` is one for each database (`per`), and cannot be a replica".into(),
        "pool.replicated.replicas.pools: a pool that is one for each database (`per`) has no replicas".into(),
        "pool.replicated.replicas.pools[0]: `none` is one for each database (`per`), and cannot be a replica".into(),
        "route[0].query.database: the pool is one for each database: say where a request names it, `path` or `header:NAME`".into(),
        "route[1].query.database: `path` needs a route with `path`: behind `exact` there is nothing".into(),
        "route[2].query.database: the pool has one database: `per` is not set for it".into(),
    ];
    for line in &expected {
        assert!(lines.iter().any(|found| found.ends_with(line)), "{line}\nin\n{report}");
    }
    assert_eq!(lines.len(), expected.len(), "{report}");
}
