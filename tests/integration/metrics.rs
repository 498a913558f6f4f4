//! `/metrics`: that every figure is documented and the other way round, and that what it says adds up.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{
    component,
    config::{BASE, QUERY_ROUTE, pool},
    eventually,
    gateway::Gateway,
    load::Load,
    nginx::Nginx,
    postgres::Postgres,
    replace_file,
    standby::standby_of,
    testing_plugin,
};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const POOL: &str = "db_client_connection_pool_name";

/// A scrape.
#[derive(Debug)]
struct Scrape {
    /// By name and labels as they stand there.
    samples: BTreeMap<String, f64>,
    /// By name of the family.
    types: BTreeMap<String, String>,
}

impl Scrape {
    async fn of(gateway: &Gateway) -> Self {
        let (status, text) = gateway.admin("GET", "/metrics").await;
        assert_eq!(status, 200, "{text}");
        assert!(text.ends_with("# EOF\n") && !text.contains("NaN"), "{text}");
        let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let before = samples.insert(series.to_owned(), value.parse::<f64>().unwrap());
                assert!(before.is_none(), "{series} twice");
            }
        }
        Self { samples, types }
    }

    /// The series of one name, by labels.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (BTreeMap<&'a str, &'a str>, f64)> {
        let named = self.samples.iter().filter(move |(series, _)| series.split('{').next() == Some(name));
        named.map(|(series, value)| (labels(series), *value))
    }

    /// The one series of that name with these labels.
    fn one(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        let fits = |labels: &BTreeMap<&str, &str>| with.iter().all(|(key, value)| labels.get(key) == Some(value));
        let found: Vec<f64> = self.all(name).filter(|(labels, _)| fits(labels)).map(|(_, value)| value).collect();
        assert_eq!(found.len(), 1, "{name} with {with:?}: {self:#?}");
        found[0]
    }

    fn event(&self, event: &str) -> f64 {
        self.one("db_client_connection_events_total", &[("event", event)])
    }

    /// Every figure, as a query names it, with its type and the names of its labels.
    fn figures(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let figure = |(family, kind): (&String, &String)| {
            let (name, sample) = match kind.as_str() {
                "counter" => (format!("{family}_total"), format!("{family}_total")),
                "histogram" => (family.clone(), format!("{family}_count")),
                _ => (family.clone(), family.clone()),
            };
            let keys: BTreeSet<String> =
                self.all(&sample).flat_map(|(labels, _)| labels.into_keys().map(str::to_owned)).collect();
            (name, (kind.clone(), keys))
        };
        self.types.iter().map(figure).collect()
    }

    /// What only grows: counters, and all of histograms.
    fn growing(&self) -> impl Iterator<Item = (&String, f64)> {
        let grows = |series: &str| {
            let name = series.split('{').next().unwrap();
            ["_total", "_bucket", "_sum", "_count"].iter().any(|end| {
                name.strip_suffix(end).and_then(|family| self.types.get(family)).is_some_and(|kind| kind != "gauge")
            })
        };
        self.samples.iter().filter(move |(series, _)| grows(series)).map(|(series, value)| (series, *value))
    }

    /// Each histogram's buckets grow with their bounds, and the last is its count.
    fn histograms_add_up(&self) {
        let histograms = self.types.iter().filter(|(_, kind)| *kind == "histogram");
        for (family, _) in histograms {
            let mut by_labels: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
            let bucket = format!("{family}_bucket");
            for (mut labels, count) in self.all(&bucket) {
                let bound = labels.remove("le").unwrap().parse().unwrap();
                by_labels.entry(labels).or_default().push((bound, count));
            }
            assert!(!by_labels.is_empty());
            for (labels, mut buckets) in by_labels {
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{family} {labels:?}: {buckets:?}");
                let with: Vec<_> = labels.into_iter().collect();
                let (count, sum) =
                    (self.one(&format!("{family}_count"), &with), self.one(&format!("{family}_sum"), &with));
                assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
                assert!(sum >= 0.0 && (count > 0.0 || sum == 0.0), "{family}: {sum} s in {count}");
            }
        }
    }
}

/// `{a="b",c="d"}`, whose values here hold neither commas nor quotes.
fn labels(series: &str) -> BTreeMap<&str, &str> {
    let inside = series.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
    let pairs = inside.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key, value.trim_matches('"'))).collect()
}

/// The rows of the table under a heading of the document, cell by cell.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn config(pool: &str, rest: &str) -> String {
    [BASE, pool, QUERY_ROUTE, rest].concat()
}

