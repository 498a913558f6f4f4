//! Golden messages: one line a mistake, all at once, each in its place.

use super::{environment, report, text};
use crate::config::load::load_content;

/// Compares with what is reported, line by line; line 1 of the text is a sound listener.
#[track_caller]
fn assert_report(wrong: &str, expected: &str) {
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(report(wrong), expected.join("\n"), "for\n{wrong}");
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_report(
        r#"pools.demo.size = 1
[pool.demo]
backend = "sqlite"
url = "sqlite:a.db"
sise = { min = 1 }
size = { min = 1, mx = 5 }
frobnicate = 1
[[route]]
path = "/"
respond = { status = 200, text = "x" }
[limit.a]
key = "all"
rate = "1/s"
quota = 5
"#,
        "a.toml:2:1: pools: unknown key; did you mean `pool`?
         a.toml:6:1: pool.demo.sise: unknown key; did you mean `size`?
         a.toml:7:19: pool.demo.size.mx: unknown key; did you mean `max`?
         a.toml:8:1: pool.demo.frobnicate: unknown key, and none here is like it
         a.toml:11:27: route[0].respond.text: unknown key; known here: `status`, `body` and `content_type`
         a.toml:15:1: limit.a.quota: unknown key; known here: `key`, `rate`, `burst`, `max_keys` and `headers`",
    );
}

#[test]
fn values_of_a_wrong_kind_say_what_is_right() {
    assert_report(
        r#"server.max_connections = -1
server.trusted_proxies = ["10.0.0.0/8", "ten", 5, "192.0.2.1"]
log.format = "prety"
log.filter = 5
admin.address = "localhost:9901"
admin.access = "nobody"
[listener.l2]
address = "127.0.0.1:0"
tls_min_version = 1.2
header_timeout = "10 parsecs"
max_header_bytes = "32kb"
http2 = { max_streams = "many" }
[limit.l]
key = "client"
rate = "100/d"
headers = "yes"
[pool.p]
backend = 0
url = "sqlite:a"
backoff = { jitter = "some" }
route = "/"
"#,
        "a.toml:2:8: server.max_connections: expected a whole number from 0 to 4294967295, found the number -1
         a.toml:3:41: server.trusted_proxies[1]: `ten` is not a network; write it like 10.0.0.0/8, fd00::/8 or 192.0.2.1
         a.toml:3:48: server.trusted_proxies[2]: expected text in quotes, found the number 5
         a.toml:4:5: log.format: `prety` is not known here; did you mean `pretty`?
         a.toml:5:5: log.filter: expected text in quotes, found the number 5
         a.toml:6:7: admin.address: `localhost:9901` is not an IP address with a port; write it like 127.0.0.1:8443, 0.0.0.0:443 or [::1]:8443
         a.toml:7:7: admin.access: `nobody` is not known here; use `token` or `open`
         a.toml:10:1: listener.l2.tls_min_version: expected text in quotes, found the number 1.2
         a.toml:11:1: listener.l2.header_timeout: `10 parsecs` is not a duration; write it like 250ms, 10s, 5m, 1h or 7d
         a.toml:12:1: listener.l2.max_header_bytes: `32kb` is not a size; write it like 512B, 64KiB, 16MiB or 1GiB
         a.toml:13:11: listener.l2.http2.max_streams: expected a whole number from 0 to 4294967295, found text
         a.toml:15:1: limit.l.key: `client` is not a limit key; use client-address, consumer, header:NAME or all
         a.toml:16:1: limit.l.rate: `100/d` is not a rate; write it like 100/s, 600/m or 5000/h
         a.toml:17:1: limit.l.headers: expected `true` or `false`, found text
         a.toml:19:1: pool.p.backend: expected text in quotes, found the number 0
         a.toml:21:13: pool.p.backoff.jitter: expected a number, found text
         a.toml:22:1: pool.p.route: unknown key, and none here is like it",
    );
}

