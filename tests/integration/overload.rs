//! The gateway itself runs short of something: who is refused, who is served on, and what is said of it.

use std::{fs, time::Instant};

use crate::support::{
    PATIENCE,
    client::{Answer, Client},
    eventually,
    gateway::Gateway,
    origin::Origin,
};

/// A route of each priority, a slow one, and an `[overload]`.
fn config(origin: &Origin, overload: &str) -> String {
    let route = |name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\npriority = \"{name}\"\nrespond = {{ status = 200 }}\n"
        )
    };
    let routes = ["low", "normal", "high"].map(route).concat();
    format!(
        r#"
[server]
workers = 2
[listener.public]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[overload]
{overload}
[upstream.origin]
endpoints = ["{}"]
[[route]]
path = "/sleep"
priority = "high"
proxy = {{ upstream = "origin" }}
{routes}"#,
        origin.url()
    )
}

/// Memory alone, with a limit that the process fills to this share. It grows by little meanwhile; the thresholds of the three
/// priorities, 0.3, 0.65 and 0.86, are further apart than that.
fn full(gateway: &Gateway, share: f64) -> String {
    let limit = gateway.rss_kib() as f64 * 1024.0 / share;
    format!("cpu = 0\nmemory = 0.3\nmemory_limit = \"{}B\"", limit as u64)
}

/// What each priority is answered.
async fn statuses(client: &mut Client) -> [u16; 3] {
    let mut seen = [0; 3];
    for (status, path) in seen.iter_mut().zip(["/low", "/normal", "/high"]) {
        *status = client.get(path).await.unwrap().status;
    }
    seen
}

/// Waits until all of these are refused and none of the others, as the status says and as a client finds.
async fn until_refused(gateway: &Gateway, client: &Client, refused: [bool; 3]) {
    let shares = serde_json::json!({
        "low": f64::from(u8::from(refused[0])), "normal": f64::from(u8::from(refused[1])), "high": f64::from(u8::from(refused[2])),
    });
    gateway.status_until("/overload/refused", |now| *now == shares).await;
    let expected = refused.map(|refused| if refused { 503 } else { 200 });
    assert_eq!(statuses(&mut client.share()).await, expected);
}

fn told(gateway: &Gateway, message: &str) -> usize {
    gateway.log_lines().iter().filter(|line| line.contains(message)).count()
}

#[tokio::test]
async fn short_memory_refuses_low_priority_first_and_high_last() {
    let origin = Origin::http().await;
    let mut gateway = Gateway::start(&config(&origin, "cpu = 0\nmemory = 0")).await;
    let client = Client::plain(gateway.address("public")).await.unwrap();
    until_refused(&gateway, &client, [false; 3]).await;

    gateway.reconfigure(&config(&origin, &full(&gateway, 0.45))).await;
    until_refused(&gateway, &client, [true, false, false]).await;
    let refused: Answer = client.share().get("/low").await.unwrap();
    assert_eq!((refused.status, refused.header("content-type")), (503, "application/problem+json"));
    assert!((5..=10).contains(&refused.header("retry-after").parse().unwrap()), "{refused:?}");
    assert!(refused.json()["type"].as_str().unwrap().ends_with("#temporary-reduced-capacity"));

    gateway.reconfigure(&config(&origin, &full(&gateway, 0.75))).await;
    until_refused(&gateway, &client, [true, true, false]).await;
    let standing = gateway.status().await["overload"].clone();
    assert_eq!((standing["cause"].as_str(), standing["refused"]["high"].as_f64()), (Some("memory"), Some(0.0)));
    assert_eq!(gateway.status().await["health"], "degraded");

    // What runs goes on, and so does the admin listener, whatever is refused.
    let before = gateway.figure("/requests").await;
    let mut slow = Client::plain(gateway.address("public")).await.unwrap();
    let running = tokio::spawn(async move { slow.get("/sleep/4000").await.unwrap().status });
    eventually("the slow request runs", || gateway.figure("/requests"), |now| *now > before).await;
    gateway.reconfigure(&config(&origin, &full(&gateway, 2.0))).await;
    until_refused(&gateway, &client, [true; 3]).await;
    assert_eq!(gateway.admin("GET", "/status").await.0, 200);
    let (_, metrics) = gateway.admin("GET", "/metrics").await;
    let count = |route: &str, cause: &str| {
        let name = format!("sluicegate_overload_refused_requests_total{{http_route=\"{route}\",cause=\"{cause}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    };
    assert!(count("low", "memory") > count("normal", "memory") && count("normal", "memory") > count("high", "memory"));
    assert!(count("high", "memory") > 0 && count("low", "cpu") == 0, "{metrics}");
    assert!(metrics.contains("sluicegate_overload_refused_ratio{priority=\"high\"} 1.0"), "{metrics}");
    assert_eq!(running.await.unwrap(), 200, "what runs is not cut");

    gateway.reconfigure(&config(&origin, "cpu = 0\nmemory = 0")).await;
    until_refused(&gateway, &client, [false; 3]).await;
    gateway.logged("overload ended").await;
    assert_eq!((told(&gateway, "overloaded: requests are refused"), told(&gateway, "overload ended")), (1, 1));
    assert!(gateway.terminate().await.success());
    let log = gateway.access_log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| (line["status"] == 503) == (line["reason"] == "overload")), "{log}");
}

/// The share of its processor time that this needs is a tenth of a core: enough work for that is there on any machine.
#[tokio::test]
async fn lasting_work_refuses_low_priority_and_lets_go_when_it_ends() {
    let origin = Origin::http().await;
    let cores = std::thread::available_parallelism().unwrap().get();
    let overload = format!("memory = 0\ncpu = {}", 0.1 / cores as f64);
    let mut gateway = Gateway::start(&config(&origin, &overload)).await;
    let address = gateway.address("public");
    let started = Instant::now();
    let work = async || {
        let mut client = Client::plain(address).await.unwrap();
        let mut refused = [0_u32; 3];
        while refused[0] == 0 && started.elapsed() < PATIENCE {
            for (refused, status) in refused.iter_mut().zip(statuses(&mut client).await) {
                *refused += u32::from(status == 503);
            }
        }
        refused
    };
    let [first, second] = tokio::join!(work(), work()).into();
    let began = started.elapsed();
    assert!(first[0] > 0 && second[0] > 0, "nothing was refused in {began:?}: {first:?} {second:?}");
    assert_eq!([first[1..].to_vec(), second[1..].to_vec()], [[0, 0], [0, 0]], "low priority alone");
    assert!(began.as_secs_f64() > 4.5, "a burst of {began:?} is none to refuse anything for");
    gateway.logged("overload ended").await;
    let begun = gateway.logged("overloaded: requests are refused").await;
    assert!(begun.contains("\"cause\":\"cpu\""), "{begun}");
    assert_eq!(gateway.status().await["overload"]["cause"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_share_that_is_none_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[overload]\nmemory = 1.0\ncpu = -0.1\nmemory_limit = \"1KiB\"\n[[route]]\npath = \"/\"\npriority = \"urgent\"\nrespond = { status = 200 }\n";
    fs::write(dir.path().join("gateway.toml"), text).unwrap();
    let output = crate::support::gateway::run(dir.path(), &["check", "--config", "gateway.toml"]);
    let told = String::from_utf8(output.stderr).unwrap();
    for part in
        ["2:1: overload.memory:", "3:1: overload.cpu:", "4:1: overload.memory_limit:", "7:1: route[0].priority:"]
    {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}
