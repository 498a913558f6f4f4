use proptest::prelude::*;

use super::*;

fn route(text: &str) -> Route {
    toml_edit::de::from_str(text).unwrap()
}

fn table(routes: &[&str]) -> RouteTable {
    let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
    RouteTable::build(&routes).unwrap()
}

fn get(table: &RouteTable, host: &str, path: &str) -> Option<usize> {
    match table.lookup(host, path, &Method::GET) {
        Found::Route(index) => Some(index),
        _ => None,
    }
}

fn errors(routes: &[&str]) -> Vec<RouteError> {
    let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
    RouteTable::build(&routes).unwrap_err()
}

#[test]
fn the_more_specific_host_goes_first() {
    let table = table(&[
        r#"path = "/""#,
        r#"path = "/"
host = ["*.example.com"]"#,
        r#"path = "/"
host = ["*.eu.example.com"]"#,
        r#"path = "/"
host = ["www.eu.example.com", "example.com"]"#,
    ]);
    assert_eq!(get(&table, "elsewhere.org", "/"), Some(0));
    assert_eq!(get(&table, "a.example.com", "/"), Some(1));
    assert_eq!(get(&table, "a.b.example.com:8443", "/"), Some(1));
    assert_eq!(get(&table, "shop.EU.example.com", "/"), Some(2));
    assert_eq!(get(&table, "WWW.eu.example.com.", "/"), Some(3));
    assert_eq!(get(&table, "example.com", "/"), Some(3));
    assert_eq!(get(&table, "eu.example.com", "/"), Some(1));
    assert_eq!(get(&table, "", "/"), Some(0));
}

#[test]
fn a_host_without_a_route_for_the_path_leaves_it_to_the_next() {
    let table = table(&[
        r#"path = "/health""#,
        r#"path = "/api"
host = ["api.example.com"]"#,
    ]);
    assert_eq!(get(&table, "api.example.com", "/health"), Some(0));
    assert_eq!(get(&table, "api.example.com", "/api/x"), Some(1));
    assert_eq!(get(&table, "other.example.com", "/api"), None);
}

