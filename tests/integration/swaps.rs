//! Policies, configuration and certificates are replaced while traffic flows, and nobody notices.

use std::{
    cell::{Cell, RefCell},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    client::{Client, tls_stream},
    component, eventually,
    gateway::Gateway,
    load::Load,
    nginx::Nginx,
    origin::Origin,
    postgres::Postgres,
    replace_file, testing_plugin,
};

/// Of the gateway.
const WORKERS: u64 = 2;

/// How many of each kind.
struct Counts {
    plugins: usize,
    reloads: usize,
    certificates: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plugins_configuration_and_certificates_change_under_load_without_a_failed_request() {
    swap_under_load(&Counts { plugins: 20, reloads: 20, certificates: 5 }, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "endurance: make soak runs it"]
async fn soak_a_thousand_swaps_and_reloads_under_load() {
    let rounds =
        std::env::var("SOAK_ROUNDS").ok().map_or(1_000, |rounds| rounds.parse().expect("SOAK_ROUNDS is a number"));
    swap_under_load(&Counts { plugins: rounds, reloads: rounds, certificates: rounds.div_ceil(10) }, true).await;
}

async fn swap_under_load(counts: &Counts, soak: bool) {
    let postgres = Postgres::start(0, &["max_connections=60"]).await;
    let (nginx, websocket) = (Nginx::start("one").await, Origin::websocket().await);
    let bench = Bench::new(&postgres, &nginx, &websocket);
    let gateway = bench.start().await;
    let admin = postgres.admin().await;
    let baseline = census_at_rest(&gateway).await;
    let held = HeldWebSocket::open(&gateway).await.unwrap();

    let load = Load::start(&gateway, 64).await;
    load.advance(500).await;
    // One connection that lives through all the changes and sees each of them.
    let mut viewer = gateway.h2().await;
    let (started, before) = (Instant::now(), Work::so_far(&gateway, &postgres).await);
    let mut memory = Vec::new();
    for round in 0..counts.plugins.max(counts.reloads) {
        if round < counts.plugins {
            let target = if round % 2 == 0 { 7 } else { 3 };
            bench.swap_plugin(&gateway, target).await;
            let sessions =
                || async { (postgres.sessions(&admin).await, gateway.status().await["pools"]["main"].clone()) };
            eventually("the swapped policy's target is seen at the server", sessions, |(seen, _)| *seen == target)
                .await;
        }
        if round < counts.reloads {
            gateway.reconfigure(&bench.config(round + 1)).await;
            see_round(&gateway, &mut viewer, round + 1).await;
        }
        if round % (counts.reloads / counts.certificates).max(1) == 0 {
            change_certificate(&gateway, &bench).await;
        }
        load.advance(50).await;
        memory.push(gateway.rss_kib());
    }
    let took = started.elapsed().as_secs_f64();
    let work = Work::so_far(&gateway, &postgres).await;
    let (own, all) = ((work.gateway - before.gateway) / took, (work.all - before.all) / took);
    let report = load.stop().await;
    println!("{} requests in {took:.1} s on {all:.2} cores, {own:.2} of them the gateway's", report.requests);
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert!(own >= 0.3 && all >= 0.8, "that was no load: {all:.2} cores at work, {own:.2} of them the gateway's");
    let echoes = held.close().await.expect("the WebSocket lived through it all");
    assert!(echoes >= 3.0, "only {echoes:.1} echoes a second");
    drop(viewer);

    let now = || async { census(&gateway).await };
    eventually("live versions, stores, generations and tasks are back to where they were", now, |now| {
        // A worker keeps one warm instance of the validation policy, from its first use on.
        now.stores <= baseline.stores + WORKERS && now.rest == baseline.rest
    })
    .await;
    if soak {
        flat(&memory);
    }
}

/// What a test configuration is made of.
struct Bench {
    postgres: String,
    nginx: String,
    websocket: String,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(postgres: &Postgres, nginx: &Nginx, websocket: &Origin) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self { postgres: postgres.url(), nginx: nginx.url(), websocket: websocket.url(), dir };
        replace_file(&bench.plugin(), &fs::read(testing_plugin("steady-3")).unwrap());
        bench.new_certificate();
        bench
    }

    async fn start(&self) -> Gateway {
        Gateway::start(&self.config(0)).await
    }

    fn plugin(&self) -> std::path::PathBuf {
        self.dir.path().join("sizing.wasm")
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A configuration whose rate, route and pool size vary with `round`.
    fn config(&self, round: usize) -> String {
        let (postgres, nginx, websocket) = (&self.postgres, &self.nginx, &self.websocket);
        let (plugin, bypass) = (self.plugin(), component("bypass-window"));
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        let (rate, max, body) = (rate(round), max(round), round);
        let odd = if round % 2 == 1 { "[[route]]\npath = \"/odd\"\nrespond = { status = 200 }\n" } else { "" };
        format!(
            r#"
[server]
workers = {WORKERS}
max_connections_per_address = 1000
drain_delay = "0s"
[listener.public]
address = "127.0.0.1:0"
tls = [{{ certificate = "{certificate}", key = "{key}" }}]
[admin]
address = "127.0.0.1:0"
[plugin.steady]
path = "{plugin}"
[plugin.bypass]
path = "{bypass}"
[pool.main]
backend = "postgres"
url = "{postgres}"
size = {{ min = 1, max = {max} }}
sizing = {{ plugin = "steady", fallback = "fixed" }}
validation = {{ plugin = "bypass", fallback = "always" }}
sizing_interval = "100ms"
sweep_interval = "100ms"
[upstream.web]
endpoints = ["{nginx}"]
idle_timeout = "1s"
[upstream.socket]
endpoints = ["{websocket}"]
[limit.all]
key = "client-address"
rate = "{rate}/s"
[[route]]
path = "/query"
query = {{ dialect = "json", pool = "main" }}
access = "open"
limits = ["all"]
[[route]]
path = "/files"
proxy = {{ upstream = "web", strip_prefix = true }}
limits = ["all"]
[[route]]
path = "/socket"
proxy = {{ upstream = "socket" }}
[[route]]
path = "/round"
respond = {{ status = 200, body = "{body}" }}
limits = ["all"]
{odd}"#,
            plugin = plugin.display(),
            bypass = bypass.display(),
        )
    }

    async fn swap_plugin(&self, gateway: &Gateway, target: i64) {
        let version = |status: &Value| status.pointer("/plugins/steady/sha256").cloned().unwrap_or(Value::Null);
        let before = version(&gateway.status().await);
        replace_file(&self.plugin(), &fs::read(testing_plugin(&format!("steady-{target}"))).unwrap());
        gateway.status_until("/plugins/steady/sha256", |now| !now.is_null() && *now != before).await;
    }

    /// Signs a new certificate and swaps the files.
    fn new_certificate(&self) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        replace_file(&self.dir.path().join("key.pem"), key.serialize_pem().as_bytes());
        replace_file(&self.dir.path().join("cert.pem"), certificate.pem().as_bytes());
        certificate.der().to_vec()
    }
}

/// What [`Bench::config`] makes of a round.
fn rate(round: usize) -> usize {
    1_000_000 + round
}

fn max(round: usize) -> usize {
    12 + round % 4
}

/// Everything that a configuration changed holds for the request that follows.
async fn see_round(gateway: &Gateway, viewer: &mut Client, round: usize) {
    let answer = viewer.get("/round").await.unwrap();
    let policy = answer.header("ratelimit-policy");
    assert_eq!((answer.status, answer.text()), (200, round.to_string()));
    assert!(policy.contains(&format!("q={};", rate(round))), "round {round}: {policy:?}");
    let odd = viewer.get("/odd").await.unwrap().status;
    assert_eq!(odd, if round % 2 == 1 { 200 } else { 404 }, "round {round}: a route that odd rounds alone have");
    assert_eq!(gateway.figure("/pools/main/max").await, max(round) as u64);
}

async fn change_certificate(gateway: &Gateway, bench: &Bench) {
    let wanted = bench.new_certificate();
    let served = || async {
        let stream =
            tls_stream(gateway.address("public"), &bench.dir.path().join("cert.pem"), "localhost", b"h2").await;
        stream.ok().and_then(|stream| Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec()))
    };
    eventually("the new certificate is served", served, |seen| seen.as_ref() == Some(&wanted)).await;
}