/// A gateway that has something to tell of everything.
async fn eventful(postgres: &Postgres, standby: &Postgres, nginx: &Nginx) -> Gateway {
    let keys = "size = { max = 1 }\nsizing = { plugin = \"hostile\", fallback = \"fixed\" }\nreplicas = { pools = [\"standby\"] }";
    let pools = pool("main", &postgres.url(), keys) + &pool("standby", &standby.url(), "");
    let plugin = testing_plugin("hostile");
    let rest = format!(
        "{}[plugin.hostile]\npath = \"{}\"\nconfig = {{ mode = \"trap\" }}\n[alert]\nafter = \"1s\"\ncheckout_p95 = \"1ms\"\n",
        nginx.files(),
        plugin.display()
    );
    let issuer = "[issuer.auth]\njwks = \"keys.json\"\nissuer = \"https://auth.test\"\naudience = [\"a\"]\n\
                  [named.one]\nsql = \"select 1\"\n[[route]]\npath = \"/learn\"\naccess = \"open\"\n\
                  query = { dialect = \"json\", pool = \"main\", allow = { mode = \"learn\", file = \"texts\" } }\n";
    let text = config(&pools, &(rest + issuer));
    let dir = tempfile::Builder::new().prefix("sg-gateway-").tempdir().unwrap();
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    std::fs::write(dir.path().join("keys.json"), json!({ "keys": [key] }).to_string()).unwrap();
    let gateway = Gateway::start_in(dir, &text).await;
    let (mut one, mut other) = (gateway.h2().await, gateway.h1().await);
    // The one waits for the other.
    let sleep = "select 1::int from pg_sleep(0.3)";
    let (one, other) = tokio::join!(one.query(sleep, json!([])), other.query(sleep, json!([])));
    assert_eq!((one.unwrap().status, other.unwrap().status), (200, 200));
    gateway.status_until("/alerts/0", |alert| !alert.is_null()).await;
    gateway.status_until("/plugins/hostile/faults/trap", |count| count.as_u64() >= Some(1)).await;
    gateway.status_until("/pools/main/replicas/pools/0/lag_s", |lag| !lag.is_null()).await;
    gateway.reconfigure(&format!("{text}\n[overload]\ncpu = 0\nmemory = 0.1\nmemory_limit = \"1MiB\"\n")).await;
    let refused = || async { gateway.h1().await.query("select 1", json!([])).await.unwrap().status };
    eventually("the gateway refuses for want of memory", refused, |status| *status == 503).await;
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_document_lists_every_figure_and_no_other() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let standby = standby_of(&postgres).await;
    let gateway = eventful(&postgres, &standby, &nginx).await;
    let scrape = Scrape::of(&gateway).await;
    let told = scrape.figures();
    let mut documented = BTreeMap::new();
    for row in table("Every figure") {
        let [name, kind, labels, unit, meaning] = row[..] else { panic!("{row:?}") };
        assert!(!unit.is_empty() && !meaning.is_empty(), "{name}");
        let label = |label: &str| if label == "pool" { POOL.to_owned() } else { label.trim_matches('`').to_owned() };
        let labels = labels.split(", ").filter(|label| *label != "none").map(label).collect();
        assert!(
            documented.insert(name.trim_matches('`').to_owned(), (kind.to_owned(), labels)).is_none(),
            "{name} twice"
        );
    }
    for (name, figure) in &told {
        assert_eq!(documented.get(name), Some(figure), "{name} as it is, and in docs/metrics.md");
    }
    let gone: Vec<_> = documented.keys().filter(|name| !told.contains_key(*name)).collect();
    assert!(gone.is_empty(), "in docs/metrics.md, but not in /metrics: {gone:?}");

    let events: BTreeSet<_> = table("Events of a pool").into_iter().map(|row| row[0].trim_matches('`')).collect();
    let seen: BTreeSet<_> =
        scrape.all("db_client_connection_events_total").map(|(labels, _)| labels["event"].to_owned()).collect();
    assert_eq!(events, seen.iter().map(String::as_str).collect());
    let row = |name: &str| table("Every figure").into_iter().find(|row| row[0] == format!("`{name}`")).unwrap()[4];
    for (name, label) in [
        ("db_client_connection_count", "state"),
        ("db_client_connection_closed_total", "cause"),
        ("db_client_connection_create_failures_total", "cause"),
        ("sluicegate_policy_clamped_total", "cause"),
    ] {
        for (labels, _) in scrape.all(name) {
            assert!(row(name).contains(&format!("`{}`", labels[label])), "{name}: {} is not documented", labels[label]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_rules_for_prometheus_and_the_documented_queries_name_figures_that_exist() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let standby = standby_of(&postgres).await;
    let scrape = Scrape::of(&eventful(&postgres, &standby, &nginx).await).await;
    let queries = table_of_queries() + include_str!("../../config/alerts.rules.yml");
    let words = queries.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let names: BTreeSet<_> = words
        .filter(|word| ["db_client_", "http_", "sluicegate_"].iter().any(|start| word.starts_with(start)))
        .filter(|word| *word != POOL)
        .collect();
    assert!(names.contains("db_client_connection_wait_time_seconds_bucket") && names.len() >= 8, "{names:?}");
    for name in names {
        assert!(scrape.all(name).next().is_some(), "{name} is not in /metrics");
    }
    // The bound that a query asks for is one, and the states and events that the rules choose exist.
    let bound = |(labels, _): (BTreeMap<&str, &str>, f64)| labels["le"].parse::<f64>() == Ok(0.1);
    assert!(scrape.all("db_client_connection_wait_time_seconds_bucket").any(bound));
    for event in ["errors", "timeouts", "refused", "acquired"] {
        scrape.one("db_client_connection_events_total", &[(POOL, "main"), ("event", event)]);
    }
    scrape.one("db_client_connection_count", &[(POOL, "main"), ("state", "used")]);
}

fn table_of_queries() -> String {
    let section = DOCUMENT.split("\n## Questions").nth(1).unwrap();
    section.lines().filter(|line| line.starts_with('|')).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_counter_goes_back_under_load_and_histograms_add_up() {
    let (postgres, nginx) = (Postgres::start(0, &[]).await, Nginx::start("one").await);
    let plugin = component("bypass-window");
    let (url, rest) = (postgres.url(), format!("{}[plugin.bypass]\npath = \"{}\"\n", nginx.files(), plugin.display()));
    let of = |database: &str, interval: &str| {
        let url = format!("{}/{database}", url.strip_suffix("/postgres").unwrap());
        let keys = "size = { min = 1, max = 3 }\nvalidation = { plugin = \"bypass\", fallback = \"always\" }";
        config(&pool("main", &url, &format!("{keys}\nsizing_interval = \"{interval}\"")), &rest)
    };
    let gateway = Gateway::start(&of("postgres", "100ms")).await;
    let mut before = Scrape::of(&gateway).await;
    before.histograms_add_up();
    let load = Load::start(&gateway, 16).await;
    for round in 0..30 {
        load.advance(40).await;
        // A reload that keeps the pool keeps its figures.
        if round == 15 {
            gateway.reconfigure(&of("postgres", "150ms")).await;
        }
        let now = Scrape::of(&gateway).await;
        now.histograms_add_up();
        let grown: BTreeMap<_, _> = now.growing().collect();
        for (series, was) in before.growing() {
            let is = grown.get(series).unwrap_or_else(|| panic!("{series} is gone"));
            assert!(*is >= was, "round {round}: {series} went from {was} back to {is}");
        }
        before = now;
    }
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    // All connections are back: every checkout was measured.
    gateway.status_until("/pools/main/in_use", |used| *used == 0).await;
    let end = Scrape::of(&gateway).await;
    let counted = |name: &str| end.one(&format!("db_client_connection_{name}_time_seconds_count"), &[]);
    assert!(end.event("acquired") >= 200.0 && end.event("waited") > 0.0, "{end:#?}");
    assert_eq!((end.event("released"), end.event("timeouts")), (end.event("acquired"), 0.0));
    assert_eq!((counted("wait"), counted("use")), (end.event("released"), end.event("released")));
    assert_eq!((counted("create"), end.event("errors")), (end.event("created"), 0.0));
    assert!(end.one("db_client_connection_used_peak", &[]) >= 3.0);

    // One that takes its place begins anew, under the same name, and is the only one.
    gateway.reconfigure(&of("template1", "100ms")).await;
    let mut client = gateway.h2().await;
    assert_eq!(client.query("select 1::int", json!([])).await.unwrap().status, 200);
    let anew = Scrape::of(&gateway).await;
    anew.histograms_add_up();
    assert_eq!((anew.event("acquired"), anew.one("db_client_connection_used_peak", &[])), (1.0, 1.0));
    assert!(anew.one("db_client_connection_wait_time_seconds_count", &[]) <= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn decisions_are_counted_by_policy_and_version() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.wasm");
    let swap = |name: &str| replace_file(&file, &std::fs::read(testing_plugin(name)).unwrap());
    swap("steady-3");
    let keys =
        "size = { max = 9 }\nsizing_interval = \"100ms\"\nsizing = { plugin = \"steady\", fallback = \"fixed\" }";
    let plugin = format!("[plugin.steady]\npath = \"{}\"\n", file.display());
    let gateway = Gateway::start(&config(&pool("main", "sqlite:var/test.db", keys), &plugin)).await;
    let by = |scrape: &Scrape, version: &str| {
        let of = [("hook", "sizing"), ("by", "plugin"), ("policy", "steady"), ("version", version)];
        let name = "sluicegate_policy_decisions_total";
        let fits = |labels: &BTreeMap<&str, &str>| of.iter().all(|(key, value)| labels.get(key) == Some(value));
        scrape.all(name).find(|(labels, _)| fits(labels)).map_or(0.0, |(_, count)| count)
    };
    let first = eventually("decisions", || Scrape::of(&gateway), |scrape| by(scrape, "1") >= 2.0).await;
    swap("steady-7");
    let both = eventually("the new one", || Scrape::of(&gateway), |scrape| by(scrape, "2") >= 2.0).await;
    assert!(by(&both, "1") >= by(&first, "1"));
    let decisions = gateway.status().await["pools"]["main"]["decisions"].clone();
    let told = |version: u64| {
        let is_it = |of: &&Value| of["hook"] == "sizing" && of["policy"] == "steady" && of["version"] == version;
        decisions.as_array().unwrap().iter().find(is_it).and_then(|of| of["count"].as_u64())
    };
    assert!(told(1) >= Some(2) && told(2) >= Some(2), "{decisions}");
    for swaps in 3..=6 {
        swap(if swaps % 2 == 0 { "steady-7" } else { "steady-3" });
        let version = swaps.to_string();
        eventually("one more", || Scrape::of(&gateway), |scrape| by(scrape, &version) >= 1.0).await;
    }
    let end = Scrape::of(&gateway).await;
    assert_eq!((by(&end, "1"), by(&end, "2")), (0.0, 0.0));
    assert!(by(&end, "older") >= by(&both, "1") + by(&both, "2"), "{end:#?}");
    let count = end.all("sluicegate_policy_decisions_total").filter(|(labels, _)| labels["policy"] == "steady").count();
    assert_eq!(count, 5, "four versions and the older ones");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_is_summed_up_in_the_log_when_that_is_asked_for() {
    let of = |keys: &str| config(&pool("main", "sqlite:var/test.db", &format!("size = {{ max = 2 }}\n{keys}")), "");
    let mut gateway = Gateway::start(&of("")).await;
    let mut client = gateway.h2().await;
    assert_eq!(client.query("select 1", json!([])).await.unwrap().status, 200);
    gateway.reconfigure(&of("summary_interval = \"1s\"")).await;
    for _ in 0..5 {
        assert_eq!(client.query("select 1", json!([])).await.unwrap().status, 200);
    }
    gateway.logged("pool summary").await;
    let told = || async {
        let lines = gateway.log_lines();
        let summaries = lines.iter().filter(|line| line.contains("pool summary"));
        summaries.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    // The interval began with the reload, and each tells of its own: what was before is never told, the rest once.
    let checkouts = |told: &Vec<Value>| told.iter().map(|summary| summary["checkouts"].as_u64().unwrap()).sum::<u64>();
    let summaries = eventually("summaries", told, |told| told.len() >= 3 && checkouts(told) >= 5).await;
    assert_eq!(checkouts(&summaries), 5, "{summaries:#?}");
    for summary in &summaries {
        assert_eq!((&summary["pool"], &summary["level"]), (&json!("main"), &json!("INFO")), "{summary}");
        for field in ["waits", "errors", "timeouts", "refused", "created", "closed", "size", "in_use_peak"] {
            assert!(summary[field].is_u64(), "{field} in {summary}");
        }
        for field in ["wait_mean_us", "wait_p95_us", "wait_p99_us", "use_mean_us", "use_p95_us", "use_p99_us"] {
            assert!(summary[field].is_u64(), "{field} in {summary}");
        }
        assert!(summary["interval_ms"].as_u64() >= Some(1_000), "{summary}");
        assert!(summary["checkouts"] == 0 || summary["in_use_peak"].as_u64() >= Some(1), "{summary}");
    }
}