#[test]
fn a_prefix_ends_on_a_segment_boundary() {
    let table = table(&[r#"path = "/a""#, r#"path = "/a/b/""#, r#"exact = "/a/b""#, r#"exact = "/a/b/c/""#]);
    assert_eq!(get(&table, "h", "/a"), Some(0));
    assert_eq!(get(&table, "h", "/a/"), Some(0));
    assert_eq!(get(&table, "h", "/a/x"), Some(0));
    assert_eq!(get(&table, "h", "/ab"), None);
    assert_eq!(get(&table, "h", "/a/b"), Some(2));
    assert_eq!(get(&table, "h", "/a/b/"), Some(1));
    assert_eq!(get(&table, "h", "/a/bc"), Some(0));
    assert_eq!(get(&table, "h", "/a/b/c"), Some(1));
    assert_eq!(get(&table, "h", "/a/b/c/"), Some(3));
    assert_eq!(get(&table, "h", "/"), None);
    assert_eq!(get(&table, "h", "*"), None);
}

#[test]
fn parameters_lead_around_no_route() {
    let table = table(&[
        r#"path = "/""#,
        r#"path = "/sec""#,
        r#"path = "/read"
methods = ["GET"]"#,
        r#"exact = "/v;1""#,
    ]);
    let ambiguous = |path: &str, method: Method| table.is_ambiguous("h", path, &method);
    for path in ["/sec;x/echo", "/sec;", "/;x/sec/echo", "/;/sec", "/read;x"] {
        assert!(ambiguous(path, Method::GET), "{path}");
    }
    assert!(ambiguous("/read;x", Method::POST), "the bare path is not routed for the method");
    for path in ["/sec/a;x", "/other;x/sec", "/a;b", "/sec"] {
        assert!(!ambiguous(path, Method::GET), "{path}");
    }
    assert!(ambiguous("/v;1", Method::GET), "without its parameter it is the first route's");
    let alone = self::table(&[r#"exact = "/v;1""#]);
    assert!(!alone.is_ambiguous("h", "/v;1", &Method::GET), "nothing is walked around");
}

#[test]
fn methods_come_last_and_head_follows_get() {
    let table = table(&[
        r#"path = "/x"
methods = ["GET", "PUT"]"#,
        r#"path = "/""#,
        r#"path = "/y"
methods = ["POST"]"#,
        r#"path = "/y""#,
        r#"path = "/z"
methods = ["HEAD"]"#,
        r#"path = "/z"
methods = ["GET"]"#,
    ]);
    assert_eq!(table.lookup("h", "/x", &Method::HEAD), Found::Route(0));
    let Found::MethodNotAllowed(allow) = table.lookup("h", "/x", &Method::POST) else { panic!("no fall through") };
    assert_eq!(allow, "GET, HEAD, PUT");
    assert_eq!(table.lookup("h", "/y", &Method::POST), Found::Route(2));
    assert_eq!(table.lookup("h", "/y", &Method::GET), Found::Route(3));
    assert_eq!(table.lookup("h", "/z", &Method::HEAD), Found::Route(4));
    assert_eq!(table.lookup("h", "/z", &Method::GET), Found::Route(5));
}

#[test]
fn two_routes_that_match_the_same_are_refused_by_name() {
    let found = errors(&[
        r#"path = "/api/"
name = "first"
methods = ["GET", "POST"]
host = ["a.example.com", "b.example.com"]"#,
        r#"path = "/api"
methods = ["POST"]
host = ["B.example.com", "a.example.com"]"#,
        r#"path = "/q""#,
        r#"path = "/q""#,
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].routes, [0, 1]);
    assert_eq!(
        found[0].message,
        "route 1 (`first`) and route 2 (`POST B.example.com,a.example.com/api`) both match POST on host b.example.com"
    );
    assert_eq!(found[1].routes, [2, 3]);
    assert!(found[1].message.ends_with("both match any method on any host"), "{}", found[1].message);
}

#[test]
fn what_could_never_match_is_refused() {
    for (text, needle) in [
        (r#"path = "api""#, "start with"),
        (r#"path = "/a//b""#, "empty segment"),
        (r#"exact = "/a//""#, "empty segment"),
        (r#"path = "/a/../b""#, "`..`"),
        (r#"path = "/a?x=1""#, "only the path"),
        (r#"path = "/caf%c3%a9""#, "upper case"),
        (r#"path = "/café""#, "%C3"),
        (r#"path = "/%61""#, "arrives as `a`"),
        (r#"path = "/a b""#, "%20"),
        (
            r#"methods = ["get"]
path = "/""#,
            "`GET`",
        ),
        (
            r#"methods = ["GET", "GET"]
path = "/""#,
            "twice",
        ),
        (
            r#"methods = ["G T"]
path = "/""#,
            "not a method",
        ),
        (
            r#"host = ["a.b", "A.B."]
path = "/""#,
            "twice",
        ),
        (r#"name = "none""#, "needs"),
        (
            r#"path = "/"
exact = "/""#,
            "not both",
        ),
    ] {
        let found = errors(&[text]);
        assert!(found[0].message.contains(needle), "{text}: {}", found[0].message);
    }
    assert_eq!(errors(&[r#"path = "x""#, r#"path = "y""#]).len(), 2);
    assert!(RouteTable::build(&[route(r#"path = "/caf%C3%A9/a:b@c!""#)]).is_ok());
}

#[test]
fn a_path_of_slashes_is_walked_once() {
    let table = table(&[r#"path = "/""#, r#"path = "/a/b""#]);
    assert_eq!(get(&table, "h", &"/a/b/c".repeat(10_000)), Some(1));
    assert_eq!(get(&table, "h", &"/".repeat(30_000)), Some(0));
}

// === against a model ===

/// Ranks every route by the rules as they are written in the door, and takes the best.
fn model(routes: &[Route], host: &str, path: &str, method: &str) -> Result<usize, bool> {
    let rank_host = |route: &Route| {
        let best = route.host.iter().filter_map(|pattern| match pattern.strip_prefix('*') {
            Some(tail) => host.ends_with(tail).then_some(tail.len()),
            None => (host == pattern).then_some(1_000),
        });
        if route.host.is_empty() { Some(0) } else { best.max() }
    };
    let rank_path = |route: &Route| match (&route.exact, &route.path) {
        (Some(exact), _) => (exact == path).then_some(1_000),
        (_, Some(prefix)) => {
            let bare = prefix.trim_end_matches('/');
            let rest = path.strip_prefix(bare)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(bare.len())
        }
        _ => None,
    };
    let rank_method = |route: &Route| {
        let names = |name: &str| route.methods.iter().any(|method| method == name);
        match () {
            () if names(method) => Some(3),
            () if method == "HEAD" && names("GET") => Some(2),
            () => route.methods.is_empty().then_some(1),
        }
    };
    let placed = routes.iter().filter_map(|route| Some((rank_host(route)?, rank_path(route)?)));
    let Some(best) = placed.max() else { return Err(false) };
    let chosen = routes.iter().enumerate().filter(|(_, route)| rank_host(route).zip(rank_path(route)) == Some(best));
    chosen.filter_map(|(index, route)| Some((rank_method(route)?, index))).max().map(|(_, index)| index).ok_or(true)
}

fn hosts() -> impl Strategy<Value = Vec<String>> {
    let names = ["a.b", "c.a.b", "*.b", "*.a.b", "b"];
    proptest::sample::subsequence(names.to_vec(), 0..=2)
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", ""]), 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn any_route() -> impl Strategy<Value = Route> {
    let methods = proptest::sample::subsequence(vec!["GET", "HEAD", "POST"], 0..=2);
    (hosts(), any_path(), any::<bool>(), methods).prop_map(|(host, path, whole, methods)| {
        let key = if whole { "exact" } else { "path" };
        let mut route = route(&format!("{key} = {path:?}"));
        route.host = host;
        route.methods = methods.into_iter().map(str::to_owned).collect();
        route
    })
}

proptest! {
    #[test]
    fn the_table_agrees_with_the_rules(
        routes in prop::collection::vec(any_route(), 1..8),
        host in prop::sample::select(vec!["a.b", "c.a.b", "d.c.a.b", "b", "x.b", "z"]),
        paths in prop::collection::vec(any_path(), 8),
        method in prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]),
    ) {
        // Take out what the table refuses, one by one, so that the rest can be built.
        let mut kept: Vec<Route> = Vec::new();
        for route in routes {
            kept.push(route);
            if RouteTable::build(&kept).is_err() {
                kept.pop();
            }
        }
        let table = RouteTable::build(&kept).unwrap();
        for path in paths {
            let found = match table.lookup(host, &path, &Method::from_bytes(method.as_bytes()).unwrap()) {
                Found::Route(index) => Ok(index),
                Found::MethodNotAllowed(_) => Err(true),
                Found::NotFound => Err(false),
            };
            prop_assert_eq!(found, model(&kept, host, &path, method), "{} {} {} in {:?}", method, host, path, kept);
        }
    }

    #[test]
    fn no_host_or_path_breaks_a_lookup(host in ".*", path in ".*") {
        let table = table(&[r#"path = "/""#, "path = \"/a\"\nhost = [\"*.b\"]"]);
        table.lookup(&host, &path, &Method::GET);
    }
}
