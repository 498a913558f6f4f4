//! Answers that are kept: what they say of themselves, whose they are, and what stands in when the database is away.

use serde_json::{Value, json};

use super::{KEY, config, get, post, server};
use crate::support::{
    client::{Answer, Client},
    config::consumer,
    eventually,
    gateway::Gateway,
    postgres::Postgres,
};

/// Each call has an answer of its own, but for those that are kept.
const QUERIES: &str = r#"
[named.count]
sql = "select clock_timestamp()::text, $1::text"
params = [{ name = "tag", type = "text", default = "" }]
cache = "1h"
read_only = true
[named.short]
sql = "select clock_timestamp()::text, $1::text"
params = [{ name = "tag", type = "text", default = "" }]
cache = "50ms"
on_exhausted = "stale"
read_only = true
[named.slow]
sql = "select clock_timestamp()::text, pg_sleep(0.5)::text"
cache = "1h"
read_only = true
[named.slower]
sql = "select pg_sleep(4)::text"
cache = "1h"
read_only = true
[named.large]
sql = "select repeat('x', 1000) from generate_series(1, $1)"
params = [{ name = "rows", type = "int4" }]
cache = "1h"
read_only = true
[named.broken]
sql = "select 1 / $1::int4"
params = [{ name = "by", type = "int4" }]
on_exhausted = "stale"
read_only = true
[named.sleep]
sql = "select pg_sleep($1)::text"
params = [{ name = "seconds", type = "float8" }]
"#;

const ROUTES: &str = r#"
[[route]]
path = "/query"
query = { dialect = "json", pool = "main", named = "*" }
access = ["app", "other"]
cors = { origins = ["https://app.example.com"] }
[[route]]
path = "/open"
query = { dialect = "json", pool = "main", named = ["count"], raw = false }
access = "open"
"#;

async fn start() -> (Postgres, Gateway) {
    let postgres = server().await;
    let gateway = Gateway::start(&config(&postgres, &format!("{QUERIES}{ROUTES}"))).await;
    (postgres, gateway)
}

fn vary_of(answer: &Answer) -> String {
    let values: Vec<_> = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    values.join(", ")
}