#[test]
fn one_of_several_forms_says_which_there_are() {
    assert_report(
        r#"[listener.m]
address = "127.0.0.1:0"
tls = "a.pem"
[listener.n]
address = "127.0.0.1:0"
tls = [{ certificate = "a.pem" }, { certificat = "b.pem", key = "b.key" }, 5]
[listener.o]
address = "127.0.0.1:0"
tls = { selfsigned = ["localhost"] }
[pool.p]
backend = "sqlite"
url = 5
password = { evn = "X" }
sizing = "fixed"
eviction = { plugin = "x" }
validation = { native = "always", fallback = "never" }
[pool.q]
backend = "sqlite"
url = { env = "A", file = "b" }
password = {}
sizing = { fallback = "fixed" }
[[route]]
path = "/"
access = "opne"
respond = { status = 200 }
[[route]]
path = "/x"
access = [1]
respond = { status = 200 }
"#,
        "a.toml:4:1: listener.m.tls: expected `{ self_signed = [\"localhost\"] }` or a list of `{ certificate = \"a.pem\", key = \"a.key\" }`, found text
         a.toml:7:8: listener.n.tls[0].key: required, but not set
         a.toml:7:35: listener.n.tls[1].certificate: required, but not set
         a.toml:7:37: listener.n.tls[1].certificat: unknown key; did you mean `certificate`?
         a.toml:7:76: listener.n.tls[2]: expected a table, found the number 5
         a.toml:10:1: listener.o.tls.self_signed: required, but not set
         a.toml:10:9: listener.o.tls.selfsigned: unknown key; did you mean `self_signed`?
         a.toml:13:1: pool.p.url: expected text in quotes, `{ env = \"NAME\" }` or `{ file = \"path\" }`, found a number
         a.toml:14:1: pool.p.password: expected exactly one of `env` and `file`
         a.toml:14:14: pool.p.password.evn: unknown key; did you mean `env`?
         a.toml:15:1: pool.p.sizing: expected `{ plugin = \"NAME\", fallback = \"NATIVE\" }` or `{ native = \"NAME\" }`, found text
         a.toml:16:1: pool.p.eviction: `plugin` needs a `fallback`: the native policy for when it cannot answer
         a.toml:17:1: pool.p.validation: `native` decides alone: leave `plugin` and `fallback` out
         a.toml:20:1: pool.q.url: expected exactly one of `env` and `file`
         a.toml:21:1: pool.q.password: expected exactly one of `env` and `file`
         a.toml:22:1: pool.q.sizing: `fallback` needs a `plugin`; to decide natively, write `native`
         a.toml:25:1: route[0].access: `opne` is not an access rule; write \"open\", or a list of consumers: [\"opne\"]
         a.toml:29:11: route[1].access[0]: expected text in quotes, found the number 1",
    );
}

#[test]
fn a_secret_that_is_no_text_is_not_repeated() {
    assert_report(
        r#"[admin]
token = 123456789012345678
address = "127.0.0.1:0"
[pool.p]
backend = "postgres"
url = "postgres://u@h/d"
password = -42.5
[pool.q]
backend = "postgres"
url = "postgres://u@h/d"
password = true
[pool.r]
backend = "postgres"
url = "postgres://u@h/d"
password = { env = 4711, file = "a" }
"#,
        "a.toml:3:1: admin.token: expected text in quotes, `{ env = \"NAME\" }` or `{ file = \"path\" }`, found a number
         a.toml:8:1: pool.p.password: expected text in quotes, `{ env = \"NAME\" }` or `{ file = \"path\" }`, found a number
         a.toml:12:1: pool.q.password: expected text in quotes, `{ env = \"NAME\" }` or `{ file = \"path\" }`, found `true` or `false`
         a.toml:16:14: pool.r.password.env: expected text in quotes, found a number",
    );
}

#[test]
fn every_missing_key_is_named() {
    assert_report(
        r"[pool.p]
[limit.l]
[plugin.x]
[upstream.u]
[consumer.c]
[admin]
[[route]]
query = {}
[[route]]
proxy = {}
cors = {}
[[route]]
redirect = {}
respond = {}
",
        "a.toml:2:7: pool.p.backend: required, but not set
         a.toml:2:7: pool.p.url: required, but not set
         a.toml:3:8: limit.l.key: required, but not set
         a.toml:3:8: limit.l.rate: required, but not set
         a.toml:4:9: plugin.x.path: required, but not set
         a.toml:5:11: upstream.u.endpoints: required, but not set
         a.toml:6:11: consumer.c: nothing says who this is: give `key_sha256` (from `sluicegate key new`), `jwt`, `certificate` or `scram`
         a.toml:7:2: admin.address: required, but not set
         a.toml:8:1: route[0].access: a query route says who may call: `access = [\"CONSUMER\", …]`, or `access = \"open\"` for anyone who reaches the listener
         a.toml:9:1: route[0].query.dialect: required, but not set
         a.toml:9:1: route[0].query.pool: required, but not set
         a.toml:11:1: route[1].proxy.upstream: required, but not set
         a.toml:12:1: route[1].cors.origins: required, but not set
         a.toml:14:1: route[2].redirect.to: required, but not set
         a.toml:15:1: route[2].respond.status: required, but not set",
    );
}