/// What is alive in the gateway.
#[derive(Debug)]
pub struct Census {
    /// Instances of plugins.
    stores: u64,
    /// Generations, plugin versions, retiring pools, connections, tasks.
    pub rest: Value,
}

/// The census of a gateway whose start is over: it is the same in so many looks in a row.
pub async fn census_at_rest(gateway: &Gateway) -> Census {
    const LOOKS: u32 = 15;
    let (last, same) = (RefCell::new(None), Cell::new(0));
    let look = || async {
        let now = census(gateway).await;
        let before = last.replace(Some(now.rest.clone()));
        same.set(if before.as_ref() == Some(&now.rest) { same.get() + 1 } else { 0 });
        (same.get(), now)
    };
    eventually("the gateway is at rest", look, |(same, _)| *same >= LOOKS).await.1
}

pub async fn census(gateway: &Gateway) -> Census {
    let mut rest = gateway.status().await["census"].clone();
    let stores = rest.as_object_mut().and_then(|all| all.remove("plugin_stores")).and_then(|stores| stores.as_u64());
    Census { stores: stores.expect("the census counts stores"), rest }
}

/// CPU seconds.
struct Work {
    gateway: f64,
    /// The gateway's, PostgreSQL's, and this test's own, which is the clients'. nginx's is little beside them.
    all: f64,
}