fn status_of(answer: &Answer) -> &str {
    answer.header("cache-status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_is_kept_and_says_so() {
    let (_postgres, gateway) = start().await;
    let mut client = gateway.h1().await;
    let first = get(&mut client, "/query/count?tag=a").await;
    assert_eq!((first.status, status_of(&first)), (200, "sluicegate; fwd=miss; stored; ttl=3600"), "{}", first.text());
    assert_eq!(first.header("cache-control"), "private, max-age=3600");
    assert_eq!(vary_of(&first), "authorization, x-api-key, accept, accept-encoding, origin");
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"'), "{tag}");
    let again = get(&mut gateway.h2().await, "/query/count?tag=a").await;
    assert!(status_of(&again).starts_with("sluicegate; hit; ttl=3"), "{}", status_of(&again));
    assert_eq!((&again.body, again.header("etag")), (&first.body, tag.as_str()));
    assert!(!again.header("age").is_empty());
    // By POST it is the same question.
    let (_, posted) = post(&mut client, "/query", json!({"name": "count", "params": ["a"]})).await;
    assert_eq!(posted, first.json());
    for (header, status) in [(tag.as_str(), 304), (&*format!("W/{tag}, \"x\""), 304), ("\"x\"", 200)] {
        let headers = [KEY, ("if-none-match", header)];
        let answer = client.send("GET", "/query/count?tag=a", &headers, "").await.unwrap();
        assert_eq!(answer.status, status, "{header}");
        assert_eq!((answer.body.is_empty(), answer.header("etag")), (status == 304, tag.as_str()));
        assert_eq!(vary_of(&answer), vary_of(&first), "{status}");
    }
    let head = client.send("HEAD", "/query/count?tag=a", &[KEY], "").await.unwrap();
    assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, tag.as_str()));
    for (accept, status) in [("application/x-ndjson", "miss"), ("text/csv", "miss"), ("application/json", "hit")] {
        let answer = client.send("GET", "/query/count?tag=a", &[KEY, ("accept", accept)], "").await.unwrap();
        assert!(status_of(&answer).contains(status), "{accept}: {}", status_of(&answer));
    }
    let open = client.send("GET", "/open/count?tag=open", &[], "").await.unwrap();
    assert_eq!((open.status, open.header("cache-control")), (200, "public, max-age=3600"));
    let unkept = get(&mut client, "/query/get_user?id=1").await;
    assert_eq!((status_of(&unkept), unkept.header("cache-control")), ("sluicegate; fwd=bypass", "private, no-cache"));
    assert!(unkept.header("etag").starts_with('"'));
    let figures = gateway.status().await;
    assert_eq!(figures["named"]["queries"]["count"]["misses"], 4, "{}", figures["named"]);
    assert!(figures["named"]["cache"]["entries"].as_u64().unwrap() >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_parameters_and_another_definition_have_other_answers() {
    let (postgres, gateway) = start().await;
    let mut client = gateway.h1().await;
    let tag = |answer: &Answer| answer.json()["rows"][0][1].as_str().unwrap().to_owned();
    for (query, expected) in [("?tag=a", "a"), ("?tag=b", "b"), ("", ""), ("?tag=a", "a")] {
        assert_eq!(tag(&get(&mut client, &format!("/query/count{query}")).await), expected);
    }
    let changed = QUERIES.replacen("$1::text", "'new ' || $1::text", 1);
    let config = config(&postgres, &format!("{changed}{ROUTES}"));
    gateway.reconfigure(&config).await;
    let mut client = gateway.h1().await;
    let answer = get(&mut client, "/query/count?tag=a").await;
    assert_eq!((tag(&answer).as_str(), status_of(&answer)), ("new a", "sluicegate; fwd=miss; stored; ttl=3600"));
    // What did not change keeps what was kept.
    get(&mut client, "/query/short").await;
    gateway.reconfigure(&config.replace("max = 4", "max = 3")).await;
    let answer = get(&mut gateway.h1().await, "/query/count?tag=a").await;
    assert!(status_of(&answer).contains("hit"), "{}", status_of(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_request_asks_while_the_others_wait() {
    let (_postgres, gateway) = start().await;
    let client = gateway.h2().await;
    let asks = (0..40).map(|_| {
        let mut client = client.share();
        async move { get(&mut client, "/query/slow").await }
    });
    let answers = futures_util::future::join_all(asks).await;
    let count = |word: &str| answers.iter().filter(|answer| status_of(answer).contains(word)).count();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!((count("stored"), count("collapsed") + count("hit")), (1, 39));
    assert_eq!(gateway.figure("/named/queries/slow/misses").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_leaves_while_others_wait_keeps_nobody_waiting() {
    let (_postgres, gateway) = start().await;
    let mut gone = gateway.h1().await;
    let leaving = tokio::spawn(async move { drop(gone.send("GET", "/query/slower", &[KEY], "").await) });
    gateway.status_until("/pools/main/in_use", |used| used.as_u64() == Some(1)).await;
    let mut client = gateway.h1().await;
    let waiting = tokio::spawn(async move { get(&mut client, "/query/slower").await });
    let is_busy = |route: &Value| route["name"] == "/query" && route["active"] == 2;
    gateway.status_until("/routes", |routes| routes.as_array().unwrap().iter().any(is_busy)).await;
    leaving.abort();
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_has_little_time_gives_up_for_itself_alone() {
    let postgres = server().await;
    let hurried = consumer("hurried", "deadline = \"400ms\"");
    let routes = ROUTES.replace("\"other\"]", "\"other\", \"hurried\"]");
    let config = config(&postgres, &format!("{QUERIES}{hurried}{routes}")).replace("max = 4", "max = 1");
    let gateway = Gateway::start(&config).await;
    let (mut holder, mut hasty, mut patient) = (gateway.h1().await, gateway.h1().await, gateway.h1().await);
    let held = async { post(&mut holder, "/query", json!({"name": "sleep", "params": [2]})).await.0 };
    let ask = async {
        gateway.status_until("/pools/main/in_use", |count| count == 1).await;
        let hasty = hasty.send("GET", "/query/count?tag=b", &[("x-api-key", "key-hurried")], "");
        let patient = async {
            gateway.status_until("/pools/main/waiters", |count| count == 1).await;
            get(&mut patient, "/query/count?tag=b").await
        };
        tokio::join!(hasty, patient)
    };
    let (held, (hasty, patient)) = tokio::join!(held, ask);
    assert_eq!((held, hasty.unwrap().status), (200, 503));
    assert_eq!((patient.status, status_of(&patient)), (200, "sluicegate; fwd=miss; stored; ttl=3600"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_too_large_is_streamed_and_not_kept() {
    let (_postgres, gateway) = start().await;
    let mut client = gateway.h1().await;
    for _ in 0..2 {
        let answer = get(&mut client, "/query/large?rows=1000").await;
        assert_eq!((answer.status, status_of(&answer)), (200, "sluicegate; fwd=miss"));
        assert_eq!((answer.header("etag"), answer.header("cache-control")), ("", "no-store"));
        assert_eq!(answer.json()["row_count"], 1000);
    }
    let answer = get(&mut client, "/query/large?rows=3").await;
    assert!(status_of(&answer).contains("stored"));
}

/// Asks until the answer is an old one.
async fn stale(client: &mut Client, path: &str) -> Answer {
    let client = tokio::sync::Mutex::new(client);
    let look = || async { get(*client.lock().await, path).await };
    eventually("an old answer", look, |answer| status_of(answer).contains("fwd=stale")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_last_good_answer_stands_in_while_the_database_is_down() {
    let (mut postgres, gateway) = start().await;
    let mut client = gateway.h1().await;
    let good = get(&mut client, "/query/short?tag=a").await;
    assert_eq!(good.status, 200);
    let broken = get(&mut client, "/query/broken?by=1").await;
    assert_eq!(broken.status, 200);
    postgres.stop();
    let old = stale(&mut client, "/query/short?tag=a").await;
    assert_eq!((old.status, &old.body), (200, &good.body));
    assert!(status_of(&old).contains("fwd-status=50"), "{}", status_of(&old));
    assert_eq!((old.header("cache-control"), old.header("age").is_empty()), ("private, no-cache", false));
    let unknown = get(&mut client, "/query/short?tag=b").await;
    assert!(matches!(unknown.status, 502 | 503), "nothing is known of it: {}", unknown.status);
    let unwilling = get(&mut client, "/query/get_user?id=1").await;
    assert!(matches!(unwilling.status, 502 | 503));
    assert_eq!(unwilling.header("cache-control"), "no-store");
    postgres.start_again().await;
    let client = tokio::sync::Mutex::new(client);
    let look = || async { get(&mut *client.lock().await, "/query/short?tag=a").await };
    eventually("it is back", look, |answer| status_of(answer).contains("stored")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_old_answer_stands_in_while_the_pool_is_exhausted_and_never_for_an_error_of_the_statement() {
    let (postgres, gateway) = start().await;
    let exhausted = config(&postgres, &format!("{QUERIES}{ROUTES}"))
        .replace("size = { max = 4 }", "size = { max = 1 }\ncheckout_timeout = \"300ms\"");
    gateway.reconfigure(&exhausted).await;
    // The first connection may take longer than that.
    let first = || async { get(&mut gateway.h1().await, "/query/broken?by=1").await.status };
    eventually("a connection", first, |status| *status == 200).await;
    let mut client = gateway.h1().await;
    let good = get(&mut client, "/query/short").await;
    assert_eq!(good.status, 200, "{}", good.text());
    let mut holder = gateway.h1().await;
    let held = tokio::spawn(async move { post(&mut holder, "/query", json!({"name": "sleep", "params": [15]})).await });
    gateway.status_until("/pools/main/in_use", |used| used.as_u64() == Some(1)).await;
    let old = stale(&mut client, "/query/short").await;
    assert_eq!((old.status, &old.body), (200, &good.body));
    assert!(status_of(&old).contains("fwd-status=503"));
    held.abort();
    gateway.status_until("/pools/main/in_use", |used| used.as_u64() == Some(0)).await;
    let failed = get(&mut client, "/query/broken?by=0").await;
    assert_eq!((failed.status, &failed.json()["sqlstate"]), (400, &json!("22012")));
    let figures = gateway.status().await;
    assert!(figures["named"]["queries"]["short"]["stale"].as_u64() >= Some(1), "{}", figures["named"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_query_costs_is_taken_from_the_limits() {
    let postgres = server().await;
    let more = r#"
[limit.all]
key = "all"
rate = "1/h"
burst = 12
[named.dear]
sql = "select 1 + $1::int4"
params = [{ name = "n", type = "int4" }]
cost = 5
cache = "1h"
read_only = true
[[route]]
path = "/query"
query = { dialect = "json", pool = "main", named = "*" }
access = ["app"]
limits = ["all"]
"#;
    let gateway = Gateway::start(&config(&postgres, more)).await;
    let mut client = gateway.h1().await;
    let left = |answer: &Answer| {
        let text = answer.header("ratelimit").to_owned();
        text.split("r=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned()
    };
    let mut seen = Vec::new();
    for path in ["/query/dear?n=1", "/query/dear?n=1", "/query/dear?n=2"] {
        let answer = get(&mut client, path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        seen.push(left(&answer));
    }
    assert_eq!(seen, ["7", "6", "1"], "a kept answer costs one");
    let refused = get(&mut client, "/query/dear?n=3").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["violated-policies"], json!(["all"]));
    assert!(!refused.header("retry-after").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pages_of_other_origins_get_only_what_the_route_lets_them() {
    let (_postgres, gateway) = start().await;
    let mut client = gateway.h1().await;
    let ask = [("origin", "https://app.example.com"), ("access-control-request-method", "GET")];
    let preflight = client.send("OPTIONS", "/query/count", &ask, "").await.unwrap();
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, "GET, HEAD, POST"));
    assert!(preflight.header("access-control-allow-headers").contains("if-none-match"));
    for (headers, status) in [
        (vec![("origin", "https://app.example.com")], 200),
        (vec![("origin", "https://evil.example.com")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("sec-fetch-site", "same-origin")], 200),
        (vec![("sec-fetch-site", "none")], 200),
        (vec![], 200),
    ] {
        let headers: Vec<_> = [KEY].into_iter().chain(headers).collect();
        let answer = client.send("GET", "/query/count", &headers, "").await.unwrap();
        assert_eq!(answer.status, status, "{headers:?}");
        if headers.contains(&("origin", "https://app.example.com")) {
            assert!(answer.header("access-control-expose-headers").contains("etag"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_consumers_answer_is_anothers_only_where_it_does_not_depend_on_who_asks() {
    let (_postgres, gateway) = start().await;
    let mut client = gateway.h1().await;
    let ask = async |client: &mut Client, key: &str, path: &str| {
        client.send("GET", path, &[("x-api-key", key)], "").await.unwrap()
    };
    assert!(status_of(&ask(&mut client, "key-app", "/query/count").await).contains("stored"));
    assert!(status_of(&ask(&mut client, "key-other", "/query/count").await).contains("hit"), "the same for everybody");
    let nobody = ask(&mut client, "key-wrong", "/query/count").await;
    assert_eq!(nobody.status, 401, "what is kept is behind the door, too");
}