#[test]
fn names_must_exist() {
    assert_report(
        r#"admin = { address = "127.0.0.1:0", ready_requires = ["demo", "dmo"] }
[plugin.utilisation]
path = "u.wasm"
[pool.demo]
backend = "sqlite"
url = "sqlite:a.db"
sizing = { plugin = "utilization", fallback = "fixed" }
eviction = { native = "lifetimes" }
validation = { plugin = "utilisation", fallback = "sometimes" }
[[route]]
path = "/q"
query = { dialect = "json", pool = "prod" }
limits = ["per-client"]
access = ["reporting"]
[[route]]
path = "/p"
proxy = { upstream = "web" }
"#,
        "a.toml:2:62: admin.ready_requires[1]: there is no pool `dmo`; did you mean `demo`?
         a.toml:8:12: pool.demo.sizing.plugin: there is no plugin `utilization`; did you mean `utilisation`?
         a.toml:9:14: pool.demo.eviction.native: there is no native eviction policy `lifetimes`; did you mean `lifetime`?
         a.toml:10:40: pool.demo.validation.fallback: there is no native validation policy `sometimes`; use `always`, `bypass-window` or `never`
         a.toml:13:29: route[0].query.pool: there is no pool `prod`; there is `demo`
         a.toml:14:11: route[0].limits[0]: there is no limit `per-client`; there is no `[limit.…]` at all
         a.toml:15:11: route[0].access[0]: there is no consumer `reporting`; there is no `[consumer.…]` at all
         a.toml:18:11: route[1].proxy.upstream: there is no upstream `web`; there is no `[upstream.…]` at all",
    );
}