impl Work {
    async fn so_far(gateway: &Gateway, postgres: &Postgres) -> Self {
        // The runtime has one thread, and this is run on another: the process may hold other tests, those two do not.
        let clients = tokio::spawn(async { thread_seconds() }).await.unwrap() + thread_seconds();
        let gateway = gateway.cpu_seconds();
        Self { gateway, all: gateway + postgres.cpu_seconds() + clients }
    }
}

/// CPU seconds so far of the thread that asks.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory in the second half of the rounds: each tenth of all lies within 5 % of the first of them.
fn flat(memory: &[u64]) {
    let tenth = (memory.len() / 10).max(1);
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    let means: Vec<f64> = memory[memory.len() / 2..].chunks_exact(tenth).map(mean).collect();
    let Some(first) = means.first() else { return };
    println!("resident memory from half-way on, in KiB: {means:.0?}");
    assert!(means.iter().all(|later| (later / first - 1.0).abs() <= 0.05), "memory is not flat: {means:.0?} KiB");
}

/// A WebSocket that echoes a message every 50 ms until it is closed.
struct HeldWebSocket {
    since: Instant,
    stop: Arc<AtomicBool>,
    echoes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl HeldWebSocket {
    async fn open(gateway: &Gateway) -> Result<Self> {
        let stream = tls_stream(gateway.address("public"), &gateway.ca(), "localhost", b"http/1.1").await?;
        let url = format!("wss://localhost:{}/socket", gateway.address("public").port());
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.context("upgrade")?;
        let (stop, echoes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), echoes.clone());
        let task = tokio::spawn(async move {
            let (mut write, mut read) = socket.split();
            while !stopped.load(Ordering::Relaxed) {
                let text = counter.load(Ordering::Relaxed).to_string();
                write.send(Message::text(text.clone())).await?;
                let echo = tokio::time::timeout(Duration::from_secs(5), read.next()).await.context("no echo in 5 s")?;
                let echo = echo.context("closed")??;
                anyhow::ensure!(echo == Message::text(text), "another message came back");
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        });
        Ok(Self { since: Instant::now(), stop, echoes, task })
    }

    /// Echoes a second.
    async fn close(self) -> Result<f64> {
        let echoes = self.echoes.load(Ordering::Relaxed) as f64 / self.since.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(echoes)
    }
}