#[test]
fn routes_have_one_match_one_target_and_say_who_may_query() {
    assert_report(
        r#"[pool.p]
backend = "sqlite"
url = "sqlite:a"
[[route]]
path = "a"
exact = "/a"
host = ["a:80", "*"]
methods = ["get"]
respond = { status = 99 }
redirect = { to = "//elsewhere", status = 200 }
[[route]]
name = "x"
[[route]]
name = "x"
exact = "/q/../r"
query = { dialect = "json", pool = "p", max_batch = 0 }
deadline = "0s"
max_body = "0B"
[[route]]
path = "/c"
access = []
respond = { status = 204, body = "x" }
cors = { origins = ["*", "https://a/"] }
"#,
        "a.toml:5:1: route[0]: has 2 targets, `respond` and `redirect`; a route has one
         a.toml:7:1: route[0].exact: stands with `path`; a route has one of them
         a.toml:8:9: route[0].host[0]: `a:80` is not a host name; leave the port out: a route is for every port
         a.toml:8:17: route[0].host[1]: `*` is not a host name; for any host, leave `host` out
         a.toml:9:12: route[0].methods[0]: `get` is not `GET`: methods are case-sensitive
         a.toml:10:13: route[0].respond.status: must be from 200 to 599
         a.toml:11:14: route[0].redirect.to: must be an absolute URL (http:// or https://) or a path with one `/` in front, percent-encoded
         a.toml:11:34: route[0].redirect.status: must be 301, 302, 303, 307 or 308
         a.toml:12:1: route[1]: has no match; give it `path` (a prefix) or `exact`
         a.toml:12:1: route[1]: has no target; give it one of `query`, `proxy`, `respond` and `redirect`
         a.toml:14:1: route[2].access: a query route says who may call: `access = [\"CONSUMER\", …]`, or `access = \"open\"` for anyone who reaches the listener
         a.toml:15:1: route[2].name: `x` is the name of route[1] already
         a.toml:16:1: route[2].exact: must not hold `.` or `..` as a segment: requests are resolved first
         a.toml:17:41: route[2].query.max_batch: must be from 1 to 1048576
         a.toml:18:1: route[2].deadline: must be more than 0s
         a.toml:19:1: route[2].max_body: must be more than 0B: a query is a body
         a.toml:22:1: route[3].access: the list is empty: nobody could call; name consumers, or write `access = \"open\"`
         a.toml:23:27: route[3].respond.body: an answer of status 204 has none
         a.toml:24:10: route[3].cors.origins: `*` admits all: leave the others out
         a.toml:24:26: route[3].cors.origins[1]: `https://a/` is not an origin such as `https://app.example.com`: it has a path, or a `/` at the end",
    );
}

#[test]
fn sockets_do_not_collide_and_speak_one_protocol() {
    assert_report(
        r#"admin.address = "127.0.0.1:8443"
[listener.a]
address = "0.0.0.0:8443"
tls = []
https_redirect = { port = 0, status = 303 }
backlog = 0
idle_timeout = "0s"
max_header_bytes = "4KiB"
http2 = { max_streams = 0, stream_window = "2GiB", ping_timeout = "0s" }
[listener.b]
address = "[::1]:8443"
tls = { self_signed = [] }
[listener.c]
address = "[::1]:8443"
tls = { self_signed = ["local host"] }
["listener"."d e"]
address = "127.0.0.1:0"
"#,
        "a.toml:4:1: listener.a.address: `0.0.0.0:8443` collides with `127.0.0.1:8443` of `admin`
         a.toml:5:1: listener.a.tls: the list of certificates is empty
         a.toml:6:1: listener.a.https_redirect: stands with `tls`: a listener that speaks TLS has nowhere to redirect to; use another one
         a.toml:6:20: listener.a.https_redirect.port: must be from 1 to 65535
         a.toml:6:30: listener.a.https_redirect.status: must be 301, 302, 307 or 308
         a.toml:7:1: listener.a.backlog: must be from 1 to 2147483647
         a.toml:8:1: listener.a.idle_timeout: must be more than 0s
         a.toml:9:1: listener.a.max_header_bytes: `4KiB` is not between 8KiB and 16MiB
         a.toml:10:11: listener.a.http2.max_streams: must be from 1 to 100000
         a.toml:10:28: listener.a.http2.stream_window: `2GiB` is not between 1KiB and 2147483647B
         a.toml:10:52: listener.a.http2.ping_timeout: must be more than 0s
         a.toml:13:9: listener.b.tls.self_signed: name at least one host, such as \"localhost\"
         a.toml:15:1: listener.c.address: `[::1]:8443` collides with `[::1]:8443` of `listener.b`
         a.toml:16:24: listener.c.tls.self_signed[0]: `local host` is not a host name
         a.toml:17:13: listener.\"d e\": a name has letters, digits, `-` and `_`, and at most 64 of them",
    );
    let nothing = text("server.workers = 0\n").unwrap_err().to_string();
    assert_eq!(
        nothing,
        "listener: there is none: nothing would be served\na.toml:1:8: server.workers: must be from 1 to 1024"
    );
}

#[test]
fn numbers_make_sense() {
    assert_report(
        r#"server.drain_deadline = "0s"
log.filter = "inof,sluicegate=debug"
[plugin.x]
path = ""
sha256 = "abc"
deadline = "2s"
memory = "1B"
[pool.p]
backend = "sqlite"
url = "postgres://h/d"
password = "x"
size = { min = 5, max = 2 }
checkout_timeout = "0s"
sweep_interval = "99ms"
summary_interval = "1ms"
parallel_creates = 0
backoff = { initial = "1s", max = "500ms", jitter = 1 }
breaker = { failures = 0 }
application_name = "ä"
[pool.q]
backend = "postgres"
url = "postgres://u:hunter2@h/d"
password = "hunter2"
size.max = 0
[upstream.u]
endpoints = ["http://a", "http://a", "https://b/path", "http://u:hunter2@c", "d:80"]
queue_timeout = "0s"
[limit.l]
key = "header:x y"
rate = "2000000000/s"
burst = 0
[consumer.c]
key_sha256 = ["x", "0000000000000000000000000000000000000000000000000000000000000000"]
[consumer.d]
key_sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"]
role = ""
pools = ["q", "r"]
methods = ["get"]
networks = []
rate = "2000000000/s"
max_concurrent = 0
max_rows = 0
max_response = "0B"
deadline = "0s"
[consumer.e]
key_sha256 = []
burst = 1
"#,
        "a.toml:2:8: server.drain_deadline: must be more than 0s
         a.toml:3:5: log.filter: `inof` is not a level; did you mean `info`?
         a.toml:5:1: plugin.x.path: must not be empty
         a.toml:6:1: plugin.x.sha256: must be 64 hex digits: see `sha256sum`
         a.toml:7:1: plugin.x.deadline: must be at most 1s: requests wait for it
         a.toml:8:1: plugin.x.memory: `1B` is not between 64KiB and 4GiB
         a.toml:11:1: pool.p.url: expected `sqlite:` and a path, or another `backend`
         a.toml:13:10: pool.p.size.min: `min` is 5, more than `max`, which is 2
         a.toml:14:1: pool.p.checkout_timeout: must be more than 0s
         a.toml:15:1: pool.p.sweep_interval: must be at least 100ms
         a.toml:16:1: pool.p.summary_interval: must be at least 1s, or 0s: never
         a.toml:17:1: pool.p.parallel_creates: must be from 1 to 65536
         a.toml:18:29: pool.p.backoff.max: less than `initial`, which is 1s
         a.toml:18:44: pool.p.backoff.jitter: must be at least 0 and less than 1
         a.toml:19:13: pool.p.breaker.failures: must be from 1 to 4294967295
         a.toml:20:1: pool.p.application_name: must be printable ASCII, at most 63 characters
         a.toml:24:1: pool.q.password: the URL has a password already: give one of them
         a.toml:25:6: pool.q.size.max: must be from 1 to 65536
         a.toml:27:26: upstream.u.endpoints[1]: `http://a` is there already
         a.toml:27:38: upstream.u.endpoints[2]: an endpoint holds no path; write `https://host:port`, without a `/` at the end
         a.toml:27:56: upstream.u.endpoints[3]: an endpoint holds no user and password
         a.toml:27:78: upstream.u.endpoints[4]: expected `http://host:port` or `https://host:port`
         a.toml:28:1: upstream.u.queue_timeout: must be more than 0s
         a.toml:30:1: limit.l.key: `x y` is not a header's name
         a.toml:31:1: limit.l.rate: more than one in a nanosecond
         a.toml:32:1: limit.l.burst: must be from 1 to 4294967295
         a.toml:34:15: consumer.c.key_sha256[0]: must be 64 hex digits, as `sluicegate key new` prints them
         a.toml:36:15: consumer.d.key_sha256[0]: the key is one of `c` already: it can name one consumer
         a.toml:37:1: consumer.d.role: the name of a role has 1 to 63 bytes
         a.toml:38:15: consumer.d.pools[1]: there is no pool `r`; did you mean `p`?
         a.toml:39:12: consumer.d.methods[0]: `get` is not `GET`: methods are case-sensitive
         a.toml:40:1: consumer.d.networks: the list is empty: the consumer could do nothing; leave it out if it is not to bound anything
         a.toml:41:1: consumer.d.rate: more than one in a nanosecond
         a.toml:42:1: consumer.d.max_concurrent: must be from 1 to 4294967295
         a.toml:43:1: consumer.d.max_rows: must be from 1 to 18446744073709551615
         a.toml:44:1: consumer.d.max_response: must be more than 0B
         a.toml:45:1: consumer.d.deadline: must be more than 0s
         a.toml:48:1: consumer.e.burst: there is no `rate` that it could be the burst of",
    );
}

#[test]
fn a_redirect_leads_where_it_says() {
    let of = |to: &str| report(&format!("[[route]]\npath = \"/\"\nredirect = {{ to = \"{to}\" }}"));
    for to in ["/", "/new{path}", "https://a.example{path}", "http://a.example:8080/x?y"] {
        assert_eq!(of(to), "", "{to}");
    }
    // A request's path may begin with `/evil.example`: in front of it a `/` would make that a host.
    for to in ["", "//evil.example", "/{path}", "{path}", "https://{path}", "https://", "javascript:x", "/a b"] {
        assert!(of(to).contains("route[0].redirect.to: must be"), "{to}");
    }
}

#[test]
fn a_filter_that_is_no_level_is_noticed() {
    for (filter, near) in [("inof", "info"), ("warning", "warn"), ("info,sluicegate=debug,err", "error")] {
        let report = report(&format!("log.filter = \"{filter}\""));
        assert!(report.ends_with(&format!("did you mean `{near}`?")), "{report}");
    }
    for filter in ["info", "WARN", "off", "hyper", "sluicegate::pool=debug,warn", "info,[request{id=5}]=trace", ""] {
        assert_eq!(report(&format!("log.filter = \"{filter}\"")), "", "{filter}");
    }
    assert!(report("log.filter = \"a=b=c\"").starts_with("a.toml:2:5: log.filter: "));
}

#[test]
fn a_mistake_does_not_bring_others_with_it() {
    // The pool, the route's match and its target are there, only not as they should be.
    assert_report(
        r#"admin = { address = "127.0.0.1:0", ready_requires = ["p", "q"] }
pool.q = 5
[pool.p]
backend = "postgre"
url = "postgres://h/d"
size = { min = 5, max = "many" }
[[route]]
pth = "/"
query = { dialect = "json", pool = "p", max_rows = "all" }
access = "open"
[[route]]
path = "/x"
query = { dialect = "jsn", pool = "q" }
access = "open"
"#,
        "a.toml:3:6: pool.q: expected a table, found the number 5
         a.toml:5:1: pool.p.backend: `postgre` is not known here; did you mean `postgres`?
         a.toml:7:19: pool.p.size.max: expected a whole number from 0 to 4294967295, found text
         a.toml:9:1: route[0].pth: unknown key; did you mean `path`?
         a.toml:10:41: route[0].query.max_rows: expected a whole number, not negative, found text
         a.toml:14:11: route[1].query.dialect: `jsn` is not known here; did you mean `json`?",
    );
}

#[test]
fn secrets_are_never_in_a_report() {
    let lines = [
        "pool.p = { backend = \"postgres\", url = \"postgres://u:hunter2:x@h:hunter2/d\" }",
        "pool.p = { backend = \"postgres\", url = \"hunter2\" }",
        "pool.p = { backend = \"postgres\", url = [\"hunter2\"] }",
        "pool.p = { backend = \"postgres\", url = \"postgres://h\", connect_timeout = \"postgres://u:hunter2@h\" }",
        "admin = { address = \"127.0.0.1:0\", token = \"hunter2\" }",
        "pool.p = { backend = \"sqlite\", url = \"hunter2",
        "pool.p = { backend = \"sqlite\", password = \"hunter2\" }",
    ];
    for line in lines {
        let report = report(line);
        assert!(!report.is_empty() && !report.contains("hunter2"), "{report}");
    }
}

#[test]
fn secrets_that_cannot_be_had_are_named() {
    let wrong = "[pool.p]\nbackend = \"postgres\"\nurl = { env = \"NOWHERE\" }\npassword = { file = \"/nonexistent/p\" }\n\
                 [pool.q]\nbackend = \"postgres\"\nurl = { env = \"DATABASE\" }\n";
    let loaded = load_content(
        format!("listener.l.address = \"127.0.0.1:0\"\n{wrong}").as_bytes(),
        &environment(&[("DATABASE", "postgres://h/d")]),
    );
    assert_eq!(
        loaded.err().unwrap().to_string(),
        "a.toml:4:1: pool.p.url: environment variable NOWHERE is not set, or is not UTF-8\n\
         a.toml:5:1: pool.p.password: cannot read /nonexistent/p: No such file or directory (os error 2)"
    );
}

#[test]
fn a_hopeless_file_is_not_listed_to_its_end() {
    let wrong: Vec<_> = (0..500).map(|n| format!("[pool.p{n}]\nx = 1\n")).collect();
    let report = text(&wrong.concat()).unwrap_err();
    assert_eq!(report.problems().len(), 101);
    assert_eq!(report.problems()[0].to_string(), "there may be more to mend than is listed");
}

#[test]
fn who_may_call_is_told_apart() {
    assert_report(
        r#"[listener.m]
address = "127.0.0.1:2"
client_certificates = { ca = "a.pem" }
[issuer.a]
jwks = "ftp://a"
issuer = "https://a"
audience = []
algorithms = ["RS256", "HS256"]
leeway = "6m"
[issuer.b]
jwks = ""
issuer = "https://a"
audience = ["x"]
algorithms = []
refresh = "1s"
[consumer.all]
jwt = { issuer = "a" }
[consumer.few]
jwt = { issuer = "a", claims = { tier = "few" } }
[consumer.one]
jwt = { issuer = "a", claims = { tier = "pro", x = [], y = 1.5 } }
[consumer.other]
jwt = { issuer = "c", claims = { tier = "pro" } }
certificate = ["dns:App", "CN=app", "uri:spiffe://a"]
[consumer.third]
jwt = { issuer = "c", claims = { tier = "free" } }
certificate = ["uri:spiffe://a", "sha256:00"]
"#,
        "a.toml:4:1: listener.m.client_certificates: needs `tls`: a client shows its certificate in the handshake
         a.toml:6:1: issuer.a.jwks: expected `https://host/path` or `http://host/path`
         a.toml:8:1: issuer.a.audience: name whom its tokens must be for: without, one made for another service would do here
         a.toml:9:24: issuer.a.algorithms[1]: `HS256` is not known here; did you mean `ES256`?
         a.toml:10:1: issuer.a.leeway: must be at most 5m
         a.toml:12:1: issuer.b.jwks: must be a URL, or a file's path
         a.toml:13:1: issuer.b.issuer: it is that of `issuer.a` already: it can be told by one
         a.toml:15:1: issuer.b.algorithms: the list is empty: nothing could be verified
         a.toml:16:1: issuer.b.refresh: must be from 10s to 1d
         a.toml:20:1: consumer.few.jwt: a token that stands for one of this and `all` may stand for both: tell them apart by a claim
         a.toml:22:48: consumer.one.jwt.claims.x: the list is empty: no token could claim it
         a.toml:22:56: consumer.one.jwt.claims.y: expected text in quotes, a whole number, `true` or `false`, a list of them, or a table, found the number 1.5
         a.toml:24:9: consumer.other.jwt.issuer: there is no issuer `c`; did you mean `a`?
         a.toml:25:16: consumer.other.certificate[0]: expected `dns:` and a name in lower case, `uri:` and a URI, `email:` and an address, or `sha256:` and 64 hex digits in lower case
         a.toml:25:27: consumer.other.certificate[1]: expected `dns:` and a name in lower case, `uri:` and a URI, `email:` and an address, or `sha256:` and 64 hex digits in lower case
         a.toml:27:9: consumer.third.jwt.issuer: there is no issuer `c`; did you mean `a`?
         a.toml:28:16: consumer.third.certificate[0]: it is one of `other` already: it can name one consumer
         a.toml:28:34: consumer.third.certificate[1]: expected `dns:` and a name in lower case, `uri:` and a URI, `email:` and an address, or `sha256:` and 64 hex digits in lower case",
    );
}

#[test]
fn whose_word_counts_for_a_certificates_name_is_said_where_several_could_give_it() {
    let listeners = |public: &str, more: &str| {
        format!(
            "[listener.internal]\naddress = \"127.0.0.1:1\"\ntls = {{ self_signed = [\"a\"] }}\nclient_certificates.ca = \"mesh.pem\"\n\
             [listener.plain]\naddress = \"127.0.0.1:2\"\n\
             [listener.public]\naddress = \"127.0.0.1:3\"\ntls = {{ self_signed = [\"a\"] }}\nclient_certificates.ca = \"{public}.pem\"\n\
             [consumer.key]\nkey_sha256 = []\n{more}"
        )
    };
    let ops = "[consumer.ops]\ncertificate = [\"dns:ops.internal\"]\n";
    let ops_by = |listener: &str| format!("{ops}certificate_listener = \"{listener}\"\n");
    assert_eq!(report(&listeners("mesh", ops)), "", "one file of CAs, whichever the listener");
    assert_eq!(report(&listeners("partners", &ops_by("internal"))), "");
    assert_eq!(
        report(&listeners("partners", ops)),
        "a.toml:15:1: consumer.ops.certificate: listeners ask for certificates of different CAs, each of which could issue one of this \
         name: set `certificate_listener` to `internal` or `public`"
    );
    for (text, wrong) in [
        (ops_by("plain"), "`plain` asks for no certificates: set its `client_certificates`"),
        (ops_by("publik"), "there is no listener `publik`; did you mean `public`?"),
        (
            "[consumer.ops]\nkey_sha256 = []\ncertificate_listener = \"public\"\n".to_owned(),
            "there is no `certificate` that could come by it",
        ),
    ] {
        let said = report(&listeners("partners", &text));
        assert_eq!(said, format!("a.toml:16:1: consumer.ops.certificate_listener: {wrong}"));
    }
}

#[test]
fn the_digest_of_nothing_is_no_key() {
    // As `printf '' | sha256sum` has it.
    let digest = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
    assert_eq!(
        report(&format!("consumer.a.key_sha256 = [\"{digest}\"]")),
        "a.toml:2:26: consumer.a.key_sha256[0]: it is the digest of nothing: the key was empty when it was taken"
    );
}
